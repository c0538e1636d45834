"""The definition of every operation: plain numpy in float32, run at once. Slow, short and right."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from zonda.kernels.ops import Activation, Attend, Experts, Norm, Rotary
from zonda.weights.source import Weight

if TYPE_CHECKING:
    from zonda.engine.batch import Batch
    from zonda.nn.decoder import Decoder


def silu(x: np.ndarray) -> np.ndarray:
    return x * (0.5 + 0.5 * np.tanh(0.5 * x))


def gelu(x: np.ndarray) -> np.ndarray:
    return x * (0.5 + 0.5 * erf(x * np.float32(0.5**0.5)))


def gelu_tanh(x: np.ndarray) -> np.ndarray:
    return x * (0.5 + 0.5 * np.tanh(np.float32((2 / np.pi) ** 0.5) * (x + np.float32(0.044715) * x * x * x)))


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def erf(x: np.ndarray) -> np.ndarray:
    """Error function within 1.5e-7 (Abramowitz and Stegun 7.1.26)."""
    t = 1 / (1 + 0.3275911 * np.abs(x))
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    return np.sign(x) * (1 - series * np.exp(-x * x))


ACTIVATIONS = {"silu": silu, "gelu": gelu, "gelu_tanh": gelu_tanh, "relu": relu}


def softmax(x: np.ndarray) -> np.ndarray:
    weights = np.exp(x - x.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def normalize(x: np.ndarray, norm: Norm | None) -> np.ndarray:
    if norm is None:
        return x
    return x / np.sqrt(np.mean(x * x, -1, keepdims=True) + np.float32(norm.eps)) * norm.weight


def cap(x: np.ndarray, limit: float) -> np.ndarray:
    return np.tanh(x / limit) * limit if limit else x


def rotate(x: np.ndarray, rotary: Rotary | None, positions: np.ndarray) -> np.ndarray:
    """Turn pairs (i, i + dim/2) of x (rows, heads, dim) by position · frequency."""
    if rotary is None:
        return x
    angles = positions[:, None, None] * rotary.frequencies.astype(np.float64)
    cos, sin = (f(angles).astype(np.float32) * np.float32(rotary.factor) for f in (np.cos, np.sin))
    first, second, rest = np.split(x, [rotary.dim // 2, rotary.dim], axis=-1)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin, rest], axis=-1)


class Cache:
    """Keys and values of one layer, float32 (pages, kv heads, page_size, dim)."""

    def __init__(self, pages: int, page_size: int, heads: int, dim: int) -> None:
        self.page_size = page_size
        self.keys = np.zeros((pages, heads, page_size, dim), np.float32)
        self.values = np.zeros_like(self.keys)

    def write(self, keys: np.ndarray, values: np.ndarray, pages: np.ndarray, positions: np.ndarray) -> None:
        """Put (rows, heads, dim) at `positions` of the sequence that owns `pages`."""
        page, slot = pages[positions // self.page_size], positions % self.page_size
        self.keys[page, :, slot] = keys
        self.values[page, :, slot] = values

    def read(self, pages: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Keys and values of the first `length` positions, each (heads, length, dim)."""
        used = pages[: -(-length // self.page_size)]
        return _positions(self.keys[used], length), _positions(self.values[used], length)


def _positions(pages: np.ndarray, length: int) -> np.ndarray:
    count, heads, size, dim = pages.shape
    return pages.transpose(1, 0, 2, 3).reshape(heads, count * size, dim)[:, :length]


class ReferenceOps:
    """`Ops` over numpy arrays and a `Batch`. A prepared weight is its dense float32 values."""

    def __init__(self, *, pages: int = 64, page_size: int = 16) -> None:
        self.pages = pages
        self.page_size = page_size
        self.caches: dict[int, Cache] = {}

    def prepare(self, weight: Weight, *others: Weight) -> np.ndarray:
        return np.concatenate([each.dense() for each in (weight, *others)], axis=-2)

    def vector(self, values: np.ndarray) -> np.ndarray:
        return np.asarray(values, np.float32)

    def embed(self, table: np.ndarray, step: Batch, *, scale: float = 1.0) -> np.ndarray:
        return table[step.tokens] * np.float32(scale)

    def project(self, x: np.ndarray, weights: Sequence[np.ndarray], biases: Sequence[np.ndarray | None], *,
                norm: Norm | None = None) -> np.ndarray:
        x = normalize(x, norm)
        return np.concatenate([x @ w.T + (0 if b is None else b) for w, b in zip(weights, biases)], axis=-1)

    def attend(self, qkv: np.ndarray, layer: Attend, step: Batch) -> np.ndarray:
        heads = layer.heads
        q, k, v = np.split(qkv.reshape(step.rows, -1, heads.dim), [heads.q, heads.q + heads.kv], axis=1)
        q = rotate(normalize(q, layer.q_norm), layer.rotary, step.positions)
        k = rotate(normalize(k, layer.k_norm), layer.rotary, step.positions)
        cache = self._cache(layer)
        out = np.empty_like(q)
        for rows, pages, length in _sequences(step):
            positions = step.positions[rows]
            cache.write(k[rows], v[rows], pages, positions)
            out[rows] = _attention(q[rows], *cache.read(pages, length), layer, positions)
        return out.reshape(step.rows, -1)

    def sampled(self, x: np.ndarray, step: Batch) -> np.ndarray:
        return x[step.sample]

    def gated(self, x: np.ndarray, gate: np.ndarray, up: np.ndarray, *, activation: Activation = "silu",
              norm: Norm | None = None) -> np.ndarray:
        x = normalize(x, norm)
        return ACTIVATIONS[activation](x @ gate.T) * (x @ up.T)

    def output(self, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, *, residual: np.ndarray,
               norm: Norm | None = None) -> np.ndarray:
        return residual + normalize(self.project(x, [weight], [bias]), norm)

    def experts(self, x: np.ndarray, experts: Experts, *, residual: np.ndarray, norm: Norm | None = None) -> np.ndarray:
        x = normalize(x, norm)
        weights = softmax(x @ experts.router.T)
        chosen = np.argsort(-weights, axis=-1, kind="stable")[:, : experts.top]
        shares = np.take_along_axis(weights, chosen, -1)
        if experts.normalize:
            shares = shares / shares.sum(-1, keepdims=True)
        out = residual.copy()
        for expert in np.unique(chosen):
            rows, place = np.nonzero(chosen == expert)
            hidden = self.gated(x[rows], experts.gate[expert], experts.up[expert], activation=experts.activation)
            out[rows] += shares[rows, place, None] * (hidden @ experts.down[expert].T)
        return out

    def logits(self, x: np.ndarray, head: np.ndarray, *, norm: Norm | None = None, softcap: float = 0.0,
               scale: float = 1.0) -> np.ndarray:
        return cap(normalize(x, norm) @ head.T * np.float32(scale), softcap)

    def copy_page(self, source: int, target: int) -> None:
        for cache in self.caches.values():
            cache.keys[target] = cache.keys[source]
            cache.values[target] = cache.values[source]

    def _cache(self, layer: Attend) -> Cache:
        if layer.index not in self.caches:
            self.caches[layer.index] = Cache(self.pages, self.page_size, layer.heads.kv, layer.heads.dim)
        return self.caches[layer.index]


def _sequences(step: Batch) -> Iterator[tuple[slice, np.ndarray, int]]:
    """The rows, pages and length of each sequence."""
    for i, length in enumerate(step.lengths):
        yield slice(step.starts[i], step.starts[i + 1]), step.page_table[i], int(length)


def _attention(q: np.ndarray, keys: np.ndarray, values: np.ndarray, layer: Attend, positions: np.ndarray) -> np.ndarray:
    """q (rows, q heads, dim) on keys and values (kv heads, length, dim) -> (rows, q heads, dim)."""
    rows, _, dim = q.shape
    grouped = q.reshape(rows, layer.heads.kv, -1, dim).transpose(1, 2, 0, 3)  # (kv, q per kv, rows, dim)
    scores = cap(grouped @ keys[:, None].swapaxes(-1, -2) * np.float32(layer.scale), layer.softcap)
    distance = positions[:, None] - np.arange(keys.shape[1])
    seen = (distance >= 0) & ((distance < layer.window) | (layer.window == 0))
    scores = np.where(seen, scores, np.float32(-np.inf))
    if layer.sinks is not None:
        sinks = np.broadcast_to(layer.sinks.reshape(layer.heads.kv, -1, 1, 1), (*scores.shape[:-1], 1))
        scores = np.concatenate([scores, sinks], -1)
    weights = softmax(scores)[..., :keys.shape[1]]
    return (weights @ values[:, None]).transpose(2, 0, 1, 3).reshape(rows, -1, dim)


class ReferenceRunner:
    """`Runner` over `ReferenceOps`, so that tests of the engine can run real tiny models."""

    def __init__(self, decoder: Decoder, *, max_len: int, max_rows: int = 512) -> None:
        assert isinstance(decoder.ops, ReferenceOps)
        self.decoder = decoder
        self.ops = decoder.ops
        self.page_size = self.ops.page_size
        self.pages = self.ops.pages
        self.vocab = decoder.vocab
        self.max_len = min(max_len, self.pages * self.page_size)
        self.max_rows = max_rows

    def run(self, batch: Batch) -> np.ndarray:
        return self.decoder(batch)

    def copy_page(self, source: int, target: int) -> None:
        self.ops.copy_page(source, target)

    def close(self) -> None: ...
