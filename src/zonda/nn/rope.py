"""Rotary position embedding. Every scaling is a choice of frequencies and a factor, made once, at load."""
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from zonda.kernels.ops import Ops, Prepared, Rotary
from zonda.nn.module import Module, Read

Scaled = tuple[np.ndarray, float]
"""Frequencies, float64 (dim/2,), and the factor of sine and cosine."""


class Scaling(Protocol):
    """A way to stretch rotary embeddings over more positions than they were trained for."""

    def apply(self, rope: Rope) -> Scaled: ...


class Rope(Module):
    """Rotation of a head's first `rotated` numbers, or all of it, by position.

    `max_len` is the most positions that a sequence will have. Scalings that depend on a sequence's length (long
    factors, dynamic) depend on `max_len` instead, so that cached keys stay valid while a sequence grows.
    """

    table: Prepared

    def __init__(self, head_dim: int, *, theta: float = 10_000.0, rotated: int | None = None,
                 scaling: Scaling | None = None, max_len: int = 0) -> None:
        self.dim = head_dim if rotated is None else rotated
        self.theta = theta
        self.max_len = max_len
        self.frequencies, self.factor = scaling.apply(self) if scaling else (self.powers(theta), 1.0)

    def powers(self, theta: float) -> np.ndarray:
        return theta ** -(np.arange(0, self.dim, 2, dtype=np.float64) / self.dim)

    def load(self, read: Read, ops: Ops) -> None:
        self.table = ops.vector(self.frequencies.astype(np.float32))

    @property
    def rotary(self) -> Rotary:
        return Rotary(self.table, self.dim, self.factor)


@dataclass(frozen=True, slots=True)
class LinearScaling:
    """Positions divided by `factor`."""

    factor: float

    def apply(self, rope: Rope) -> Scaled:
        return rope.powers(rope.theta) / self.factor, 1.0


@dataclass(frozen=True, slots=True)
class FactorScaling:
    """Each frequency divided by its own factor."""

    factors: tuple[float, ...]

    def apply(self, rope: Rope) -> Scaled:
        return rope.powers(rope.theta) / np.array(self.factors), 1.0


@dataclass(frozen=True, slots=True)
class DynamicScaling:
    """A greater base where `max_len` exceeds the `original` context."""

    factor: float
    original: int

    def apply(self, rope: Rope) -> Scaled:
        stretch = self.factor * max(rope.max_len, self.original) / self.original - (self.factor - 1)
        exponent = rope.dim / (rope.dim - 2) if rope.dim > 2 else 1.0
        return rope.powers(rope.theta * stretch**exponent), 1.0


@dataclass(frozen=True, slots=True)
class Llama3Scaling:
    """Long wavelengths divided by `factor`, short ones kept, a smooth passage between them."""

    factor: float
    low: float
    high: float
    original: int

    def apply(self, rope: Rope) -> Scaled:
        frequencies = rope.powers(rope.theta)
        turns = self.original * frequencies / (2 * math.pi)
        kept = np.clip((turns - self.low) / (self.high - self.low), 0.0, 1.0)
        return frequencies * (kept + (1 - kept) / self.factor), 1.0


@dataclass(frozen=True, slots=True)
class YarnScaling:
    """Pairs that turn often over the `original` context kept, slow ones divided by `factor` (arXiv 2309.00071).

    `fast` and `slow` are the numbers of turns where the passage between the two begins and ends.
    """

    factor: float
    original: int
    attention: float
    fast: float = 32.0
    slow: float = 1.0
    truncate: bool = True

    def apply(self, rope: Rope) -> Scaled:
        low, high = self._pair(self.fast, rope), self._pair(self.slow, rope)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, rope.dim - 1)
        ramp = (np.arange(rope.dim // 2) - low) / ((high - low) or 0.001)
        divided = np.clip(ramp, 0.0, 1.0)
        return rope.powers(rope.theta) * (1 - divided + divided / self.factor), self.attention

    def _pair(self, turns: float, rope: Rope) -> float:
        return rope.dim * math.log(self.original / (turns * 2 * math.pi)) / (2 * math.log(rope.theta))


@dataclass(frozen=True, slots=True)
class LongScaling:
    """One list of factors within the `original` context, another where `max_len` exceeds it (arXiv 2402.13753)."""

    long: tuple[float, ...]
    short: tuple[float, ...]
    original: int
    attention: float

    def apply(self, rope: Rope) -> Scaled:
        factors = self.long if rope.max_len > self.original else self.short
        return rope.powers(rope.theta) / np.array(factors), self.attention
