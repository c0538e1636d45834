"""Attention of rows that may be rounded: keys, queries, values and weights are multiplied as bfloat16.

As in `attention.py`, each run of eight pages has a softmax of its own, and runs are merged in order. A work item turns
each run's pages into panels (see `bfloats.py`) once, for all blocks of its queries.
"""
from __future__ import annotations

import numpy as np
from numba import njit

from zonda.kernels.cpu import bfloats
from zonda.kernels.cpu.attention import ITEM_WORDS, cap, merge_run, page_of, put
from zonda.kernels.cpu.bfloats import BLOCK, PANEL, STEP, TILE
from zonda.kernels.cpu.frame import (
    ARGUMENTS,
    FAST_ITEM,
    LINE,
    PAGE,
    POSITIONS,
    RUN,
    SCRATCH,
    SCRATCH_BYTES,
    SPAN,
    STATE,
)
from zonda.kernels.cpu.words import bits_f32, inline, load3, load7, load_i32, load_i64, store_i32

f32 = np.float32
_VALUES = RUN * TILE
"""Bytes of a panel of a run's values."""
narrow, pair, soften = inline(bfloats.narrow, 3), inline(bfloats.pair, 5), inline(bfloats.soften, 5)


@njit(error_model="numpy")
def place_of(base: int, frame: int, sequence: int, page: int, kv_heads: int, head: int, padded: int) -> int:
    """Where a head's keys or values of a page are."""
    return base + (page_of(frame, sequence, page) * kv_heads + head) * padded * PAGE * 2


