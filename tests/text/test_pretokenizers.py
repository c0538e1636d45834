"""Byte-level vocabularies of GGUF files, against the tokenizers of the families that they come from."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from tokenizers import Regex, pre_tokenizers
from transformers import CohereTokenizer, GPT2Tokenizer, GPTNeoXTokenizer, Qwen2Tokenizer
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS
from vocabularies import KEY, byte_level, texts

from zonda.errors import InvalidModel, Unsupported
from zonda.text.pretokenizers import PRETOKENIZERS
from zonda.text.tokenizer import Tokenizer

FAMILIES: dict[str, Callable[..., Any]] = {
    "gpt-2": GPT2Tokenizer, "olmo": GPTNeoXTokenizer, "qwen2": Qwen2Tokenizer, "command-r": CohereTokenizer}
LLAMA_CPP = (
    "a.x-4.0 afmoe bailingmoe bailingmoe2 bloom chameleon chatglm-bpe codeshell cohere2moe command-r dbrx "
    "deepseek-coder deepseek-llm deepseek-r1-qwen deepseek-v3 default exaone exaone-moe exaone4 f2llmv2 falcon "
    "falcon-h1 falcon3 gemma4 gigachat glm4 glm5 gpt-2 gpt-4o gpt3-finnish granite-docling granite-embed-multi-311m "
    "granite-embed-multi-97m grok-2 hunyuan hunyuan-dense hy_v4 jais jais-2 jina-de jina-es jina-v1-en jina-v2-code "
    "jina-v2-de jina-v2-es jina-v5-nano joyai-llm kanana2 kimi-k2 kormo laguna lfm2 llada-moe llama-bpe llama-v3 "
    "llama3 llama4 megrez mellum mellum2 midm-2.0 minerva-7b minicpm5 minimax-m2 modern-bert mpt olmo phi-2 pixtral "
    "poro-chat qwen2 qwen35 refact roberta-bpe sarvam-moe seed-coder smaug-bpe smollm solar-open spark2_5 stablelm2 "
    "starcoder superbpe talkie tekken tiny_aya trillion ufakzeka viking whitespace youtu")


def test_each_name_that_llama_cpp_knows_is_known() -> None:
    assert sorted(PRETOKENIZERS) == LLAMA_CPP.split()


@pytest.mark.parametrize("pre", FAMILIES)
def test_ids_are_those_of_the_familys_own_tokenizer(pre: str) -> None:
    metadata = byte_level(pre)
    vocab = {token: id for id, token in enumerate(metadata[KEY + "tokens"])}
    merges = [tuple(merge.split(" ")) for merge in metadata[KEY + "merges"]]
    special = {"unk_token": "<s>", "bos_token": "<s>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
    theirs = FAMILIES[pre](vocab=vocab, merges=merges, **special)
    theirs.add_tokens(["<tool>"])
    ours = Tokenizer.from_gguf(metadata)

    @settings(max_examples=60, deadline=None)
    @given(texts())
    def same(text: str) -> None:
        marked = f"{text}<|im_end|>\n{text}<tool> {text}"
        assert ours.encode(marked, add_special=False) == theirs.encode(marked, add_special_tokens=False)

    same()


@pytest.mark.parametrize("name", sorted(GGUF_PRE_TOKENIZER_SPLITS))
def test_texts_are_cut_as_transformers_cuts_them(name: str) -> None:
    theirs = pre_tokenizers.Split(Regex(GGUF_PRE_TOKENIZER_SPLITS[name]), "isolated")
    ours = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(each), "isolated")
                                    for each in PRETOKENIZERS[name].splits])

    @settings(max_examples=25, deadline=None)
    @given(texts())
    def same(text: str) -> None:
        assert ours.pre_tokenize_str(text) == theirs.pre_tokenize_str(text)

    same()


@pytest.mark.parametrize(("name", "text", "words"), [
    ("smollm", "in 2024!", ["in", " ", "2", "0", "2", "4", "!"]),
    ("llama-bpe", "in 2024!", ["in", " ", "202", "4", "!"]),
    ("afmoe", "a1234567", ["a", "1", "234", "567"]),
    ("tiny_aya", "a 1234567", ["a", " ", "1", "234", "567"]),
    ("superbpe", "a 1234567 b", ["a ", "1", "234", "567", " b"]),
    ("deepseek-v3", "ab漢字cd 12345", ["ab", "漢字", "cd", " ", "123", "45"]),
    ("deepseek-llm", "ab漢字\r\n ", ["ab", "漢字", "\r", "\n", " "]),
    ("kimi-k2", "漢字Abc'LL", ["漢字", "Abc'LL"]),
    ("gpt-4o", "camelCase's", ["camel", "Case's"]),
    ("tekken", "camelCase's", ["camel", "Case", "'s"]),
    ("ufakzeka", "Ankara'da", ["Ankara", "'da"]),
    ("qwen2", "नमस्ते", ["नमस", "्त", "े"]),
    ("qwen35", "नमस्ते", ["नमस्ते"]),
    ("laguna", "a \n\n b", ["a", " ", "\n\n", " b"]),
    ("bloom", "a, b", ["a", ",", " b"]),
    ("viking", "a 12", ["a", " ", "1", "2"]),
    ("chameleon", "a  b", ["a", "  ", "b"]),
    ("youtu", "한국AB。", ["한국", "AB", "。"]),
    ("minicpm5", "a1234", ["a", "123", "4"]),
    ("default", "a--12345", ["a", "--", "123", "45"]),
])
def test_a_rule_cuts_a_text_as_its_family_does(name: str, text: str, words: list[str]) -> None:
    rule = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(each), "isolated")
                                    for each in PRETOKENIZERS[name].splits])
    assert [word for word, _ in rule.pre_tokenize_str(text)] == words


@pytest.mark.parametrize("pre", ["smollm", "llama-bpe", "deepseek-v3"])
def test_any_text_survives_the_round_trip(pre: str) -> None:
    tokenizer = Tokenizer.from_gguf(byte_level(pre))

    @settings(max_examples=60, deadline=None)
    @given(texts())
    def same(text: str) -> None:
        assert tokenizer.decode(tokenizer.encode(text, add_special=False), skip_special=False) == text

    same()


def test_a_whole_word_that_is_a_token_is_not_merged_where_the_family_says_so() -> None:
    tokens = ["a", "b", "c", "ab", "abc"]
    metadata = {KEY + "model": "gpt2", KEY + "tokens": tokens, KEY + "merges": ["a b"]}
    assert Tokenizer.from_gguf(metadata | {KEY + "pre": "llama-bpe"}).encode("abc") == [4]
    assert Tokenizer.from_gguf(metadata | {KEY + "pre": "gpt-2"}).encode("abc") == [3, 2]


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(Unsupported, match=r"'gpt-17'[^\n]*\n[^\n]*llama-bpe[^\n]*qwen2"):
        Tokenizer.from_gguf(byte_level("gpt-2") | {KEY + "pre": "gpt-17"})


def test_a_merge_of_unknown_tokens_is_refused() -> None:
    metadata = byte_level("gpt-2")
    with pytest.raises(InvalidModel, match="damaged"):
        Tokenizer.from_gguf(metadata | {KEY + "merges": ["zzz qqq"]})


def test_pieces_that_are_spelled_in_characters_fall_back_to_bytes() -> None:
    tokens = [*(f"<0x{byte:02X}>" for byte in range(256)), "a", "▁", "▁a", "\n", "\n\n"]
    metadata = {KEY + "model": "gemma4", KEY + "tokens": tokens, KEY + "merges": ["▁ a", "\n \n"]}
    tokenizer = Tokenizer.from_gguf(metadata)
    assert tokenizer.encode("a a\n\né", add_special=False) == [256, 258, 260, 0xC3, 0xA9]
    assert tokenizer.decode([256, 258, 260, 0xC3, 0xA9]) == "a a\n\né"


def test_white_space_is_dropped_where_words_are_all_there_is() -> None:
    metadata = {KEY + "model": "whitespace", KEY + "pre": "whitespace", KEY + "tokens": ["中", "文", "中文"],
                KEY + "merges": ["中 文"]}
    assert Tokenizer.from_gguf(metadata).encode(" 中文 \n文中") == [2, 1, 0]
