"""Runs what `CPUOps` recorded, over one sequence."""
from __future__ import annotations

import numpy as np

from zonda.engine.cpu_runner import attention_work
from zonda.environment import cache_folder
from zonda.kernels.cpu import frame as f
from zonda.kernels.cpu.library import Library
from zonda.kernels.cpu.memory import Buffer, address
from zonda.kernels.cpu.ops import CPUOps
from zonda.kernels.cpu.threads import Team, sync_lines


class Recorded:
    """`ops` to record with; `put` an array in, `run` for so many rows, `get` an array out."""

    def __init__(self, library: Library | None = None, *, max_rows: int = 64, half_cache: bool = False) -> None:
        library = library or Library(cache_folder())
        self.ops = CPUOps(library, threads=1, max_rows=max_rows, half_cache=half_cache)
        self._team = Team(library, 1)

    def put(self, values: np.ndarray) -> Buffer:
        buffer = self.ops._rows(values.shape[1])
        buffer.memory[:values.nbytes].view(np.float32)[:] = values.ravel()
        return buffer

    def run(self, rows: int, *, exact: bool = True, ids: np.ndarray | None = None, first: int = 0,
            sample: np.ndarray | None = None) -> None:
        program = np.array(self.ops.instructions, np.int64)
        frame, scratch = np.zeros(f.FRAME_WORDS, np.int64), np.zeros(self.ops.scratch_bytes, np.uint8)
        frame[f.ONE] = 1
        positions, sequence = np.arange(first, first + rows, dtype=np.int32), np.zeros(rows, np.int32)
        ids = positions if ids is None else ids
        sample = positions if sample is None else sample
        pages = np.arange(max(8, (first + rows) // f.PAGE + 1), dtype=np.int32)
        items, fast, merges = attention_work(self.ops, sequence, positions, rows if exact else 0)
        tokens = self.ops.block_tokens(rows, exact=exact)
        self._team.run(program, sync_lines(len(program)), frame, {
            f.ROWS: rows, f.STRIPS: -(-rows // f.STRIP),
            **f.domain(f.EXACT if exact else f.FAST, rows, tokens), f.ITEMS: len(items),
            f.FAST_ITEMS: len(fast), f.FAST_ITEM: address(fast),
            f.MERGES: len(merges), f.MERGE: address(merges),
            **f.domain(f.SAMPLES, len(sample), self.ops.block_tokens(len(sample))), f.SAMPLE: address(sample),
            f.IDS: address(ids), f.POSITIONS: address(positions), f.SEQ_OF: address(sequence), f.PAGES: address(pages),
            f.PAGES_STRIDE: len(pages), f.ITEM: address(items), f.SCRATCH: address(scratch),
            f.SCRATCH_BYTES: self.ops.scratch_bytes})

    def get(self, buffer: Buffer, rows: int) -> np.ndarray:
        return buffer.memory[:4 * rows * buffer.cols].view(np.float32).reshape(rows, buffer.cols).copy()
