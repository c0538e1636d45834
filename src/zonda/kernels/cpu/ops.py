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
from zonda.kernels.cpu import amx
from zonda.kernels.cpu import frame as f
from zonda.kernels.cpu.attention_tiles import LOWEST, most_queries
from zonda.kernels.cpu.layout import UNIT
from zonda.kernels.cpu.library import Kernel, Library, Target
from zonda.kernels.cpu.matmul import MOST_TOKENS
from zonda.kernels.cpu.matrix import TOKENS, Matrix, tiled
from zonda.kernels.cpu.memory import Arena, Buffer, Pool, address
from zonda.kernels.cpu.panels import Form
from zonda.kernels.cpu.wide import GROUP, token_bytes
from zonda.kernels.ops import Activation, Attend, Experts, Norm, Rotary
from zonda.weights.source import Weight

ACTIVATIONS = {"silu": 1, "gelu": 2, "gelu_tanh": 3, "relu": 4}
DOMAINS = {f.ROWS: (f.EXACT, f.FAST), f.SAMPLES: (f.SAMPLES,)}
"""The domains that together are all rows of a step, or all that it samples."""
_TWELVE = 10.5
"""What a block of 12 tokens costs, where one of 8 costs 8."""
_SIXTEEN = 10.0
"""The same for one of 16, by AMX."""
_PIECE = 512 << 10
"""Bytes of weights that a piece of a product has at most, packed or spread out, if it has more than one tile."""
_HALVES = 1 << 20
"""The same, spread out to bfloat16: every piece reads all activations, which are not in the cache of its thread."""
_QUERIES = 24
"""Queries that a work item of attention has, about."""
_FAST_QUERIES = 192
"""The same for fast rows, at most, where an item's keys and values are converted for all of them."""
_SLOTS, _MOST_SLOTS = 64, 512
"""Runs of pages that attention keeps until they are merged: as many as the longest sequence has, within bounds."""


def _most(target: Target) -> int:
    """The tokens of the largest block."""
    if target.matrices:
        return amx.TOKENS
    return 12 if target.isa.startswith("avx512") else 8


def bits(value: float) -> int:
    """A float32 as the word that kernels take it from."""
    return int(np.float32(value).view(np.int32))


