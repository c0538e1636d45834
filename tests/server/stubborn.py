"""A model that says what it is told to say, as far as grammars let it."""
from __future__ import annotations

import numpy as np
from fakes import END, ByteTokenizer, ChainRunner, PlainTemplate

from zonda.engine.batch import Batch
from zonda.engine.engine import Engine
from zonda.options import EngineOptions
from zonda.sdk import AsyncLLM


class StubbornRunner(ChainRunner):
    """Wants to say a text, then to close what is open, then to end."""

    def __init__(self, wanted: str) -> None:
        super().__init__()
        self.wanted = wanted.encode()
        self.liking = np.zeros(self.vocab, np.float32)
        self.liking[[*b'"}]>', END]] = (8, 9, 9, 9, 20)

    def run(self, batch: Batch) -> np.ndarray:
        logits = np.tile(self.liking, (len(batch.sample), 1))
        if len(batch.sample) and self.wanted:
            logits[:, self.wanted[0]] = 40
            self.wanted = self.wanted[1:]
        return logits


def stubborn(wanted: str, *, dialect: str = "hermes", reasoning: str = "think") -> AsyncLLM:
    engine = Engine(StubbornRunner(wanted), EngineOptions(), stop_ids=frozenset({END}), words=ByteTokenizer())
    return AsyncLLM.from_parts(engine, ByteTokenizer(), PlainTemplate(), name="stubborn",  # type: ignore[arg-type]
                               tool_dialect=dialect, reasoning=reasoning)
