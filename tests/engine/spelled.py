"""A vocabulary of bytes and some longer tokens, and a runner of random logits, for grammars."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from fakerunner import Collector, FakeRunner

from zonda.engine.batch import Batch
from zonda.engine.engine import Engine
from zonda.options import EngineOptions
from zonda.types import Grammar, Request, Sampling

LONGER = ['{"', '":', '": "', '",', '", "', "}", "true", "false", "null", "name", "20", "é", "日本", "🌬", "yes", "no",
          "<think>", "aaaa", " ", ", ", "\n", "\\n", "abc", "0", "-", "1e", "a", '"', ": ", "]", "[{", "}]"]
END, ANSWER, TOOL = 256 + len(LONGER), 257 + len(LONGER), 258 + len(LONGER)
SPECIAL = {END: "<end>", ANSWER: "</think>", TOOL: "<tool>"}
VOCAB = 262 + len(LONGER)
"""Some more ids than there are tokens, as models have."""


class Spelling:
    """One token a byte, longer ones, some of them twice, and special ones."""

    special_ids = frozenset(SPECIAL)

    def token_bytes(self, id: int, /) -> bytes:
        if id < 256:
            return bytes([id])
        return LONGER[id - 256].encode() if id < END else SPECIAL.get(id, "").encode()

    def encode(self, text: str, /, *, add_special: bool = True) -> list[int]:
        return list(text.encode())

    def text(self, tokens: list[int]) -> str:
        return b"".join(self.token_bytes(token) for token in tokens if token not in SPECIAL).decode()


class ClosingRunner(FakeRunner):
    """Random logits, with a liking for what closes: texts, objects and lists come to their end."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"vocab": VOCAB, "pages": 400, "page_size": 16, "max_len": 1500} | options)
        self._liking = np.zeros(VOCAB, np.float32)
        closing = [token for token in range(END) if set(Spelling().token_bytes(token)) & set(b'"]}')]
        self._liking[[*closing, END]] = 5

    def _logits(self, batch: Batch, row: int, owner: int) -> np.ndarray:
        return super()._logits(batch, row, owner) + self._liking


@contextmanager
def running(runner: FakeRunner | None = None, *, words: Spelling | None = Spelling(),  # noqa: B008
            **options: Any) -> Iterator[Engine]:
    engine = Engine(runner or ClosingRunner(), EngineOptions(**options), stop_ids=frozenset({END}), words=words)
    try:
        yield engine
    finally:
        engine.close()


def constrained(id: str, grammar: Grammar, prompt: tuple[int, ...] = (1, 2, 3), **sampling: Any) -> Request:
    return Request(id, prompt, Sampling(**{"temperature": 1.0, "max_tokens": 400, "seed": 1, **sampling}),
                   grammar=grammar)


def answer(engine: Engine, grammar: Grammar, **sampling: Any) -> Collector:
    got = Collector()
    engine.submit(constrained("r", grammar, **sampling), got)
    got.wait("r")
    return got


def said(got: Collector, id: str = "r", index: int = 0) -> str:
    return Spelling().text(got.tokens(id, index))
