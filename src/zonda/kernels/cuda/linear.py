"""Products with matrices: fused and bound by memory for few rows, on the tensor cores for many.

Rows of `x` are contiguous. Every launch can be captured in a graph. Where the device can start a kernel before the one
before it has ended, ours do, and wait before they read what it wrote.
"""
from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional
from triton.tools.tensor_descriptor import TensorDescriptor

from zonda.errors import Unsupported
from zonda.kernels.cuda import dense as dense_kernels
from zonda.kernels.cuda import few as few_kernels
from zonda.kernels.cuda import float8, shapes
from zonda.kernels.cuda import many as many_kernels
from zonda.kernels.cuda.float8 import Halves, Rounded
from zonda.kernels.cuda.launch import early
from zonda.kernels.cuda.shapes import DENSE_ROWS, PACKED_ROWS, UNPACKED_ROWS, Few, Many, Tiled
from zonda.kernels.cuda.tiles import combined
from zonda.kernels.ops import Activation, Norm
from zonda.kernels.torch.float8 import Float8Matrix
from zonda.kernels.torch.matrix import DenseMatrix, GroupIntMatrix, Matrix

ADDED_ROWS = 128
"""Rows from which a product is added where it is made."""
DOTS = {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16, torch.float32: tl.float32}


def project(x: Tensor, matrices: Sequence[Matrix], biases: Sequence[Tensor | None], *, norm: Norm | None = None,
            dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """norm(x) times each matrix transposed, plus its bias, side by side: (rows, sum of outs) of `dtype`."""
    out = torch.empty(x.shape[0], sum(each.outs for each in matrices), dtype=dtype, device=x.device)
    start = 0
    for matrix, bias in zip(matrices, biases):
        multiply(x, matrix, out[:, start:start + matrix.outs], norm=norm, bias=bias, dot=dtype)
        start += matrix.outs
    return out


def gated(x: Tensor, gate: Matrix, up: Matrix, activation: Activation, *, norm: Norm | None = None,
          dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """activation(norm(x) gateᵀ) · (norm(x) upᵀ): (rows, ffn) of `dtype`."""
    out = torch.empty(x.shape[0], gate.outs, dtype=dtype, device=x.device)
    if alike(gate, up):
        multiply(x, gate, out, norm=norm, up=up, activation=activation, dot=dtype)
        return out
    both = project(x, [gate, up], [None, None], norm=norm, dtype=torch.float32)
    return combine(both[:, :gate.outs], both[:, gate.outs:], activation, out)


def output(x: Tensor, matrix: Matrix, bias: Tensor | None, residual: Tensor) -> Tensor:
    """residual + x times the matrix transposed + bias, in the memory of `residual`, float32 (rows, dim)."""
    multiply(x, matrix, residual, bias=bias, residual=residual, dot=x.dtype)
    return residual


def add(x: Tensor, matrix: Matrix, residual: Tensor) -> Tensor:
    """The same of many rows on a matrix of floats, or made floats, by the library."""
    return torch.addmm(residual, x, floats(matrix, x.dtype).t(), out_dtype=torch.float32, out=residual)


def adds(x: Tensor, matrix: Matrix) -> bool:
    """Whether `add` can be had and is faster than a product that is added later."""
    return x.is_cuda and x.dtype != torch.float32 and len(x) >= ADDED_ROWS and not _direct(x, matrix)


def logits(x: Tensor, matrix: Matrix, *, norm: Norm | None = None, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """norm(x) times the matrix transposed, float32 (rows, vocab); operands of many rows are of `dtype`."""
    out = torch.empty(x.shape[0], matrix.outs, dtype=torch.float32, device=x.device)
    multiply(x, matrix, out, norm=norm, dot=dtype)
    return out


def matmul(x: Tensor | Rounded | Halves, matrix: Matrix, bias: Tensor | None = None) -> Tensor:
    """x times the matrix transposed plus bias, of x's type, for many rows."""
    if isinstance(matrix, Float8Matrix) and (not isinstance(x, Tensor) or float8.rounds(len(x), [matrix])):
        return float8.times(x, matrix, bias)
    if isinstance(x, Halves):
        x = combine(x.first, x.second, x.activation, x.first)
    assert isinstance(x, Tensor)
    if _direct(x, matrix):
        out = torch.empty(x.shape[0], matrix.outs, dtype=x.dtype, device=x.device)
        multiply(x, matrix, out, bias=bias, dot=x.dtype)
        return out
    return functional.linear(x, floats(matrix, x.dtype), None if bias is None else bias.to(x.dtype))


def matmul_gated(x: Tensor | Rounded, gate: Matrix, up: Matrix, activation: Activation) -> Tensor | Halves:
    """activation(x gateᵀ) · (x upᵀ), of x's type, for many rows; halves of those that are rounded."""
    if isinstance(x, Rounded):
        return Halves(matmul(x, gate), matmul(x, up), activation)
    if _direct(x, gate) and alike(gate, up):
        return gated(x, gate, up, activation, dtype=x.dtype)
    if not (_direct(x, gate) or _direct(x, up)) and (shape := shapes.tiled(x, gate.outs, gated=True)):
        out = x.new_empty(len(x), gate.outs)
        return tiled(x, floats(gate, x.dtype), out, shape, up=floats(up, x.dtype), activation=activation)
    first = matmul(x, gate)
    return combine(first, matmul(x, up), activation, first)


def many_logits(h: Tensor, head: Matrix) -> Tensor:
    """h times the matrix transposed, float32 (rows, vocab), for many rows."""
    if isinstance(head, GroupIntMatrix) and len(h) <= UNPACKED_ROWS:
        return logits(h, head, dtype=h.dtype)
    if not isinstance(head, DenseMatrix) or not h.is_cuda or h.dtype == torch.float32:
        return matmul(h, head).float()
    if shape := shapes.tiled(h, head.outs, gated=False):
        return tiled(h, head.values, torch.empty(len(h), head.outs, dtype=torch.float32, device=h.device), shape)
    return torch.mm(h, head.values.t(), out_dtype=torch.float32)


def _direct(x: Tensor, matrix: Matrix) -> bool:
    """Whether a kernel of our own multiplies many rows with the matrix as it is stored."""
    return isinstance(matrix, Float8Matrix) or (isinstance(matrix, GroupIntMatrix) and len(x) <= UNPACKED_ROWS)


def fused(x: Tensor, matrices: Sequence[Matrix]) -> bool:
    """Whether one kernel with a norm is faster than a norm and a product."""
    return len(x) <= min(_few_rows(each) for each in matrices)


def _few_rows(matrix: Matrix) -> int:
    if isinstance(matrix, Float8Matrix):
        return float8.few_rows(matrix)
    return PACKED_ROWS if isinstance(matrix, GroupIntMatrix) else DENSE_ROWS


def alike(one: Matrix, other: Matrix) -> bool:
    """Whether one kernel can take both."""
    if isinstance(one, GroupIntMatrix) and isinstance(other, GroupIntMatrix):
        return one.layout == other.layout and one.shape == other.shape
    return type(one) is type(other) and one.shape == other.shape


def floats(matrix: Matrix, dtype: torch.dtype) -> Tensor:
    """The values (outs, ins); a packed matrix is unpacked by a kernel."""
    if not isinstance(matrix, GroupIntMatrix):
        return matrix.dense(dtype)
    out = torch.empty(matrix.outs, matrix.ins, dtype=dtype, device=matrix.planes.low.device)
    grid = (triton.cdiv(matrix.outs, 16), triton.cdiv(matrix.ins, 256))
    many_kernels.unpack[grid](*tensors(matrix), out, matrix.outs, INS=matrix.ins, BN=16, BK=256, **layout(matrix))
    return out


def multiply(x: Tensor, matrix: Matrix, out: Tensor, *, dot: torch.dtype, norm: Norm | None = None,
             bias: Tensor | None = None, residual: Tensor | None = None, up: Matrix | None = None,
             activation: Activation = "silu", shape: Few | Many | None = None) -> None:
    """One launch: norm(x) times the matrix transposed, with all that follows, into `out` (rows, outs).

    `up` makes it a gated product. On the tensor cores operands are of type `dot`, and there is no norm and no residual.
    `shape` replaces the rule.
    """
    if isinstance(matrix, Float8Matrix):
        assert up is None or isinstance(up, Float8Matrix)
        return float8.multiply(x, matrix, out, dot=dot, norm=norm, bias=bias, residual=residual, up=up,
                               activation=activation)
    if not isinstance(matrix, DenseMatrix | GroupIntMatrix):
        raise Unsupported(f"the GPU kernels cannot multiply with {type(matrix).__name__}")
    if shape is None:
        rows = len(x) if dot != torch.float32 else min(len(x), 32)  # larger tiles of these need too much memory
        shape = shapes.rule(matrix, rows, gated=up is not None)
    options = {"GATED": up is not None, "ACTIVATION": activation, "BIAS": bias is not None, "num_warps": shape.warps,
               **early(x.device)}
    sizes = (out, x.shape[0], matrix.outs, out.stride(0))
    if isinstance(shape, Many):
        assert isinstance(matrix, GroupIntMatrix) and norm is None and residual is None
        # Triton's interpreter would multiply the bits of bfloat16
        kind = dot if x.is_cuda else torch.float32
        return _launch_many(x, matrix, up or matrix, bias, sizes, shape, options | {"DOT": DOTS[kind], "KIND": kind})
    before = (x, x if norm is None else norm.weight, 0.0 if norm is None else norm.eps)
    after = (x if bias is None else bias, out if residual is None else residual, *sizes)
    _launch_few(before, matrix, up or matrix, after, shape,
                options | {"NORM": norm is not None, "RESIDUAL": residual is not None})


def _launch_few(before: tuple[Any, ...], matrix: DenseMatrix | GroupIntMatrix, up: Matrix, after: tuple[Any, ...],
                shape: Few, options: dict[str, Any]) -> None:
    sizes = {"INS": matrix.ins, "SPAN": shapes.span(matrix), "R": shapes.power(after[3]), "BN": shape.block,
             "TURNS": triton.cdiv(triton.cdiv(matrix.outs, shape.block), shape.programs)}
    if isinstance(matrix, GroupIntMatrix):
        few_kernels.few_packed[(shape.programs,)](*before, *tensors(matrix), *tensors(up), *after, 1, **sizes,
                                                  **layout(matrix), **options)
    else:
        few_kernels.few_dense[(shape.programs,)](*before, matrix.values, tensors(up)[0], *after, **sizes, **options)


def _launch_many(x: Tensor, matrix: GroupIntMatrix, up: Matrix, bias: Tensor | None, sizes: tuple[Any, ...],
                 shape: Many, options: dict[str, Any]) -> None:
    tiles = triton.cdiv(len(x), shape.rows) * triton.cdiv(matrix.outs, shape.outs)
    arrived = torch.empty(shapes.ARRIVALS, dtype=torch.int32, device=x.device)
    parts = arrived
    if shape.splits > 1:
        assert tiles <= shapes.ARRIVALS
        size = tiles * shape.splits * (1 + options["GATED"]) * shape.rows * shape.outs
        parts = torch.empty(size, dtype=torch.float32, device=x.device)
    ordered = x.new_empty(x.shape, dtype=options.pop("KIND"))
    many_kernels.by_fields[(len(x), triton.cdiv(matrix.ins, 2048))](
        x, ordered, arrived, INS=matrix.ins, LOW=matrix.layout.low, BLOCK=2048 // matrix.layout.unit,
        ARRIVALS=shapes.ARRIVALS, **early(x.device))
    inputs = TensorDescriptor.from_tensor(ordered, [shape.rows, shape.words]) if shape.bulk else ordered
    many_kernels.many[(tiles, shape.splits)](
        inputs, *tensors(matrix), *tensors(up), x if bias is None else bias, parts, arrived, _lanes(x.device), *sizes,
        INS=matrix.ins, BM=shape.rows, BN=shape.outs, KW=shape.words, STAGES=shape.stages, SPLITS=shape.splits,
        BULK=shape.bulk, **layout(matrix), **options)


def tiled(x: Tensor, values: Tensor, out: Tensor, shape: Tiled, *, up: Tensor | None = None,
          activation: Activation = "silu") -> Tensor:
    """x times `values` (outs, ins) transposed, or activation(that) times x upᵀ, into `out` (rows, outs)."""
    outs, ins = values.shape
    one, two = (TensorDescriptor.from_tensor(each, [shape.outs, shape.columns])
                for each in (values, values if up is None else up))
    # Triton's interpreter would multiply the bits of bfloat16
    kind = DOTS[x.dtype if x.is_cuda else torch.float32]
    dense_kernels.tiled[(triton.cdiv(len(x), shape.rows) * triton.cdiv(outs, shape.outs),)](
        TensorDescriptor.from_tensor(x, [shape.rows, shape.columns]), one, two, out, len(x), outs, out.stride(0),
        INS=ins, BM=shape.rows, BN=shape.outs, BK=shape.columns, STAGES=shape.stages, BAND=shape.band, DOT=kind,
        GATED=up is not None, ACTIVATION=activation, num_warps=shape.warps, **early(x.device))
    return out


@functools.cache
def _lanes(device: torch.device) -> Tensor:
    """The numbers of a unit's words and the bits of 1.0, for `many`."""
    return torch.tensor([0, 1, 2, 3, 0x3F800000], dtype=torch.int32, device=device)


def tensors(matrix: Matrix) -> tuple[Tensor, ...]:
    """The four tensors that kernels take of a matrix; scales or the first stand in for those that it does not have."""
    if isinstance(matrix, DenseMatrix):
        return (matrix.values,) * 4
    if isinstance(matrix, Float8Matrix):
        return matrix.codes, matrix.scales, matrix.codes, matrix.codes
    assert isinstance(matrix, GroupIntMatrix)
    low, high, scales, heads = matrix.planes.tensors()
    return low, low if high is None else high, scales, scales if heads is None else heads  # type: ignore[return-value]


def layout(matrix: GroupIntMatrix) -> dict[str, Any]:
    """What a kernel is told of how a matrix is packed."""
    one = matrix.layout
    return {"LOW": one.low, "HIGH": one.high, "GROUP": one.group, "OFFSET": one.offset, "MINS": one.mins,
            "TWO": one.two_level}


def combine(gate: Tensor, up: Tensor, activation: Activation, out: Tensor) -> Tensor:
    """activation(gate) · up -> out (rows, ffn); rows may be strided."""
    rows, ffn = out.shape
    grid = (rows, triton.cdiv(ffn, 1024))
    combined[grid](gate, up, out, ffn, gate.stride(0), up.stride(0), out.stride(0), ACTIVATION=activation, BLOCK=1024,
                   **early(out.device))
    return out
