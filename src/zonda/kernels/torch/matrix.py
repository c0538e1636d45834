"""Executable weights on a torch device, each with the plain definition of what it holds."""
from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from zonda.errors import Unsupported
from zonda.kernels.torch.blocks import split
from zonda.kernels.torch.float8 import Float8Matrix, combined_float8, prepare_float8
from zonda.kernels.torch.packed import LAYOUTS, Layout, Planes, pack, unpack
from zonda.kernels.torch.upload import upload
from zonda.weights.formats import Dense, Float8, GroupInt
from zonda.weights.formats.repeated import Repeated
from zonda.weights.source import Weight

CHUNK = 1 << 24
"""Weights that are taken apart at a time."""
_STORAGE = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


class Matrix(Protocol):
    """A matrix (outs, ins), or a stack of experts (experts, outs, ins), in the form that kernels execute."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The logical shape, in elements."""

    @property
    def outs(self) -> int: ...

    @property
    def ins(self) -> int: ...

    def dense(self, dtype: torch.dtype) -> Tensor:
        """The values, of the logical shape."""

    def rows(self, ids: Tensor) -> Tensor:
        """Rows of one matrix, as an embedding looks them up: (n,) -> (n, ins), in the widest type that is at hand."""


@dataclass(frozen=True, slots=True, eq=False)
class DenseMatrix:
    """Floats in rows."""

    values: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.values.shape)

    @property
    def outs(self) -> int:
        return self.values.shape[-2]

    @property
    def ins(self) -> int:
        return self.values.shape[-1]

    def dense(self, dtype: torch.dtype) -> Tensor:
        return self.values.to(dtype)

    def rows(self, ids: Tensor) -> Tensor:
        return self.values[ids]


@dataclass(frozen=True, slots=True, eq=False)
class GroupIntMatrix:
    """Small integers with group scales, packed as `packed.py` says."""

    layout: Layout
    planes: Planes
    shape: tuple[int, ...]

    @property
    def outs(self) -> int:
        return self.shape[-2]

    @property
    def ins(self) -> int:
        return self.shape[-1]

    def dense(self, dtype: torch.dtype) -> Tensor:
        return unpack(self.planes, self.layout).to(dtype)

    def rows(self, ids: Tensor) -> Tensor:
        return unpack(self.planes.rows(ids), self.layout)


def prepare(weight: Weight, device: torch.device | str, dtype: torch.dtype) -> Matrix:
    """A weight, or a stack of weights, on the device; floats become `dtype`, packed weights stay packed."""
    if isinstance(weight, Dense):
        return DenseMatrix(upload(weight.array, device, _STORAGE[weight.dtype]).to(dtype))
    if isinstance(weight, GroupInt):
        return _group_int(weight, device)
    if isinstance(weight, Float8):
        return prepare_float8(weight, device)
    if isinstance(weight, Repeated):
        order = torch.from_numpy(weight.order).to(device)
        return combined([prepare(weight.part, device, dtype)], lambda parts: parts[0].index_select(-2, order))
    raise Unsupported(f"the GPU kernels do not know {type(weight).__name__}")


def stacked(matrices: Sequence[Matrix]) -> Matrix:
    """Matrices of one kind, one below the other."""
    return combined(matrices, lambda parts: torch.cat(parts, -2)) if len(matrices) > 1 else matrices[0]


def combined(matrices: Sequence[Matrix], combine: Callable[[list[Tensor]], Tensor]) -> Matrix:
    """A matrix each of whose tensors `combine` makes of the rows of theirs; they are of one kind."""
    first = matrices[0]
    if isinstance(first, GroupIntMatrix):
        kept = zip(*(one.planes.tensors() for one in matrices if isinstance(one, GroupIntMatrix)))
        planes = Planes(*(None if parts[0] is None else combine(list(parts)) for parts in kept))  # type: ignore[arg-type]
        return GroupIntMatrix(first.layout, planes, (*first.shape[:-2], planes.low.shape[-2], first.ins))
    if isinstance(first, Float8Matrix):
        return combined_float8([one for one in matrices if isinstance(one, Float8Matrix)], combine)
    assert isinstance(first, DenseMatrix)
    return DenseMatrix(combine([one.values for one in matrices if isinstance(one, DenseMatrix)]))


def _group_int(weight: GroupInt, device: torch.device | str) -> GroupIntMatrix:
    name = weight.codec.name
    if name not in LAYOUTS:
        raise Unsupported(f"the GPU kernels have no layout for {name}", hint=f"they have {', '.join(LAYOUTS)}")
    if weight.shape[-1] % weight.codec.block:
        raise Unsupported(f"a matrix of {weight.shape[-1]} columns does not divide into blocks of {name}")
    layout = LAYOUTS[name]
    packed = weight.packed.reshape(math.prod(weight.shape[:-1]), -1)
    parts = [pack(split(name, upload(chunk, device, torch.uint8)), layout).tensors()
             for chunk in _chunks(packed, weight.shape[-1])]
    joined = (None if each[0] is None else torch.cat(each).reshape(*weight.shape[:-1], -1)
              for each in zip(*parts))
    return GroupIntMatrix(layout, Planes(*joined), weight.shape)  # type: ignore[arg-type]


def _chunks(packed: np.ndarray, cols: int) -> Iterator[np.ndarray]:
    rows = max(1, CHUNK // max(1, cols))
    return (packed[start:start + rows] for start in range(0, max(1, len(packed)), rows))
