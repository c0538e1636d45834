"""What a tokenizer knows of its tokens: their texts, their bytes, and the special ones."""
from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from zonda.errors import InvalidModel

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Encode = Callable[[str], list[int]]
SPACE = "▁"
BYTE_TOKEN = re.compile("<0x([0-9A-Fa-f]{2})>")

END_TOKENS = (
    "<|im_end|>", "<end_of_turn>", "<|end_of_text|>", "<|end|>", "<|eot_id|>", "<|eom_id|>", "<|endoftext|>",
    "<|return|>", "<|call|>", "<|calls|>", "<|flush|>", "<turn|>", "<|tool_response>", "<EOT>", "[EOT]",
    "<end_of_utterance>", "<\uff5cend\u2581of\u2581sentence\uff5c>", "[e~[")
"""Special tokens that end an answer in one family or another, whatever a file says its EOS is."""


def _alphabet() -> dict[str, int]:
    """The characters that stand for bytes in a byte-level vocabulary: themselves if visible, others from 256 on."""
    seen = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in set(seen)]
    return {chr(byte): byte for byte in seen} | {chr(256 + n): byte for n, byte in enumerate(hidden)}


ALPHABET = _alphabet()


def byte_level(token: str) -> bytes:
    """Bytes of a token of a byte-level vocabulary; one that is not spelled in its alphabet stands for its own text."""
    try:
        return bytes(map(ALPHABET.__getitem__, token))
    except KeyError:
        return token.encode()


def sentencepiece(token: str) -> bytes:
    """Bytes of a SentencePiece token, or of a `<0x0A>` that stands for one byte."""
    match = BYTE_TOKEN.fullmatch(token)
    return bytes([int(match[1], 16)]) if match else token.replace(SPACE, " ").encode()


def wordpiece(token: str) -> bytes:
    """Bytes of a WordPiece token: a space comes before each that does not continue a word."""
    return token[2:].encode() if token.startswith("##") else b" " + token.encode()


def suffixed(token: str) -> bytes:
    """Bytes of a token whose `</w>` ends a word."""
    return token.replace("</w>", " ").encode()


def word(token: str) -> bytes:
    """Bytes of a token that is a whole word."""
    return b" " + token.encode()


@dataclass(frozen=True)
class Vocabulary:
    """Facts about tokens. `size` is one more than the highest id.

    `added` are the tokens, special or not, that are found in text before anything else, by id. `special` are left out
    of decoded text. `prefix` and `suffix` are set around an encoded text. `strip` says that a text begins with a space
    that encoding had put there.
    """

    size: int
    text: Callable[[int], str | None]
    find: Callable[[str], int | None]
    spell: Callable[[str], bytes]
    added: Mapping[int, str] = field(default_factory=dict)
    special: frozenset[int] = frozenset()
    prefix: tuple[int, ...] = ()
    suffix: tuple[int, ...] = ()
    strip: bool = False
    bos: int | None = None
    eos: int | None = None
    unk: int | None = None
    ends: frozenset[int] = frozenset()

    def bytes_of(self, token: int) -> bytes:
        """The bytes that a token stands for; empty for an id without a token."""
        if token in self.added:
            return self.added[token].encode()
        text = self.text(token)
        return b"" if text is None else self.spell(text)


def end_tokens(find: Callable[[str], int | None], special: Collection[int]) -> frozenset[int]:
    """Ids of the known end tokens that are special here."""
    found = {text: token for text in END_TOKENS if (token := find(text)) is not None and token in special}
    if ("<|call|>" in found and "<|return|>" in found) or ("<|calls|>" in found and "<|flush|>" in found):
        found.pop("<|end|>", None)  # there it ends a message within an answer
    return frozenset(found.values())


def encoder(tokenizer: Tokenizer) -> Encode:
    """The function from text to ids. As a batch of one, a text is encoded without the interpreter's lock."""
    def encode(text: str) -> list[int]:
        try:
            return tokenizer.encode_batch_fast([text], add_special_tokens=False)[0].ids
        except (TypeError, UnicodeEncodeError):
            raise
        except Exception as error:
            raise unable(error) from error
    return encode


def unable(error: Exception) -> InvalidModel:
    """What is said of a tokenizer that does not encode a text."""
    return InvalidModel(f"the tokenizer fails to encode a text: {error!s:.300}")
