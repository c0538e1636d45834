"""Weights as plain floating-point arrays."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np

from zonda.weights.source import Weight

DenseType = Literal["f32", "f16", "bf16"]
STORAGE: dict[str, np.dtype] = {"f32": np.dtype("<f4"), "f16": np.dtype("<f2"), "bf16": np.dtype("<u2")}


@dataclass(frozen=True, slots=True, eq=False)
class Dense:
    """A vector, a matrix or a stack of matrices of floats; bfloat16 is held as the uint16 of its bits."""

    array: np.ndarray
    dtype: DenseType

    @classmethod
    def of(cls, values: np.ndarray) -> Dense:
        """The values as float32; those too large become infinite."""
        with np.errstate(over="ignore", invalid="ignore"):
            return cls(np.ascontiguousarray(values, dtype=np.float32), "f32")

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    def rows(self, index: slice | np.ndarray) -> Dense:
        return Dense(self.array[index] if self.array.ndim == 1 else self.array[..., index, :], self.dtype)

    def cols(self, index: slice) -> Dense:
        return Dense(self.array[..., index], self.dtype)

    def can_stack(self, other: Weight) -> bool:
        return isinstance(other, Dense) and self.dtype == other.dtype and alike(self.shape, other.shape)

    def stack(self, others: Sequence[Weight]) -> Dense:
        assert all(map(self.can_stack, others))
        arrays = [self.array, *(cast(Dense, other).array for other in others)]
        return Dense(np.concatenate(arrays, axis=max(0, self.array.ndim - 2)), self.dtype)

    def dense(self) -> np.ndarray:
        if self.dtype == "bf16":
            return (self.array.astype(np.uint32) << 16).view(np.float32)
        return self.array.astype(np.float32, copy=False)


def alike(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether two shapes differ in their number of rows alone."""
    return len(one) == len(other) and one[:-2] == other[:-2] and one[1:][-1:] == other[1:][-1:]
