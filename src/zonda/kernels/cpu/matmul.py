"""Matrix products: tiles over blocks of tokens, with what follows them (bias, activation, residual) at once."""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit

from zonda.kernels.cpu.frame import ARGUMENTS, FAST, SCRATCH, SCRATCH_BYTES
from zonda.kernels.cpu.layout import ROWS as TILE
from zonda.kernels.cpu.library import Target
from zonda.kernels.cpu.panels import exp2
from zonda.kernels.cpu.scalar import exp, tanh
from zonda.kernels.cpu.vector import F16, F32, I16, I32, I64, Emit, near_inverse
from zonda.kernels.cpu.vector import exp as exp_vector
from zonda.kernels.cpu.words import bits_f32, call4, inline, load3, load4, load8, load_f32, load_i64, store_f32

f32 = np.float32
ACTIVATIONS = ("none", "silu", "gelu", "gelu_tanh", "relu")
MOST_TOKENS = 16
"""Tokens of the largest block."""
_CHUNK = 192 * 1024
"""Bytes of activations that stay in the second-level cache while several tiles pass over them."""


def dense_tile(name: str, tokens: int, exact: bool) -> Callable[..., None]:
    """Writer of tile(weights, block, cols, out) for weights [cols][16] in float32, float16 or bfloat16."""
    def write(builder: ir.IRBuilder, target: Target, weights: Any, block: Any, cols: Any, out: Any) -> None:
        e = Emit(builder, target)
        lanes, size = e.registers.lanes, 4 if name == "f32" else 2
        vectors = max(1, min(TILE // lanes, (8 if e.registers.count == 16 else 16) // tokens))
        floats = ir.VectorType(F32, lanes)
        with e.loop(e.word(TILE // lanes // vectors)) as p:
            lane = e.times(p, vectors * lanes)
            totals = [[e.variable(e.const(floats, 0.0)) for _ in range(vectors)] for _ in range(tokens)]
            with e.loop(cols) as k:
                place = e.at(e.at(weights, e.times(k, TILE * size)), e.times(lane, size))
                rows = [widen(e, name, place, v * lanes * size) for v in range(vectors)]
                for i in range(tokens):
                    x = e.splat(e.load(F32, e.at(block, e.times(k, 4 * tokens)), 4 * i), lanes)
                    for v in range(vectors):
                        totals[i][v].set(e.fma(rows[v], x, totals[i][v].get()))
            for i in range(tokens):
                for v in range(vectors):
                    e.store(totals[i][v].get(), e.at(out, e.times(lane, 4)), 4 * (i * TILE + v * lanes))

    return write


def widen(e: Emit, name: str, address: Any, offset: int) -> Any:
    lanes = e.registers.lanes
    floats = ir.VectorType(F32, lanes)
    if name == "f32":
        return e.load(floats, address, offset)
    if name == "f16":
        return e.from_half(e.load(ir.VectorType(F16, lanes), address, offset))
    words = ir.VectorType(I32, lanes)
    bits = e.b.zext(e.load(ir.VectorType(I16, lanes), address, offset), words)
    return e.b.bitcast(e.b.shl(bits, e.const(words, 16)), floats)


@njit(error_model="numpy")
def activate(x: float, kind: int) -> float:
    if kind == 1:
        return x / (f32(1) + exp(-x))
    if kind == 2:
        return f32(0.5) * x * (f32(1) + f32(math.erf(x * f32(0.7071067811865476))))
    if kind == 3:
        return f32(0.5) * x * (f32(1) + tanh(f32(0.7978845608028654) * (x + f32(0.044715) * x * x * x)))
    return max(x, f32(0))


@njit(error_model="numpy")
def _variant(tokens: int) -> int:
    """Which of the five tiles, for 1, 2, 4, 8 and more tokens."""
    return 0 if tokens == 1 else 1 if tokens == 2 else 2 if tokens == 4 else 3 if tokens == 8 else 4


def product(op: int, frame: int, piece: int, thread: int) -> None:
    """out = x · weightsᵀ (· scale) + bias + residual for some tiles.

    Arguments: blocks, bytes a token, units, domain, weights, tile bytes, tiles, tiles a piece, five tile kernels, out,
    out stride, first column, columns, bias or 0, residual or 0, scale bits, softcap bits, and what spreads
    a tile, the bytes it then has, and what releases AMX's registers, each or 0.
    """
    blocks, token_bytes, units, domain, weights, tile_bytes, tiles, share = load8(op, ARGUMENTS)
    to = load8(op, ARGUMENTS + 13)
    rows, tokens, count, origin = load4(frame, domain)
    kernel = load_i64(op, ARGUMENTS + 8 + _variant(tokens))
    result = load_i64(frame, SCRATCH) + thread * load_i64(frame, SCRATCH_BYTES)
    spread = load_i64(op, ARGUMENTS + 21) if tokens == MOST_TOKENS or domain == FAST else np.int64(0)
    chunk = _chunk(tokens, token_bytes, spread)
    first_tile, end = piece * share, min(tiles, (piece + 1) * share)
    source, step = weights + first_tile * tile_bytes, tile_bytes
    if spread:
        room, step = result + 4 * TILE * MOST_TOKENS, load_i64(op, ARGUMENTS + 22)
        source = _spread(source, tile_bytes, end - first_tile, units, spread, room, step)
    for start in range(0, count, chunk):
        for tile in range(first_tile, end):
            for block in range(start, min(count, start + chunk)):
                call4(kernel, source + (tile - first_tile) * step, blocks + block * tokens * token_bytes, units, result)
                finish(result, min(tokens, rows - block * tokens), tile, origin + block * tokens, to)
    if spread and load_i64(op, ARGUMENTS + 23):
        call4(load_i64(op, ARGUMENTS + 23), 0, 0, 0, 0)


@njit(error_model="numpy")
def _spread(tiles: int, tile_bytes: int, count: int, units: int, spread: int, room: int, step: int) -> int:
    """Spread `count` tiles out in `room`, `step` bytes apart."""
    for i in range(count):
        call4(spread, tiles + i * tile_bytes, units, room + i * step, 0)
    return room


@njit(error_model="numpy")
def _chunk(tokens: int, token_bytes: int, spread: int) -> int:
    """Blocks of activations that tiles pass over one after the other; one, if tiles are spread and stay in the cache
    themselves."""
    return 1 if spread else max(1, _CHUNK // (tokens * token_bytes))


def _write_finish(builder: ir.IRBuilder, target: Target, *words: Any) -> None:
    """Write finish(result, tokens, out, stride, bias, residual, factor): `_finish` for whole tiles; stride in bytes."""
    result, tokens, out, stride, bias, residual, factor = words
    e, b = Emit(builder, target), builder
    floats = ir.VectorType(F32, e.registers.lanes)
    nothing = _zeros(e)
    factor = e.splat(b.bitcast(b.trunc(factor, I32), F32), e.registers.lanes)
    bias = b.select(b.icmp_signed("==", bias, e.word(0)), nothing, bias)
    without = b.icmp_signed("==", residual, e.word(0))
    before, step = b.select(without, nothing, residual), b.select(without, e.word(0), stride)
    with e.loop(tokens) as i:
        for at in range(0, 4 * TILE, 4 * e.registers.lanes):
            value = e.fma(e.load(floats, e.at(result, e.times(i, 4 * TILE)), at), factor, e.load(floats, bias, at))
            value = b.fadd(value, e.load(floats, e.at(before, b.mul(i, step)), at))
            e.store(value, e.at(out, b.mul(i, stride)), at)


def _zeros(e: Emit) -> Any:
    """The address of 16 zeros."""
    kind = ir.ArrayType(F32, TILE)
    name = "zeros"
    zeros = e.b.module.globals.get(name)
    if zeros is None:
        zeros = ir.GlobalVariable(e.b.module, kind, name)
        zeros.initializer, zeros.global_constant, zeros.linkage = ir.Constant(kind, None), True, "internal"
    return e.b.ptrtoint(zeros, I64)


def _write_gate(builder: ir.IRBuilder, target: Target, *words: Any) -> None:
    """Write gate(left, right, tokens, out, stride, kind): whole tiles of silu or gelu_tanh (left) · right.

    Both are x / (1 + exp(-y)), with y = x, or y = 2 sqrt(2/pi) (x + 0.044715 x^3).
    """
    e = Emit(builder, target)
    _gate_rows(e, words, lambda x, y: builder.fdiv(x, builder.fadd(exp_vector(e, y), e.const(y.type, 1.0))))


def _write_near_gate(builder: ir.IRBuilder, target: Target, *words: Any) -> None:
    """The same to some 13 bits, which is enough for fast rows, where the processor has instructions for that."""
    e = Emit(builder, target)

    def quotient(x: Any, y: Any) -> Any:
        power = exp2(e, builder.fmul(y, e.const(y.type, 1.44269504)))
        below = builder.fadd(power, e.const(y.type, 1.0))
        return builder.fmul(x, near_inverse(e, below))

    if target.wide and target.has("avx512dq"):
        _gate_rows(e, words, quotient)
    else:
        _write_gate(builder, target, *words)


def _gate_rows(e: Emit, words: Sequence[Any], quotient: Callable[[Any, Any], Any]) -> None:
    """What both write; quotient(x, y) is x / (1 + exp(y))."""
    left, right, tokens, out, stride, kind = words
    b, floats = e.b, ir.VectorType(F32, e.registers.lanes)
    is_silu = b.icmp_signed("==", kind, e.word(1))
    linear, cubic = (e.splat(b.select(is_silu, e.const(F32, silu), e.const(F32, gelu)), e.registers.lanes)
                     for silu, gelu in ((-1.0, -1.5957691216), (0.0, -0.0713548163)))
    with e.loop(tokens) as i:
        row = e.times(i, 4 * TILE)
        for at in range(0, 4 * TILE, 4 * e.registers.lanes):
            x = e.load(floats, e.at(left, row), at)
            value = b.fmul(quotient(x, b.fmul(x, e.fma(b.fmul(x, x), cubic, linear))),
                           e.load(floats, e.at(right, row), at))
            e.store(value, e.at(out, b.mul(i, stride)), at)


_finish_whole, _gate_whole, _gate_near = (inline(write, words) for write, words in (
    (_write_finish, 7), (_write_gate, 6), (_write_near_gate, 6)))


@njit(error_model="numpy")
def finish(result: int, here: int, tile: int, row: int, to: tuple[int, ...]) -> None:
    """A tile's results for `here` tokens, the first of them `row`, to where eight words of `product` say."""
    out, stride, column, cols, bias, residual, scale, cap = to
    factor, softcap = bits_f32(np.int32(scale)), bits_f32(np.int32(cap))
    width, first = min(TILE, cols - tile * TILE), row * stride + column + tile * TILE
    if width == TILE and softcap == f32(0):
        _finish_whole((result, here, out + 4 * first, 4 * stride, bias + 4 * tile * TILE if bias else 0,
                       residual + 4 * first if residual else 0, scale))
        return
    for token in range(here):
        _finish(result + 4 * TILE * token, out, first + token * stride, width, bias, tile * TILE, residual, factor,
                softcap)


@njit(error_model="numpy")
def _finish(result: int, out: int, at: int, width: int, bias: int, first: int, residual: int, factor: float,
            softcap: float) -> None:
    for r in range(width):
        value = load_f32(result, r) * factor
        if bias:
            value += load_f32(bias, first + r)
        if softcap > f32(0):
            value = softcap * tanh(value / softcap)
        if residual:
            value += load_f32(residual, at + r)
        store_f32(out, at + r, value)


def gated(op: int, frame: int, piece: int, thread: int) -> None:
    """out = activation(x · gateᵀ) · (x · upᵀ) for some tiles.

    Arguments: blocks, bytes a token, units, domain, gate, tile bytes, tiles, tiles a piece, five tile kernels, up, tile
    bytes, five tile kernels, out, cols, activation, what spreads a tile of each, the bytes it then has at most, and
    what releases AMX's registers, or 0.
    """
    blocks, token_bytes, units, domain, gate, gate_bytes, tiles, share = load8(op, ARGUMENTS)
    up, up_bytes = load_i64(op, ARGUMENTS + 13), load_i64(op, ARGUMENTS + 14)
    out, cols, kind = load3(op, ARGUMENTS + 20)
    rows, tokens, count, origin = load4(frame, domain)
    gate_kernel = load_i64(op, ARGUMENTS + 8 + _variant(tokens))
    up_kernel = load_i64(op, ARGUMENTS + 15 + _variant(tokens))
    left = load_i64(frame, SCRATCH) + thread * load_i64(frame, SCRATCH_BYTES)
    right = left + 4 * TILE * MOST_TOKENS
    spread = load_i64(op, ARGUMENTS + 23) if tokens == MOST_TOKENS or domain == FAST else np.int64(0)
    chunk = _chunk(tokens, token_bytes, spread)
    first_tile, end = piece * share, min(tiles, (piece + 1) * share)
    gates, ups = gate + first_tile * gate_bytes, up + first_tile * up_bytes
    if spread:
        room, step = right + 4 * TILE * MOST_TOKENS, load_i64(op, ARGUMENTS + 25)
        gates = _spread(gates, gate_bytes, end - first_tile, units, spread, room, step)
        ups = _spread(ups, up_bytes, end - first_tile, units, load_i64(op, ARGUMENTS + 24), room + share * step, step)
        gate_bytes = up_bytes = step
    for start in range(0, count, chunk):
        for tile in range(first_tile, end):
            gate_tile, up_tile = gates + (tile - first_tile) * gate_bytes, ups + (tile - first_tile) * up_bytes
            for block in range(start, min(count, start + chunk)):
                x = blocks + block * tokens * token_bytes
                call4(gate_kernel, gate_tile, x, units, left)
                call4(up_kernel, up_tile, x, units, right)
                width, here = min(TILE, cols - tile * TILE), min(tokens, rows - block * tokens)
                first = (origin + block * tokens) * cols + tile * TILE
                if width == TILE and (kind == 1 or kind == 3):
                    if domain == FAST:
                        _gate_near((left, right, here, out + 4 * first, 4 * cols, kind))
                    else:
                        _gate_whole((left, right, here, out + 4 * first, 4 * cols, kind))
                    continue
                for token in range(here):
                    at = first + token * cols
                    for r in range(width):
                        value = activate(load_f32(left, token * TILE + r), kind)
                        store_f32(out, at + r, value * load_f32(right, token * TILE + r))
    if spread and load_i64(op, ARGUMENTS + 26):
        call4(load_i64(op, ARGUMENTS + 26), 0, 0, 0, 0)


def gate(op: int, frame: int, piece: int, thread: int) -> None:
    """One row of activation(a) · b for a row [a | b]. Arguments: both, out, cols, activation."""
    both, out, cols, kind = load4(op, ARGUMENTS)
    row = both + piece * 2 * cols * 4
    for i in range(cols):
        store_f32(out, piece * cols + i, activate(load_f32(row, i), kind) * load_f32(row, cols + i))
