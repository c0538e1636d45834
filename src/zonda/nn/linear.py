"""Matrices: one or a stack, with a bias, several side by side, and the embedding table."""
from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from zonda.kernels.ops import Array, Norm, Ops, Prepared
from zonda.nn.module import Module, Read
from zonda.weights.source import Weight


class Matrix(Module):
    """A matrix (outputs, inputs), or a stack of them (experts, outputs, inputs)."""

    weight: Prepared

    def __init__(self, *shape: int) -> None:
        self.shape = shape

    def parameters(self) -> dict[str, tuple[int, ...]]:
        return {"": self.shape}

    def load(self, read: Read, ops: Ops) -> None:
        self.weight = ops.prepare(read(""))


class Linear(Matrix):
    """x Wᵀ + b."""

    bias: Prepared | None

    def __init__(self, inputs: int, outputs: int, *, bias: bool = False) -> None:
        super().__init__(outputs, inputs)
        self.biased = bias

    def parameters(self) -> dict[str, tuple[int, ...]]:
        return {"": self.shape, **({"bias": self.shape[:1]} if self.biased else {})}

    def load(self, read: Read, ops: Ops) -> None:
        super().load(read, ops)
        self.bias = ops.vector(read("bias").dense()) if self.biased else None


class Projection(Module):
    """Matrices over one input, side by side; where their formats allow it, they are stacked into one."""

    inline = True
    weights: list[Prepared]
    biases: list[Prepared | None]

    def __init__(self, inputs: int, *, bias: bool = False, **outputs: int) -> None:
        self.shapes = {name: (rows, inputs) for name, rows in outputs.items()}
        self.biased = bias

    def parameters(self) -> dict[str, tuple[int, ...]]:
        biases = {f"{name}.bias": shape[:1] for name, shape in self.shapes.items()}
        return {**self.shapes, **(biases if self.biased else {})}

    def load(self, read: Read, ops: Ops) -> None:
        self.weights, self.biases = [], []
        for members in stackable({name: read(name) for name in self.shapes}):
            self.weights.append(ops.prepare(*members.values()))
            self.biases.append(ops.vector(_beside(read, list(members))) if self.biased else None)

    def __call__(self, x: Array, *, norm: Norm | None = None) -> Array:
        return self.ops.project(x, self.weights, self.biases, norm=norm)


class Embedding(Matrix):
    """A table of one row a token, times `scale`."""

    def __init__(self, vocab: int, dim: int, *, scale: float = 1.0) -> None:
        super().__init__(vocab, dim)
        self.scale = scale


def stackable(weights: dict[str, Weight]) -> Iterator[dict[str, Weight]]:
    """Runs of neighbours that share a format."""
    run: dict[str, Weight] = {}
    for name, weight in weights.items():
        if run and not next(iter(run.values())).can_stack(weight):
            yield run
            run = {}
        run[name] = weight
    yield run


def _beside(read: Read, names: list[str]) -> np.ndarray:
    return np.concatenate([read(f"{name}.bias").dense() for name in names])
