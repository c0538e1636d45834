"""Rows of activations, normed, into the blocks that tiles multiply (see `tile.py`), and the elementwise kernels.

A block of T tokens and K columns:
    int8   codes   [K/4][T][4]       or, if exact, high and low codes [K/4][2][T][4]: code = 128 · high + low,
                                     or int16 codes [K/4][T][4] (see `Target.word_tokens`);
                                     for AMX [K/32][2][16][32]
    float  scales  [K/32][T]
    int32  sums    [K/32][T]     -offset · sum of codes
    float  sums    [K/32][T]     -scale · sum of codes
    int32  sums    [K/16][T]     the same two for groups of 16
    float  sums    [K/16][T]
A block for dense weights is float32 [K][T]. One for wide tiles has codes [K/64][T][64], int8, or
int16 with the columns of each four in the order 0, 2, 1, 3; then a float32 scale for each group and token, and after
them all int32 sums, -128 · sum of codes.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit

from zonda.kernels.cpu import wide as wide_tiles
from zonda.kernels.cpu.amx import TOKENS as AMX_TOKENS
from zonda.kernels.cpu.frame import ARGUMENTS, IDS, SAMPLE
from zonda.kernels.cpu.layout import ROWS as TILE_ROWS
from zonda.kernels.cpu.layout import UNIT
from zonda.kernels.cpu.library import Target
from zonda.kernels.cpu.vector import F32, I8, I16, I32, I64, Emit, largest
from zonda.kernels.cpu.words import (
    bits_f32,
    f32_bits,
    inline,
    load3,
    load4,
    load5,
    load8,
    load_f32,
    load_i32,
    load_i64,
    store_f32,
)

f32 = np.float32


FAST, PLANES, WORDS, PLANES_ROWS = range(4)
"""How a row's codes are written."""


def _quantize(form: int) -> Callable[..., None]:
    """Writer of one row x · factor · weight into its place in a block. `factor` holds float32 bits."""
    def write(builder: ir.IRBuilder, target: Target, *words: Any) -> None:
        _write_row(Emit(builder, target), form, *words)

    return write


