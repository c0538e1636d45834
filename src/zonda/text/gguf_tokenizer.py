"""Tokenizers from the metadata of GGUF files."""
from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from zonda.errors import InvalidModel, Unsupported
from zonda.text.pretokenizers import PRETOKENIZERS, PreTokenizer
from zonda.text.sentencepiece import ScoredBPE, SentencePiece
from zonda.text.vocabulary import END_TOKENS, SPACE, Encode, Vocabulary, byte_level, encoder, end_tokens, sentencepiece
from zonda.text.vocabulary import wordpiece as spell_wordpiece

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer

Made = TypeVar("Made")

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
MOST_TOKENS = 1 << 22
LONGEST_TOKEN = 1 << 16
KEY = "tokenizer.ggml."
NO_SKIP = frozenset({"<unk>", "<s>", "<|endoftext|>"})
"""Of Phi-3's special tokens, those that keep the white space that follows."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """The checked vocabulary of a file."""

    texts: list[str]
    types: list[int]
    ids: dict[str, int]

    def of(self, *types: int) -> dict[str, int]:
        """Tokens of some types."""
        return {self.texts[token]: token for token, type in enumerate(self.types) if type in types}


def build(metadata: Mapping[str, Any]) -> tuple[Encode, Vocabulary]:
    """The function from text to ids, without what is added around a text, and the facts about the tokens."""
    model = _name(metadata, "model", "")
    if not model:
        raise InvalidModel(f"{KEY}model is absent: the file has no tokenizer", hint="pass a tokenizer of its own")
    if model not in MODELS:
        raise Unsupported(f"{KEY}model is {model!r:.100}, expected one of {', '.join(sorted(MODELS))}",
                          hint="pass the folder of a tokenizer.json")
    return MODELS[model](metadata, _tokens(metadata))


def _tokens(metadata: Mapping[str, Any]) -> Tokens:
    texts = _strings(metadata, "tokens")
    if not texts:
        raise InvalidModel(f"{KEY}tokens is absent or empty: the file has no vocabulary")
    if len(texts) > MOST_TOKENS:
        raise InvalidModel(f"{KEY}tokens has {len(texts)} entries, expected at most {MOST_TOKENS}")
    if not all(texts):
        texts = [text or f"[EMPTY_{token}]" for token, text in enumerate(texts)]
    if len(longest := max(texts, key=len)) > LONGEST_TOKEN:
        raise InvalidModel(f"{KEY}tokens has an entry of {len(longest)} characters, expected at most {LONGEST_TOKEN}")
    ids = dict(zip(texts, range(len(texts))))
    if len(ids) != len(texts):
        twice = next(token for token, text in enumerate(texts) if ids[text] != token)
        raise InvalidModel(f"{KEY}tokens {twice} and {ids[texts[twice]]} are both {texts[twice]!r:.100}")
    types = _numbers(metadata, "token_type", len(texts), NORMAL)
    marked = [ids[text] for text in END_TOKENS if text in ids]
    for token in marked:
        if types[token] in (NORMAL, USER_DEFINED):
            types[token] = CONTROL
    return Tokens(texts, types, ids)


def _strings(metadata: Mapping[str, Any], name: str) -> list[str]:
    values = metadata.get(KEY + name, [])
    if not isinstance(values, Sequence) or isinstance(values, str) or set(map(type, values)) - {str}:
        raise InvalidModel(f"{KEY}{name} is no list of strings")
    return list(values)


def _numbers(metadata: Mapping[str, Any], name: str, count: int | None, default: float = 0) -> list[Any]:
    values = metadata.get(KEY + name)
    if values is None:
        return [default] * (count or 0)
    found = values.tolist() if hasattr(values, "tolist") else values
    if not isinstance(found, list | tuple) or set(map(type, found)) - {int, float}:
        raise InvalidModel(f"{KEY}{name} is no list of numbers")
    if count is not None and len(found) != count:
        raise InvalidModel(f"{KEY}{name} has {len(found)} entries for {count} tokens")
    return list(found)


def _id(metadata: Mapping[str, Any], name: str, size: int, default: int | None = None) -> int | None:
    value = metadata.get(f"{KEY}{name}_token_id")
    if value is None:
        return default if default is not None and default < size else None
    if not isinstance(value, int) or not 0 <= value < size:
        raise InvalidModel(f"{KEY}{name}_token_id is {value!r:.40}, expected an id below {size}")
    return value


def _flag(metadata: Mapping[str, Any], name: str, default: bool) -> bool:
    value = metadata.get(KEY + name, default)
    if not isinstance(value, bool):
        raise InvalidModel(f"{KEY}{name} is {value!r:.40}, expected true or false")
    return value


def _name(metadata: Mapping[str, Any], name: str, default: str) -> str:
    value = metadata.get(KEY + name, default)
    if not isinstance(value, str):
        raise InvalidModel(f"{KEY}{name} is {value!r:.40}, expected a text")
    return value


def _vocabulary(metadata: Mapping[str, Any], tokens: Tokens, spell: Callable[[str], bytes], *, bos: int | None = None,
                eos: int | None = None, unk: int | None = None, add_bos: bool = False, add_eos: bool = False,
                strip: bool = False, literal: Callable[[str], str] = str) -> Vocabulary:
    """Facts about the tokens; `bos`, `eos`, `unk` and what is added are for a file that does not say."""
    size = len(tokens.texts)
    special = frozenset(token for token, type in enumerate(tokens.types) if type in (CONTROL, UNKNOWN))
    bos, eos = _id(metadata, "bos", size, bos), _id(metadata, "eos", size, eos)
    named = {token for name in ("eot", "eom") if (token := _id(metadata, name, size)) is not None}
    return Vocabulary(
        size=size, text=lambda token: tokens.texts[token] if 0 <= token < size else None, find=tokens.ids.get,
        spell=spell, special=special, strip=strip, bos=bos, eos=eos, unk=_id(metadata, "unknown", size, unk),
        added={token: literal(text) for text, token in tokens.of(CONTROL, UNKNOWN, USER_DEFINED).items()},
        prefix=_around(bos, _flag(metadata, "add_bos_token", add_bos)),
        suffix=_around(eos, _flag(metadata, "add_eos_token", add_eos)),
        ends=end_tokens(tokens.ids.get, special) | named | ({eos} if eos is not None else set()))


def _around(token: int | None, wanted: bool) -> tuple[int, ...]:
    return (token,) if wanted and token is not None else ()


def _byte_pair(metadata: Mapping[str, Any], tokens: Tokens) -> tuple[Encode, Vocabulary]:
    """Merges in order of rank, of pieces that the file's pre-tokenizer cuts."""
    name = "gemma4" if metadata[KEY + "model"] == "gemma4" else _name(metadata, "pre", "default")
    rule = PRETOKENIZERS.get(name)
    if rule is None:
        raise Unsupported(f"{KEY}pre names an unknown pre-tokenizer, {name!r:.100}",
                          hint=f"known are {', '.join(sorted(PRETOKENIZERS))}; or pass the folder of a tokenizer.json")
    encode = _encoder(_byte_pair_tokenizer(metadata, tokens, rule), tokens)
    spell = byte_level if rule.byte_level else sentencepiece
    return encode, _vocabulary(metadata, tokens, spell, add_bos=rule.bos)


