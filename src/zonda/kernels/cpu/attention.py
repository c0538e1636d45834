"""Attention over pages. A page holds 32 positions of one key/value head: keys transposed (dim, 32), values (32, dim).

Every query sees its pages in ascending order; each run of eight pages has a softmax of its own, and runs are merged in
order. A work item takes all runs of some rows; or one run of one row, so that a long context is cut
over threads, and another kernel merges them. The operations are the same whichever way, and whether a query comes
alone or in a block of queries; so its result does not depend on the batch.
"""
from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import njit

from zonda.kernels.cpu.attention_tiles import (
    LOWEST,
    PEAK,
    SEEN_FROM,
    SEEN_TO,
    SUM,
    finish,
    merge,
    mix,
    scores,
    soften,
)
from zonda.kernels.cpu.frame import (
    ARGUMENTS,
    ITEM,
    LINE,
    MERGE,
    PAGE,
    PAGES,
    PAGES_STRIDE,
    POSITIONS,
    RUN,
    SCRATCH,
    SCRATCH_BYTES,
    SPAN,
    STATE,
)
from zonda.kernels.cpu.scalar import tanh
from zonda.kernels.cpu.words import (
    bits_f32,
    inline,
    load4,
    load7,
    load_f32,
    load_i32,
    load_i64,
    prefetch,
    store_f32,
    store_i32,
)

f32 = np.float32
ITEM_WORDS, MERGE_WORDS = 5, 3
"""int32 words of a work item: first row, rows, sequence, and the run of pages that it is for, or -1 for all, with the
slot that it goes to; and of a merge: row, first slot, runs."""


@njit(error_model="numpy")
def cap(scores: int, count: int, limit: float) -> None:
    """So many scores, held within ±limit."""
    for i in range(count):
        store_f32(scores, i, limit * tanh(load_f32(scores, i) / limit))


@njit(error_model="numpy")
def page_of(frame: int, sequence: int, index: int) -> int:
    """The number of a sequence's page."""
    return np.int64(load_i32(load_i64(frame, PAGES), sequence * load_i64(frame, PAGES_STRIDE) + index))


def _for_count(writer: Callable[[int], Callable[..., None]], words: int, most: int) -> Callable[..., None]:
    """call(count, words): what is written for so many queries, 1 to 4 or `most`."""
    one, two, three, four, many = (inline(writer(n), words) for n in (1, 2, 3, 4, most))

    @njit(error_model="numpy")
    def call(count: int, arguments: tuple[int, ...]) -> None:
        if count == most:
            many(arguments)
        elif count == 4:
            four(arguments)
        elif count == 3:
            three(arguments)
        elif count == 2:
            two(arguments)
        else:
            one(arguments)

    return call


