"""Products with matrices of eight-bit floats: weights as they are for few rows, both sides in eight bits for many."""
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from zonda.kernels.cuda.eights import by_blocks, end, few, round_rows, some
from zonda.kernels.cuda.launch import early
from zonda.kernels.cuda.shapes import Few, power, processors, staged
from zonda.kernels.ops import Activation, Norm
from zonda.kernels.torch.float8 import TYPE, Float8Matrix
from zonda.weights.formats.float8 import BLOCK

WORD = 4
"""Codes that few rows read at a time."""
FEW, SOME = 2, 64
"""Rows up to which multiply-adds keep up with the memory, and up to which tensor cores take inputs of 16 bits."""
_arrived = WeakTensorKeyDictionary()


@dataclass(frozen=True, slots=True)
class Tile:
    """Some rows: tiles of rows × outs; `splits` programs share the columns of a tile."""

    rows: int
    outs: int
    splits: int = 1
    warps: int = 4
    stages: int = 4


@dataclass(frozen=True, slots=True, eq=False)
class Rounded:
    """Rows, once of type `dtype`, as E4M3 `codes`, uint8 (rows, ins), and the scale of each row or 128 columns."""

    codes: Tensor
    scales: Tensor
    dtype: torch.dtype


@dataclass(frozen=True, slots=True, eq=False)
class Halves:
    """activation(first) · second (rows, ffn), to be computed by who takes it."""

    first: Tensor
    second: Tensor
    activation: Activation


def rounds(rows: int, matrices: Sequence[object]) -> bool:
    """Whether so many rows are rounded to eight bits before they meet these matrices, the same for all."""
    whole = {each.whole if isinstance(each, Float8Matrix) else None for each in matrices}
    return rows > SOME and len(whole) == 1 and None not in whole


def few_rows(matrix: Float8Matrix) -> int:
    """Rows up to which a product may be one kernel with a norm."""
    return FEW if matrix.ins % WORD == 0 else 0


