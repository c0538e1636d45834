"""Attention of rows that may be rounded, in panels of float32 or of pairs of bfloat16.

As in `attention.py`, each run of eight pages has a softmax of its own, and runs are merged in order. A work item turns
each run's pages into panels (see `panels.py`) once, for all blocks of its queries.
"""
from __future__ import annotations

import numpy as np
from numba import njit

from zonda.kernels.cpu import panels
from zonda.kernels.cpu.attention import ITEM_WORDS, cap, page_of, part_of
from zonda.kernels.cpu.attention_tiles import PEAK, SUM
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
from zonda.kernels.cpu.panels import PANEL, ROW, STATES, Form
from zonda.kernels.cpu.words import (
    bits_f32,
    inline,
    load7,
    load_f32,
    load_i32,
    load_i64,
    store_f32,
    store_i32,
)

f32 = np.float32


@njit(error_model="numpy")
def wipe(start: int, words: int) -> None:
    """So many int32 become 0."""
    for i in range(words):
        store_i32(start, i, np.int32(0))


@njit(error_model="numpy")
def copy(source: int, words: int, target: int) -> None:
    """Copy so many int32."""
    for i in range(words):
        store_i32(target, i, load_i32(source, i))


def attend(form: Form) -> object:
    """The kernel of one work item and one key/value head.

    Arguments: those of `attention.attend`.
    """
    begin, end = inline(panels.begin(form), 1), inline(panels.end(form), 1)
    take, fill = inline(panels.take(form), 3), inline(panels.fill(form), 5)
    product, soften = inline(panels.product(form), 8), inline(panels.soften(form), 9)
    merge, finish, give = inline(panels.merge, 6), inline(panels.finish, 2), inline(panels.give, 4)
    block, numbers, step, size = form.block, form.numbers, form.step, 2 if form.half else 4
    page_rows, run_bytes = PAGE // numbers, SPAN // numbers * ROW

    @njit(error_model="numpy")
    def width(padded: int) -> int:
        """Words of a query."""
        return -(-padded // (numbers * step)) * step

    @njit(error_model="numpy")
    def forget(values: int, used: int, padded: int) -> None:
        """Positions of a page from `used` on become 0: memory that is not in use may hold what is no number."""
        for panel in range(padded // PANEL):
            place = values + panel * run_bytes
            if used % numbers:
                for i in range(used // numbers * PANEL, (used // numbers + 1) * PANEL):
                    store_i32(place, i, load_i32(place, i) & np.int32(0xFFFF))
            whole = -(-used // numbers)
            wipe(place + whole * ROW, (page_rows - whole) * PANEL)

    @njit(error_model="numpy")
    def gather(op: int, frame: int, item: int, head: int, first: int, pages: int, keys: int) -> None:
        """Put a run's pages into panels: its keys, and its values behind them."""
        _, _, kv_heads, _, padded, _, _ = load7(op, ARGUMENTS)
        row, count, sequence = np.int64(load_i32(item, 0)), np.int64(load_i32(item, 1)), np.int64(load_i32(item, 2))
        length = np.int64(load_i32(load_i64(frame, POSITIONS), row)) + count
        panel = width(padded) * ROW
        values = keys + SPAN // PANEL * panel
        for page in range(pages):
            place = (page_of(frame, sequence, first + page) * kv_heads + head) * padded * PAGE * size
            fill((load_i64(op, ARGUMENTS + 7) + place, PAGE, padded // numbers, keys + page * (PAGE // PANEL) * panel,
                  panel))
            here = values + page * page_rows * ROW
            fill((load_i64(op, ARGUMENTS + 8) + place, padded, page_rows, here, run_bytes))
            used = length - (first + page) * PAGE
            if used < PAGE:
                forget(here, used, padded)

    @njit(error_model="numpy")
    def look(op: int, loaded: int, keys: int, scores: int, state: int, mixed: int, queries: int, position: int,
             place: int, pages: int) -> None:
        """One block: mix the values of a run of pages. `position`: the first row's within the run; `place`: the first
        query's in the item."""
        _, heads, kv_heads, _, padded, window, cap_bits = load7(op, ARGUMENTS)
        words, limit = width(padded), bits_f32(np.int32(cap_bits))
        values = keys + SPAN * words * 4
        product((loaded, words * 4, keys, words * ROW, words // step, scores, SPAN * 4, pages * (PAGE // PANEL)))
        for i in range(queries if limit > f32(0) else 0):
            cap(scores + i * SPAN * 4, pages * PAGE, limit)
        soften((scores, state, pages, position, place, heads // kv_heads, window, queries, mixed))
        product((scores, SPAN * 4, values, run_bytes, pages * (page_rows // step), mixed, padded * 4, padded // PANEL))

    @njit(error_model="numpy")
    def part(op: int, item: int, head: int, state: int, totals: int) -> None:
        """Keep one row's results until its runs are merged."""
        _, heads, kv_heads, _, padded, _, _ = load7(op, ARGUMENTS)
        group = heads // kv_heads
        mixed, states = part_of(load_i64(op, ARGUMENTS + 12), np.int64(load_i32(item, 4)), head, heads, group, padded)
        copy(totals, group * padded, mixed)
        for i in range(group):
            whole = state + i // block * STATES + i % block * 4
            store_f32(states + STATE * i + PEAK, 0, load_f32(whole, 0))
            store_f32(states + STATE * i + SUM, 0, load_f32(whole + ROW, 0))

    @njit(error_model="numpy")
    def put(op: int, row: int, head: int, queries: int, place: int, state: int, total: int, room: int) -> None:
        """Write the results of a block of an item, whose first row is `row`."""
        _, heads, kv_heads, dim, padded, _, _ = load7(op, ARGUMENTS)
        out, sinks, group = load_i64(op, ARGUMENTS + 9), load_i64(op, ARGUMENTS + 10), heads // kv_heads
        for i in range(queries):
            store_f32(room, i, load_f32(sinks, head * group + (place + i) % group))
        finish((state, room))
        for i in range(queries):
            target = (row + (place + i) // group) * heads + head * group + (place + i) % group
            give((total + i * padded * 4, room + 4 * i, dim, out + target * dim * 4))

    def attend_item(op: int, frame: int, piece: int, thread: int) -> None:
        q, heads, kv_heads, _, padded, window, _ = load7(op, ARGUMENTS)
        rows = load_i64(op, ARGUMENTS + 11)
        item, head = load_i64(frame, FAST_ITEM) + piece // kv_heads * ITEM_WORDS * 4, piece % kv_heads
        row, count, only = np.int64(load_i32(item, 0)), np.int64(load_i32(item, 1)), np.int64(load_i32(item, 3))
        position = np.int64(load_i32(load_i64(frame, POSITIONS), row))
        group, words = heads // kv_heads, width(padded)
        queries, most = count * group, -(-rows * group // block) * block
        loaded = -(-(load_i64(frame, SCRATCH) + thread * load_i64(frame, SCRATCH_BYTES)) // LINE) * LINE
        total = loaded + most * words * 4
        keys = total + most * padded * 4
        scores = keys + SPAN * words * 4 + padded // PANEL * run_bytes
        mixed = scores + block * SPAN * 4
        state = mixed + block * padded * 4
        wholes = state + STATES
        for i in range(queries):
            source = (row + i // group) * heads + head * group + i % group
            take((q + source * padded * 4, padded, loaded + i * words * 4))
        wipe(loaded + queries * words * 4, -queries % block * words)
        filled = padded // numbers
        for panel in range(SPAN // PANEL if words > filled else 0):
            wipe(keys + (panel * words + filled) * ROW, (words - filled) * PANEL)
        start = max(0, position - window + 1) // PAGE if window else 0
        last = (position + count - 1) // PAGE
        since, until = (only, only + 1) if only >= 0 else (start // RUN, last // RUN + 1)
        begin((op,))
        for run in range(since, until):
            first = max(start, run * RUN)
            pages = max(0, min(last, run * RUN + RUN - 1) - first + 1)
            gather(op, frame, item, head, first, pages, keys)
            for i in range(0, queries, block):
                together = min(block, queries - i)
                here = position - first * PAGE
                seen = min(pages, (here + (i + together - 1) // group) // PAGE + 1)
                whole, sums = wholes + i // block * STATES, total + i * padded * 4
                if run == since:
                    look(op, loaded + i * words * 4, keys, scores, whole, sums, together, here, i, seen)
                elif here + (i + together - 1) // group >= 0:
                    look(op, loaded + i * words * 4, keys, scores, state, mixed, together, here, i, seen)
                    merge((state, mixed, whole, sums, padded, together))
        end((op,))
        if only >= 0:
            part(op, item, head, wholes, total)
            return
        for i in range(0, queries, block):
            put(op, row, head, min(block, queries - i), i, wholes + i // block * STATES, total + i * padded * 4, state)

    return attend_item
