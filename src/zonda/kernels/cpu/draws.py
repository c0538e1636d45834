"""Calls the compiled kernel that draws tokens."""
from __future__ import annotations

import ctypes
import hashlib
from pathlib import Path

import numpy as np

from zonda.kernels import sample
from zonda.kernels.cpu.library import Kernel, Library
from zonda.kernels.sample import Draws

BLOCK = 64
"""Logits that share a maximum and a sum in the first pass."""
# words of the kernel's table: addresses, but for VOCAB and MAX_LEN
(LOGITS, ROWS, SLOTS, LENGTHS, BIAS_STARTS, BIAS_IDS, BIAS_VALUES, CHOSEN, LOGPROBS_OUT, TOPS, PARAMS_F, PARAMS_I,
 TOKENS, BREAKS, VOCAB, MAX_LEN, MAXIMA, HEAP, KEYS, IDS, MORE_KEYS, MORE_IDS, WEIGHTS, SUMS, PROBS, COUNTS) = range(26)
_LAYOUT = hashlib.sha256(Path(sample.__file__).read_bytes()).hexdigest()[:8]  # the library knows only its own sources
DRAW_ROWS = Kernel(f"draw_rows_{_LAYOUT}", 3, "sample:draw_rows")
_FIELDS = ("logits", "rows", "slots", "lengths", "bias_starts", "bias_ids", "bias_values", "chosen", "logprobs", "tops",
           "floats", "ints", "tokens", "breaks")


class CompiledDraw:
    """The compiled equal of kernels.sample.draw, for one vocabulary and one caller at a time."""

    def __init__(self, library: Library, *, vocab: int) -> None:
        self._library = library  # owns the code
        blocks = -(-vocab // BLOCK)
        sizes = {MAXIMA: blocks, HEAP: max(blocks, 256), KEYS: vocab, IDS: vocab, MORE_KEYS: vocab, MORE_IDS: vocab,
                 WEIGHTS: vocab, SUMS: blocks, PROBS: vocab, COUNTS: vocab}
        self._scratch = {word: np.zeros(size, np.int32) for word, size in sizes.items()}
        self._table = np.zeros(26, np.int64)
        for word, array in self._scratch.items():
            self._table[word] = array.ctypes.data
        self._table[VOCAB] = vocab
        self._call = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 3)(library.address(DRAW_ROWS))

    def __call__(self, draws: Draws) -> None:
        """Draw all rows."""
        assert draws.logits.flags.c_contiguous and draws.logits.shape[1] == self._table[VOCAB]
        self._table[:len(_FIELDS)] = [getattr(draws, field).ctypes.data for field in _FIELDS]
        self._table[MAX_LEN] = draws.tokens.shape[1]
        self._call(self._table.ctypes.data, 0, len(draws.rows))
