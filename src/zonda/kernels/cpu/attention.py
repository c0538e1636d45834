"""Attention over pages. A page holds 32 positions of one key/value head: keys transposed (dim, 32), values (32, dim).

Every query sees its pages in ascending order, one online-softmax step a page, with the same operations whether it
comes alone or in a block of queries; so its result does not depend on the batch.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit

from zonda.kernels.cpu.activations import inverse_rms
from zonda.kernels.cpu.frame import (
    ARGUMENTS,
    ITEM,
    LINE,
    PAGE,
    PAGES,
    PAGES_STRIDE,
    POSITIONS,
    SCRATCH,
    SCRATCH_BYTES,
    SEQ_OF,
)
from zonda.kernels.cpu.library import Target
from zonda.kernels.cpu.scalar import exp, tanh
from zonda.kernels.cpu.vector import F16, F32, Emit, largest
from zonda.kernels.cpu.words import (
    bits_f32,
    inline,
    load4,
    load7,
    load8,
    load_f32,
    load_i32,
    load_i64,
    prefetch,
    store_f16,
    store_f32,
)

f32 = np.float32
_LOWEST = f32(-1e30)
WORDS = 4
"""int32 words of a work item: first row, rows, sequence, unused."""


def _cache_vector(e: Emit, half: bool, address: Any, offset: int) -> Any:
    floats = ir.VectorType(F32, e.registers.lanes)
    if not half:
        return e.load(floats, address, offset)
    return e.b.fpext(e.load(ir.VectorType(F16, e.registers.lanes), address, offset), floats)


def _scores(half: bool, queries: int) -> Callable[..., None]:
    """Writer of scores(q, stride, keys, dim, out): out float32 (queries, 32) = q · keys."""
    def write(builder: ir.IRBuilder, target: Target, q: Any, stride: Any, keys: Any, dim: Any, out: Any) -> None:
        e = Emit(builder, target)
        lanes, size = e.registers.lanes, 2 if half else 4
        vectors = max(1, min(PAGE // lanes, (12 if e.registers.count == 16 else 16) // queries))
        while PAGE // lanes % vectors:
            vectors -= 1
        with e.loop(e.word(PAGE // lanes // vectors)) as p:
            first = e.times(p, vectors * lanes)
            zero = e.const(ir.VectorType(F32, lanes), 0.0)
            totals = [[e.variable(zero) for _ in range(vectors)] for _ in range(queries)]
            with e.loop(dim) as d:
                row = e.at(e.at(keys, e.times(d, PAGE * size)), e.times(first, size))
                key = [_cache_vector(e, half, row, v * lanes * size) for v in range(vectors)]
                for i in range(queries):
                    x = e.splat(e.load(F32, e.at(e.at(q, e.times(stride, 4 * i)), e.times(d, 4))), lanes)
                    for v in range(vectors):
                        totals[i][v].set(e.fma(key[v], x, totals[i][v].get()))
            for i in range(queries):
                for v in range(vectors):
                    e.store(totals[i][v].get(), e.at(out, e.times(first, 4)), 4 * (i * PAGE + v * lanes))

    return write


def _mix(half: bool, queries: int) -> Callable[..., None]:
    """Writer of mix(weights, values, dim, out): out (queries, dim) += weights (queries, 32) · values."""
    def write(builder: ir.IRBuilder, target: Target, weights: Any, values: Any, dim: Any, out: Any) -> None:
        e = Emit(builder, target)
        lanes = e.registers.lanes
        narrow = 16 // lanes
        wide = narrow
        while 2 * wide * queries <= (12 if e.registers.count == 16 else 16) and 2 * wide * lanes <= 64:
            wide *= 2
        strips = e.b.sdiv(dim, e.word(wide * lanes))
        _mix_strips(e, half, queries, wide, strips, e.word(0), (weights, values, dim, out))
        done = e.times(strips, wide * lanes)
        rest = e.b.sdiv(e.b.sub(dim, done), e.word(narrow * lanes))
        _mix_strips(e, half, queries, narrow, rest, done, (weights, values, dim, out))

    return write


def _mix_strips(e: Emit, half: bool, queries: int, vectors: int, count: Any, start: Any,
                words: tuple[Any, ...]) -> None:
    """`count` strips of so many vectors of dimensions, from dimension `start` on."""
    weights, values, dim, out = words
    lanes, size = e.registers.lanes, 2 if half else 4
    floats = ir.VectorType(F32, lanes)
    with e.loop(count) as p:
        first = e.at(start, e.times(p, vectors * lanes))
        place = [e.at(e.at(out, e.times(first, 4)), e.times(dim, 4 * i)) for i in range(queries)]
        totals = [[e.variable(e.load(floats, row, 4 * v * lanes)) for v in range(vectors)] for row in place]
        with e.loop(e.word(PAGE)) as t:
            row = e.at(e.at(values, e.b.mul(e.times(dim, size), t)), e.times(first, size))
            value = [_cache_vector(e, half, row, v * lanes * size) for v in range(vectors)]
            for i in range(queries):
                w = e.splat(e.load(F32, e.at(weights, e.times(t, 4)), 4 * PAGE * i), lanes)
                for v in range(vectors):
                    totals[i][v].set(e.fma(value[v], w, totals[i][v].get()))
        for i in range(queries):
            for v in range(vectors):
                e.store(totals[i][v].get(), place[i], 4 * v * lanes)


def _top(builder: ir.IRBuilder, target: Target, scores: Any, out: Any) -> None:
    """out = the largest of 32 scores and of what stands there."""
    e = Emit(builder, target)
    lanes = e.registers.lanes
    values = [e.load(ir.VectorType(F32, lanes), scores, 4 * at) for at in range(0, PAGE, lanes)]
    peak, before = largest(e, values), e.load(F32, out)
    e.store(builder.select(builder.fcmp_unordered(">", peak, before), peak, before), out)


_raise_top = inline(_top, 2)


def angles(op: int, frame: int, piece: int, thread: int) -> None:
    """Cosines and sines of one row. Arguments: frequencies, count, factor bits, out (rows, 2, count)."""
    frequencies, count, factor, out = load4(op, ARGUMENTS)
    position = f32(load_i32(load_i64(frame, POSITIONS), piece))
    scale = bits_f32(np.int32(factor))
    for i in range(count):
        angle = position * load_f32(frequencies, i)
        store_f32(out, piece * 2 * count + i, f32(math.cos(angle)) * scale)
        store_f32(out, piece * 2 * count + count + i, f32(math.sin(angle)) * scale)


@njit(error_model="numpy")
def _rotated(head: int, dim: int, norm: int, eps: int, table: int, half: int, scale: float, out: int) -> None:
    """One head, normed (if `norm`), rotated (if `half`), times scale; `dim` padded by the caller's zeros."""
    factor = f32(1)
    if norm:
        factor = inverse_rms(head, dim, bits_f32(np.int32(eps)))
        for i in range(dim):
            store_f32(out, i, load_f32(head, i) * factor * load_f32(norm, i))
    else:
        for i in range(dim):
            store_f32(out, i, load_f32(head, i))
    for i in range(half):
        a, b = load_f32(out, i), load_f32(out, i + half)
        c, s = load_f32(table, i), load_f32(table, half + i)
        store_f32(out, i, a * c - b * s)
        store_f32(out, i + half, b * c + a * s)
    for i in range(dim):
        store_f32(out, i, load_f32(out, i) * scale)


