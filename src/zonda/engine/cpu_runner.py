"""The runner on a CPU: a recorded program, a team of threads, and the pages in main memory."""
from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from zonda.engine.batch import Batch
from zonda.kernels.cpu import frame as f
from zonda.kernels.cpu.library import Library
from zonda.kernels.cpu.memory import address, lines
from zonda.kernels.cpu.ops import CPUOps
from zonda.kernels.cpu.threads import Team, sync_lines
from zonda.weights.load import Convert, load
from zonda.weights.source import Source

if TYPE_CHECKING:
    from zonda.nn.decoder import Decoder

EXACT_START = 63
"""Positions at the start of a short prompt that are computed exactly."""


class Rounding(NamedTuple):
    """Prompts of `long` tokens or more, most of which are rounded anyhow, have fewer exact ones: the first, which all
    others attend to much, and the last, which generated tokens do."""

    long: int
    first: int
    last: int


BYTES, HALVES = Rounding(256, 4, 8), Rounding(64, 0, 1)
"""Where the rest is rounded to bytes, and where to bfloat16. Exact rows of a prompt fill a block."""


def cores() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class CPURunner:
    """`Runner` over `CPUOps`. `kv_bytes` bounds the cache; `cache_folder` keeps compiled kernels."""

    page_size = f.PAGE

    def __init__(self, decoder: Decoder, source: Source, *, max_len: int, kv_bytes: int, cache_folder: Path,
                 max_rows: int = 512, threads: int | None = None, half_cache: bool = True,
                 convert: Convert | None = None, progress: Callable[[int, int], None] | None = None,
                 compiling: Callable[[str], None] | None = None) -> None:
        threads = threads or cores()
        library = Library(cache_folder, progress=compiling)
        self.ops = CPUOps(library, threads=threads, max_rows=max_rows, half_cache=half_cache)
        load(decoder, source, self.ops, convert=convert, progress=progress)
        self._decoder = decoder  # owns the weights, which the program knows by address
        self.vocab = decoder.vocab
        self.max_rows = max_rows
        self.pages = max(1, kv_bytes // self.ops.page_bytes(decoder.caches))
        self.max_len = min(max_len, self.pages * self.page_size)
        self.ops.allocate(decoder.caches, self.pages)
        decoder(None)
        self._program = np.array(self.ops.instructions, np.int64)
        self._sync = sync_lines(len(self._program))
        self._team = Team(library, threads)
        self._frame = np.zeros(f.FRAME_WORDS, np.int64)
        self._scratch = lines(threads * self.ops.scratch_bytes)
        self._frame[f.ONE] = 1
        assert self.ops.output_logits is not None
        self._logits = self.ops.output_logits.memory[:4 * max_rows * self.vocab].view(np.float32).reshape(max_rows, -1)

    def run(self, batch: Batch) -> np.ndarray:
        rows, samples = batch.rows, len(batch.sample)
        assert rows <= self.max_rows, f"{rows} rows exceed the {self.max_rows} that buffers have room for"
        counts = np.diff(batch.starts)
        sequence = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        tokens, positions, sample, exact = batch.tokens, batch.positions, batch.sample, rows
        is_exact = exact_rows(batch, HALVES if self.ops.library.target.matrices else BYTES)
        if not is_exact.all():
            order = np.argsort(~is_exact, kind="stable")
            tokens, positions, sequence = tokens[order], positions[order], sequence[order]
            exact = int(is_exact.sum())
            sample = np.argsort(order).astype(np.int32)[sample]
        items, fast, merges = attention_work(self.ops, sequence, positions, exact)
        arrays = {f.IDS: tokens, f.POSITIONS: positions, f.PAGES: batch.page_table, f.SAMPLE: sample, f.ITEM: items,
                  f.FAST_ITEM: fast, f.MERGE: merges, f.SEQ_OF: sequence, f.SCRATCH: self._scratch}
        held = {field: np.ascontiguousarray(a) for field, a in arrays.items()}
        fields = {f.ROWS: rows, f.STRIPS: -(-rows // f.STRIP), **f.domain(f.EXACT, exact, self.ops.block_tokens(exact)),
                  **f.domain(f.FAST, rows - exact, self.ops.block_tokens(rows - exact, exact=False), exact),
                  **f.domain(f.SAMPLES, samples, self.ops.block_tokens(samples)),
                  f.ITEMS: len(items), f.FAST_ITEMS: len(fast), f.MERGES: len(merges),
                  f.PAGES_STRIDE: batch.page_table.shape[1], f.SCRATCH_BYTES: self.ops.scratch_bytes,
                  **{field: address(a) for field, a in held.items()}}
        self._team.run(self._program, self._sync, self._frame, fields)
        return self._logits[:samples]

    def copy_page(self, source: int, target: int) -> None:
        for layer in self.ops.caches:
            for memory in layer:
                memory[target] = memory[source]

    def close(self) -> None:
        self._team.close()


def exact_rows(batch: Batch, rounding: Rounding) -> np.ndarray:
    """Whose activations may not be rounded, bool (rows,): a prompt's first and last, and all that is generated: by
    place, never by company."""
    if batch.prompts is None:
        return np.ones(batch.rows, bool)
    short = batch.prompts < rounding.long
    first, last = np.where(short, EXACT_START, rounding.first), np.where(short, 1, rounding.last)
    return (batch.positions < first) | (batch.positions >= batch.prompts - last)


def attention_work(ops: CPUOps, sequence: np.ndarray, positions: np.ndarray,
                   exact: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Work items of the first `exact` rows, those of the others, and merges; no item has rows of both kinds."""
    items, merges = attention_items(sequence[:exact], positions[:exact], ops.query_rows, ops.slots)
    used = int(merges[:, 2].sum())
    fast, more = attention_items(sequence[exact:], positions[exact:], ops.fast_query_rows, ops.slots - used)
    for words in (fast, more):
        words[:, 0] += exact
    fast[fast[:, 3] >= 0, 4] += used
    more[:, 1] += used
    return items, fast, np.concatenate([merges, more])


def attention_items(sequence: np.ndarray, positions: np.ndarray, most: int,
                    slots: int) -> tuple[np.ndarray, np.ndarray]:
    """Work items of attention and its merges, int32 as `attention.ITEM_WORDS` says.

    Rows of an item are neighbours in one sequence, cut into equal shares. The longest contexts tend to come last in a
    step, so they are put first. A row of its own with a long context is cut into an item for each run of pages, while
    there are slots.
    """
    if not len(sequence):
        return np.zeros((0, 5), np.int32), np.zeros((0, 3), np.int32)
    breaks = np.flatnonzero((np.diff(sequence) != 0) | (np.diff(positions) != 1)) + 1
    starts = np.concatenate([[0], breaks, [len(sequence)]])
    rows = np.diff(starts)
    pieces = -(-rows // most)
    run = np.repeat(np.arange(len(pieces)), pieces)[::-1]
    within = (np.arange(len(run)) - np.repeat(np.cumsum(pieces) - pieces, pieces))[::-1]
    cuts = [starts[run] + rows[run] * share // pieces[run] for share in (within, within + 1)]
    first = cuts[0]
    items = np.zeros((len(run), 5), np.int32)
    items[:, 0], items[:, 1], items[:, 2], items[:, 3] = first, cuts[1] - first, sequence[first], -1
    return _cut(items, positions[first] // (f.PAGE * f.RUN) + 1, slots)


def _cut(items: np.ndarray, runs: np.ndarray, slots: int) -> tuple[np.ndarray, np.ndarray]:
    """Items cut by runs, where one has one row and several runs; and what is then to be merged."""
    runs = np.where((items[:, 1] == 1) & (runs > 1), runs, 0)
    runs[np.cumsum(runs) > slots] = 0
    cut, ends = np.flatnonzero(runs), np.cumsum(runs)
    merges = np.stack([items[cut, 0], (ends - runs)[cut], runs[cut]], axis=1).astype(np.int32)
    if not len(cut):
        return items, merges
    owner = np.repeat(np.arange(len(items)), np.maximum(runs, 1))
    cut_items = items[owner]
    split = runs[owner] > 0
    cut_items[split, 4] = np.arange(ends[-1])
    cut_items[split, 3] = cut_items[split, 4] - (ends - runs)[owner][split]
    return cut_items, merges
