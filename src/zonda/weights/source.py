"""The two nouns of weight loading: a `Weight` is the packed storage of one matrix, a `Source` maps names to them."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np


class Weight(Protocol):
    """One matrix (rows, cols) or a stack of matrices (n, rows, cols), as its file packs it, usually mmapped."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The logical shape, in elements."""

    def rows(self, index: slice | np.ndarray) -> Weight:
        """The weight with only these rows, in this order; of a stack, rows of every matrix."""

    def cols(self, index: slice) -> Weight:
        """The weight with only these columns; raises `InvalidModel` if the cut splits a block."""

    def can_stack(self, other: Weight) -> bool:
        """Whether the two have one format and as many columns."""

    def stack(self, others: Sequence[Weight]) -> Weight:
        """This weight above the others: rows are concatenated."""

    def dense(self) -> np.ndarray:
        """The values as float32, of the logical shape."""


class Source(Protocol):
    """A checkpoint under canonical names."""

    @property
    def metadata(self) -> dict[str, Any]:
        """Hyper-parameters under the file's own keys: `config.json` as it is, or GGUF metadata."""

    def names(self) -> set[str]:
        """All canonical names in the checkpoint."""

    def read(self, name: str) -> Weight:
        """The weight of that name; raises `InvalidModel` when it is absent or damaged."""
