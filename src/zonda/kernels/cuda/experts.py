"""A mixture of experts: three launches that read only the chosen matrices for few rows, a grouped product for many."""
from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from zonda.kernels.cuda.grouped import choose, down_many, gated_many, mix, sort
from zonda.kernels.cuda.linear import tensors
from zonda.kernels.cuda.shapes import staged, width
from zonda.kernels.cuda.slots import down_few, gated_few, normed, route
from zonda.kernels.cuda.stacks import DENSE, FLOAT8, PACKED
from zonda.kernels.ops import Experts, Norm
from zonda.kernels.torch.float8 import Float8Matrix
from zonda.kernels.torch.matrix import DenseMatrix, GroupIntMatrix, Matrix

FEW = 8
"""Rows up to which each row reads its own experts' weights."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Blocks of a kernel: slots, outs and columns, and the warps and pipeline stages that work on one."""

    slots: int
    outs: int
    cols: int
    warps: int = 4
    stages: int = 3


@dataclass(frozen=True, slots=True)
class Blocks:
    """The blocks of the two products of a mixture."""

    gated: Shape
    down: Shape


LONE = Blocks(Shape(1, 4, 1024), Shape(1, 8, 256))
"""For few rows."""


def blocks_for(slots: int, experts: int) -> Blocks:
    """For many rows: as tall as an expert's share of the slots, so that most blocks are full."""
    share = slots // experts
    if share <= 16:
        return Blocks(Shape(16, 64, 128, 4, 3), Shape(16, 64, 128, 4, 4))
    if share <= 48:
        return Blocks(Shape(32, 64, 128, 4, 3), Shape(32, 64, 128, 4, 4))
    if share <= 128:
        return Blocks(Shape(64, 64, 64, 4, 4), Shape(64, 128, 64, 4, 4))
    return Blocks(Shape(128, 64, 64, 4, 4), Shape(128, 128, 64, 8, 4))


def experts(x: Tensor, experts: Experts, residual: Tensor, norm: Norm | None, *, dtype: torch.dtype = torch.bfloat16,
            blocks: Blocks | None = None) -> Tensor:
    """residual + the weighted sum of the chosen experts on norm(x), written over `residual`, float32 (rows, dim)."""
    assert residual.is_contiguous() and x.is_contiguous()
    if len(x) <= FEW:
        return few(x, experts, residual, norm, dtype, blocks or LONE)
    count = experts.gate.shape[0]
    return many(x, experts, residual, norm, dtype, blocks or blocks_for(len(x) * experts.top, count))


def few(x: Tensor, experts: Experts, residual: Tensor, norm: Norm | None, dtype: torch.dtype, blocks: Blocks) -> Tensor:
    """By slots, each of which reads its expert's weights."""
    rows, dim = x.shape
    count, ffn, top = experts.gate.shape[0], experts.gate.shape[1], experts.top
    logits, hidden, chosen, shares = _routing(x, count, top, dtype)
    weight, eps = (norm.weight, norm.eps) if norm else (x, 0.0)
    span = triton.next_power_of_2(dim)
    route[(rows, triton.cdiv(count, 2))](x, weight, eps, _router(experts, dtype), hidden, logits, COLS=dim, SPAN=span,
                                         E=count, BE=2, NORM=norm is not None)
    inner = torch.empty((rows * top, ffn), dtype=dtype, device=x.device)
    gated, down = blocks.gated, blocks.down
    gated_few[(rows * top, triton.cdiv(ffn, gated.outs))](
        hidden, logits, chosen, shares, inner, *tensors(experts.gate), *tensors(experts.up), E=count,
        EP=triton.next_power_of_2(count), TOP=top, NORMALIZE=experts.normalize, OUTS=ffn, INS=dim,
        ACTIVATION=experts.activation, BN=gated.outs, BK=min(gated.cols, span), num_warps=gated.warps,
        **_constants(experts.gate, "KIND", "P"), **_constants(experts.up, "KIND2", "Q"))
    down_few[(rows, triton.cdiv(dim, down.outs))](
        inner, chosen, shares, residual, *tensors(experts.down), TOP=top, OUTS=dim, INS=ffn, BN=down.outs,
        BK=min(down.cols, triton.next_power_of_2(ffn)), num_warps=down.warps, **_constants(experts.down, "KIND", "P"))
    return residual


