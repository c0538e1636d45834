"""Grouped-query attention over pages."""
from __future__ import annotations

from dataclasses import dataclass

from zonda.kernels.ops import Array, Attend, Heads, Norm, Ops, Prepared
from zonda.nn.linear import Linear, Projection
from zonda.nn.module import Module, Read
from zonda.nn.norm import RMSNorm, fold
from zonda.nn.rope import Rope


@dataclass(frozen=True, slots=True)
class Mask:
    """What a position sees: itself and all before it, or the last `window` of them where that is not 0; with `sinks`,
    each query head has a learned score that takes a share of the weights."""

    window: int = 0
    sinks: bool = False


@dataclass(frozen=True, slots=True)
class Pages:
    """What an attention layer keeps for each token: `heads.kv` keys and values; only the last `window` if not 0."""

    heads: Heads
    window: int = 0

    def position_bytes(self, size: int, *, multiple: int = 1) -> int:
        """Bytes of one token's keys and values: numbers of `size` bytes, in heads padded to a multiple."""
        return 2 * self.heads.kv * -(-self.heads.dim // multiple) * multiple * size


class Attention(Module):
    """Causal attention: projection, norm and rotation of queries and keys, attention, output onto the residual.

    `scale` multiplies the scores, 1/√dim by default; `softcap` bounds them smoothly; `index` is the layer's place in
    the cache.
    """

    index: int = 0
    sinks: Prepared | None = None

    def __init__(self, dim: int, heads: Heads, *, rope: Rope | None = None, mask: Mask = Mask(),
                 q_norm: RMSNorm | None = None, k_norm: RMSNorm | None = None, scale: float | None = None,
                 softcap: float = 0.0, bias: bool = False, out_bias: bool = False) -> None:
        self.heads = heads
        self.rope = rope
        self.mask = mask
        self.q_norm = q_norm
        self.k_norm = k_norm
        self.scale = heads.dim**-0.5 if scale is None else scale
        self.softcap = softcap
        self.qkv = Projection(dim, q=heads.q * heads.dim, k=heads.kv * heads.dim, v=heads.kv * heads.dim, bias=bias)
        self.o = Linear(heads.q * heads.dim, dim, bias=out_bias)

    def parameters(self) -> dict[str, tuple[int, ...]]:
        return {"sinks": (self.heads.q,)} if self.mask.sinks else {}

    def load(self, read: Read, ops: Ops) -> None:
        if self.mask.sinks:
            self.sinks = ops.vector(read("sinks").dense())

    @property
    def cache(self) -> Pages:
        return Pages(self.heads, self.mask.window)

    @property
    def layer(self) -> Attend:
        rotary = self.rope.rotary if self.rope else None
        return Attend(self.index, self.heads, self.scale, rotary, q_norm=fold(self.q_norm), k_norm=fold(self.k_norm),
                      window=self.mask.window, softcap=self.softcap, sinks=self.sinks)

    def __call__(self, x: Array, step: Array, *, norm: Norm | None, post_norm: Norm | None = None,
                 sampled: bool = False) -> Array:
        attended = self.ops.attend(self.qkv(x, norm=norm), self.layer, step)
        if sampled:
            attended, x = self.ops.sampled(attended, step), self.ops.sampled(x, step)
        return self.ops.output(attended, self.o.weight, self.o.bias, residual=x, norm=post_norm)
