"""A model that knows the alphabet: after each letter comes the next one, and after z the end. No file, no delay."""
from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from zonda.engine.batch import Batch
from zonda.engine.engine import Engine
from zonda.options import EngineOptions

PATIENCE = 60  # seconds that anything may take on a busy machine
END, BEGIN = 0, 1
LETTERS = "abcdefghijklmnopqrstuvwxyz"
ALPHABET = LETTERS + "AB \n*#`.!"
FIRST = 2


class LettersTokenizer:
    """One token a character, then the two special ones."""

    vocab_size = FIRST + len(ALPHABET)
    eos_ids = frozenset({END})
    special_ids = frozenset({END, BEGIN})
    vocabulary = SimpleNamespace(strip=False)

    def encode(self, text: str, *, add_special: bool = True) -> list[int]:
        return [BEGIN] * add_special + [FIRST + ALPHABET.index(letter) for letter in text]

    def encode_chat(self, text: str) -> list[int]:
        return self.encode(text, add_special=False)

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        special = {END: "<end>", BEGIN: "<begin>"} if not skip_special else {END: "", BEGIN: ""}
        return "".join(special[id] if id < FIRST else ALPHABET[id - FIRST] for id in ids)

    def token_bytes(self, id: int) -> bytes:
        return self.decode([id]).encode()

    def id(self, token: str) -> int | None:
        return FIRST + ALPHABET.index(token) if token in ALPHABET else None


class LettersTemplate:
    """The contents one after another; a system message is in capitals."""

    sources: Mapping[str, str] = {}

    def render(self, messages: Sequence[Mapping[str, Any]], *, tools: Any = None, add_generation_prompt: bool = True,
               **kwargs: Any) -> str:
        return "".join(str(each["content"]) for each in messages)


class LettersRunner:
    """Draws the letter after the last one. With a `gate`, each step waits for a permit."""

    page_size = 4

    def __init__(self, *, pages: int = 256, max_len: int = 64) -> None:
        self.pages, self.max_len, self.max_rows = pages, max_len, 512
        self.vocab = LettersTokenizer.vocab_size
        self.steps: list[int] = []
        self.gate: threading.Semaphore | None = None
        self.closed = False

    def run(self, batch: Batch) -> np.ndarray:
        if gate := self.gate:
            assert gate.acquire(timeout=PATIENCE)
        self.steps.append(len(batch.lengths))
        following = batch.tokens[batch.sample] + 1
        following[(following <= FIRST) | (following >= FIRST + len(LETTERS))] = END
        logits = np.zeros((len(batch.sample), self.vocab), np.float32)
        logits[np.arange(len(following)), following] = 30.0
        return logits

    def copy_page(self, source: int, target: int) -> None: ...

    def close(self) -> None:
        self.closed = True


def letters_engine(runner: LettersRunner | None = None, **options: Any) -> Engine:
    """An engine over the alphabet."""
    return Engine(runner or LettersRunner(), EngineOptions(**options), stop_ids=frozenset({END}),
                  words=LettersTokenizer())
