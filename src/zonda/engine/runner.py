"""The seam between the engine, which plans, and the device, which computes."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from zonda.engine.batch import Batch


class Runner(Protocol):
    """A loaded model on a device. A fake one makes engine tests instant."""

    page_size: int
    pages: int
    """Pages in the cache; page numbers are 0 … pages-1."""
    vocab: int
    max_len: int
    """Positions that one sequence may have: the model's context, `--max-seq-len`, or what the pages hold."""
    max_rows: int
    """Tokens that one step may have."""

    def run(self, batch: Batch) -> np.ndarray:
        """Compute the step and return logits, float32 (samples, vocab), valid until the next call.

        Raises `OutOfMemory` when the device has none for so many rows; then the step has changed nothing that counts.
        They are contiguous, and the caller may overwrite them. The engine asks for at most max_seqs + 64 samples.
        """

    def copy_page(self, source: int, target: int) -> None:
        """Copy a page's keys and values of all layers."""

    def close(self) -> None: ...


@dataclass(slots=True)
class Drawing:
    """How a device draws the tokens of a step's samples, one sequence each, in the order of `Batch.sample`."""

    temperature: np.ndarray  # float32 (draws,): 0 for the first maximum
    top_k: np.ndarray  # int32 (draws,): 0 for all
    top_p: np.ndarray  # float32 (draws,)
    min_p: np.ndarray  # float32 (draws,)
    key: np.ndarray  # int64 (draws,): the sequence's random stream
    number: np.ndarray  # int32 (draws,): which of the stream's numbers; the count of generated tokens

    @property
    def greedy(self) -> bool:
        """Whether all rows take the first maximum."""
        return not self.temperature.any()


@runtime_checkable
class Ahead(Runner, Protocol):
    """A runner that draws tokens itself, so that a step can be launched before the tokens of the last one are known."""

    def launch(self, batch: Batch, drawing: Drawing) -> Callable[[], np.ndarray]:
        """Start a step; what it returns waits for the tokens, int32 (draws,), -1 where logits are not finite.

        A token below zero in `batch.tokens` is the one that the last launch drew: -1 its first, -2 its second.
        """

    def idle(self) -> bool:
        """Do a little ahead, as there are no requests; False when nothing is left to do."""
