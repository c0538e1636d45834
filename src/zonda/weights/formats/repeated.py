"""Weights that repeat a few of their rows, as random ones do: what is stored of them is small."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from zonda.weights.source import Weight


@dataclass(frozen=True, slots=True, eq=False)
class Repeated:
    """`count` rows, or rows of each matrix of a stack, that are those of `part` over and over."""

    part: Weight
    count: int

    @property
    def shape(self) -> tuple[int, ...]:
        return *self.part.shape[:-2], self.count, self.part.shape[-1]

    @property
    def order(self) -> np.ndarray:
        """The row of `part` that each row is."""
        return np.arange(self.count) % self.part.shape[-2]

    def whole(self) -> Weight:
        """The same with all rows stored."""
        return self.part.rows(self.order)

    def rows(self, index: slice | np.ndarray) -> Weight:
        return self.part.rows(self.order[index])

    def cols(self, index: slice) -> Repeated:
        return Repeated(self.part.cols(index), self.count)

    def can_stack(self, other: Weight) -> bool:
        return isinstance(other, Repeated) and self.part.can_stack(other.part)

    def stack(self, others: Sequence[Weight]) -> Weight:
        return self.whole().stack([cast(Repeated, other).whole() for other in others])

    def dense(self) -> np.ndarray:
        return self.whole().dense()