def _write_row(e: Emit, form: int, x: Any, weight: Any, factor: Any, units: Any, tokens: Any, block: Any, token: Any,
               offset: Any) -> None:
    planes, most = (1, 127) if form == FAST else (2, 127 * 128)
    b, lanes = e.b, e.registers.lanes
    floats, words = ir.VectorType(F32, lanes), ir.VectorType(I32, lanes)
    factor = e.splat(b.bitcast(b.trunc(factor, I32), F32), lanes)
    offset = b.trunc(offset, I32)
    scales = e.at(block, b.mul(e.times(units, UNIT * planes), tokens))
    strip = b.mul(e.times(units, 4), tokens)
    at = e.times(token, 4)
    with e.loop(units) as u:
        values = []
        for v in range(UNIT // lanes):
            place = e.times(u, 4 * UNIT)
            value = b.fmul(e.load(floats, e.at(x, place), 4 * v * lanes), factor)
            values.append(b.fmul(value, e.load(floats, e.at(weight, place), 4 * v * lanes)))
        peak = _peak(e, values)
        zero = b.fcmp_ordered("==", peak, e.const(F32, 0.0))
        scale = b.fmul(peak, e.const(F32, 1 / most))
        inverse = b.select(zero, e.const(F32, 0.0), b.fdiv(e.const(F32, float(most)), peak))
        sums = []
        for v, value in enumerate(values):
            near = e.intrinsic(f"llvm.rint.v{lanes}f32", floats, [b.fmul(value, e.splat(inverse, lanes))])
            codes = b.fptosi(near, words)
            sums.append(e.intrinsic(f"llvm.vector.reduce.add.v{lanes}i32", I32, [codes]))
            for plane, packed in enumerate(_codes(e, codes, form)):
                size = packed.type.element.width // 8
                if form == PLANES_ROWS:
                    row = e.at(b.mul(e.at(e.times(u, planes), plane), tokens), token)
                    e.store(packed, e.at(block, e.times(row, UNIT)), v * lanes)
                    continue
                for k in range(lanes // 4):
                    step = e.at(e.times(u, planes * UNIT // 4), planes * (v * lanes // 4 + k) + plane)
                    place = e.at(e.at(block, e.times(token, size)), e.times(b.mul(step, tokens), 4))
                    e.store(b.extract_element(packed, e.const(I32, k)), place)
        halves = [reduce(b.add, sums[:len(sums) // 2]), reduce(b.add, sums[len(sums) // 2:])]
        here = e.at(e.at(scales, at), b.mul(e.times(u, 4), tokens))
        e.store(scale, here)
        _store_sums(e, b.add(*halves), scale, offset, e.at(here, strip), strip)
        fine = e.at(e.at(e.at(scales, at), e.times(strip, 3)), b.mul(e.times(u, 8), tokens))
        for k, half in enumerate(halves):
            _store_sums(e, half, scale, offset, e.at(fine, e.times(tokens, 4 * k)), e.times(strip, 2))


def _codes(e: Emit, codes: Any, form: int) -> list[Any]:
    """The codes of four columns as a word: one of int8, two of int8 (high, low), or one of int16."""
    b, lanes = e.b, e.registers.lanes
    words, narrow = ir.VectorType(I32, lanes // 4), ir.VectorType(I8, lanes)
    if form == WORDS:
        return [b.bitcast(b.trunc(codes, ir.VectorType(I16, lanes)), ir.VectorType(I64, lanes // 4))]
    if form == FAST:
        return [b.bitcast(b.trunc(codes, narrow), words)]
    seven = e.const(codes.type, 7)
    high = b.ashr(b.add(codes, e.const(codes.type, 64)), seven)
    return [b.bitcast(b.trunc(part, narrow), words) for part in (high, b.sub(codes, b.shl(high, seven)))]


def _peak(e: Emit, values: list[Any]) -> Any:
    """The largest absolute value, a float32; NaN if there is one in lane 0's way, which the result then shows."""
    return largest(e, [e.intrinsic(f"llvm.fabs.v{e.registers.lanes}f32", value.type, [value]) for value in values])


def _store_sums(e: Emit, total: Any, scale: Any, offset: Any, address: Any, strip: Any) -> None:
    e.store(e.b.mul(e.b.neg(total), offset), address)
    e.store(e.b.fneg(e.b.fmul(e.b.sitofp(total, F32), scale)), e.at(address, strip))


_quantize_bytes, _quantize_shorts = (inline(wide_tiles.quantize(size), 7) for size in (1, 2))
_quantize_fast, _quantize_planes, _quantize_words, _quantize_planes_rows = (
    inline(_quantize(form), 8) for form in (FAST, PLANES, WORDS, PLANES_ROWS))


@njit(error_model="numpy", fastmath={"reassoc", "contract"})
def inverse_rms(x: int, cols: int, eps: float) -> float:
    total = f32(0)
    for i in range(cols):
        total += load_f32(x, i) * load_f32(x, i)
    return f32(1) / f32(math.sqrt(total / f32(cols) + eps))


def pack(op: int, frame: int, piece: int, thread: int) -> None:
    """A block of rows for tiles. Arguments: x, row stride in floats, norm weights (ones if none), eps bits or 0,
    cols, domain, blocks, bytes a token, offset, whether dense, whether exact, the least tokens of a block in words or
    0, bytes of codes for wide tiles or 0."""
    x, stride, weight, eps = load4(op, ARGUMENTS)
    wide = load_i64(op, ARGUMENTS + 12)
    cols, domain, blocks, token_bytes, offset, dense, exact, least = load8(op, ARGUMENTS + 4)
    rows, tokens, _, first = load4(frame, domain)
    block = blocks + piece * tokens * token_bytes
    for token in range(tokens):
        row = first + min(piece * tokens + token, rows - 1)
        source = x + row * stride * 4
        factor = f32(1)
        if eps:
            factor = inverse_rms(source, cols, bits_f32(np.int32(eps)))
        words = source, weight, np.int64(f32_bits(factor)), cols // UNIT, tokens, block, token, offset
        if dense:
            for i in range(cols):
                store_f32(block, i * tokens + token, load_f32(source, i) * factor * load_f32(weight, i))
        elif wide:
            if wide == 1:
                _quantize_bytes(words[:7])
            else:
                _quantize_shorts(words[:7])
        elif tokens == AMX_TOKENS:
            _quantize_planes_rows(words)
        elif exact and least and tokens >= least:
            _quantize_words(words)
        elif exact:
            _quantize_planes(words)
        else:
            _quantize_fast(words)


def add_norm(op: int, frame: int, piece: int, thread: int) -> None:
    """One row of residual + RMS norm of x, into residual. Arguments: x, weight, eps bits, cols, residual."""
    x, weight, eps, cols, residual = load5(op, ARGUMENTS)
    x, residual = x + piece * cols * 4, residual + piece * cols * 4
    factor = inverse_rms(x, cols, bits_f32(np.int32(eps)))
    for i in range(cols):
        store_f32(residual, i, load_f32(x, i) * factor * load_f32(weight, i) + load_f32(residual, i))


def gather(op: int, frame: int, piece: int, thread: int) -> None:
    """Row `sample[piece]` of x. Arguments: x, out, cols."""
    x, out, cols = load3(op, ARGUMENTS)
    row = np.int64(load_i32(load_i64(frame, SAMPLE), piece))
    for i in range(cols):
        store_f32(out, piece * cols + i, load_f32(x, row * cols + i))


def embed(name: str) -> object:
    """The kernel that looks up one token in a table. Arguments: table, tile bytes, out, cols, scale bits."""
    from zonda.kernels.cpu.lookup import row_of

    read_row = row_of(name)

    def look_up(op: int, frame: int, piece: int, thread: int) -> None:
        table, tile_bytes, out, cols, scale = load5(op, ARGUMENTS)
        token = np.int64(load_i32(load_i64(frame, IDS), piece))
        tile = table + token // TILE_ROWS * tile_bytes
        read_row(tile, token % TILE_ROWS, cols, out + piece * cols * 4, bits_f32(np.int32(scale)))

    return look_up