def attend(half: bool, most: int) -> object:
    """The kernel of one work item and one key/value head, which takes up to `most` queries at a time.

    Arguments: q, q heads, kv heads, dim, padded dim, window, softcap bits, keys, values, out, sinks, rows an item at
    most, where runs are kept until they are merged.
    """
    size = 2 if half else 4
    score, blend = _for_count(lambda n: scores(half, n), 5, most), _for_count(lambda n: mix(half, n), 5, most)
    soften_one = inline(soften, 3)

    @njit(error_model="numpy")
    def taken(left: int) -> int:
        return most if left >= most else min(4, left)

    @njit(error_model="numpy")
    def look(op: int, frame: int, item: int, head: int, first: int, last: int, loaded: int, mixed: int, weights: int,
             states: int) -> None:
        """Take the pages first … last into account for all queries of an item."""
        _, heads, kv_heads, dim, padded, window, cap_bits = load7(op, ARGUMENTS)
        keys, values = load_i64(op, ARGUMENTS + 7), load_i64(op, ARGUMENTS + 8)
        row, count, sequence = np.int64(load_i32(item, 0)), np.int64(load_i32(item, 1)), np.int64(load_i32(item, 2))
        position = np.int64(load_i32(load_i64(frame, POSITIONS), row))
        group = heads // kv_heads
        limit = bits_f32(np.int32(cap_bits))
        page_bytes = padded * PAGE * size
        pages, queries = max(0, last - first + 1), count * group
        for page in range(pages):
            place = keys + (page_of(frame, sequence, first + page) * kv_heads + head) * page_bytes
            if count == 1 and page + 1 < pages:
                fetch(keys + (page_of(frame, sequence, first + page + 1) * kv_heads + head) * page_bytes, page_bytes)
            i = 0
            while i < queries:
                together = taken(queries - i)
                score(together, (loaded + i * padded * 4, padded, place, dim, weights + (i * SPAN + page * PAGE) * 4))
                i += together
        for i in range(queries):
            until = position + i // group - first * PAGE + 1
            store_i32(states + STATE * i + SEEN_FROM, 0, np.int32(max(0, until - window) if window else 0))
            store_i32(states + STATE * i + SEEN_TO, 0, np.int32(until))
            if limit > f32(0):
                for page in range(pages):
                    cap(weights + (i * SPAN + page * PAGE) * 4, PAGE, limit)
            soften_one((weights + i * SPAN * 4, states + STATE * i, pages))
        for page in range(pages):
            used = min(PAGE, position + count - (first + page) * PAGE)
            place = values + (page_of(frame, sequence, first + page) * kv_heads + head) * page_bytes
            if count == 1 and page + 1 < pages:
                fetch(values + (page_of(frame, sequence, first + page + 1) * kv_heads + head) * page_bytes, page_bytes)
            i = 0
            while i < queries:
                together = taken(queries - i)
                blend(together, (weights + (i * SPAN + page * PAGE) * 4, place, padded, mixed + i * padded * 4, used))
                i += together

    def attend_item(op: int, frame: int, piece: int, thread: int) -> None:
        q, heads, kv_heads, dim, padded, window, _ = load7(op, ARGUMENTS)
        out, sinks, rows, parts = load4(op, ARGUMENTS + 9)
        item, head = load_i64(frame, ITEM) + piece // kv_heads * ITEM_WORDS * 4, piece % kv_heads
        row, count, only = np.int64(load_i32(item, 0)), np.int64(load_i32(item, 1)), np.int64(load_i32(item, 3))
        position = np.int64(load_i32(load_i64(frame, POSITIONS), row))
        group = heads // kv_heads
        queries = count * group
        loaded = load_i64(frame, SCRATCH) + thread * load_i64(frame, SCRATCH_BYTES)
        mixed = loaded + rows * group * padded * 4
        total = mixed + rows * group * padded * 4
        weights = total + rows * group * padded * 4
        states = weights + rows * group * SPAN * 4
        wholes = states + rows * group * STATE
        for i in range(queries):
            source = ((row + i // group) * heads + head * group + i % group) * padded
            for d in range(padded):
                store_f32(loaded, i * padded + d, load_f32(q, source + d))
        start = max(0, position - window + 1) // PAGE if window else 0
        last = (position + count - 1) // PAGE
        if only >= 0:
            mixed, states = part_of(parts, np.int64(load_i32(item, 4)), head, heads, group, padded)
            clear(group, mixed, states, padded)
            look(op, frame, item, head, max(start, only * RUN), min(last, only * RUN + RUN - 1), loaded, mixed, weights,
                 states)
            return
        clear(queries, total, wholes, padded)
        for run in range(start // RUN, last // RUN + 1):
            clear(queries, mixed, states, padded)
            look(op, frame, item, head, max(start, run * RUN), min(last, run * RUN + RUN - 1), loaded, mixed, weights,
                 states)
            for i in range(queries):
                merge_run((states + STATE * i, mixed + i * padded * 4, wholes + STATE * i, total + i * padded * 4,
                           padded))
        for i in range(queries):
            finish_row((wholes + STATE * i, total + i * padded * 4, padded, sinks + (head * group + i % group) * 4))
        put(queries, group, total, padded, out, row * heads + head * group, heads, dim)

    return attend_item


merge_run, finish_row = inline(merge, 5), inline(finish, 4)
"""Not for functions that Numba keeps: it would keep what is written for the first target."""


@njit(error_model="numpy")
def fetch(place: int, size: int) -> None:
    """Ask for memory ahead of time."""
    for line in range(place, place + size, LINE):
        prefetch(line)


@njit(error_model="numpy")
def clear(queries: int, mixed: int, states: int, padded: int) -> None:
    """Nothing is seen yet."""
    for i in range(queries):
        for d in range(padded):
            store_f32(mixed, i * padded + d, f32(0))
        store_f32(states + STATE * i + PEAK, 0, f32(LOWEST))
        store_f32(states + STATE * i + SUM, 0, f32(0))


@njit(error_model="numpy")
def part_of(parts: int, slot: int, head: int, heads: int, group: int, padded: int) -> tuple[int, int]:
    """Where a run's mix of one key/value head is kept until it is merged, and its states."""
    part = parts + (slot * heads + head * group) * (padded * 4 + STATE)
    return part, part + group * padded * 4


@njit(error_model="numpy")
def put(queries: int, group: int, total: int, padded: int, out: int, first: int, heads: int, dim: int) -> None:
    """Write the results of queries, `group` a row, from head `first` of all rows' on."""
    for i in range(queries):
        target = (first + i // group * heads + i % group) * dim
        for d in range(dim):
            store_f32(out, target + d, load_f32(total, i * padded + d))


def merge_row(op: int, frame: int, piece: int, thread: int) -> None:
    """Merge one row's runs, for one key/value head. Arguments: q heads, kv heads, dim, padded dim, parts, out,
    sinks."""
    heads, kv_heads, dim, padded, parts, out, sinks = load7(op, ARGUMENTS)
    item, head = load_i64(frame, MERGE) + piece // kv_heads * MERGE_WORDS * 4, piece % kv_heads
    group = heads // kv_heads
    total = load_i64(frame, SCRATCH) + thread * load_i64(frame, SCRATCH_BYTES)
    wholes = total + group * padded * 4
    clear(group, total, wholes, padded)
    first = np.int64(load_i32(item, 1))
    for slot in range(first, first + np.int64(load_i32(item, 2))):
        mixed, states = part_of(parts, slot, head, heads, group, padded)
        for i in range(group):
            merge_run((states + STATE * i, mixed + i * padded * 4, wholes + STATE * i, total + i * padded * 4, padded))
    for i in range(group):
        finish_row((wholes + STATE * i, total + i * padded * 4, padded, sinks + (head * group + i) * 4))
    put(group, group, total, padded, out, np.int64(load_i32(item, 0)) * heads + head * group, heads, dim)
