"""Executable weights on a torch device, each with the plain definition of what it holds."""
from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from zonda.errors import Unsupported
from zonda.kernels.torch.blocks import split
from zonda.kernels.torch.float8 import prepare_float8
from zonda.kernels.torch.packed import LAYOUTS, Layout, Planes, pack, unpack
from zonda.weights.formats import Dense, Float8, GroupInt
from zonda.weights.source import Weight

CHUNK = 1 << 24
"""Weights that are taken apart at a time."""
STAGE = 1 << 26
"""Bytes of each of the two pieces of pinned memory that weights pass through."""
SHARES = 4
"""Threads that fill them."""
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
    raise Unsupported(f"the GPU kernels do not know {type(weight).__name__}")


def upload(array: np.ndarray, device: torch.device | str, dtype: torch.dtype) -> Tensor:
    """An array, mapped from a file perhaps, whose bits are of `dtype`."""
    if torch.device(device).type == "cuda" and array.nbytes > STAGE // 16:
        return _staged(np.ascontiguousarray(array), torch.device(device), dtype)
    host = torch.empty(array.shape, dtype=dtype)
    bits = torch.int16 if dtype == torch.bfloat16 else dtype
    target = host.view(bits).numpy()
    np.copyto(target, array.view(target.dtype))
    return host.to(device)


def _staged(array: np.ndarray, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Through pinned memory, a piece at a time: threads fill one piece while the other is on its way."""
    out = torch.empty(array.shape, dtype=dtype, device=device)
    source, target = array.reshape(-1).view(np.uint8), out.view(-1).view(torch.uint8)
    pieces, threads = _stages(device)
    for number, start in enumerate(range(0, source.size, STAGE)):
        piece, free = pieces[number % 2]
        free.synchronize()
        size = min(STAGE, source.size - start)
        share = -(-size // SHARES)
        list(threads.map(lambda at, start=start, piece=piece, size=size, share=share: np.copyto(
            piece.numpy()[at:min(size, at + share)], source[start + at:start + min(size, at + share)]),
            range(0, size, share)))
        target[start:start + size].copy_(piece[:size], non_blocking=True)
        free.record()
    for _, free in pieces:
        free.synchronize()
    return out


@functools.cache
def _stages(device: torch.device) -> tuple[list[tuple[Tensor, torch.cuda.Event]], ThreadPoolExecutor]:
    pieces = [(torch.empty(STAGE, dtype=torch.uint8, pin_memory=True), torch.cuda.Event()) for _ in range(2)]
    return pieces, ThreadPoolExecutor(SHARES)


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
