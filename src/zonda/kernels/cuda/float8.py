"""Products with matrices of eight-bit floats: weights as they are for few rows, both sides in eight bits for many."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from zonda.kernels.cuda.eights import by_blocks, end, few, round_rows, some
from zonda.kernels.cuda.shapes import staged
from zonda.kernels.ops import Activation, Norm
from zonda.kernels.torch.float8 import TYPE, Float8Matrix
from zonda.weights.formats.float8 import BLOCK

WORD = 4
"""Codes that few rows read at a time."""
FEW, SOME = 2, 64
"""Rows up to which multiply-adds keep up with the memory, and up to which tensor cores take inputs of 16 bits."""


@dataclass(frozen=True, slots=True)
class Walk:
    """Few rows: `block` outs at a time in each of `programs` programs."""

    block: int
    warps: int
    programs: int


@dataclass(frozen=True, slots=True)
class Tile:
    """Some rows: tiles of rows × outs."""

    rows: int
    outs: int
    warps: int = 4
    stages: int = 4


def walk(matrix: Float8Matrix, rows: int, *, gated: bool, numbers: int | None = None) -> Walk:
    """About as many `numbers` of a block in each thread, and programs that end together."""
    span = triton.next_power_of_2(matrix.ins)
    warps = 4 if span <= 8192 else 8
    numbers = numbers or (64 if rows == 1 and span <= 4096 else 128)
    block = max(1, numbers // max(1, span // (32 * warps)) // (2 if gated else 1) // triton.next_power_of_2(rows))
    most = _processors(matrix.codes.device) * (20 if numbers <= 64 else 16) // warps  # as registers allow
    blocks = triton.cdiv(matrix.outs, block)
    return Walk(block, warps, triton.cdiv(blocks, triton.cdiv(blocks, most)))


def tile(matrix: Float8Matrix, rows: int, *, gated: bool) -> Tile:
    """Narrow where every processor then has one at once."""
    height = max(16, triton.next_power_of_2(min(rows, SOME)))
    width = 64 if matrix.outs > 32 * _processors(matrix.codes.device) else 32
    return Tile(height, width, 8 if gated and height > 32 else 4, 3 if gated else 4)


def multiply(x: Tensor, matrix: Float8Matrix, out: Tensor, *, dot: torch.dtype, norm: Norm | None = None,
             bias: Tensor | None = None, residual: Tensor | None = None, up: Float8Matrix | None = None,
             activation: Activation = "silu", shape: Walk | Tile | None = None) -> None:
    """norm(x) times the matrix transposed, with all that follows, into `out` (rows, outs).

    `up` makes it a gated product. Operands of tensor cores are of type `dot`, or E4M3 for many rows. `shape` replaces
    the rule.
    """
    rows, ends = x.shape[0], {"GATED": up is not None, "ACTIVATION": activation, "BIAS": bias is not None,
                              "RESIDUAL": residual is not None}
    after = (x if bias is None else bias, out if residual is None else residual, out, rows, matrix.outs, out.stride(0))
    if shape is None and rows <= FEW and matrix.ins % WORD == 0:
        shape = walk(matrix, rows, gated=up is not None)
    if shape is None and rows <= SOME:
        shape = tile(matrix, rows, gated=up is not None)
    if shape is not None:
        return _fused(x, matrix, up or matrix, after, norm, shape, dot, ends)
    inputs, scales = rounded(x, norm, matrix, both=up)
    first = product(inputs, scales, matrix)
    second = product(inputs, scales, up) if up else first
    end[(rows, triton.cdiv(matrix.outs, 2048))](first, second, *after, BN=2048, **ends)


def _fused(x: Tensor, matrix: Float8Matrix, up: Float8Matrix, after: tuple[Any, ...], norm: Norm | None,
           shape: Walk | Tile, dot: torch.dtype, ends: dict[str, Any]) -> None:
    codes = [each.codes.view(torch.int32) if isinstance(shape, Walk) else each.codes for each in (matrix, up)]
    before = (x, x if norm is None else norm.weight, 0.0 if norm is None else norm.eps, codes[0], matrix.scales,
              codes[1], up.scales)
    options = {"INS": matrix.ins, "BN": shape.block if isinstance(shape, Walk) else shape.outs,
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
    able = torch.cuda.get_device_capability(x.device) if x.is_cuda and torch.version.hip is None else (0, 0)
    early = able >= (9, 0)
    turns = triton.cdiv(triton.cdiv(matrix.outs, shape.block), shape.programs)
    few[(shape.programs,)](*before, *after, UNITS=max(1, triton.next_power_of_2(matrix.ins) // 16),
                           R=triton.next_power_of_2(rows), TURNS=turns, PDL=early, NATIVE=able >= (8, 9), **options,
                           **({"launch_pdl": True} if early else {}))


def rounded(x: Tensor, norm: Norm | None, matrix: Float8Matrix, *, both: Float8Matrix | None = None
            ) -> tuple[Tensor, Tensor]:
    """norm(x) as E4M3 codes, and the scale of each row, or of each 128 columns where the matrix has blocks."""
    rows, ins = x.shape
    span = max(BLOCK, triton.next_power_of_2(ins))
    group = span if matrix.whole else BLOCK
    codes = torch.empty((rows, ins), dtype=torch.uint8, device=x.device)
    scales = torch.empty((rows, triton.cdiv(ins, group)), dtype=torch.float32, device=x.device)
    given = [each.input_scale for each in (matrix, both) if each is not None and each.input_scale is not None]
    round_rows[(rows,)](x, x if norm is None else norm.weight, 0.0 if norm is None else norm.eps, codes, scales,
                        max(given, default=0.0), INS=ins, SPAN=span, GROUP=group, NORM=norm is not None,
                        GIVEN=bool(given), num_warps=8)
    return codes, scales


def product(codes: Tensor, scales: Tensor, matrix: Float8Matrix) -> Tensor:
    """Rounded rows times the matrix transposed (rows, outs), in bfloat16, or float32 where no kernel has that."""
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


def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 4