def many(x: Tensor, experts: Experts, residual: Tensor, norm: Norm | None, dtype: torch.dtype, blocks: Blocks
         ) -> Tensor:
    """By blocks of slots that have one expert."""
    rows, dim = x.shape
    count, ffn, top = experts.gate.shape[0], experts.gate.shape[1], experts.top
    logits, hidden, chosen, shares = _routing(x, count, top, dtype)
    weight, eps = (norm.weight, norm.eps) if norm else (x, 0.0)
    wide, padded, slots = torch.empty_like(x, dtype=torch.float32), triton.next_power_of_2(count), rows * top
    normed[(rows,)](x, weight, eps, hidden, wide, COLS=dim, SPAN=triton.next_power_of_2(dim), NORM=norm is not None)
    torch.mm(wide, experts.router.dense(torch.float32).T, out=logits)
    choose[(rows,)](logits, chosen, shares, E=count, EP=padded, TOP=top, NORMALIZE=experts.normalize)
    starts = torch.empty(count + 1, dtype=torch.int32, device=x.device)
    order = torch.empty(slots, dtype=torch.int32, device=x.device)
    sort[(count,)](chosen, starts, order, slots, E=count, BS=1024)
    inner = torch.empty((slots, ffn), dtype=dtype, device=x.device)
    parts = torch.empty((slots, dim), dtype=dtype, device=x.device)
    gated, down = blocks.gated, blocks.down
    gated_many[(_most_blocks(slots, count, gated.slots) * triton.cdiv(ffn, gated.outs),)](
        hidden, inner, starts, order, *tensors(experts.gate), *tensors(experts.up), E=count, EP=padded,
        TOP=top, OUTS=ffn, INS=dim, ACTIVATION=experts.activation, **_sizes(gated, hidden, experts.gate, experts.up),
        **_constants(experts.gate, "KIND", "P"), **_constants(experts.up, "KIND2", "Q"))
    down_many[(_most_blocks(slots, count, down.slots) * triton.cdiv(dim, down.outs),)](
        inner, parts, starts, order, *tensors(experts.down), E=count, EP=padded, OUTS=dim, INS=ffn,
        **_sizes(down, inner, experts.down), **_constants(experts.down, "KIND", "P"))
    mix[(rows, triton.cdiv(dim, 1024))](parts, shares, residual, COLS=dim, TOP=top, BC=1024)
    return residual


def _routing(x: Tensor, count: int, top: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Room for logits (rows, experts), norm(x), chosen experts and their shares (rows, top)."""
    rows = len(x)
    return (torch.empty((rows, count), dtype=torch.float32, device=x.device),
            torch.empty(x.shape, dtype=dtype, device=x.device),
            torch.empty((rows, top), dtype=torch.int32, device=x.device),
            torch.empty((rows, top), dtype=torch.float32, device=x.device))


def _router(experts: Experts, dtype: torch.dtype) -> Tensor:
    router = experts.router
    return router.values if isinstance(router, DenseMatrix) else router.dense(dtype)


def _most_blocks(slots: int, experts: int, block: int) -> int:
    """Blocks that are enough however slots fall to experts."""
    return slots // block + min(experts, slots)


def _sizes(shape: Shape, x: Tensor, *matrices: Matrix) -> dict[str, int]:
    """The blocks of a product of x with each of the matrices."""
    number = x.element_size()
    cols, stages = staged(x.device, shape.cols, shape.stages,
                          loaded=shape.slots * number + shape.outs * sum(map(width, matrices)),
                          made=shape.outs * number * sum(not isinstance(each, DenseMatrix) for each in matrices))
    return {"BM": shape.slots, "BN": shape.outs, "BK": cols, "num_warps": shape.warps, "num_stages": stages}


def _constants(matrix: Matrix, kind: str, prefix: str) -> dict[str, int]:
    first, *rest = _layout(matrix)
    return {kind: first, **{f"{prefix}{i}": value for i, value in enumerate(rest)}}


def _layout(matrix: Matrix) -> tuple[int, ...]:
    """The kind of a matrix and the six constants that `tile` takes with it."""
    if isinstance(matrix, Float8Matrix):
        return FLOAT8, matrix.height, int(matrix.whole), 0, 0, 0, 0
    if isinstance(matrix, GroupIntMatrix):
        one = matrix.layout
        return PACKED, one.low, one.high, one.group, one.offset, int(one.mins), int(one.two_level)
    return DENSE, 0, 0, 0, 0, 0, 0
