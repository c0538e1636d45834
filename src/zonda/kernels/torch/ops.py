"""Every operation in plain torch, on any device: the definition for GPU kernels, and what runs where they cannot."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from zonda.kernels.ops import Activation, Attend, Experts, Norm, Rotary
from zonda.kernels.torch.draw import noisy
from zonda.kernels.torch.experts import ACTIVATIONS, normalize
from zonda.kernels.torch.experts import experts as mixture
from zonda.kernels.torch.matrix import Matrix, prepare, stacked
from zonda.kernels.torch.step import Step
from zonda.weights.source import Weight

PAGE = 64


class TorchOps:
    """`Ops` over torch tensors and a `Step`. The residual stream is float32, the rest `dtype`."""

    captures = False
    """Whether a step can be captured as a graph."""
    tells = False
    """Whether `draw` writes into `step.drawn` too, which the host reads."""

    def __init__(self, device: torch.device, dtype: torch.dtype, *, cache_dtype: torch.dtype | None = None) -> None:
        self.device = device
        self.dtype = dtype
        self.cache_dtype = cache_dtype or dtype
        self.caches: list[tuple[Tensor, Tensor]] = []

    def compiling(self, told: Callable[[], None]) -> AbstractContextManager[None]:
        """While it lasts, kernels do not run: at its end, those that were called are compiled. `told` hears of each."""
        return nullcontext()

    def allocate(self, caches: Sequence[Any], pages: int) -> None:
        """Room for keys and values: (pages, kv heads, PAGE, dim) of each layer."""
        self.caches = [(self._room(each.heads, pages), self._room(each.heads, pages)) for each in caches]

    def _room(self, heads: Any, pages: int) -> Tensor:
        return torch.zeros(pages, heads.kv, PAGE, heads.dim, dtype=self.cache_dtype, device=self.device)

    def prepare(self, weight: Weight, *others: Weight) -> Matrix:
        return stacked([prepare(each, self.device, self.dtype) for each in (weight, *others)])

    def vector(self, values: np.ndarray) -> Tensor:
        return torch.tensor(np.asarray(values, np.float32), device=self.device)

    def embed(self, table: Matrix, step: Step, *, scale: float = 1.0) -> Tensor:
        return table.rows(self.resolved(step)).float() * scale

    def resolved(self, step: Step) -> Tensor:
        """The step's tokens, with those that the step before has drawn."""
        earlier = step.last[(-1 - step.tokens).clamp(min=0).long()]
        return torch.where(step.tokens < 0, earlier, step.tokens).clamp(min=0).long()

    def project(self, x: Tensor, weights: Sequence[Matrix], biases: Sequence[Tensor | None], *,
                norm: Norm | None = None) -> Tensor:
        x = normalize(x, norm).to(self.dtype)
        return torch.cat([self._times(x, w, b) for w, b in zip(weights, biases)], -1)

    def _times(self, x: Tensor, weight: Matrix, bias: Tensor | None = None) -> Tensor:
        return functional.linear(x, weight.dense(self.dtype), None if bias is None else bias.to(self.dtype))

    def attend(self, qkv: Tensor, layer: Attend, step: Step) -> Tensor:
        heads = layer.heads
        q, k, v = qkv.view(step.rows, -1, heads.dim).split([heads.q, heads.kv, heads.kv], 1)
        positions = step.positions.long()
        q = rotate(normalize(q.float(), layer.q_norm), layer.rotary, positions).to(self.dtype)
        k = rotate(normalize(k.float(), layer.k_norm), layer.rotary, positions)
        keys, values = self.caches[layer.index]
        width = int(step.head[0])
        page = step.table[step.owners.long() * width + positions // PAGE].long()
        keys[page, :, positions % PAGE] = self._kept(k)
        values[page, :, positions % PAGE] = self._kept(v)
        out = torch.empty_like(q)
        starts = step.starts.tolist()
        for i, length in enumerate(step.lengths.tolist()):
            rows = slice(starts[i], starts[i + 1])
            if rows.stop > rows.start:
                used = step.table[i * width:i * width - (-length // PAGE)].long()
                out[rows] = _attention(q[rows].float(), _read(keys, used, length), _read(values, used, length), layer,
                                       positions[rows]).to(self.dtype)
        return out.view(step.rows, -1)

    def _kept(self, x: Tensor) -> Tensor:
        """As the cache has it; what is too large for eight bits is their largest number."""
        if self.cache_dtype.itemsize == 1:
            x = x.clamp(-torch.finfo(self.cache_dtype).max, torch.finfo(self.cache_dtype).max)
        return x.to(self.cache_dtype)

    def sampled(self, x: Tensor, step: Step) -> Tensor:
        return x if step.alone else x[step.sample.long()]

    def gated(self, x: Tensor, gate: Matrix, up: Matrix, *, activation: Activation = "silu",
              norm: Norm | None = None) -> Tensor:
        x = normalize(x, norm).to(self.dtype)
        return ACTIVATIONS[activation](self._times(x, gate)) * self._times(x, up)

    def output(self, x: Tensor, weight: Matrix, bias: Tensor | None, *, residual: Tensor,
               norm: Norm | None = None) -> Tensor:
        return residual + normalize(self._times(x, weight, bias).float(), norm)

    def experts(self, x: Tensor, experts: Experts, *, residual: Tensor, norm: Norm | None = None) -> Tensor:
        return mixture(x, experts, residual, norm, dtype=self.dtype)

    def logits(self, x: Tensor, head: Matrix, *, norm: Norm | None = None, softcap: float = 0.0,
               scale: float = 1.0) -> Tensor:
        return cap(self._times(normalize(x, norm).to(self.dtype), head).float() * scale, softcap)

    def draw(self, logits: Tensor, step: Step, *, greedy: bool) -> None:
        """The token of each row of logits into `step.last`, -1 where there is none."""
        top = (logits if greedy else noisy(logits, step)).max(-1)
        step.last[:len(logits)] = torch.where(torch.isfinite(top.values), top.indices, -1).int()

    def copy_page(self, source: int, target: int) -> None:
        for pair in self.caches:
            for cache in pair:
                cache[target].copy_(cache[source])


def cap(x: Tensor, limit: float) -> Tensor:
    return torch.tanh(x / limit) * limit if limit else x


def rotate(x: Tensor, rotary: Rotary | None, positions: Tensor) -> Tensor:
    """Turn pairs (i, i + dim/2) of x (rows, heads, dim) by position · frequency."""
    if rotary is None:
        return x
    angles = positions[:, None, None] * rotary.frequencies.double()
    cos, sin = (f(angles).float() * rotary.factor for f in (torch.cos, torch.sin))
    first, second, rest = x.split([rotary.dim // 2, rotary.dim // 2, x.shape[-1] - rotary.dim], -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], -1)


def _read(cache: Tensor, pages: Tensor, length: int) -> Tensor:
    """The first `length` positions, float32 (heads, length, dim)."""
    return cache[pages].float().transpose(0, 1).flatten(1, 2)[:, :length]


def _attention(q: Tensor, keys: Tensor, values: Tensor, layer: Attend, positions: Tensor) -> Tensor:
    rows, _, dim = q.shape
    grouped = q.view(rows, layer.heads.kv, -1, dim).permute(1, 2, 0, 3)
    scores = cap(grouped @ keys[:, None].transpose(-1, -2) * layer.scale, layer.softcap)
    distance = positions[:, None] - torch.arange(keys.shape[1], device=q.device)
    seen = (distance >= 0) & ((distance < layer.window) | (layer.window == 0))
    scores = scores.masked_fill(~seen, -torch.inf)
    if layer.sinks is not None:
        sinks = layer.sinks.view(layer.heads.kv, -1, 1, 1).expand(*scores.shape[:-1], 1)
        scores = torch.cat([scores, sinks], -1)
    weights = torch.softmax(scores, -1)[..., :keys.shape[1]]
    return (weights @ values[:, None]).permute(2, 0, 1, 3).reshape(rows, -1, dim)