def _byte_pair_tokenizer(metadata: Mapping[str, Any], tokens: Tokens, rule: PreTokenizer) -> Tokenizer:
    from tokenizers import Regex, models, normalizers, pre_tokenizers

    behavior = "removed" if rule.drop else "isolated"
    splits: list[pre_tokenizers.PreTokenizer] = [pre_tokenizers.Split(Regex(each), behavior) for each in rule.splits]
    if rule.byte_level:
        splits.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    merges = [_pair(text) for text in _strings(metadata, "merges")]
    if not merges:
        raise InvalidModel(f"{KEY}merges is absent or empty, but the tokenizer merges by rank")
    model = _made(lambda: models.BPE(tokens.ids, merges, ignore_merges=rule.whole, byte_fallback=not rule.byte_level))
    tokenizer = _tokenizer(model, pre_tokenizers.Sequence(splits))
    if rule.nfc:
        tokenizer.normalizer = normalizers.NFC()
    elif not rule.byte_level and not rule.drop:
        tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    return tokenizer


def _pair(merge: str) -> tuple[str, str]:
    at = merge.find(" ", 1)
    if at < 0:
        raise InvalidModel(f"{KEY}merges has {merge!r:.100}, expected two parts")
    return merge[:at], merge[at + 1:]


def _scored(metadata: Mapping[str, Any], tokens: Tokens) -> tuple[Encode, Vocabulary]:
    """SentencePiece byte-pair encoding: the vocabulary and its scores are all there is."""
    prefix = _flag(metadata, "add_space_prefix", True)
    apart = (CONTROL, UNKNOWN, USER_DEFINED)
    added = {text.replace(" ", SPACE): token for text, token in tokens.of(*apart).items()}
    pieces = dict(tokens.ids)
    for text in tokens.of(*apart, BYTE):
        del pieces[text]
    vocabulary = _vocabulary(metadata, tokens, sentencepiece, bos=1, eos=2, unk=0, add_bos=True, strip=prefix,
                             literal=lambda text: text.replace(SPACE, " "))
    bpe = ScoredBPE(pieces, _numbers(metadata, "scores", len(tokens.texts), 0.0), bytes=_byte_ids(tokens),
                    unk=vocabulary.unk)
    return SentencePiece(bpe, added, prefix=prefix, skip_space=_skip_space(metadata, tokens)), vocabulary


