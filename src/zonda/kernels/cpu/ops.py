"""`Ops` that record: a decoder is called once with a symbol for the step, and leaves a program of fused instructions.

Rows are not known while recording; an instruction counts its pieces by a field of the step's frame. A `Buffer` stands
for the rows of an array; its memory goes back to the pool when the last reference to it is dropped, so the program's
buffers overlap exactly as far as the model's code allows.
"""
from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from zonda.errors import Unsupported
from zonda.kernels.cpu import frame as f
from zonda.kernels.cpu.attention_tiles import LOWEST, most_queries
from zonda.kernels.cpu.library import Kernel, Library
from zonda.kernels.cpu.matmul import MOST_TOKENS
from zonda.kernels.cpu.matrix import Matrix, tiled
from zonda.kernels.cpu.memory import Arena, Buffer, address
from zonda.kernels.cpu.panels import Form
from zonda.kernels.cpu.recorder import Recorder, bits
from zonda.kernels.ops import Activation, Attend, Experts, Norm, Rotary
from zonda.weights.source import Weight

ACTIVATIONS = {"silu": 1, "gelu": 2, "gelu_tanh": 3, "relu": 4}
DOMAINS = {f.ROWS: (f.EXACT, f.FAST), f.SAMPLES: (f.SAMPLES,)}
"""The domains that together are all rows of a step, or all that it samples."""
_QUERIES = 24
"""Queries that a work item of attention has, about."""
_FAST_QUERIES = 192
"""The same for fast rows, at most, where an item's keys and values are converted for all of them."""
_SLOTS, _MOST_SLOTS = 64, 512
"""Runs of pages that attention keeps until they are merged: as many as the longest sequence has, within bounds."""


