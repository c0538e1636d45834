"""Weights as small integers with a scale, and perhaps a minimum, for each group of neighbours in a row."""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from zonda.errors import InvalidModel
from zonda.weights.formats.dense import alike
from zonda.weights.source import Weight

Unpacked = tuple[np.ndarray, np.ndarray, np.ndarray | None]
CHUNK = 1 << 20
"""Weights that `dense` unpacks at a time."""


@dataclass(frozen=True, slots=True, eq=False)
class Codec:
    """How a packed format lays out its integers: value = (code - offset) · scale - minimum.

    A row is a chain of blocks of `block` weights in `block_bytes` bytes; `group` weights share one scale. `unpack`
    takes packed rows, uint8 (r, row bytes), to codes uint8 (r, cols), scales float32 (r, cols / group) and minimums
    of that shape, or None.
    """

    name: str
    bits: int
    group: int
    block: int
    block_bytes: int
    offset: int
    has_min: bool
    unpack: Callable[[np.ndarray], Unpacked]

    def row_bytes(self, cols: int) -> int:
        """Bytes of one row of so many weights."""
        return cols // self.block * self.block_bytes


@dataclass(frozen=True, slots=True, eq=False)
class GroupInt:
    """A matrix or a stack of matrices of group-scaled integers; `packed` is uint8 (…, rows, row bytes), as in files."""

    codec: Codec
    packed: np.ndarray
    shape: tuple[int, ...]

    def rows(self, index: slice | np.ndarray) -> GroupInt:
        return self._with(self.packed[..., index, :], self.shape[-1])

    def cols(self, index: slice) -> GroupInt:
        start, stop, step = index.indices(self.shape[-1])
        block, size = self.codec.block, self.codec.block_bytes
        if step != 1 or start % block or stop % block:
            raise InvalidModel(f"columns {start} to {stop} split a block of {block} {self.codec.name} weights",
                               hint=f"cut at multiples of {block}")
        stop = max(start, stop)
        return self._with(self.packed[..., start // block * size:stop // block * size], stop - start)

    def can_stack(self, other: Weight) -> bool:
        return isinstance(other, GroupInt) and self.codec is other.codec and alike(self.shape, other.shape)

    def stack(self, others: Sequence[Weight]) -> GroupInt:
        assert all(map(self.can_stack, others))
        packed = [self.packed, *(cast(GroupInt, other).packed for other in others)]
        return self._with(np.concatenate(packed, axis=-2), self.shape[-1])

    def dense(self) -> np.ndarray:
        count, cols = math.prod(self.shape[:-1]), self.shape[-1]
        out = np.empty((count, cols), dtype=np.float32)
        packed = self.packed.reshape(count, self.packed.shape[-1])
        chunk = max(1, CHUNK // max(1, cols))
        with np.errstate(over="ignore", invalid="ignore"):
            for start in range(0, count if cols else 0, chunk):
                self._values(packed[start:start + chunk], out[start:start + chunk])
        return out.reshape(self.shape)

    def _values(self, packed: np.ndarray, out: np.ndarray) -> None:
        codes, scales, mins = self.codec.unpack(packed)
        values = (codes.astype(np.int16) - self.codec.offset).reshape(*scales.shape, self.codec.group)
        grouped = out.reshape(values.shape)
        np.multiply(values, scales[..., None], out=grouped)
        if mins is not None:
            grouped -= mins[..., None]

    def _with(self, packed: np.ndarray, cols: int) -> GroupInt:
        return GroupInt(self.codec, packed, (*packed.shape[:-1], cols))
