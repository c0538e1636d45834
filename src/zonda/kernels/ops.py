"""The interface between the blocks of a model and the device that runs them, at the grain where fusion pays.

Shapes: `rows` is the number of tokens in a step, over all sequences. An `Array` belongs to the backend: numpy for the
reference, a symbolic buffer where a backend records a program, torch on a GPU. Blocks treat it as opaque.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from zonda.weights.source import Weight

Array = Any
Prepared = Any
"""A weight or vector in the backend's own executable layout."""
Activation = Literal["silu", "gelu", "gelu_tanh", "relu"]


@dataclass(frozen=True, slots=True)
class Norm:
    """RMS norm: x / sqrt(mean(x²) + eps) · weight."""

    weight: Prepared
    eps: float


@dataclass(frozen=True, slots=True)
class Heads:
    """Attention heads: `q` query heads share `kv` key and value heads of `dim` numbers each."""

    q: int
    kv: int
    dim: int


@dataclass(frozen=True, slots=True)
class Rotary:
    """Rotary embedding in half-split order: pair (i, i + dim/2), angle position · frequencies[i].

    `frequencies`: float32 (dim/2,), prepared. `factor` multiplies sine and cosine. `dim` may be less than the head's.
    """

    frequencies: Prepared
    dim: int
    factor: float = 1.0


@dataclass(frozen=True, slots=True)
class Attend:
    """One attention layer: `index` selects its pages; `window` counts the visible positions, 0 for all;
    `softcap` 0 for none; `scale` multiplies the scores. `sinks`, float32 (q heads,), prepared, are one more score for
    each head, of a position that has no value: they take a share of the weights."""

    index: int
    heads: Heads
    scale: float
    rotary: Rotary | None = None
    q_norm: Norm | None = None
    k_norm: Norm | None = None
    window: int = 0
    softcap: float = 0.0
    sinks: Prepared | None = None


@dataclass(frozen=True, slots=True)
class Experts:
    """A mixture of gated MLPs. `router` (experts, dim); `gate`, `up` (experts, ffn, dim); `down` (experts, dim, ffn).

    Softmax over all experts, the `top` largest, renormalized to sum to one if `normalize`.
    """

    router: Prepared
    gate: Prepared
    up: Prepared
    down: Prepared
    top: int
    normalize: bool
    activation: Activation = "silu"


class Ops(Protocol):
    """What a device can do. All results are float32 or the device's activation type; rows lead."""

    def prepare(self, weight: Weight, *others: Weight) -> Prepared:
        """Bring a matrix, or a stack of matrices (experts, out, in), into the executable layout.

        The rows of `others`, with which it can stack, come below its own.
        """

    def vector(self, values: np.ndarray) -> Prepared:
        """Bring a norm's weights, a bias or a table of frequencies to the device, as float32."""

    def embed(self, table: Prepared, step: Any, *, scale: float = 1.0) -> Array:
        """Rows of `table` (vocab, dim) for the step's tokens, times `scale` -> (rows, dim)."""

    def project(self, x: Array, weights: Sequence[Prepared], biases: Sequence[Prepared | None], *,
                norm: Norm | None = None) -> Array:
        """norm(x) times each weight transposed, side by side -> (rows, sum of outs)."""

    def attend(self, qkv: Array, layer: Attend, step: Any) -> Array:
        """Norm and rotate queries and keys, write keys and values to the pages, attend causally.

        qkv (rows, (q + 2·kv)·dim) -> (rows, q·dim).
        """

    def sampled(self, x: Array, step: Any) -> Array:
        """The rows that `step.sample` names -> (samples, cols). May overwrite x or be x."""

    def gated(self, x: Array, gate: Prepared, up: Prepared, *, activation: Activation = "silu",
              norm: Norm | None = None) -> Array:
        """activation(norm(x) gateᵀ) · (norm(x) upᵀ) -> (rows, ffn)."""

    def output(self, x: Array, weight: Prepared, bias: Prepared | None, *, residual: Array,
               norm: Norm | None = None) -> Array:
        """residual + norm(x weightᵀ + bias) -> (rows, dim). May overwrite `residual`."""

    def experts(self, x: Array, experts: Experts, *, residual: Array, norm: Norm | None = None) -> Array:
        """residual + the weighted sum of the chosen experts on norm(x) -> (rows, dim). May overwrite `residual`."""

    def logits(self, x: Array, head: Prepared, *, norm: Norm | None = None, softcap: float = 0.0,
               scale: float = 1.0) -> Array:
        """Logits of sampled rows -> (samples, vocab), float32."""