def _byte_ids(tokens: Tokens) -> list[int] | None:
    ids = [tokens.ids.get(f"<0x{byte:02X}>") for byte in range(256)]
    return [token for token in ids if token is not None] if None not in ids else None


def _skip_space(metadata: Mapping[str, Any], tokens: Tokens) -> Callable[[int], bool]:
    """Phi-3's special tokens swallow the white space after them, but no GGUF file says so."""
    name = str(metadata.get("general.name", "")).lower()
    if metadata.get("general.architecture") != "phi3" and not re.search("phi-?3", name):
        return lambda token: False
    return lambda token: tokens.texts[token] not in NO_SKIP


def _unigram(metadata: Mapping[str, Any], tokens: Tokens) -> tuple[Encode, Vocabulary]:
    """The likeliest pieces under a unigram model."""
    from tokenizers import Regex, Tokenizer, models, normalizers

    prefix = _flag(metadata, "add_space_prefix", True)
    scores = _numbers(metadata, "scores", len(tokens.texts), 0.0)
    vocabulary = _vocabulary(metadata, tokens, sentencepiece, eos=1, unk=2, add_eos=True, strip=prefix)
    if vocabulary.unk is None:
        raise InvalidModel(f"{KEY}unknown_token_id is absent, but a unigram needs it")
    pieces = list(zip(tokens.texts, map(float, scores)))
    model = _made(lambda: models.Unigram(pieces, vocabulary.unk, byte_fallback=_byte_ids(tokens) is not None))
    steps: list[normalizers.Normalizer] = []
    if charsmap := _numbers(metadata, "precompiled_charsmap", None):
        steps.append(_made(lambda: normalizers.Precompiled(bytes(int(octet) & 255 for octet in charsmap))))
    if _flag(metadata, "remove_extra_whitespaces", False):
        steps += [normalizers.Replace(Regex(r"\A +| +\z"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    steps += [normalizers.Prepend(SPACE)] if prefix else []
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])
    return _encoder(tokenizer, tokens), vocabulary


def _word_pieces(metadata: Mapping[str, Any], tokens: Tokens) -> tuple[Encode, Vocabulary]:
    """The longest pieces of each word; the file marks those that begin a word, the model wants the others marked."""
    from tokenizers import models, normalizers, pre_tokenizers

    added = tokens.of(CONTROL, UNKNOWN, USER_DEFINED).values()
    texts = [text if token in added else _word_piece(text) for token, text in enumerate(tokens.texts)]
    tokens = Tokens(texts, tokens.types, {text: token for token, text in enumerate(texts)})
    vocabulary = _vocabulary(metadata, tokens, spell_wordpiece, bos=101, unk=100, strip=True)
    start = _id(metadata, "cls", len(texts), vocabulary.bos)
    end = _id(metadata, "seperator", len(texts), 102)
    vocabulary = replace(vocabulary, prefix=_around(start, True), suffix=_around(end, True))
    if vocabulary.unk is None:
        raise InvalidModel(f"{KEY}unknown_token_id is absent, but word pieces need it")
    unk = texts[vocabulary.unk]
    model = _made(lambda: models.WordPiece(tokens.ids, unk_token=unk, max_input_chars_per_word=100))
    lowercase = _flag(metadata, "normalizer.lowercase", True)
    accents = _flag(metadata, "normalizer.strip_accents", lowercase)
    tokenizer = _tokenizer(model, pre_tokenizers.BertPreTokenizer())
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=accents)
    return _encoder(tokenizer, tokens), vocabulary


def _word_piece(text: str) -> str:
    return text[1:] if text.startswith(SPACE) else "##" + text


def _tokenizer(model: Any, pre_tokenizer: Any) -> Tokenizer:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizer
    return tokenizer


def _encoder(tokenizer: Tokenizer, tokens: Tokens) -> Encode:
    """The tokenizer's function from text to ids, with the added tokens of the file."""
    from tokenizers import AddedToken

    def added(texts: Iterable[str], special: bool) -> list[AddedToken]:
        return [AddedToken(text, special=special, normalized=False) for text in texts]

    tokenizer.add_special_tokens(added(tokens.of(CONTROL, UNKNOWN), True))
    tokenizer.add_tokens(added(tokens.of(USER_DEFINED), False))
    return encoder(tokenizer)


def _made(build: Callable[[], Made]) -> Made:
    try:
        return build()
    except Exception as error:
        raise InvalidModel(f"the tokenizer in the file is damaged: {error}") from error


MODELS: dict[str, Callable[[Mapping[str, Any], Tokens], tuple[Encode, Vocabulary]]] = {
    "gpt2": _byte_pair, "gemma4": _byte_pair, "whitespace": _byte_pair, "llama": _scored, "t5": _unigram,
    "bert": _word_pieces}
