"""A transformer's layers in order, from tokens to logits."""
from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from zonda.kernels.ops import Array
from zonda.nn.attention import Attention, Pages
from zonda.nn.linear import Embedding, Linear
from zonda.nn.mlp import GatedMLP, MoE
from zonda.nn.module import Module
from zonda.nn.norm import RMSNorm, fold


class Block(Module):
    """Attention, then a feed-forward block, each with a norm before it, perhaps one after it, and a residual."""

    def __init__(self, *, attn_norm: RMSNorm, attn: Attention, ffn_norm: RMSNorm, ffn: GatedMLP | MoE,
                 attn_post_norm: RMSNorm | None = None, ffn_post_norm: RMSNorm | None = None) -> None:
        self.attn_norm = attn_norm
        self.attn = attn
        self.attn_post_norm = attn_post_norm
        self.ffn_norm = ffn_norm
        self.ffn = ffn
        self.ffn_post_norm = ffn_post_norm

    def __call__(self, x: Array, step: Any, *, sampled: bool = False) -> Array:
        """The rows of x (rows, dim), or of them those that the step samples: what only they need then is left out."""
        x = self.attn(x, step, norm=fold(self.attn_norm), post_norm=fold(self.attn_post_norm), sampled=sampled)
        return self.ffn(x, norm=fold(self.ffn_norm), post_norm=fold(self.ffn_post_norm))


class Decoder(Module):
    """Embedding, layers, norm and head; without a `head` of its own it uses the embedding table.

    Calling it with a step (`Batch`, or a backend's symbol of one) gives the logits of the rows that the step samples.
    """

    def __init__(self, *, embed: Embedding, layers: Iterable[Block], norm: RMSNorm, head: Linear | None = None,
                 softcap: float = 0.0) -> None:
        self.embed = embed
        self.layers = tuple(layers)
        self.norm = norm
        self.head = head
        self.softcap = softcap
        for index, attention in enumerate(self.attentions):
            attention.index = index

    @property
    def attentions(self) -> list[Attention]:
        return [block for _, block in self.walk() if isinstance(block, Attention)]

    @property
    def caches(self) -> tuple[Pages, ...]:
        """What the cache keeps, in the order of `Attend.index`."""
        return tuple(attention.cache for attention in self.attentions)

    @property
    def vocab(self) -> int:
        return self.embed.shape[0]

    def __call__(self, step: Any) -> Array:
        x = self.ops.embed(self.embed.weight, step, scale=self.embed.scale)
        for layer in self.layers[:-1]:
            x = layer(x, step)
        x = self.layers[-1](x, step, sampled=True)
        head = self.head or self.embed
        return self.ops.logits(x, head.weight, norm=self.norm.folded, softcap=self.softcap)