def walk(matrix: Float8Matrix, rows: int, *, gated: bool, norm: bool, numbers: int | None = None) -> Few:
    """About as many `numbers` of a block in each thread, and programs that end together."""
    span = power(matrix.ins)
    warps = 4 if span <= 8192 else 8
    numbers = numbers or (64 if rows == 1 and span <= 4096 else 128)
    block = max(1, numbers // max(1, span // (32 * warps)) // (2 if gated else 1) // power(rows))
    at_once = 16 if numbers > 64 else 20 if norm else 24  # warps, as registers allow
    most = processors(matrix.codes.device) * at_once // warps
    blocks = triton.cdiv(matrix.outs, block)
    return Few(block, warps, triton.cdiv(blocks, triton.cdiv(blocks, most)))


def tile(matrix: Float8Matrix, rows: int, *, gated: bool) -> Tile:
    """Tiles by the rows, and programs enough that each processor has some at once."""
    if rows <= 8:
        return _split(Tile(8, 64, stages=3), 4, matrix, gated=gated)
    if rows <= 16:
        return _split(Tile(16, 32, warps=2), 6, matrix, gated=gated)
    if rows <= 32 and gated:
        return _split(Tile(32, 32, warps=2), 4, matrix, gated=gated)
    if rows <= 32:
        return _split(Tile(32, 64, stages=3), 3, matrix, gated=gated)
    return _split(Tile(64, 64), 2, matrix, gated=gated)


def _split(shape: Tile, each: int, matrix: Float8Matrix, *, gated: bool) -> Tile:
    """Columns split so that about `each` programs, of two steps at least, fall to a processor."""
    tiles = triton.cdiv(matrix.outs, shape.outs) * (1 + gated)
    wanted = round(math.log2(max(1, each * processors(matrix.codes.device) / tiles)))
    return replace(shape, splits=min(1 << wanted, power(triton.cdiv(matrix.ins, BLOCK) // 2 + 1) // 2 or 1))


def multiply(x: Tensor, matrix: Float8Matrix, out: Tensor, *, dot: torch.dtype, norm: Norm | None = None,
             bias: Tensor | None = None, residual: Tensor | None = None, up: Float8Matrix | None = None,
             activation: Activation = "silu", shape: Few | Tile | None = None) -> None:
    """norm(x) times the matrix transposed, with all that follows, into `out` (rows, outs).

    `up` makes it a gated product. Operands of tensor cores are of type `dot`, or E4M3 for many rows. From
    `few_rows` on there is no norm. `shape` replaces the rule.
    """
    rows, ends = x.shape[0], {"GATED": up is not None, "ACTIVATION": activation, "BIAS": bias is not None,
                              "RESIDUAL": residual is not None}
    after = (x if bias is None else bias, out if residual is None else residual, out, rows, matrix.outs, out.stride(0))
    if shape is None and rows <= few_rows(matrix):
        shape = walk(matrix, rows, gated=up is not None, norm=norm is not None)
    if shape is None and rows <= SOME:
        shape = tile(matrix, rows, gated=up is not None)
    if isinstance(shape, Tile):
        assert norm is None
        return _some(x, matrix, up or matrix, after, shape, dot, ends)
    if shape is not None:
        return _few(x, matrix, up or matrix, after, norm, shape, ends)
    inputs = rounded(x, [matrix, up] if up else [matrix], norm)
    first = product(inputs, matrix)
    second = product(inputs, up) if up else first
    end[(rows, triton.cdiv(matrix.outs, 2048))](first, second, *after, BN=2048, **ends)


def _few(x: Tensor, matrix: Float8Matrix, up: Float8Matrix, after: tuple[Any, ...], norm: Norm | None, shape: Few,
         ends: dict[str, Any]) -> None:
    native = x.is_cuda and torch.version.hip is None and torch.cuda.get_device_capability(x.device) >= (8, 9)
    few[(shape.programs,)](
        x, x if norm is None else norm.weight, 0.0 if norm is None else norm.eps, matrix.codes.view(torch.int32),
        matrix.scales, up.codes.view(torch.int32), up.scales, *after, UNITS=max(1, power(matrix.ins) // 16),
        R=power(len(x)), TURNS=triton.cdiv(triton.cdiv(matrix.outs, shape.block), shape.programs), NATIVE=native,
        NORM=norm is not None, BN=shape.block, num_warps=shape.warps, **_scaled(matrix, up), **ends, **early(x.device))


def _some(x: Tensor, matrix: Float8Matrix, up: Float8Matrix, after: tuple[Any, ...], shape: Tile, dot: torch.dtype,
          ends: dict[str, Any]) -> None:
    # Triton's interpreter would multiply the bits of bfloat16
    kind = tl.float32 if not x.is_cuda else tl.float16 if dot == torch.float16 else tl.bfloat16
    sides = 2 if ends["GATED"] else 1
    columns, stages = staged(x.device, BLOCK, shape.stages, made=0,
                             loaded=shape.rows * x.element_size() + shape.outs * sides)
    tiles = triton.cdiv(len(x), shape.rows) * triton.cdiv(matrix.outs, shape.outs)
    shared = _meeting(matrix.codes, tiles, shape.splits, sides * shape.rows * shape.outs)
    some[(tiles, shape.splits)](
        x, matrix.codes, matrix.scales, up.codes, up.scales, *after[:2], *shared, *after[2:], BM=shape.rows,
        BN=shape.outs, BK=columns, STAGES=stages, SPLITS=shape.splits, DOT=kind, num_warps=shape.warps,
        **_scaled(matrix, up), **ends, **early(x.device))


def _meeting(codes: Tensor, tiles: int, splits: int, size: int) -> tuple[Tensor, Tensor]:
    """Where programs that share tiles leave their sums, of `size` numbers, and a counter for each tile.

    The counters belong to the matrix, as models may compute beside each other, and stay, as graphs know where they
    are: one for each of its rows, more than tiles. One program meets nobody.
    """
    if splits == 1:
        return codes, codes
    if codes not in _arrived:
        _arrived[codes] = torch.zeros(len(codes), dtype=torch.int32, device=codes.device)
    assert tiles <= len(codes)
    return torch.empty(tiles * splits * size, dtype=torch.float32, device=codes.device), _arrived[codes]


def _scaled(matrix: Float8Matrix, up: Float8Matrix) -> dict[str, Any]:
    return {"INS": matrix.ins, "HEIGHT": matrix.height, "WHOLE": matrix.whole, "HEIGHT2": up.height,
            "WHOLE2": up.whole}


def blank(rows: int, matrices: Sequence[Float8Matrix], dtype: torch.dtype) -> tuple[Rounded, dict[str, Any]]:
    """Room for rows rounded for the matrices, and what their kernel is told: the scale of inputs where one is given."""
    ins, device = matrices[0].ins, matrices[0].codes.device
    span = max(BLOCK, power(ins))
    group = span if matrices[0].whole else BLOCK
    given = [each.input_scale for each in matrices if each.input_scale is not None]
    room = Rounded(torch.empty((rows, ins), dtype=torch.uint8, device=device),
                   torch.empty((rows, triton.cdiv(ins, group)), dtype=torch.float32, device=device), dtype)
    return room, {"given": max(given, default=0.0), "GROUP": group, "GIVEN": bool(given)}


def rounded(x: Tensor | Halves, matrices: Sequence[Float8Matrix], norm: Norm | None = None) -> Rounded:
    """norm(x), or what the halves make, for matrices of one kind."""
    gated = isinstance(x, Halves)
    first, second = (x.first, x.second) if isinstance(x, Halves) else (x, x)
    room, options = blank(len(first), matrices, first.dtype)
    round_rows[(len(first),)](
        first, second, first if norm is None else norm.weight, 0.0 if norm is None else norm.eps, room.codes,
        room.scales, INS=matrices[0].ins, SPAN=max(BLOCK, power(matrices[0].ins)), NORM=norm is not None, GATED=gated,
        ACTIVATION=x.activation if isinstance(x, Halves) else "silu", num_warps=8, **options)
    return room


def product(x: Rounded, matrix: Float8Matrix) -> Tensor:
    """Rounded rows times the matrix transposed (rows, outs), in bfloat16, or float32 where no kernel has that."""
    codes, scales = x.codes, x.scales
    if matrix.whole and codes.is_cuda and matrix.ins % 16 == 0 and matrix.outs % 16 == 0:
        own = matrix.scales if matrix.height == 1 else matrix.scales.repeat_interleave(matrix.height, 0)[:matrix.outs]
        return torch._scaled_mm(codes.view(TYPE), matrix.values.t(), scale_a=scales, scale_b=own.t(),
                                out_dtype=torch.bfloat16, use_fast_accum=True)
    if matrix.whole:
        return (codes.view(TYPE).float() * scales) @ matrix.dense(torch.float32).T
    out = torch.empty((len(codes), matrix.outs), dtype=torch.bfloat16, device=codes.device)
    grid = (triton.cdiv(len(codes), 128) * triton.cdiv(matrix.outs, 128),)
    by_blocks[grid](codes, scales, matrix.codes, matrix.scales, out, len(codes), matrix.outs, INS=matrix.ins, BM=128,
                    BN=128, HEIGHT=matrix.height, num_warps=8, num_stages=3)
    return out


def times(x: Tensor | Halves | Rounded, matrix: Float8Matrix, bias: Tensor | None = None) -> Tensor:
    """Many rows, rounded, times the matrix transposed plus bias (rows, outs), of the type that the rows had."""
    x = x if isinstance(x, Rounded) else rounded(x, [matrix])
    found = product(x, matrix).to(x.dtype)
    return found if bias is None else found + bias.to(x.dtype)
