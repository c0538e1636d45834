"""Products with matrices of eight-bit floats: weights as they are for few rows, both sides in eight bits for many."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

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


@dataclass(frozen=True, slots=True)
class Tile:
    """Some rows: tiles of rows × outs."""

    rows: int
    outs: int
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
    """Narrow where every processor then has one at once."""
    height = max(16, power(min(rows, SOME)))
    width = 64 if matrix.outs > 32 * processors(matrix.codes.device) else 32
    return Tile(height, width, 8 if gated and height > 32 else 4, 3 if gated else 4)


def multiply(x: Tensor, matrix: Float8Matrix, out: Tensor, *, dot: torch.dtype, norm: Norm | None = None,
             bias: Tensor | None = None, residual: Tensor | None = None, up: Float8Matrix | None = None,
             activation: Activation = "silu", shape: Few | Tile | None = None) -> None:
    """norm(x) times the matrix transposed, with all that follows, into `out` (rows, outs).

    `up` makes it a gated product. Operands of tensor cores are of type `dot`, or E4M3 for many rows. `shape` replaces
    the rule.
    """
    rows, ends = x.shape[0], {"GATED": up is not None, "ACTIVATION": activation, "BIAS": bias is not None,
                              "RESIDUAL": residual is not None}
    after = (x if bias is None else bias, out if residual is None else residual, out, rows, matrix.outs, out.stride(0))
    if shape is None and rows <= FEW and matrix.ins % WORD == 0:
        shape = walk(matrix, rows, gated=up is not None, norm=norm is not None)
    if shape is None and rows <= SOME:
        shape = tile(matrix, rows, gated=up is not None)
    if shape is not None:
        return _fused(x, matrix, up or matrix, after, norm, shape, dot, ends)
    inputs = rounded(x, [matrix, up] if up else [matrix], norm)
    first = product(inputs, matrix)
    second = product(inputs, up) if up else first
    end[(rows, triton.cdiv(matrix.outs, 2048))](first, second, *after, BN=2048, **ends)


def _fused(x: Tensor, matrix: Float8Matrix, up: Float8Matrix, after: tuple[Any, ...], norm: Norm | None,
           shape: Few | Tile, dot: torch.dtype, ends: dict[str, Any]) -> None:
    codes = [each.codes.view(torch.int32) if isinstance(shape, Few) else each.codes for each in (matrix, up)]
    before = (x, x if norm is None else norm.weight, 0.0 if norm is None else norm.eps, codes[0], matrix.scales,
              codes[1], up.scales)
    options = {"INS": matrix.ins, "BN": shape.block if isinstance(shape, Few) else shape.outs,
               "NORM": norm is not None, "HEIGHT": matrix.height, "WHOLE": matrix.whole, "HEIGHT2": up.height,
               "WHOLE2": up.whole, "num_warps": shape.warps, **ends}
    rows = x.shape[0]
    if isinstance(shape, Tile):
        # Triton's interpreter would multiply the bits of bfloat16
        kind = tl.float32 if not x.is_cuda else tl.float16 if dot == torch.float16 else tl.bfloat16
        grid = (triton.cdiv(rows, shape.rows), triton.cdiv(matrix.outs, shape.outs))
        codes_wide = shape.outs * (2 if ends["GATED"] else 1)
        _, stages = staged(x.device, BLOCK, shape.stages, loaded=shape.rows * x.element_size() + codes_wide,
                           made=codes_wide * kind.primitive_bitwidth // 8)
        some[grid](*before, *after, BM=shape.rows, STAGES=stages, DOT=kind, **options)
        return
    native = x.is_cuda and torch.version.hip is None and torch.cuda.get_device_capability(x.device) >= (8, 9)
    turns = triton.cdiv(triton.cdiv(matrix.outs, shape.block), shape.programs)
    few[(shape.programs,)](*before, *after, UNITS=max(1, power(matrix.ins) // 16),
                           R=power(rows), TURNS=turns, NATIVE=native, **options, **early(x.device))


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
