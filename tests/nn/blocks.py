"""A checkpoint in memory, for tests."""
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zonda.errors import InvalidModel


@dataclass(eq=False)
class Plain:
    """A weight of float32 values; `format` stands for what keeps two weights from stacking."""

    values: np.ndarray
    format: str = "f32"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def rows(self, index: slice | np.ndarray) -> "Plain":
        return Plain(self.values[..., index, :], self.format)

    def cols(self, index: slice) -> "Plain":
        return Plain(self.values[..., index], self.format)

    def can_stack(self, other: "Plain") -> bool:
        return self.format == other.format and self.shape[1:] == other.shape[1:]

    def stack(self, others: Sequence["Plain"]) -> "Plain":
        return Plain(np.concatenate([self.values, *(o.values for o in others)]), self.format)

    def dense(self) -> np.ndarray:
        return np.asarray(self.values, np.float32)


class Memory:
    """A source of named arrays."""

    def __init__(self, arrays: dict[str, Any], metadata: dict[str, Any] | None = None) -> None:
        self.weights = {name: a if isinstance(a, Plain) else Plain(np.asarray(a)) for name, a in arrays.items()}
        self.metadata = metadata or {}
        self.reads: list[str] = []

    def names(self) -> set[str]:
        return set(self.weights)

    def read(self, name: str) -> Plain:
        self.reads.append(name)
        if name not in self.weights:
            raise InvalidModel(f"{name} is absent")
        return self.weights[name]


def random_arrays(block: Any, seed: int = 0) -> dict[str, np.ndarray]:
    """Random values for every parameter of a tree."""
    rng = np.random.default_rng(seed)
    shapes = {f"{name}.{part}".strip("."): shape for name, b in block.walk() for part, shape in b.parameters().items()}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
