"""Products of bfloat16 in the matrix registers of AMX, for rows that may be rounded.

A number keeps eight bits of its own, so there are no scales, and sums stay in the registers from a row's first column
to its last. A piece's weights are spread out once to tiles [K/2][16][2], and then meet block after block, two tiles and
two blocks at a time, so that what is loaded is used twice. A block is [K/32][16 tokens][32]. Results do not depend on
how many tokens share a block.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit

from zonda.kernels.cpu import amx
from zonda.kernels.cpu.activations import inverse_rms
from zonda.kernels.cpu.amx import SQUARE, TOKENS
from zonda.kernels.cpu.frame import ARGUMENTS, BLOCKS, FAST, SCRATCH, SCRATCH_BYTES
from zonda.kernels.cpu.layout import LAYOUTS, ROWS, UNIT
from zonda.kernels.cpu.library import Target
from zonda.kernels.cpu.matmul import activate, finish, widen
from zonda.kernels.cpu.panels import exp2
from zonda.kernels.cpu.tile import AHEAD, Tile
from zonda.kernels.cpu.vector import F32, I16, I32, Emit, near_inverse
from zonda.kernels.cpu.words import (
    bits_f32,
    call4,
    f32_bits,
    inline,
    load3,
    load4,
    load8,
    load_f32,
    load_i64,
    store_f32,
)

f32 = np.float32
STEP = 2 * TOKENS * UNIT
"""Bytes of 32 columns of a tile or of a block: what one register holds."""
_FLOATS, _WORDS, _SHORTS = (ir.VectorType(kind, ROWS) for kind in (F32, I32, I16))
_PAIRS = 4 * ROWS
"""Bytes of two columns of a tile."""


def spread(name: str) -> Callable[..., None]:
    """Writer of spread(weights, units of 32 columns, out, unused), which also sets the matrix registers' shapes."""
    def write(builder: ir.IRBuilder, target: Target, weights: Any, units: Any, out: Any, unused: Any) -> None:
        e = Emit(builder, target)
        amx.configure(e, amx.WHOLE)
        if name in LAYOUTS:
            _spread_codes(e, name, weights, units, out)
            return
        with e.loop(e.times(units, UNIT // 2)) as k:
            at, size = e.times(k, _PAIRS), ROWS * (4 if name == "f32" else 2)
            place = e.at(weights, e.times(k, 2 * size))
            _store_pairs(e, *(widen(e, name, place, i * size) for i in range(2)), e.at(out, at))

    return write


def _spread_codes(e: Emit, name: str, weights: Any, units: Any, out: Any) -> None:
    layout, tile, to, zero = LAYOUTS[name], Tile(e, LAYOUTS[name], 1, planes=1), e.variable(out), e.word(0)
    groups = amx.groups_of(layout)

    def unit(address: Any, head: Any) -> None:
        for line in range(0, layout.unit_bytes, 64):
            e.prefetch(address, AHEAD + line)
        steps = tile.steps(address)
        for k, step in enumerate(steps):
            if k % (len(steps) // groups) == 0:
                scale, minimum = tile.factors(address, zero, k * groups // len(steps), head)
                base = e.b.fmul(scale[0], e.const(_FLOATS, float(-layout.offset)))
                base = base if minimum is None else e.b.fsub(base, minimum[0])
            codes = e.b.bitcast(step()[0], _WORDS)
            values = [e.fma(e.b.sitofp(_byte(e, codes, i, layout.bits == 8), _FLOATS), scale[0], base)
                      for i in range(4)]
            for i in range(2):
                _store_pairs(e, *values[2 * i:2 * i + 2], e.at(to.get(), _PAIRS * (2 * k + i)))
        to.set(e.at(to.get(), STEP))

    tile.walk(e.variable(weights), units, zero, unit)


def _byte(e: Emit, words: Any, index: int, signed: bool) -> Any:
    """Byte `index` of every word."""
    b, up = e.b, e.const(_WORDS, 24 - 8 * index)
    if signed:
        return b.ashr(b.shl(words, up), e.const(_WORDS, 24))
    low = b.lshr(words, e.const(_WORDS, 8 * index)) if index else words
    return low if index == 3 else b.and_(low, e.const(_WORDS, 255))


def _rounded(e: Emit, values: Any) -> Any:
    """Words whose upper halves are the nearest bfloat16."""
    return e.b.add(e.b.bitcast(values, _WORDS), e.const(_WORDS, 0x8000))


def _store_pairs(e: Emit, even: Any, odd: Any, address: Any) -> None:
    """Two columns of 16 rows as pairs."""
    low = e.b.lshr(_rounded(e, even), e.const(_WORDS, 16))
    e.store(e.b.or_(low, e.b.and_(_rounded(e, odd), e.const(_WORDS, -65536))), address)


def _store(e: Emit, values: Any, address: Any) -> None:
    """16 numbers as bfloat16."""
    e.store(e.b.trunc(e.b.lshr(_rounded(e, values), e.const(_WORDS, 16)), _SHORTS), address)


def tile(builder: ir.IRBuilder, target: Target, weights: Any, block: Any, units: Any, out: Any) -> None:
    """Write tile(two tiles, two blocks, units, out): float32 (2 blocks, 2 tiles, 16 tokens, 16 rows)."""
    e = Emit(builder, target)
    tiles, blocks, sums = (0, 1), (2, 3), (4, 5, 6, 7)
    for number in sums:
        e.intrinsic("llvm.x86.tilezero", ir.VoidType(), [amx.register(number)])
    second = e.times(units, STEP)
    with e.loop(units) as u:
        at = e.times(u, STEP)
        for first, numbers in ((weights, tiles), (block, blocks)):
            for i, number in enumerate(numbers):
                amx.move(e, "tileloadd64", number, e.at(first, e.at(at, second) if i else at), 2 * UNIT)
        for number in sums:
            e.intrinsic("llvm.x86.tdpbf16ps", ir.VoidType(),
                        [amx.register(n) for n in (number, blocks[(number - 4) // 2], tiles[number % 2])])
    for i, number in enumerate(sums):
        amx.move(e, "tilestored64", number, e.at(out, i * SQUARE), 4 * ROWS)


def _write_row(builder: ir.IRBuilder, target: Target, *words: Any) -> None:
    """Write row(x, weight, factor, units, out): x · factor · weight as bfloat16. `factor` holds float32 bits."""
    x, weight, factor, units, out = words
    e = Emit(builder, target)
    factor = e.splat(builder.bitcast(builder.trunc(factor, I32), F32), ROWS)
    with e.loop(units) as u:
        for half in (0, 4 * ROWS):
            place = e.at(e.times(u, 4 * UNIT), half)
            value = builder.fmul(e.load(_FLOATS, e.at(x, place)), factor)
            value = builder.fmul(value, e.load(_FLOATS, e.at(weight, place)))
            _store(e, value, e.at(e.at(out, e.times(u, STEP)), half // 2))


def _write_gate(builder: ir.IRBuilder, target: Target, *words: Any) -> None:
    """Write gate(left, right, out, kind): silu or gelu_tanh (left) · right, float32 (16, 16) both, into a block.

    Both are x / (1 + 2^y), with y = -log2(e) x, or -2 log2(e) sqrt(2/pi) (x + 0.044715 x^3); to some 13 bits.
    """
    left, right, out, kind = words
    e, b = Emit(builder, target), builder
    is_silu = b.icmp_signed("==", kind, e.word(1))
    linear, cubic = (e.splat(b.select(is_silu, e.const(F32, silu), e.const(F32, gelu)), ROWS)
                     for silu, gelu in ((-1.4426950409, -2.3022081986), (0.0, -0.1029432396)))
    for token in range(TOKENS):
        x = e.load(_FLOATS, left, 4 * ROWS * token)
        y = b.fmul(x, e.fma(b.fmul(x, x), cubic, linear))
        value = b.fmul(x, near_inverse(e, b.fadd(exp2(e, y), e.const(_FLOATS, 1.0))))
        _store(e, b.fmul(value, e.load(_FLOATS, right, 4 * ROWS * token)), e.at(out, 2 * UNIT * token))


def _write_square(builder: ir.IRBuilder, target: Target, *words: Any) -> None:
    """Write square(values, out): 16 float32 of 16 tokens, into a block."""
    e = Emit(builder, target)
    for token in range(TOKENS):
        _store(e, e.load(_FLOATS, words[0], 4 * ROWS * token), e.at(words[1], 2 * UNIT * token))


_row, _gate, _square = inline(_write_row, 5), inline(_write_gate, 4), inline(_write_square, 2)


def pack(op: int, frame: int, piece: int, thread: int) -> None:
    """A block of rows. Arguments: x, row stride in floats, norm weights (ones if none), eps bits or 0, cols, blocks."""
    x, stride, weight, eps = load4(op, ARGUMENTS)
    cols, blocks = load_i64(op, ARGUMENTS + 4), load_i64(op, ARGUMENTS + 5)
    rows, _, _, first = load4(frame, FAST)
    for token in range(TOKENS):
        source = x + (first + min(piece * TOKENS + token, rows - 1)) * stride * 4
        factor = inverse_rms(source, cols, bits_f32(np.int32(eps))) if eps else f32(1)
        _row((source, weight, np.int64(f32_bits(factor)), cols // UNIT,
              blocks + piece * TOKENS * 2 * cols + token * 2 * UNIT))


@njit(error_model="numpy")
def _spread(tiles: int, tile_bytes: int, count: int, units: int, spread: int, room: int, step: int) -> None:
    """Spread `count` tiles out in `room`, `step` bytes apart."""
    for i in range(count):
        call4(spread, tiles + i * tile_bytes, units, room + i * step, 0)


def product(op: int, frame: int, piece: int, thread: int) -> None:
    """out = x · weightsᵀ (· scale) + bias + residual for some tiles.

    Arguments: blocks, units, weights, tile bytes, tiles, tiles a piece (even), what spreads a tile, the tile kernel,
    what releases the registers, out, out stride, first column, columns, bias or 0, residual or 0, scale bits, softcap
    bits.
    """
    blocks, units, weights, tile_bytes, tiles, share, spread, kernel = load8(op, ARGUMENTS)
    to = load8(op, ARGUMENTS + 9)
    rows, _, count, origin = load4(frame, FAST)
    result = load_i64(frame, SCRATCH) + thread * load_i64(frame, SCRATCH_BYTES)
    room, size = result + 4 * SQUARE, units * STEP
    first, end = piece * share, min(tiles, (piece + 1) * share)
    _spread(weights + first * tile_bytes, tile_bytes, end - first, units, spread, room, size)
    for block in range(0, count, 2):
        for tile in range(first, end, 2):
            call4(kernel, room + (tile - first) * size, blocks + block * size, units, result)
            for i in range(4):
                row, column = (block + i // 2) * TOKENS, tile + i % 2
                if row < rows and column < end:
                    finish(result + i * SQUARE, min(TOKENS, rows - row), column, origin + row, to)
    call4(load_i64(op, ARGUMENTS + 8), 0, 0, 0, 0)


def gated(op: int, frame: int, piece: int, thread: int) -> None:
    """Blocks of activation(x · gateᵀ) · (x · upᵀ), for some tiles.

    Arguments: blocks, units, gate, tile bytes, tiles, tiles a piece (even), what spreads a tile, the tile kernel, what
    releases the registers, up, tile bytes, what spreads a tile, out, cols, activation.
    """
    blocks, units, gate, gate_bytes, tiles, share, spread, kernel = load8(op, ARGUMENTS)
    up, up_bytes, spread_up = load3(op, ARGUMENTS + 9)
    out, cols, kind = load3(op, ARGUMENTS + 12)
    count = load_i64(frame, FAST + BLOCKS)
    result = load_i64(frame, SCRATCH) + thread * load_i64(frame, SCRATCH_BYTES)
    room, size = result + 4 * SQUARE, units * STEP
    first, end = piece * share, min(tiles, (piece + 1) * share)
    _spread(gate + first * gate_bytes, gate_bytes, end - first, units, spread, room, 2 * size)
    _spread(up + first * up_bytes, up_bytes, end - first, units, spread_up, room + size, 2 * size)
    for block in range(0, count, 2):
        for tile in range(first, end):
            call4(kernel, room + (tile - first) * 2 * size, blocks + block * size, units, result)
            for i in range(min(2, count - block)):
                left = result + 2 * i * SQUARE
                to = out + (block + i) * TOKENS * 2 * cols + tile // 2 * STEP + tile % 2 * UNIT
                if kind == 1 or kind == 3:
                    _gate((left, left + SQUARE, to, kind))
                    continue
                for k in range(TOKENS * ROWS):
                    store_f32(left, k, activate(load_f32(left, k), kind) * load_f32(left + SQUARE, k))
                _square((left, to))
    call4(load_i64(op, ARGUMENTS + 8), 0, 0, 0, 0)