class CPUOps:
    """Records `instructions`, int64 words of instructions. `max_rows` bounds the rows of a step."""

    def __init__(self, library: Library, *, threads: int, max_rows: int, half_cache: bool = True) -> None:
        self.library = library
        self.threads = threads
        self.max_rows = max_rows
        self.half_cache = half_cache
        self.instructions: list[list[int]] = []
        self.scratch_bytes = 4096
        self.query_rows = 1
        self.fast_query_rows = 1
        self.slots = 0
        self._most = _most(library.target)
        self.caches: list[tuple[np.ndarray, np.ndarray]] = []
        self.output_logits: Buffer | None = None
        self._weights = Arena(huge=True)
        self._packers = ThreadPoolExecutor(threads)
        self._pool = Pool(Arena())
        self._kept: list[np.ndarray] = []
        self._constants: dict[tuple[int, float], np.ndarray] = {}
        self._angles: dict[tuple[int, int, float], Buffer] = {}

    def block_tokens(self, rows: int, *, exact: bool = True) -> int:
        """The tokens of a block for so many rows: more than 8 where they cost less, padding and all."""
        if self._most == amx.TOKENS and not exact:
            return amx.TOKENS  # whose wide tiles round in their own way, however few the rows
        if rows <= 8:
            return next(tokens for tokens in TOKENS if rows <= tokens)
        cost = {12: _TWELVE, amx.TOKENS: _SIXTEEN}.get(self._most)
        return self._most if cost and -(-rows // self._most) * cost < -(-rows // 8) * 8 else 8

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

    # -- instructions

    @property
    def _fast_form(self) -> Form:
        return Form.of(self.library.target, self.half_cache)

    @property
    def _isa(self) -> str:
        return self.library.target.isa

    def _emit(self, kernel: Kernel, field: int, factor: int, *arguments: int) -> None:
        words = [self.library.address(kernel), field, factor, *arguments]
        assert len(words) <= f.INSTRUCTION
        self.instructions.append(words + [0] * (f.INSTRUCTION - len(words)))

    def _rows(self, cols: int) -> Buffer:
        return Buffer(self._pool, 4 * self.max_rows * cols, cols)

    def _like(self, x: Buffer, cols: int) -> Buffer:
        return Buffer(self._pool, 4 * self.max_rows * cols, cols, x.rows)

    def _memory(self, size: int, cols: int = 0) -> Buffer:
        return Buffer(self._pool, size, cols)

    def _scratch(self, size: int) -> None:
        self.scratch_bytes = max(self.scratch_bytes, f.aligned(size))

    def _tiles(self, weight: Matrix, blocks: Buffer) -> list[int]:
        last = [self._most] if self._most > TOKENS[-1] else []
        tiles = [self.library.address(weight.kernel(tokens, exact=blocks.exact, wide=blocks.wide))
                 for tokens in [*TOKENS, *last]]
        return tiles if last else [*tiles, 0]

    def _wide(self, domain: int, weight: Matrix, *, fine: bool) -> int:
        """Bytes of a code in tiles of a product, or 0 where they keep the groups of their format."""
        wide = domain == f.FAST and not weight.dense and self.library.target.wide and weight.cols % GROUP == 0
        return 0 if not wide else 2 if fine else 1

    def _halved(self, domain: int, weight: Matrix) -> bool:
        """Whether a product is one of bfloat16 in matrix registers."""
        return domain == f.FAST and self.library.target.matrices and weight.cols % UNIT == 0

    def _form(self, weight: Matrix, domain: int) -> tuple[int, ...]:
        """What is equal for weights that take the same blocks of activations."""
        return () if self._halved(domain, weight) else (weight.dense, weight.offset(self._isa))

    def _together(self, gate: Matrix, up: Matrix) -> bool:
        """Whether one kernel may multiply by both."""
        return (self._form(gate, f.EXACT) == self._form(up, f.EXACT) and gate.group == up.group
                and not (self._halved(f.FAST, gate) and gate.rows % UNIT))

    def _spread(self, blocks: Buffer, share: int, *weights: Matrix) -> list[int]:
        """What spreads tiles of each of `weights`, the bytes they then have, and what releases the registers, or 0."""
        target, wide = self.library.target, blocks.wide
        if weights[0].dense or not (wide or target.matrices):
            return [0] * (len(weights) + 2)
        kernels, sizes = zip(*(weight.spread(wide) for weight in weights))
        self._scratch(8 * 16 * MOST_TOKENS + len(weights) * share * max(sizes))
        return [*map(self.library.address, kernels), max(sizes), self._release if target.matrices else 0]

    @property
    def _release(self) -> int:
        """The address of what gives the matrix registers back."""
        return self.library.address(Kernel("release", 4, "amx:release", writer=True))

    def _share(self, blocks: Buffer, weight: Matrix, matrices: int = 1) -> int:
        """Tiles a piece: half a megabyte, packed or spread out, but several pieces for each thread."""
        size = weight.spread(blocks.wide)[1] if blocks.wide else weight.tile_bytes
        return max(1, min(_PIECE // (size * matrices), weight.height // (4 * self.threads)))

    def _pack(self, x: Buffer, weight: Matrix, norm: Norm | None, domain: int, *, most: int = 0,
              fine: bool = False) -> Buffer:
        """x, normed, in the blocks that `weight` takes; `cols` of the result counts bytes of a token. Rounding of what
        is `fine` matters most."""
        if self._halved(domain, weight):
            return x.fast or self._pack_halves(x, weight, norm)
        wide = self._wide(domain, weight, fine=fine)
        exact = domain != f.FAST or (fine and not wide)
        size = (token_bytes(weight.cols, wide) if wide else
                f.block_bytes(weight.cols, dense=weight.dense, exact=exact))
        blocks = Buffer(self._pool, ((most or self.max_rows) + MOST_TOKENS) * size, size)
        blocks.exact, blocks.wide = exact, wide
        scale = norm.weight if norm else self._constant(weight.cols)
        self._emit(Kernel("pack", 4, "activations:pack"), domain + f.BLOCKS, 1, x.at, x.cols, address(scale),
                   bits(norm.eps) if norm else 0, weight.cols, domain, blocks.at, size,
                   weight.offset(self._isa), int(weight.dense), int(exact), self.library.target.word_tokens,
                   wide)
        return blocks

    def _pack_halves(self, x: Buffer, weight: Matrix, norm: Norm | None) -> Buffer:
        """Fast rows of x, normed, in blocks of bfloat16."""
        blocks = self._halves(weight.cols)
        self._emit(Kernel("pack_bfloat", 4, "bfloat_tiles:pack"), f.FAST + f.BLOCKS, 1, x.at, x.cols,
                   address(norm.weight if norm else self._constant(weight.cols)), bits(norm.eps) if norm else 0,
                   weight.cols, blocks.at)
        return blocks

    def _halves(self, cols: int) -> Buffer:
        """Blocks of bfloat16, with room for one more of which nothing is read."""
        return self._memory(2 * cols * (self.max_rows + 2 * amx.TOKENS), cols)

    def _constant(self, count: int, value: float = 1.0) -> np.ndarray:
        if (count, value) not in self._constants:
            self._constants[count, value] = np.full(count, value, np.float32)
        return self._constants[count, value]

    def _product(self, blocks: Buffer, weight: Matrix, out: Buffer, domain: int, *, column: int = 0,
                 bias: np.ndarray | None = None, residual: Buffer | None = None, scale: float = 1.0,
                 softcap: float = 0.0) -> None:
        to = (out.at, out.cols, column, weight.rows, address(bias) if bias is not None else 0,
              residual.at if residual else 0, bits(scale), bits(softcap))
        if self._halved(domain, weight):
            self._emit(Kernel("product_bfloat", 4, "bfloat_tiles:product"), f.FAST + f.ANY,
                       *self._begin_halves(blocks, weight), *to)
            return
        share = self._share(blocks, weight)
        self._emit(Kernel("product", 4, "matmul:product"), domain + f.ANY, *self._begin(blocks, weight, domain, share),
                   *to, *self._spread(blocks, share, weight))

    def _begin(self, blocks: Buffer, weight: Matrix, domain: int, share: int) -> tuple[int, ...]:
        """The pieces of a product, of `share` tiles each, and the words that it begins with."""
        return (-(-weight.height // share), blocks.at, blocks.cols, weight.units, domain, address(weight.tiles),
                weight.tile_bytes, weight.height, share, *self._tiles(weight, blocks))

    def _gated_halves(self, x: Buffer, gate: Matrix, up: Matrix, activation: Activation, norm: Norm | None) -> Buffer:
        """Blocks of the fast rows."""
        blocks, out = self._pack(x, gate, norm, f.FAST), self._halves(gate.rows)
        self._emit(Kernel("gated_bfloat", 4, "bfloat_tiles:gated"), f.FAST + f.ANY,
                   *self._begin_halves(blocks, gate, 2), address(up.tiles), up.tile_bytes,
                   self.library.address(up.halves[0]), out.at, gate.rows, ACTIVATIONS[activation])
        return out

    def _begin_halves(self, blocks: Buffer, weight: Matrix, matrices: int = 1) -> tuple[int, ...]:
        """The same for AMX, with an even number of tiles, and the kernels that spread, multiply and release them."""
        spread, size = weight.halves
        most = min(_HALVES // (size * matrices), weight.height // (2 * self.threads))
        share = max(2, most // 2 * 2)
        self._scratch(4 * amx.SQUARE + share * size * matrices)
        tile = Kernel("tile_bfloat", 4, "bfloat_tiles:tile", writer=True)
        return (-(-weight.height // share), blocks.at, weight.cols // UNIT, address(weight.tiles), weight.tile_bytes,
                weight.height, share, self.library.address(spread), self.library.address(tile), self._release)

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
