"""SentencePiece vocabularies of GGUF files, against the library that they come from."""
from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from hypothesis import given, settings
from vocabularies import KEY, NORMAL, pieces, texts

from zonda.text.sentencepiece import Splitter
from zonda.text.tokenizer import Tokenizer

pytest.importorskip("sentencepiece")

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "with a space before the text": {"prefix": True},
    "without byte tokens": {"fallback": False},
    "with pieces that go over words": {"across": True},
    "with a user's own tokens": {"own": ("\n", "\n\n", "▁▁", "▁▁▁▁", "</b>", "quick")},
}


def spoken(text: str) -> bool:
    """Whether a text has no control token, which the library does not look for in text."""
    return not any(each in text for each in ("<s>", "</s>", "<unk>"))


@pytest.mark.parametrize("kind", KINDS)
def test_scored_merges_give_the_ids_of_sentencepiece(kind: str) -> None:
    processor, metadata = pieces(**KINDS[kind])
    tokenizer = Tokenizer.from_gguf(metadata)

    @settings(max_examples=120, deadline=None)
    @given(texts().filter(spoken).filter(bool))
    def same(text: str) -> None:
        assert tokenizer.encode(text, add_special=False) == processor.encode(text)

    same()


def separate(text: str) -> bool:
    """Whether each character stands alone: the library that normalizes takes clusters of them as one."""
    marks = any(unicodedata.category(each) in ("Mn", "Mc", "Me", "Sk", "Cf", "Lm") for each in text)
    return not marks and "\r\n" not in text and "…" not in text


@pytest.mark.parametrize("prefix", [False, True])
@pytest.mark.parametrize(("rule", "squeeze"), [("identity", False), ("identity", True), ("nmt_nfkc", True)])
def test_a_unigram_gives_the_ids_of_sentencepiece(rule: str, squeeze: bool, prefix: bool) -> None:
    processor, metadata = pieces("unigram", rule=rule, squeeze=squeeze, prefix=prefix, fallback=False, size=300)
    tokenizer = Tokenizer.from_gguf(metadata)

    @settings(max_examples=60, deadline=None)
    @given(texts().filter(spoken).filter(separate).filter(lambda text: "▁" not in text and text.strip(" ") != ""))
    def same(text: str) -> None:
        assert tokenizer.encode(text, add_special=False) == processor.encode(text)

    same()


@pytest.mark.parametrize("kind", ["plain", "with a space before the text", "with a user's own tokens"])
def test_text_survives_the_round_trip(kind: str) -> None:
    tokenizer = Tokenizer.from_gguf(pieces(**KINDS[kind])[1])

    @settings(max_examples=60, deadline=None)
    @given(texts().filter(spoken))
    def same(text: str) -> None:
        ids = tokenizer.encode(text, add_special=False)
        assert tokenizer.decode(ids) == text.replace("▁", " ")

    same()


def test_equal_scores_merge_from_the_left() -> None:
    tokens = ["<unk>", "a", "aa", "aaa"]
    metadata = {KEY + "model": "llama", KEY + "tokens": tokens, KEY + "token_type": [2, 1, 1, 1],
                KEY + "scores": [0.0, 0.0, -1.0, -1.0], KEY + "add_space_prefix": False}
    assert Tokenizer.from_gguf(metadata).encode("aaaaa", add_special=False) == [3, 2]


def test_a_merge_across_words_is_found_between_remembered_words() -> None:
    tokens = ["<unk>", "▁", "a", ">", "<", "▁a", ">▁", ">▁<"]
    metadata = {KEY + "model": "llama", KEY + "tokens": tokens, KEY + "token_type": [2, *[NORMAL] * 7],
                KEY + "scores": [0.0] * 5 + [-1.0, -2.0, -3.0], KEY + "add_space_prefix": False}
    tokenizer = Tokenizer.from_gguf(metadata)
    for _ in range(2):
        assert tokenizer.encode("a a> <> a", add_special=False) == [2, 5, 7, 3, 5]


def test_each_text_after_a_special_token_gets_its_own_space() -> None:
    tokens = ["<unk>", "<s>", "</s>", "▁a", "a", "▁"]
    metadata = {KEY + "model": "llama", KEY + "tokens": tokens, KEY + "token_type": [2, 3, 3, 1, 1, 1],
                KEY + "scores": [0.0] * 6}
    assert Tokenizer.from_gguf(metadata).encode("a</s>a", add_special=False) == [3, 2, 3]


@pytest.mark.parametrize("about", [{"general.architecture": "phi3"}, {"general.name": "Phi-3 mini"}])
def test_special_tokens_of_phi3_swallow_white_space(about: dict[str, str]) -> None:
    tokens = ["<unk>", "<s>", "<|end|>", "▁a", "a", "▁", "<0x0A>"]
    metadata = {KEY + "model": "llama", KEY + "tokens": tokens, KEY + "token_type": [2, 3, 3, 1, 1, 1, 6],
                KEY + "scores": [0.0] * 7, **about}
    ids = Tokenizer.from_gguf(metadata).encode("<|end|> \n\u3000a<|end|>\n<s> a", add_special=False)
    assert ids == [2, 3, 2, 1, 5, 3]


@pytest.mark.parametrize(("tokens", "text", "pieces"), [
    ([], "ab", ["ab"]),
    (["ab", "abc"], "abcab", [1, 0]),
    (["\n", "\n\n"], "a\n\n\nb", ["a", 1, 0, "b"]),
    (["<a", "<ab>"], "<ab<a<ab>", [0, "b", 0, 1]),
    (["<|x|>"], "<|<|x|>", ["<|", 0]),
    (["  ", "    "], "     a", [1, " a"]),
])
def test_tokens_are_found_longest_first_from_the_left(tokens: list[str], text: str, pieces: list[Any]) -> None:
    assert Splitter({each: token for token, each in enumerate(tokens)}).split(text) == pieces
