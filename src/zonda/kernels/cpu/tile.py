"""The matmul tile: 16 weight rows against a block of tokens, in the registers of the processor at hand.

Activations of T tokens form a block (see `activations.py`): int8 codes interleaved by four columns, a float32 scale a
token and 32 columns, and sums of codes that pay for offsets and mins. Each token's result is computed by the same
operations in the same order whatever T is, so a token's logits do not depend on its neighbours.
"""
from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

from llvmlite import ir

from zonda.kernels.cpu.layout import LAYOUTS, ROWS, SUPER, UNIT, Layout
from zonda.kernels.cpu.library import Target
from zonda.kernels.cpu.vector import F16, F32, I8, I16, I32, I64, Emit

STEPS = UNIT // 4
CHAINS = 8
"""As few dependent chains of dot products leave the units idle between them, and are cut in two."""
AHEAD = 8192
"""Bytes ahead of the weights at hand that are asked of memory, where few tokens leave memory as the limit."""


def tile(name: str, tokens: int, exact: bool) -> Callable[..., None]:
    """Writer of tile(weights, block, units, out): out float32 (tokens, 16) = block · tileᵀ for `units` · 32 columns."""
    def write(builder: ir.IRBuilder, target: Target, weights: Any, block: Any, units: Any, out: Any) -> None:
        Tile(Emit(builder, target), LAYOUTS[name], tokens, planes=2 if exact else 1).write(weights, block, units, out)

    return write


