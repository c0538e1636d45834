"""Small vocabularies trained in a moment, as the metadata of a GGUF file would hold them."""
from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from hypothesis import strategies
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from zonda.text.pretokenizers import PRETOKENIZERS
from zonda.text.vocabulary import SPACE

KEY = "tokenizer.ggml."
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6

CORPUS = [
    "The quick brown fox jumps over the lazy dog; it isn't 1234567 times, it's 89 times!",
    "    def encode(self, text: str) -> list[int]:\n        return self.ids[text]  # they'll see\n\n\n",
    "Größere Straßen, naïve cafés: déjà vu à l'été. ¿Qué pasó? ½ + ⅓ = ⅚ … «oui»",
    "Быстрая коричневая лиса перепрыгивает через ленивую собаку. Γειά σου Κόσμε.",
    "日本語の文章です。これは試験のための短い文です。中文分词测试,没有空格。한국어 문장입니다.",
    "مرحبا بالعالم १२३ नमस्ते दुनिया สวัสดีชาวโลก 🙂👍🏽👨‍👩‍👧 🇮🇹",
    "\t\ttabs\tand  double  spaces   \r\n windows lines\r\n\r\n {\"key\": [1, 2.5, null]} <b>bold</b>",
    "HTTPServer XMLHttpRequest camelCase snake_case SHOUTING I'LL DON'T we've",
] * 4

PIECES = [
    "the ", " quick", "isn't", "IT'LL", "\u017f", "\u212a", "12", "3456789", "½", "Ⅷ", "²", "\n", "\r\n", "\n\n", " ",
    "  ", "     ", "\t", "\u00a0", "\u3000", "\u200b", "naïve", "e\u0301", "ß", "İ", "Straße", "日本", "語。", "中文",
    "한국", "नमस्ते", "สวัสดี", "م", "🙂", "👨\u200d👩\u200d👧", "🏽", "_", "()", "->", "</b>", "!!!", "…", "—", "\\", "\"",
    "'", "▁", "▁▁", "\ufffd", "\x00", "\x7f", "<0x0A>", "<unk>", "ǅ", "ʰ", "ﬁ"]


def texts() -> strategies.SearchStrategy[str]:
    """Texts of everything that tokenizers get wrong."""
    anything = strategies.text(strategies.characters(exclude_categories=("Cs", "Cn")), max_size=6)
    return strategies.lists(strategies.one_of(strategies.sampled_from(PIECES), anything), max_size=12).map("".join)


@cache
def byte_level(pre: str, size: int = 420) -> dict[str, Any]:
    """A byte-pair vocabulary trained behind a pre-tokenizer, with two control tokens and a user's own."""
    rule = PRETOKENIZERS[pre]
    tokenizer = Tokenizer(models.BPE())
    splits = [pre_tokenizers.Split(Regex(each), "isolated") for each in rule.splits]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*splits, pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.normalizer = normalizers.NFC() if rule.nfc else None
    special = ["<s>", "<|im_end|>", "<tool>"]
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=special, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(CORPUS, trainer)
    model = tokenizer.model.__getstate__()
    merges = _merges(model)
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    types = [CONTROL, CONTROL, USER_DEFINED, *[NORMAL] * (len(tokens) - 3)]
    return {KEY + "model": "gpt2", KEY + "pre": pre, KEY + "tokens": tokens, KEY + "token_type": types,
            KEY + "merges": [" ".join(pair) for pair in merges], KEY + "bos_token_id": 0, KEY + "eos_token_id": 1}


def _merges(state: bytes) -> list[list[str]]:
    return [merge.split(" ") if isinstance(merge, str) else merge for merge in json.loads(state)["merges"]]


@cache
def pieces(kind: str = "bpe", *, prefix: bool = False, fallback: bool = True, across: bool = False,
           own: tuple[str, ...] = (), rule: str = "identity", squeeze: bool = False,
           size: int = 500) -> tuple[Any, dict[str, Any]]:
    """A SentencePiece model, and its vocabulary as metadata."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 3), model_writer=model, vocab_size=size, model_type=kind,
        byte_fallback=fallback, add_dummy_prefix=prefix, split_by_whitespace=not across, user_defined_symbols=list(own),
        normalization_rule_name=rule, remove_extra_whitespaces=squeeze, character_coverage=0.98,
        hard_vocab_limit=False, minloglevel=3)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    return processor, _metadata(processor, kind, prefix, own) | _charsmap(model.getvalue()) | {
        KEY + "remove_extra_whitespaces": squeeze}


def _metadata(processor: Any, kind: str, prefix: bool, own: Sequence[str]) -> dict[str, Any]:
    ids = range(processor.get_piece_size())
    texts = [processor.id_to_piece(token) for token in ids]

    def type_of(token: int) -> int:
        tests = ((processor.is_unknown, UNKNOWN), (processor.is_control, CONTROL), (processor.is_byte, BYTE))
        return next((type for test, type in tests if test(token)), USER_DEFINED if texts[token] in own else NORMAL)

    types = [type_of(token) for token in ids]
    texts = [text.replace(SPACE, " ") if type == USER_DEFINED else text for text, type in zip(texts, types)]
    return {KEY + "model": "llama" if kind == "bpe" else "t5", KEY + "tokens": texts, KEY + "token_type": types,
            KEY + "scores": [processor.get_score(token) for token in ids], KEY + "add_space_prefix": prefix,
            KEY + "bos_token_id": 1, KEY + "eos_token_id": 2, KEY + "unknown_token_id": 0}


def _charsmap(model: bytes) -> dict[str, Any]:
    """The normalizer's table: field 2 of field 3 of the model's protocol buffer."""
    spec = dict(_fields(model)).get(3, b"")
    found = dict(_fields(spec)).get(2, b"")
    return {KEY + "precompiled_charsmap": list(found)} if found else {}


def _fields(buffer: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(buffer):
        tag, at = _number(buffer, at)
        size = {1: 8, 5: 4}.get(tag & 7)
        if tag & 7 == 0:
            _, at = _number(buffer, at)
            continue
        if size is None:
            size, at = _number(buffer, at)
        yield tag >> 3, buffer[at:at + size]
        at += size


def _number(buffer: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while buffer[at] & 128:
        value, shift, at = value | (buffer[at] & 127) << shift, shift + 7, at + 1
    return value | buffer[at] << shift, at + 1