class CPUOps(Recorder):
    """What a decoder may ask for, as instructions. `max_rows` bounds the rows of a step."""

    def __init__(self, library: Library, *, threads: int, max_rows: int, half_cache: bool = True) -> None:
        super().__init__(library, threads=threads, max_rows=max_rows)
        self.half_cache = half_cache
        self.query_rows = 1
        self.fast_query_rows = 1
        self.slots = 0
        self.caches: list[tuple[np.ndarray, np.ndarray]] = []
        self.output_logits: Buffer | None = None
        self._weights = Arena(huge=True)
        self._packers = ThreadPoolExecutor(threads)
        self._kept: list[np.ndarray] = []
        self._angles: dict[tuple[int, int, float], Buffer] = {}

    # -- weights

    def prepare(self, weight: Weight, *others: Weight) -> Matrix:
        whole = weight.stack(others) if others else weight
        return tiled(whole, self.library, self._weights, self._packers, self.threads)

    def vector(self, values: np.ndarray) -> np.ndarray:
        kept = np.ascontiguousarray(values, np.float32)
        self._kept.append(kept)
        return kept

    # -- recording

    def embed(self, table: Matrix, step: Any, *, scale: float = 1.0) -> Buffer:
        out = self._rows(table.cols)
        kernel = Kernel(f"embed_{table.format}", 4, "activations:embed", (table.format,))
        self._emit(kernel, f.ROWS, 1, address(table.tiles), table.tile_bytes, out.at, table.cols, bits(scale))
        return out

    def project(self, x: Buffer, weights: Sequence[Matrix], biases: Sequence[np.ndarray | None], *,
                norm: Norm | None = None) -> Buffer:
        return self._project(x, weights, biases, norm, fine=True)

    def _project(self, x: Buffer, weights: Sequence[Matrix], biases: Sequence[np.ndarray | None], norm: Norm | None, *,
                 fine: bool) -> Buffer:
        out = self._like(x, sum(w.rows for w in weights))
        for domain in DOMAINS[x.rows]:
            column = 0
            packed: dict[tuple[int, ...], Buffer] = {}
            for weight, bias in zip(weights, biases):
                key = self._form(weight, domain)
                if key not in packed:
                    packed[key] = self._pack(x, weight, norm, domain, fine=fine)
                self._product(packed[key], weight, out, domain, column=column, bias=bias)
                column += weight.rows
        return out

    def attend(self, qkv: Buffer, layer: Attend, step: Any) -> Buffer:
        heads, keys, values = layer.heads, *self.caches[layer.index]
        padded = f.padded(heads.dim)
        group = heads.q // heads.kv
        q = self._rows(heads.q * padded)
        rotary = layer.rotary
        q_norm, k_norm = layer.q_norm, layer.k_norm
        suffix = "f16" if self.half_cache else "f32"
        self._emit(Kernel(f"place_{suffix}", 4, "place:place", (self.half_cache,)), f.STRIPS, 1,
                   qkv.at, qkv.cols, heads.q, heads.kv, heads.dim, padded, bits(layer.scale),
                   self._angle_table(rotary).at if rotary else 0, rotary.dim // 2 if rotary else 0,
                   address(q_norm.weight if q_norm else self._constant(heads.dim)),
                   address(k_norm.weight if k_norm else self._constant(heads.dim)),
                   bits(q_norm.eps) if q_norm else 0, bits(k_norm.eps) if k_norm else 0,
                   address(keys), address(values), q.at)
        out = self._rows(heads.q * heads.dim)
        most = self.query_rows
        self._scratch(most * group * (12 * padded + 4 * f.SPAN + 2 * f.STATE))
        parts = self._memory(self.slots * heads.q * (4 * padded + f.STATE))
        together = most_queries(self.library.target)
        sinks = address(self._constant(heads.q, LOWEST) if layer.sinks is None else layer.sinks)
        words = (q.at, heads.q, heads.kv, heads.dim, padded, layer.window, bits(layer.softcap), address(keys),
                 address(values), out.at, sinks)
        self._emit(Kernel(f"attend_{suffix}", 4, "attention:attend", (self.half_cache, together)), f.ITEMS, heads.kv,
                   *words, most, parts.at)
        most, form = self.fast_query_rows, self._fast_form
        self._scratch(form.scratch_bytes(most * group, padded))
        self._emit(Kernel(f"attend_fast_{suffix}", 4, "attention_fast:attend", (form,)), f.FAST_ITEMS, heads.kv, *words,
                   most, parts.at)
        self._emit(Kernel("merge", 4, "attention:merge_row"), f.MERGES, heads.kv, heads.q, heads.kv, heads.dim, padded,
                   parts.at, out.at, sinks)
        return out

    def sampled(self, x: Buffer, step: Any) -> Buffer:
        out = Buffer(self._pool, 4 * self.max_rows * x.cols, x.cols, f.SAMPLES)
        self._emit(Kernel("gather", 4, "activations:gather"), f.SAMPLES, 1, x.at, out.at, x.cols)
        return out

    def gated(self, x: Buffer, gate: Matrix, up: Matrix, *, activation: Activation = "silu",
              norm: Norm | None = None) -> Buffer:
        if not self._together(gate, up):
            return self._gated_apart(x, gate, up, activation, norm)
        out = self._like(x, gate.rows)
        for domain in DOMAINS[x.rows]:
            if self._halved(domain, gate):
                out.fast = self._gated_halves(x, gate, up, activation, norm)
                continue
            blocks = self._pack(x, gate, norm, domain)
            share = self._share(blocks, gate, 2)
            self._emit(Kernel("gated", 4, "matmul:gated"), domain + f.ANY, *self._begin(blocks, gate, domain, share),
                       address(up.tiles), up.tile_bytes, *self._tiles(up, blocks), out.at, gate.rows,
                       ACTIVATIONS[activation], *self._spread(blocks, share, gate, up))
        return out

    def output(self, x: Buffer, weight: Matrix, bias: np.ndarray | None, *, residual: Buffer,
               norm: Norm | None = None) -> Buffer:
        out = self._like(x, weight.rows) if norm else residual
        for domain in DOMAINS[x.rows]:
            blocks = self._pack(x, weight, None, domain)
            self._product(blocks, weight, out, domain, bias=bias, residual=None if norm else residual)
        if norm:
            self._emit(Kernel("add_norm", 4, "activations:add_norm"), out.rows, 1, out.at, address(norm.weight),
                       bits(norm.eps), out.cols, residual.at)
        return residual

    def experts(self, x: Buffer, experts: Experts, *, residual: Buffer, norm: Norm | None = None) -> Buffer:
        router, gate, up, down = experts.router, experts.gate, experts.up, experts.down
        if self._form(gate, f.PLACES) != self._form(up, f.PLACES):
            raise Unsupported(f"experts with gates in {gate.format} beside {up.format} are not supported on a CPU")
        slots = self.max_rows * experts.top
        places = slots + (MOST_TOKENS - 1) * router.rows
        scores = self.project(x, [router], [None], norm=norm)
        chosen, shares, place = (self._memory(4 * slots) for _ in range(3))
        table, counts, sources = self._memory(8 * places), self._memory(4 * router.rows), self._memory(4 * places)
        self._emit(Kernel("route", 4, "experts:route"), x.rows, 1, scores.at, router.rows, experts.top,
                   int(experts.normalize), chosen.at, shares.at)
        self._emit(Kernel("sort", 4, "experts:sort"), f.ONE, 1, chosen.at, router.rows, experts.top, table.at,
                   counts.at, place.at, sources.at, x.rows)
        spread = self._memory(4 * places * x.cols, x.cols)
        self._emit(Kernel("spread", 4, "experts:spread"), f.ONE, f.SPREADERS, x.at, x.cols, sources.at, spread.at)
        blocks = self._pack(spread, gate, norm, f.PLACES, most=places)
        hidden = self._memory(4 * places * gate.rows, gate.rows)
        self._emit(Kernel("experts_gated", 4, "experts:gated"), f.ONE, gate.height, blocks.at, blocks.cols, gate.units,
                   table.at, address(gate.tiles), gate.tile_bytes, gate.height, address(up.tiles), up.tile_bytes,
                   *self._tiles(gate, blocks), *self._tiles(up, blocks), hidden.at, gate.rows,
                   ACTIVATIONS[experts.activation])
        blocks = self._pack(hidden, down, None, f.PLACES, most=places)
        parts = self._memory(4 * places * down.rows, down.rows)
        self._emit(Kernel("experts_down", 4, "experts:down"), f.ONE, down.height, blocks.at, blocks.cols, down.units,
                   table.at, address(down.tiles), down.tile_bytes, down.height, parts.at, down.rows,
                   *self._tiles(down, blocks))
        self._emit(Kernel("mix", 4, "experts:mix"), residual.rows, 1, parts.at, place.at, shares.at, experts.top,
                   down.rows, residual.at)
        return residual

    def logits(self, x: Buffer, head: Matrix, *, norm: Norm | None = None, softcap: float = 0.0,
               scale: float = 1.0) -> Buffer:
        blocks = self._pack(x, head, norm, f.SAMPLES)
        out = self._like(x, head.rows)
        self._product(blocks, head, out, f.SAMPLES, scale=scale, softcap=softcap)
        self.output_logits = out
        return out

    @property
    def _fast_form(self) -> Form:
        return Form.of(self.library.target, self.half_cache)

    def _gated_halves(self, x: Buffer, gate: Matrix, up: Matrix, activation: Activation, norm: Norm | None) -> Buffer:
        """Blocks of the fast rows."""
        blocks, out = self._pack(x, gate, norm, f.FAST), self._halves(gate.rows)
        self._emit(Kernel("gated_bfloat", 4, "bfloat_tiles:gated"), f.FAST + f.ANY,
                   *self._begin_halves(blocks, gate, 2), address(up.tiles), up.tile_bytes,
                   self.library.address(up.halves[0]), out.at, gate.rows, ACTIVATIONS[activation])
        return out

    def _gated_apart(self, x: Buffer, gate: Matrix, up: Matrix, activation: Activation, norm: Norm | None) -> Buffer:
        """Gate and up in formats that share no blocks of activations, or no shape of AMX's registers."""
        both = self._project(x, [gate, up], [None, None], norm, fine=False)
        out = self._like(x, gate.rows)
        self._emit(Kernel("gate", 4, "matmul:gate"), x.rows, 1, both.at, out.at, gate.rows, ACTIVATIONS[activation])
        return out

    def _angle_table(self, rotary: Rotary) -> Buffer:
        """Cosines and sines of the step's rows, computed once and used by every layer that turns by them."""
        key = address(rotary.frequencies), rotary.dim, rotary.factor
        if key not in self._angles:
            count = rotary.dim // 2
            self._angles[key] = table = self._rows(2 * count)
            self._emit(Kernel("angles", 4, "place:angles"), f.ROWS, 1, address(rotary.frequencies), count,
                       bits(rotary.factor), table.at)
        return self._angles[key]

    def page_bytes(self, caches: Sequence[Any]) -> int:
        """Bytes of one page of these layers: numbers are float16 or float32."""
        size = 2 if self.half_cache else 4
        return f.PAGE * sum(need.position_bytes(size, multiple=f.HEAD) for need in caches)

    def allocate(self, caches: Sequence[Any], pages: int) -> None:
        """Keys and values of every attention layer, uint8 (pages, bytes), touched as pages come into use.

        All weights are there: the threads that packed them end.
        """
        self._packers.shutdown()
        self.slots = min(_MOST_SLOTS, max(_SLOTS, -(-pages // f.RUN)))
        arena = Arena()
        for need in caches:
            keys, values = (arena.take(pages * self.page_bytes([need]) // 2).reshape(pages, -1) for _ in range(2))
            self.caches.append((keys, values))
            group = need.heads.q // need.heads.kv
            self.query_rows = max(self.query_rows, min(self.max_rows, max(1, _QUERIES // group)))
            share = self.max_rows * need.heads.kv // (4 * self.threads)  # some pieces for each thread
            rows = max(-(-self._fast_form.block // group), min(_FAST_QUERIES // group, share))
            self.fast_query_rows = max(self.fast_query_rows, min(self.max_rows, rows))