def place(half: bool) -> object:
    """The kernel that norms and rotates one row, and puts its keys and values into their page.

    Arguments: qkv, row stride, q heads, kv heads, dim, padded dim, scale bits, angle table or 0, half of the rotary
    dim, q norm or 0, k norm or 0, q eps bits, k eps bits, keys, values, q out.
    """
    size = 2 if half else 4

    @njit(error_model="numpy")
    def store(base: int, index: int, value: float) -> None:
        if half:
            store_f16(base, index, value)
        else:
            store_f32(base, index, value)

    def place_row(op: int, frame: int, piece: int, thread: int) -> None:
        qkv, stride, heads, kv_heads, dim, padded, scale, table = load8(op, ARGUMENTS)
        rotary, q_norm, k_norm, q_eps, k_eps, keys, values, out = load8(op, ARGUMENTS + 8)
        row = qkv + piece * stride * 4
        here = table + piece * 2 * rotary * 4
        position = np.int64(load_i32(load_i64(frame, POSITIONS), piece))
        sequence = np.int64(load_i32(load_i64(frame, SEQ_OF), piece))
        stride_pages = load_i64(frame, PAGES_STRIDE)
        page = np.int64(load_i32(load_i64(frame, PAGES), sequence * stride_pages + position // PAGE))
        slot = position % PAGE
        factor = bits_f32(np.int32(scale))
        for h in range(heads):
            target = out + (piece * heads + h) * padded * 4
            _rotated(row + h * dim * 4, dim, q_norm, q_eps, here, rotary, factor, target)
        scratch = load_i64(frame, SCRATCH) + thread * load_i64(frame, SCRATCH_BYTES)
        for h in range(kv_heads):
            place_of = (page * kv_heads + h) * padded * PAGE * size
            _rotated(row + (heads + h) * dim * 4, dim, k_norm, k_eps, here, rotary, f32(1), scratch)
            value = row + (heads + kv_heads + h) * dim * 4
            for i in range(dim):
                store(keys + place_of, i * PAGE + slot, load_f32(scratch, i))
                store(values + place_of, slot * padded + i, load_f32(value, i))

    return place_row


@njit(error_model="numpy")
def _soften(scores: int, valid_from: int, valid_to: int, cap: float, state: int) -> float:
    """Turn a page's scores into weights; update (peak, sum) in `state`; return the factor for what was mixed before."""
    if cap > f32(0):
        for j in range(PAGE):
            store_f32(scores, j, cap * tanh(load_f32(scores, j) / cap))
    if valid_from > 0 or valid_to < PAGE:
        for j in range(PAGE):
            if j < valid_from or j >= valid_to:
                store_f32(scores, j, _LOWEST)
    before = load_f32(state, 0)
    _raise_top((scores, state))
    peak = load_f32(state, 0)
    total = f32(0)
    for j in range(PAGE):
        weight = exp(load_f32(scores, j) - peak)
        store_f32(scores, j, weight)
        total += weight
    factor = exp(before - peak)
    store_f32(state, 1, load_f32(state, 1) * factor + total)
    return factor


@njit(error_model="numpy")
def _scale(row: int, count: int, factor: float) -> None:
    for i in range(count):
        store_f32(row, i, load_f32(row, i) * factor)


def attend(half: bool) -> object:
    """The kernel of one work item and one key/value head.

    Arguments: q, q heads, kv heads, dim, padded dim, window, softcap bits, keys, values, out, rows an item at most.
    """
    size = 2 if half else 4
    score1, score2, score3, score4 = (inline(_scores(half, n), 5) for n in (1, 2, 3, 4))
    mix1, mix2, mix3, mix4 = (inline(_mix(half, n), 4) for n in (1, 2, 3, 4))

    @njit(error_model="numpy")
    def score(count: int, q: int, stride: int, keys: int, dim: int, out: int) -> None:
        if count == 4:
            score4((q, stride, keys, dim, out))
        elif count == 3:
            score3((q, stride, keys, dim, out))
        elif count == 2:
            score2((q, stride, keys, dim, out))
        else:
            score1((q, stride, keys, dim, out))

    @njit(error_model="numpy")
    def mix(count: int, weights: int, values: int, dim: int, out: int) -> None:
        if count == 4:
            mix4((weights, values, dim, out))
        elif count == 3:
            mix3((weights, values, dim, out))
        elif count == 2:
            mix2((weights, values, dim, out))
        else:
            mix1((weights, values, dim, out))

    @njit(error_model="numpy")
    def page_of(frame: int, sequence: int, index: int) -> int:
        return np.int64(load_i32(load_i64(frame, PAGES), sequence * load_i64(frame, PAGES_STRIDE) + index))

    @njit(error_model="numpy")
    def weigh(scores: int, query: int, group: int, position: int, page: int, window: int, cap: float, state: int,
              mixed: int, padded: int) -> None:
        first = position + query // group - page * PAGE
        oldest = first - window + 1 if window else 0
        if first < 0 or oldest >= PAGE:
            for j in range(PAGE):
                store_f32(scores, j, f32(0))
            return
        factor = _soften(scores, max(0, oldest), min(PAGE, first + 1), cap, state + 8 * query)
        if factor != f32(1):
            _scale(mixed + query * padded * 4, padded, factor)

    def attend_item(op: int, frame: int, piece: int, thread: int) -> None:
        q, heads, kv_heads, dim, padded, window, cap_bits = load7(op, ARGUMENTS)
        keys, values, out, most = load4(op, ARGUMENTS + 7)
        item, head = load_i64(frame, ITEM) + piece // kv_heads * WORDS * 4, piece % kv_heads
        row, count, sequence = np.int64(load_i32(item, 0)), np.int64(load_i32(item, 1)), np.int64(load_i32(item, 2))
        position = np.int64(load_i32(load_i64(frame, POSITIONS), row))
        group = heads // kv_heads
        cap = bits_f32(np.int32(cap_bits))
        queries = count * group
        scratch = load_i64(frame, SCRATCH) + thread * load_i64(frame, SCRATCH_BYTES)
        loaded = scratch
        mixed = loaded + most * group * padded * 4
        scores = mixed + most * group * padded * 4
        state = scores + most * group * PAGE * 4
        for i in range(queries):
            source = ((row + i // group) * heads + head * group + i % group) * padded
            for d in range(padded):
                store_f32(loaded, i * padded + d, load_f32(q, source + d))
                store_f32(mixed, i * padded + d, f32(0))
            store_f32(state, 2 * i, _LOWEST)
            store_f32(state, 2 * i + 1, f32(0))
        start = max(0, position - window + 1) // PAGE if window else 0
        page_bytes = padded * PAGE * size
        last = (position + count - 1) // PAGE
        for page in range(start, last + 1):
            place = (page_of(frame, sequence, page) * kv_heads + head) * page_bytes
            if count == 1:
                following = (page_of(frame, sequence, min(page + 1, last)) * kv_heads + head) * page_bytes
                for line in range(following, following + page_bytes, LINE):
                    prefetch(keys + line)
                    prefetch(values + line)
            first = 0
            while first < queries:
                width = min(4, queries - first)
                here = scores + first * PAGE * 4
                score(width, loaded + first * padded * 4, padded, keys + place, dim, here)
                for i in range(first, first + width):
                    weigh(scores + i * PAGE * 4, i, group, position, page, window, cap, state, mixed, padded)
                mix(width, here, values + place, padded, mixed + first * padded * 4)
                first += width
        for i in range(queries):
            inverse = f32(1) / load_f32(state, 2 * i + 1)
            target = ((row + i // group) * heads + head * group + i % group) * dim
            for d in range(dim):
                store_f32(out, target + d, load_f32(mixed, i * padded + d) * inverse)

    return attend_item
