"""From a row of queries, keys and values to what attention reads: norms, rotation, and each key's and value's page."""
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
    LINE,
    PAGE,
    PAGES,
    PAGES_STRIDE,
    POSITIONS,
    ROWS,
    SCRATCH,
    SCRATCH_BYTES,
    SEQ_OF,
    STRIP,
)
from zonda.kernels.cpu.library import Target
from zonda.kernels.cpu.vector import F32, I16, I32, Emit
from zonda.kernels.cpu.words import (
    bits_f32,
    claim,
    f32_bits,
    inline,
    load4,
    load8,
    load_f32,
    load_i32,
    load_i64,
    store_f16,
    store_f32,
)

f32 = np.float32
_WHOLE = 16
"""Numbers that a vector has at most; what is no multiple of it goes number by number."""


def angles(op: int, frame: int, piece: int, thread: int) -> None:
    """Cosines and sines of one row. Arguments: frequencies, count, factor bits, out (rows, 2, count)."""
    frequencies, count, factor, out = load4(op, ARGUMENTS)
    position = f32(load_i32(load_i64(frame, POSITIONS), piece))
    scale = bits_f32(np.int32(factor))
    for i in range(count):
        angle = position * load_f32(frequencies, i)
        store_f32(out, piece * 2 * count + i, f32(math.cos(angle)) * scale)
        store_f32(out, piece * 2 * count + count + i, f32(math.sin(angle)) * scale)


def _turn(builder: ir.IRBuilder, target: Target, *words: Any) -> None:
    """Write turn(head, weight, factor, dim, table, half, out): head · factor · weight, pairs (i, i + half) rotated.

    `factor` holds float32 bits; `dim` and `half` are multiples of 16."""
    head, weight, factor, dim, table, half, out = words
    e, b = Emit(builder, target), builder
    lanes = e.registers.lanes
    floats = ir.VectorType(F32, lanes)
    factor = e.splat(b.bitcast(b.trunc(factor, I32), F32), lanes)

    def scaled(offset: Any) -> Any:
        return b.fmul(b.fmul(e.load(floats, e.at(head, offset)), factor), e.load(floats, e.at(weight, offset)))

    with e.loop(b.sdiv(half, e.word(lanes))) as i:
        low = e.times(i, 4 * lanes)
        high = e.at(low, e.times(half, 4))
        left, right = scaled(low), scaled(high)
        cos, sin = e.load(floats, e.at(table, low)), e.load(floats, e.at(table, high))
        e.store(b.fsub(b.fmul(left, cos), b.fmul(right, sin)), e.at(out, low))
        e.store(e.fma(right, cos, b.fmul(left, sin)), e.at(out, high))
    with e.loop(b.sdiv(b.sub(dim, e.times(half, 2)), e.word(lanes))) as i:
        place = e.at(e.times(half, 8), e.times(i, 4 * lanes))
        e.store(scaled(place), e.at(out, place))


def _keep(half: bool) -> Callable[..., None]:
    """Writer of keep(key, value, dim, keys, values): a slot's numbers, PAGE apart in keys and together in values.

    `dim` is a multiple of 16."""
    def write(builder: ir.IRBuilder, target: Target, key: Any, value: Any, dim: Any, keys: Any, values: Any) -> None:
        e, b, size = Emit(builder, target), builder, 2 if half else 4
        lanes = e.registers.lanes

        def stored(address: Any, offset: Any) -> Any:
            numbers = e.load(ir.VectorType(F32, lanes), e.at(address, e.times(offset, 4)))
            return e.to_half(numbers) if half else numbers

        with e.loop(b.sdiv(dim, e.word(lanes))) as i:
            first = e.times(i, lanes)
            e.store(stored(value, first), e.at(values, e.times(first, size)))
            numbers = stored(key, first)
            for k in range(lanes):
                number = b.extract_element(numbers, e.const(I32, k))
                e.store(b.bitcast(number, I16) if half else number, e.at(keys, e.times(first, PAGE * size)),
                        k * PAGE * size)

    return write


_turn_whole = inline(_turn, 7)


