"""Normalization."""
from __future__ import annotations

from zonda.kernels.ops import Norm, Ops, Prepared
from zonda.nn.module import Module, Read


class RMSNorm(Module):
    """x / sqrt(mean(x²) + eps) · weight, folded into the operation that follows or precedes it."""

    weight: Prepared

    def __init__(self, dim: int, eps: float) -> None:
        self.dim = dim
        self.eps = eps

    def parameters(self) -> dict[str, tuple[int, ...]]:
        return {"": (self.dim,)}

    def load(self, read: Read, ops: Ops) -> None:
        self.weight = ops.vector(read("").dense())

    @property
    def folded(self) -> Norm:
        return Norm(self.weight, self.eps)


def fold(norm: RMSNorm | None) -> Norm | None:
    return norm.folded if norm else None
