"""The running sequences' state as arrays, a row each, so that steps are assembled and sampled without loops."""
from __future__ import annotations

import numpy as np

from zonda.engine.request import Sequence
from zonda.kernels.sample import FLOATS, INTS, KEY, MIROSTAT_MU


class Slots:
    """Rows for `count` sequences. The system gives their memory only as far as it is written."""

    def __init__(self, count: int, *, max_len: int, max_pages: int) -> None:
        self.free = list(range(count - 1, -1, -1))
        self.tokens = np.zeros((count, max_len), np.int32)
        self.breaks = np.zeros((count, max_len), np.uint8)
        self.tables = np.zeros((count, max_pages), np.int32)
        self.floats = np.zeros((count, FLOATS), np.float32)
        self.ints = np.zeros((count, INTS), np.int64)

    def take(self, seq: Sequence) -> None:
        """Give a sequence a row, and write all that is known of it there."""
        slot = seq.slot = self.free.pop()
        self.tokens[slot, :seq.known] = seq.saved
        if seq.params.breaks:
            self.breaks[slot, :seq.known] = np.isin(seq.saved, list(seq.params.breaks))
        self.tables[slot, :len(seq.pages)] = seq.pages
        self.floats[slot] = seq.params.floats
        self.floats[slot, MIROSTAT_MU] = seq.mu
        self.ints[slot] = seq.params.ints
        self.ints[slot, KEY] = seq.key

    def extend(self, seq: Sequence, page: int) -> None:
        """Add a page to a sequence's table."""
        self.tables[seq.slot, len(seq.pages)] = page
        seq.pages.append(page)

    def leave(self, seq: Sequence, *, keep: bool) -> None:
        """Take the row back; `keep` what the sequence needs to go on later."""
        if keep:
            seq.saved = self.tokens[seq.slot, :seq.known].copy()
            seq.mu = float(self.floats[seq.slot, MIROSTAT_MU])
        if seq.params.breaks:
            self.breaks[seq.slot, :seq.known] = 0
        self.free.append(seq.slot)
        seq.slot = -1
