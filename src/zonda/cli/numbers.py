"""A tokenizer for random weights: every token is a letter, and no text is special."""
from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace


class Numbers:
    """As much of a `Tokenizer` as serving token ids needs."""

    vocabulary = SimpleNamespace(strip=False)
    eos_ids: frozenset[int] = frozenset()
    special_ids: frozenset[int] = frozenset()

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size

    def encode(self, text: str, *, add_special: bool = True) -> list[int]:
        return [min(ord(letter), self.vocab_size - 1) for letter in text]

    encode_chat = encode

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        return "".join(chr(97 + id % 26) for id in ids)

    def token_bytes(self, id: int) -> bytes:
        return bytes([97 + id % 26])

    def id(self, token: str) -> int | None:
        return None