@njit(error_model="numpy")
def wide(padded: int) -> int:
    """The numbers of a head, filled up to whole steps."""
    return -(-padded // STEP) * STEP


@njit(error_model="numpy")
def wipe(start: int, words: int) -> None:
    """So many int32 become 0."""
    for i in range(words):
        store_i32(start, i, np.int32(0))


@njit(error_model="numpy")
def forget(values: int, used: int, padded: int) -> None:
    """Positions of a page from `used` on become 0: memory that is not in use may hold what is no number."""
    for panel in range(padded // PANEL):
        place = values + panel * _VALUES
        if used % 2:
            for i in range(used // 2 * PANEL, (used // 2 + 1) * PANEL):
                store_i32(place, i, load_i32(place, i) & np.int32(0xFFFF))
        whole = (used + 1) // 2
        wipe(place + whole * 4 * PANEL, (PAGE // 2 - whole) * PANEL)


@njit(error_model="numpy")
def gather(op: int, frame: int, item: int, head: int, first: int, pages: int, keys: int) -> None:
    """Put a run's pages into panels: its keys, and its values behind them."""
    _, _, kv_heads, _, padded, _, _ = load7(op, ARGUMENTS)
    row, count, sequence = np.int64(load_i32(item, 0)), np.int64(load_i32(item, 1)), np.int64(load_i32(item, 2))
    length = np.int64(load_i32(load_i64(frame, POSITIONS), row)) + count
    panel = wide(padded) // STEP * TILE
    values = keys + SPAN // PANEL * panel
    for page in range(pages):
        source = place_of(load_i64(op, ARGUMENTS + 7), frame, sequence, first + page, kv_heads, head, padded)
        pair((source, PAGE, padded // 2, keys + page * (PAGE // PANEL) * panel, panel))
        source = place_of(load_i64(op, ARGUMENTS + 8), frame, sequence, first + page, kv_heads, head, padded)
        pair((source, padded, PAGE // 2, values + page * TILE, _VALUES))
        used = length - (first + page) * PAGE
        if used < PAGE:
            forget(values + page * TILE, used, padded)


def attend(matrices: bool) -> object:
    """The kernel of one work item and one key/value head, by AMX if `matrices`.

    Arguments: those of `attention.attend`, up to the most rows of an item.
    """
    begin, end = inline(bfloats.begin(matrices), 1), inline(bfloats.end(matrices), 1)
    product = inline(bfloats.product(matrices), 8)

    @njit(error_model="numpy")
    def look(op: int, loaded: int, keys: int, scores: int, states: int, mixed: int, queries: int, position: int,
             place: int, pages: int) -> None:
        """One block: mix the values of a run of pages. `position`: the first row's within the run; `place`: the first
        query's in the item."""
        _, heads, kv_heads, _, padded, window, cap_bits = load7(op, ARGUMENTS)
        group, steps, limit = heads // kv_heads, wide(padded) // STEP, bits_f32(np.int32(cap_bits))
        values = keys + SPAN * steps * STEP * 2
        product((loaded, steps * STEP * 2, keys, steps * TILE, steps, scores, SPAN * 4, pages * (PAGE // PANEL)))
        for i in range(queries):
            if limit > f32(0):
                cap(scores + i * SPAN * 4, pages * PAGE, limit)
            until = position + (place + i) // group + 1
            since = max(0, until - window) if window else 0
            soften((scores + i * SPAN * 4, states + STATE * i, pages, min(since, pages * PAGE), max(0, until)))
        product((scores, SPAN * 4, values, _VALUES, pages, mixed, padded * 4, padded // PANEL))

    def attend_item(op: int, frame: int, piece: int, thread: int) -> None:
        q, heads, kv_heads, dim, padded, window, _ = load7(op, ARGUMENTS)
        out, sinks, rows = load3(op, ARGUMENTS + 9)
        item, head = load_i64(frame, FAST_ITEM) + piece // kv_heads * ITEM_WORDS * 4, piece % kv_heads
        row, count = np.int64(load_i32(item, 0)), np.int64(load_i32(item, 1))
        position = np.int64(load_i32(load_i64(frame, POSITIONS), row))
        group, width = heads // kv_heads, wide(padded)
        queries, most = count * group, -(-rows * group // BLOCK) * BLOCK
        loaded = -(-(load_i64(frame, SCRATCH) + thread * load_i64(frame, SCRATCH_BYTES)) // LINE) * LINE
        total = loaded + most * width * 2
        keys = total + most * padded * 4
        scores = keys + SPAN * (width + padded) * 2
        mixed = scores + BLOCK * SPAN * 4
        states = mixed + BLOCK * padded * 4
        wholes = states + BLOCK * STATE
        for i in range(queries):
            source = (row + i // group) * heads + head * group + i % group
            narrow((q + source * padded * 4, padded, loaded + i * width * 2))
        wipe(loaded + queries * width * 2, -queries % BLOCK * width // 2)
        for panel in range(SPAN // PANEL if width > padded else 0):
            wipe(keys + panel * width * PANEL * 2 + padded * PANEL * 2, (width - padded) * PANEL // 2)
        start = max(0, position - window + 1) // PAGE if window else 0
        last = (position + count - 1) // PAGE
        begin((op,))
        for run in range(start // RUN, last // RUN + 1):
            first = max(start, run * RUN)
            pages = min(last, run * RUN + RUN - 1) - first + 1
            gather(op, frame, item, head, first, pages, keys)
            for i in range(0, queries, BLOCK):
                together = min(BLOCK, queries - i)
                here = position - first * PAGE
                seen = min(pages, (here + (i + together - 1) // group) // PAGE + 1)
                state, sums = wholes + STATE * i, total + i * padded * 4
                if run == start // RUN:
                    look(op, loaded + i * width * 2, keys, scores, state, sums, together, here, i, seen)
                elif here + (i + together - 1) // group >= 0:
                    look(op, loaded + i * width * 2, keys, scores, states, mixed, together, here, i, seen)
                    for k in range(together):
                        merge_run((states + STATE * k, mixed + k * padded * 4, state + STATE * k, sums + k * padded * 4,
                                   padded))
        end((op,))
        put(queries, group, total, wholes, padded, out, row * heads + head * group, heads, dim,
            sinks + head * group * 4)

    return attend_item