@njit(error_model="numpy")
def _rotated(head: int, weight: int, eps: int, dim: int, table: int, half: int, scale: float, out: int) -> None:
    """One head, normed (if `eps`), rotated (if `half`), times scale."""
    factor = scale
    if eps:
        factor *= inverse_rms(head, dim, bits_f32(np.int32(eps)))
    if dim % _WHOLE == 0 and half % _WHOLE == 0:
        _turn_whole((head, weight, np.int64(f32_bits(factor)), dim, table, half, out))
        return
    for i in range(dim):
        store_f32(out, i, load_f32(head, i) * factor * load_f32(weight, i))
    for i in range(half):
        a, b = load_f32(out, i), load_f32(out, i + half)
        c, s = load_f32(table, i), load_f32(table, half + i)
        store_f32(out, i, a * c - b * s)
        store_f32(out, i + half, b * c + a * s)


def place(half: bool) -> object:
    """The kernel that norms and rotates the rows of a strip, and puts their keys and values into their pages.

    Arguments: qkv, row stride, q heads, kv heads, dim, padded dim, scale bits, angle table or 0, half of the rotary
    dim, q norm, k norm (ones if none), q eps bits or 0, k eps bits or 0, keys, values, q out.
    """
    size = 2 if half else 4
    keep_whole = inline(_keep(half), 5)

    @njit(error_model="numpy")
    def store(base: int, index: int, value: float) -> None:
        if half:
            store_f16(base, index, value)
        else:
            store_f32(base, index, value)

    @njit(error_model="numpy")
    def keep(key: int, value: int, dim: int, keys: int, values: int) -> None:
        if dim % _WHOLE == 0:
            keep_whole((key, value, dim, keys, values))
            return
        for i in range(dim):
            store(keys, i * PAGE, load_f32(key, i))
            store(values, i, load_f32(value, i))

    @njit(error_model="numpy")
    def page_of(frame: int, row: int) -> int:
        position = np.int64(load_i32(load_i64(frame, POSITIONS), row))
        sequence = np.int64(load_i32(load_i64(frame, SEQ_OF), row))
        return np.int64(load_i32(load_i64(frame, PAGES), sequence * load_i64(frame, PAGES_STRIDE) + position // PAGE))

    @njit(error_model="numpy")
    def place_row(op: int, frame: int, row: int, page: int, scratch: int) -> None:
        qkv, stride, heads, kv_heads, dim, padded, scale, table = load8(op, ARGUMENTS)
        rotary, q_norm, k_norm, q_eps, k_eps, keys, values, out = load8(op, ARGUMENTS + 8)
        here, angles = qkv + row * stride * 4, table + row * 2 * rotary * 4
        slot = np.int64(load_i32(load_i64(frame, POSITIONS), row)) % PAGE
        factor = bits_f32(np.int32(scale))
        for h in range(heads):
            target = out + (row * heads + h) * padded * 4
            _rotated(here + h * dim * 4, q_norm, q_eps, dim, angles, rotary, factor, target)
        for h in range(kv_heads):
            head = (page * kv_heads + h) * padded * PAGE * size
            _rotated(here + (heads + h) * dim * 4, k_norm, k_eps, dim, angles, rotary, f32(1), scratch)
            keep(scratch, here + (heads + kv_heads + h) * dim * 4, dim, keys + head + slot * size,
                 values + head + slot * padded * size)

    def place_strip(op: int, frame: int, piece: int, thread: int) -> None:
        kv_heads, padded = load_i64(op, ARGUMENTS + 3), load_i64(op, ARGUMENTS + 5)
        keys, page_bytes = load_i64(op, ARGUMENTS + 13), kv_heads * padded * PAGE * size
        scratch = load_i64(frame, SCRATCH) + thread * load_i64(frame, SCRATCH_BYTES)
        before = np.int64(-1)
        for row in range(piece * STRIP, min(load_i64(frame, ROWS), (piece + 1) * STRIP)):
            page = page_of(frame, row)
            if page != before:  # each key writes to all lines of its head: ask for them together
                for line in range(keys + page * page_bytes, keys + (page + 1) * page_bytes, LINE):
                    claim(line)
            place_row(op, frame, row, page, scratch)
            before = page

    return place_strip
