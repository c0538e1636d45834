"""Text to token ids and back."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from zonda.errors import InvalidRequest
from zonda.text import folder_tokenizer, gguf_tokenizer
from zonda.text.vocabulary import Vocabulary


class Tokenizer:
    """Encodes and decodes as the tokenizer that a model was trained with; made by `from_file` or `from_gguf`."""

    def __init__(self, encode: Callable[[str], list[int]], vocabulary: Vocabulary) -> None:
        self._encode = encode
        self.vocabulary = vocabulary
        self._bytes: dict[int, bytes] = {}

    @classmethod
    def from_file(cls, path: str | Path) -> Tokenizer:
        """From a `tokenizer.json` or a folder that has one; the files beside it name BOS and what ends a text."""
        return cls(*folder_tokenizer.build(Path(path)))

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any]) -> Tokenizer:
        """From the metadata of a GGUF file."""
        return cls(*gguf_tokenizer.build(metadata))

    def encode(self, text: str, *, add_special: bool = True) -> list[int]:
        """Token ids of a text, in which special tokens are recognized.

        `add_special` sets around it what the tokenizer sets around a text, but not a second BOS before one that the
        text begins with, nor a second EOS after one that it ends with.
        """
        ids = self._ids(text)
        if not add_special:
            return ids
        prefix, suffix = list(self.vocabulary.prefix), list(self.vocabulary.suffix)
        before = [] if prefix and ids[:len(prefix)] == prefix else prefix
        after = [] if suffix and ids[-len(suffix):] == suffix else suffix
        return before + ids + after

    def encode_chat(self, text: str) -> list[int]:
        """Token ids of a rendered chat: BOS once if the tokenizer sets one, and no EOS."""
        ids, prefix = self._ids(text), list(self.vocabulary.prefix)
        return ids if ids[:len(prefix)] == prefix else prefix + ids

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """The text of token ids; bytes that are no UTF-8 become U+FFFD."""
        hidden = self.vocabulary.special if skip_special else frozenset()
        text = b"".join([self.token_bytes(token) for token in ids if token not in hidden]).decode("utf-8", "replace")
        return text.removeprefix(" ") if self.vocabulary.strip else text

    @cached_property
    def longest(self) -> int:
        """The bytes of the longest token."""
        return max((len(self.vocabulary.bytes_of(id)) for id in range(self.vocab_size)), default=0)

    def token_bytes(self, id: int) -> bytes:
        """The bytes that a token stands for, a special token's own text for one; empty for an id without a token."""
        try:
            return self._bytes[id]
        except KeyError:
            return self._bytes.setdefault(id, self.vocabulary.bytes_of(id))

    def token(self, id: int) -> str | None:
        """A token as the vocabulary spells it."""
        return self.vocabulary.text(id)

    def id(self, token: str) -> int | None:
        """The id of a token as the vocabulary spells it."""
        return self.vocabulary.find(token)

    @property
    def vocab_size(self) -> int:
        """One more than the highest id."""
        return self.vocabulary.size

    @property
    def eos_ids(self) -> frozenset[int]:
        """All that end a text; `eos_token` is the one that the model calls so."""
        return self.vocabulary.ends

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids that decoding leaves out."""
        return self.vocabulary.special

    @property
    def bos_token(self) -> str | None:
        return self._text(self.vocabulary.bos)

    @property
    def eos_token(self) -> str | None:
        return self._text(self.vocabulary.eos)

    @property
    def unk_token(self) -> str | None:
        return self._text(self.vocabulary.unk)

    def _text(self, id: int | None) -> str | None:
        return None if id is None else self.token(id)

    def _ids(self, text: str) -> list[int]:
        try:
            return self._encode(text)
        except (TypeError, UnicodeEncodeError) as error:
            if not isinstance(text, str):
                raise InvalidRequest(f"the prompt is {type(text).__name__}, expected text") from error
            return self._encode(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
