"""The seam between the engine, which plans, and the device, which computes."""
from __future__ import annotations

from typing import Protocol

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

        They are contiguous, and the caller may overwrite them. The engine asks for at most max_seqs + 64 samples.
        """

    def copy_page(self, source: int, target: int) -> None:
        """Copy a page's keys and values of all layers."""

    def close(self) -> None: ...