class Tile:
    def __init__(self, e: Emit, layout: Layout, tokens: int, *, planes: int) -> None:
        self.e = e
        self.layout = layout
        self.tokens = tokens
        self.planes = planes
        self.lanes = e.registers.lanes
        fits = 4 if e.registers.count == 16 else 12
        self.vectors = _power_of_two(min(ROWS // self.lanes, fits // (tokens * planes)))
        self.passes = ROWS // self.lanes // self.vectors
        self.words = ir.VectorType(I32, self.lanes)
        self.bytes = ir.VectorType(I8, self.lanes * 4)
        self.shorts = ir.VectorType(I16, self.lanes * 2)
        self.floats = ir.VectorType(F32, self.lanes)
        self.dot = _dot_for(self)

    def write(self, weights: Any, block: Any, units: Any, out: Any) -> None:
        e, t = self.e, self.tokens
        codes = block
        scales = e.at(codes, e.times(units, UNIT * t * self.planes))
        sums = [e.at(scales, e.times(units, 4 * t)), e.at(scales, e.times(units, 8 * t))]
        if self.layout.group == 16:
            sums = [e.at(scales, e.times(units, 12 * t)), e.at(scales, e.times(units, 20 * t))]
        with e.loop(e.word(self.passes)) as p:
            # byte offsets of this pass's rows among 16 rows of 4, 2 and 1 bytes, in `weights`
            lane = e.times(p, self.vectors * self.lanes)
            totals = [[e.variable(e.const(self.floats, 0.0)) for _ in range(self.vectors)] for _ in range(t)]
            where = e.variable(weights)
            moving = [e.variable(a) for a in (codes, scales, *sums)]
            self.walk(where, units, lane, lambda unit, head: self._unit(unit, moving, lane, totals, head))
            for i in range(t):
                for v in range(self.vectors):
                    e.store(totals[i][v].get(), e.at(out, e.times(lane, 4)), 4 * (i * ROWS + v * self.lanes))

    def walk(self, where: Any, units: Any, lane: Any, visit: Callable[[Any, Any], None]) -> None:
        """Visit all units from the address in `where` on, each with its head, if the format has such."""
        e, layout = self.e, self.layout

        def step(head: Any) -> None:
            visit(where.get(), head)
            where.set(e.at(where.get(), layout.unit_bytes))

        if not layout.two_level:
            with e.loop(units):
                step(None)
            return
        with e.loop(e.b.sdiv(units, e.word(SUPER))):
            head = self._head(where.get(), lane)
            where.set(e.at(where.get(), layout.head_bytes))
            with e.loop(e.word(SUPER)):
                step(head)

    def _head(self, where: Any, lane: Any) -> list[list[Any]]:
        """The float32 `d`, and `dmin`, of each vector of rows."""
        count = 2 if self.layout.mins else 1
        return [[self._halves(self.e.at(where, self.e.times(lane, 2)), 2 * (k * ROWS + v * self.lanes))
                 for v in range(self.vectors)] for k in range(count)]

    def _halves(self, address: Any, offset: int) -> Any:
        return self.e.from_half(self.e.load(ir.VectorType(F16, self.lanes), address, offset))

    def _unit(self, unit: Any, moving: list[Any], lane: Any, totals: list[list[Any]], head: Any) -> None:
        e, layout, t = self.e, self.layout, self.tokens
        if t <= 4:
            for line in range(0, layout.unit_bytes, 64):
                e.prefetch(unit, AHEAD + line)
        codes, scales, int_sums, float_sums = (m.get() for m in moving)
        steps = self.steps(e.at(unit, e.times(lane, 4)))
        groups = UNIT // layout.group
        for g in range(groups):
            scale, minimum = self.factors(unit, lane, g, head)
            sums = self.dot(steps[g * STEPS // groups:(g + 1) * STEPS // groups], codes, g * STEPS // groups,
                            e.at(int_sums, 4 * t * g))
            for i in range(t):
                token_scale = e.splat(e.load(F32, scales, 4 * i), self.lanes)
                for v in range(self.vectors):
                    total = totals[i][v]
                    exact = e.b.sitofp(sums[i][v], self.floats)
                    total.set(e.fma(exact, e.b.fmul(scale[v], token_scale), total.get()))
                    if minimum is not None:
                        token_sum = e.splat(e.load(F32, float_sums, 4 * (g * t + i)), self.lanes)
                        total.set(e.fma(minimum[v], token_sum, total.get()))
        moving[0].set(e.at(codes, UNIT * t * self.planes))
        moving[1].set(e.at(scales, 4 * t))
        moving[2].set(e.at(int_sums, 4 * t * groups))
        moving[3].set(e.at(float_sums, 4 * t * groups))

    def factors(self, unit: Any, lane: Any, group: int, head: Any) -> tuple[list[Any], list[Any] | None]:
        """The float32 scales and mins (or None) of one group, for each vector of rows."""
        layout = self.layout
        scale = self._factors(unit, layout.scales_at, lane, group, head and head[0])
        if not layout.mins:
            return scale, None
        return scale, self._factors(unit, layout.scales_at + layout.scale_bytes, lane, group, head and head[1])

    def _factors(self, unit: Any, offset: int, lane: Any, group: int, head: Any) -> list[Any]:
        """The float32 scales (or mins) of one group, for each vector of rows."""
        e = self.e
        result = []
        for v in range(self.vectors):
            at = group * ROWS + v * self.lanes
            if head is None:
                result.append(self._halves(e.at(unit, e.times(lane, 2)), offset + 2 * at))
            else:
                small = e.load(ir.VectorType(I8, self.lanes), e.at(unit, lane), offset + at)
                result.append(e.b.fmul(e.b.sitofp(e.b.sext(small, self.words), self.floats), head[v]))
        return result

    def steps(self, unit: Any) -> list[Callable[[], list[Any]]]:
        """For each four columns a function that unpacks their codes: one byte vector for each vector of rows."""
        loaded: dict[int, list[Any]] = {}

        def chunk(offset: int) -> list[Any]:
            if offset not in loaded:
                loaded[offset] = [self.e.load(self.bytes, unit, offset + 4 * v * self.lanes)
                                  for v in range(self.vectors)]
            return loaded[offset]

        def step(index: int) -> list[Any]:
            parts: list[list[Any]] = []
            offset, done = 0, 0
            for bits in self.layout.planes:
                per_byte = 8 // bits
                source = chunk(offset + 64 * (index // per_byte))
                parts.append([self._field(byte, bits, bits * (index % per_byte), done) for byte in source])
                offset, done = offset + 64 * bits, done + bits
            return [reduce(self.e.b.or_, [part[v] for part in parts]) for v in range(self.vectors)]

        return [lambda index=index: step(index) for index in range(STEPS)]  # type: ignore[misc]

    def _field(self, byte: Any, bits: int, low: int, up: int) -> Any:
        """Bits low … low+bits-1 of each byte, moved to position `up`."""
        if bits == 8:
            return byte
        b, shift = self.e.b, low - up
        value = b.bitcast(byte, self.shorts)
        if shift:
            amount = self.e.const(self.shorts, abs(shift))
            value = b.lshr(value, amount) if shift > 0 else b.shl(value, amount)
        return b.and_(b.bitcast(value, self.bytes), self.e.const(self.bytes, ((1 << bits) - 1) << up))

    def codes(self, address: Any, step: int, plane: int, token: int) -> Any:
        """Four columns' activation codes of one token, in every lane."""
        word = self.e.load(I32, address, 4 * ((step * self.planes + plane) * self.tokens + token))
        return self.e.splat(word, self.lanes)

    def initial(self, offset: int, int_sums: Any, token: int) -> Any:
        """-offset · sum of codes, in every lane: the block holds it for the offset that its tiles expect."""
        if not offset:
            return self.e.const(self.words, 0)
        return self.e.splat(self.e.load(I32, int_sums, 4 * token), self.lanes)


def _power_of_two(most: int) -> int:
    """The largest that is not above `most`, or 1: vectors of rows must divide the 16 rows of a tile."""
    return 1 << max(1, most).bit_length() - 1


def _dot_for(tile: Tile) -> Callable[..., list[list[Any]]]:
    isa = tile.e.target.isa
    if isa in ("avx512vnni", "avxvnni"):
        return _Vnni(tile)
    least = tile.e.target.word_tokens
    if tile.planes == 2 and least and tile.tokens >= least:
        return _Words(tile)
    if isa in ("avx512", "avx2"):
        return _Madd(tile)
    return _Neon(tile) if isa == "neon" else _Portable(tile)


class _Dot:
    """Sums of products of codes over some steps: call(steps, codes, first step, int_sums) -> [token][vector] int32."""

    unsigned = False
    """Whether 8-bit weights must be moved to 0 … 255."""

    def __init__(self, tile: Tile) -> None:
        self.tile = tile
        self.e = tile.e
        self.offset = 128 if tile.layout.bits == 8 and self.unsigned else tile.layout.offset

    def __call__(self, steps: list[Any], codes: Any, first: int, int_sums: Any) -> list[list[Any]]:
        tile = self.tile
        chains = [self.initial(int_sums)]
        if tile.planes * tile.tokens * tile.vectors <= CHAINS:
            chains.append(self.nothing(tile.planes))
        for k, step in enumerate(steps):
            weights = [self.ready(w) for w in step()]
            sums = chains[k % len(chains)]
            for p in range(tile.planes):
                for i in range(tile.tokens):
                    x = tile.codes(codes, first + k, p, i)
                    sums[p][i] = [self.accumulate(sums[p][i][v], weights[v], x) for v in range(tile.vectors)]
        return self.joined(self.added(chains))

    def added(self, chains: list[Any]) -> Any:
        """The sum of chains [plane][token][vector]."""
        if len(chains) == 1:
            return chains[0]
        return [[[self.e.b.add(a, b) for a, b in zip(*pair)] for pair in zip(*plane)] for plane in zip(*chains)]

    def nothing(self, planes: int) -> list[list[list[Any]]]:
        """Zeros, [plane][token][vector]."""
        zero = self.e.const(self.tile.words, 0)
        return [[[zero] * self.tile.vectors for _ in range(self.tile.tokens)] for _ in range(planes)]

    def initial(self, int_sums: Any) -> list[list[list[Any]]]:
        """Where sums begin, [plane][token][vector]: the last plane's with what the offset takes away."""
        tile = self.tile
        return [*self.nothing(tile.planes - 1),
                [[tile.initial(self.offset, int_sums, i)] * tile.vectors for i in range(tile.tokens)]]

    def joined(self, sums: list[list[list[Any]]]) -> list[list[Any]]:
        """128 · high + low."""
        if len(sums) == 1:
            return sums[0]
        b, seven = self.e.b, self.e.const(self.tile.words, 7)
        return [[b.add(b.shl(high, seven), low) for high, low in zip(*pair)] for pair in zip(*sums)]

    def ready(self, weights: Any) -> Any:
        if self.tile.layout.bits == 8 and self.unsigned:
            return self.e.b.xor(weights, self.e.const(weights.type, 128))
        return weights

    def accumulate(self, total: Any, weights: Any, x: Any) -> Any:
        raise NotImplementedError


class _Vnni(_Dot):
    unsigned = True

    def accumulate(self, total: Any, weights: Any, x: Any) -> Any:
        words = self.tile.words
        width = 32 * words.count
        name = f"llvm.x86.avx512.vpdpbusd.{width}"
        return self.e.intrinsic(name, words, [total, self.e.b.bitcast(weights, words), x])


class _Neon(_Dot):
    def accumulate(self, total: Any, weights: Any, x: Any) -> Any:
        x = self.e.b.bitcast(x, self.tile.bytes)
        return self.e.intrinsic("llvm.aarch64.neon.sdot.v4i32.v16i8", self.tile.words, [total, weights, x])


class _Portable(_Dot):
    def accumulate(self, total: Any, weights: Any, x: Any) -> Any:
        b, words = self.e.b, self.tile.words
        left = b.bitcast(weights, words)
        for byte in range(4):
            a, c = (b.ashr(b.shl(v, self.e.const(words, 24 - 8 * byte)), self.e.const(words, 24)) for v in (left, x))
            total = b.add(total, b.mul(a, c))
        return total


class _Madd(_Dot):
    """vpmaddubsw: int16 sums of pairs, added up as long as they cannot overflow, then widened by vpmaddwd."""

    def __call__(self, steps: list[Any], codes: Any, first: int, int_sums: Any) -> list[list[Any]]:
        tile, bits = self.tile, self.tile.layout.bits
        limit = 1 if bits == 8 else 32767 // (2 * 127 * ((1 << bits) - 1))
        sums = self.initial(int_sums)
        for start in range(0, len(steps), limit):
            shorts: list[Any] = [[[None] * tile.vectors for _ in range(tile.tokens)] for _ in range(tile.planes)]
            for k, step in enumerate(steps[start:start + limit], start):
                weights = step()
                for p in range(tile.planes):
                    for i in range(tile.tokens):
                        x = tile.codes(codes, first + k, p, i)
                        shorts[p][i] = [self._pairs(weights[v], x, shorts[p][i][v]) for v in range(tile.vectors)]
            sums = [[[self.e.b.add(total, self._widen(short)) for total, short in zip(*pair)] for pair in zip(*plane)]
                    for plane in zip(sums, shorts)]
        return self.joined(sums)

    def _pairs(self, weights: Any, x: Any, before: Any) -> Any:
        """int16 sums of neighbouring products, added to those before."""
        x = self.e.b.bitcast(x, self.tile.bytes)
        if self.tile.layout.bits == 8:
            weights, x = self._signs(weights, x)
        name = {8: "llvm.x86.avx2.pmadd.ub.sw", 16: "llvm.x86.avx512.pmaddubs.w.512"}[self.tile.lanes]
        pairs = self.e.intrinsic(name, self.tile.shorts, [weights, x])
        return pairs if before is None else self.e.b.add(before, pairs)

    def _signs(self, weights: Any, x: Any) -> tuple[Any, Any]:
        """|w| and x · sign(w): the same products, with the unsigned factor first."""
        b, zero = self.e.b, self.e.const(self.tile.bytes, 0)
        if self.tile.lanes == 8:
            moved = self.e.intrinsic("llvm.x86.avx2.psign.b", self.tile.bytes, [x, weights])
        else:
            moved = b.select(b.icmp_signed("<", weights, zero), b.sub(zero, x), x)
        return b.select(b.icmp_signed("<", weights, zero), b.sub(zero, weights), weights), moved

    def _widen(self, shorts: Any) -> Any:
        name = {8: "llvm.x86.avx2.pmadd.wd", 16: "llvm.x86.avx512.pmaddw.d.512"}[self.tile.lanes]
        return self.e.intrinsic(name, self.tile.words, [shorts, self.e.const(self.tile.shorts, 1)])


class _Words(_Dot):
    """vpmaddwd: exact codes stay int16, and weights are widened, which pays once several tokens share them."""

    def __call__(self, steps: list[Any], codes: Any, first: int, int_sums: Any) -> list[list[Any]]:
        sums = []
        for start in range(0, self.tile.tokens, 4):  # four at a time, or the registers overflow
            sums += self._some(range(start, min(start + 4, self.tile.tokens)), steps, codes, first)
        starts = self.initial(int_sums)[-1]
        return [[self.e.b.add(a, b) for a, b in zip(*pair)] for pair in zip(sums, starts)]

    def _some(self, tokens: range, steps: list[Any], codes: Any, first: int) -> list[list[Any]]:
        tile, b = self.tile, self.e.b
        zero = self.e.const(tile.words, 0)
        halves = [[[zero, zero] for _ in range(tile.vectors)] for _ in tokens]
        for k, step in enumerate(steps):
            weights = [self._halves(w) for w in step()]
            for i, token in enumerate(tokens):
                x = self.e.load(I64, codes, 8 * ((first + k) * tile.tokens + token))
                x = b.bitcast(self.e.splat(x, tile.lanes // 2), tile.shorts)
                for v in range(tile.vectors):
                    halves[i][v] = [b.add(half, self._products(w, x)) for half, w in zip(halves[i][v], weights[v])]
        return [[self._folded(*pair) for pair in token] for token in halves]

    def _halves(self, weights: Any) -> list[Any]:
        """Codes of the first and of the second half of the rows, as int16."""
        b, half = self.e.b, 2 * self.tile.lanes
        undefined = ir.Constant(weights.type, ir.Undefined)
        picks = [ir.Constant(ir.VectorType(I32, half), list(range(s, s + half))) for s in (0, half)]
        widen = b.sext if self.tile.layout.bits == 8 else b.zext
        return [widen(b.shuffle_vector(weights, undefined, pick), self.tile.shorts) for pick in picks]

    def _products(self, weights: Any, x: Any) -> Any:
        name = {8: "llvm.x86.avx2.pmadd.wd", 16: "llvm.x86.avx512.pmaddw.d.512"}[self.tile.lanes]
        return self.e.intrinsic(name, self.tile.words, [weights, x])

    def _folded(self, low: Any, high: Any) -> Any:
        """Each row's two sums in one lane."""
        b, kind = self.e.b, ir.VectorType(I32, self.tile.lanes)
        even, odd = (ir.Constant(kind, list(range(s, 2 * self.tile.lanes, 2))) for s in (0, 1))
        return b.add(b.shuffle_vector(low, high, even), b.shuffle_vector(low, high, odd))
