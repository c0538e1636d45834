"""Wide tiles, for rows that may be rounded: bytes with one scale for 128 columns or so, of weights and of activations.

Where groups of 32 columns have scales of their own, to scale the sums takes as long as to make them. So a tile of
weights is spread out once, rounded to bytes anew, and then meets block after block. Rounding adds about as much noise
as that of activations to bytes. Results do not depend on how many tokens share a block.
"""
from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

from llvmlite import ir

from zonda.kernels.cpu import amx
from zonda.kernels.cpu.layout import LAYOUTS, ROWS, UNIT, Layout
from zonda.kernels.cpu.library import Target
from zonda.kernels.cpu.tile import CHAINS, STEPS, Tile
from zonda.kernels.cpu.vector import F32, I8, I16, I32, Emit, largest

_FLOATS, _WORDS, _SHORTS = ir.VectorType(F32, ROWS), ir.VectorType(I32, ROWS), ir.VectorType(I16, 2 * ROWS)
_ROW = 4 * ROWS
"""Bytes of 16 numbers, or of four columns of weights."""


def wide_units(units: int) -> int:
    """The units of a row that share a scale; 0 where rows are not whole steps of 64 columns."""
    return next((n for n in (4, 6, 2) if units % n == 0), 0)


def token_bytes(cols: int, wide: int) -> int:
    """Bytes of one token's share of a block: codes, and a scale and a sum for each group."""
    return cols + 8 * (cols // UNIT // wide)


def spread(name: str, wide: int) -> Callable[..., None]:
    """Writer of spread(weights, units, out, unused): groups of bytes [K/4][16][4] and 16 scales each.

    Bytes are moved to 0 ... 255."""
    def write(builder: ir.IRBuilder, target: Target, weights: Any, units: Any, out: Any, unused: Any) -> None:
        _Spread(Emit(builder, target), LAYOUTS[name], wide).write(weights, units, out)

    return write


def quantize(builder: ir.IRBuilder, target: Target, *words: Any) -> None:
    """Write one row x · factor · weight into its place in a block, with a scale for `wide` units.

    `factor` holds float32 bits."""
    _Row(Emit(builder, target), *words).write()


class _Row:
    def __init__(self, e: Emit, x: Any, weight: Any, factor: Any, units: Any, tokens: Any, block: Any,
                 token: Any, wide: Any) -> None:
        self.e, self.x, self.weight, self.units, self.wide = e, x, weight, units, wide
        self.tokens, self.block, self.token = tokens, block, token
        self.lanes = e.registers.lanes
        self.floats = ir.VectorType(F32, self.lanes)
        self.factor = e.splat(e.b.bitcast(e.b.trunc(factor, I32), F32), self.lanes)

    def write(self) -> None:
        e, b, lanes, floats = self.e, self.e.b, self.lanes, self.floats
        scales = e.at(e.at(self.block, b.mul(e.times(self.units, UNIT), self.tokens)), e.times(self.token, 4))
        sums = e.at(scales, b.mul(e.times(b.sdiv(self.units, self.wide), 4), self.tokens))
        vectors = b.sdiv(e.times(self.wide, UNIT), e.word(lanes))
        with e.loop(b.sdiv(self.units, self.wide)) as group:
            first = b.mul(group, vectors)
            peaks, total = e.variable(e.const(floats, 0.0)), e.variable(e.const(ir.VectorType(I32, lanes), 0))
            with e.loop(vectors) as v:
                size = e.intrinsic(f"llvm.fabs.v{lanes}f32", floats, [self._value(e.times(e.at(first, v), lanes))])
                peaks.set(b.select(b.fcmp_unordered(">", size, peaks.get()), size, peaks.get()))
            peak = largest(e, [peaks.get()])
            nothing = b.fcmp_ordered("==", peak, e.const(F32, 0.0))
            inverse = b.select(nothing, e.const(F32, 0.0), b.fdiv(e.const(F32, 127.0), peak))
            with e.loop(vectors) as v:
                column = e.times(e.at(first, v), lanes)
                scaled = b.fmul(self._value(column), e.splat(inverse, lanes))
                near = e.intrinsic(f"llvm.rint.v{lanes}f32", floats, [scaled])
                codes = b.fptosi(near, ir.VectorType(I32, lanes))
                total.set(b.add(total.get(), codes))
                self._put(column, b.trunc(codes, ir.VectorType(I8, lanes)))
            here = b.mul(e.times(group, 4), self.tokens)
            e.store(b.fmul(peak, e.const(F32, 1 / 127)), e.at(scales, here))
            added = e.intrinsic(f"llvm.vector.reduce.add.v{lanes}i32", I32, [total.get()])
            e.store(b.mul(added, e.const(I32, -128)), e.at(sums, here))

    def _value(self, column: Any) -> Any:
        e, place = self.e, self.e.times(column, 4)
        value = e.b.fmul(e.load(self.floats, e.at(self.x, place)), self.factor)
        return e.b.fmul(value, e.load(self.floats, e.at(self.weight, place)))

    def _put(self, column: Any, codes: Any) -> None:
        e, b = self.e, self.e.b
        packed = b.bitcast(codes, ir.VectorType(I32, self.lanes // 4))
        for k in range(self.lanes // 4):
            row = e.at(b.mul(e.at(b.sdiv(column, e.word(4)), k), self.tokens), self.token)
            e.store(b.extract_element(packed, e.const(I32, k)), e.at(self.block, e.times(row, 4)))


class _Spread:
    """code -> (code - middle) · scale + (middle · scale - min), as a byte times the wide scale.

    Arithmetic is in 16 bits: codes and factors are fractions of 1, sums are 256ths of a byte's step.
    """

    def __init__(self, e: Emit, layout: Layout, wide: int) -> None:
        self.e, self.layout, self.wide = e, layout, wide
        self.middle = 1 << layout.bits - 1
        self.tile = Tile(e, layout, 1, planes=1)

    def write(self, weights: Any, units: Any, out: Any) -> None:
        e, b, zero = self.e, self.e.b, self.e.word(0)
        widest = e.variable(e.const(_FLOATS, 0.0))
        group_bytes = self.wide * ROWS * UNIT + _ROW
        count = e.variable(zero)

        def measure(address: Any, head: Any) -> None:
            for g in range(amx.groups_of(self.layout)):
                scale, minimum = self._factors(address, g, head)
                widest.set(self._largest([widest.get(), *self._ends(scale, minimum)]))

            def keep(group: Any) -> None:
                e.store(widest.get(), e.at(out, e.times(group, group_bytes)), self.wide * ROWS * UNIT)
                widest.set(e.const(_FLOATS, 0.0))

            self._last_of_group(count, keep)

        def convert(address: Any, head: Any) -> None:
            group = b.sdiv(count.get(), e.word(self.wide))
            place = e.at(e.at(out, e.times(group, group_bytes)),
                         e.times(b.srem(count.get(), e.word(self.wide)), ROWS * UNIT))
            largest = e.load(_FLOATS, e.at(out, e.times(group, group_bytes)), self.wide * ROWS * UNIT)
            nothing = b.fcmp_ordered("==", largest, e.const(_FLOATS, 0.0))
            inverse = b.select(nothing, e.const(_FLOATS, 0.0), b.fdiv(e.const(_FLOATS, 127.0 * 256), largest))
            self._unit(address, head, inverse, place)
            self._last_of_group(count, lambda group: e.store(
                b.fmul(largest, e.const(_FLOATS, 1 / 127)), e.at(out, e.times(group, group_bytes)),
                self.wide * ROWS * UNIT))

        for visit in (measure, convert):
            count.set(zero)
            self.tile.walk(e.variable(weights), units, zero, visit)

    def _last_of_group(self, count: Any, then: Callable[[Any], Any]) -> None:
        """Count a unit; after the last of a group, do `then` with the group's number."""
        e, b = self.e, self.e.b
        group = b.sdiv(count.get(), e.word(self.wide))
        count.set(e.at(count.get(), 1))
        with b.if_then(b.icmp_signed("==", b.srem(count.get(), e.word(self.wide)), e.word(0))):
            then(group)

    def _factors(self, address: Any, group: int, head: Any) -> tuple[Any, Any]:
        scale, minimum = self.tile.factors(address, self.e.word(0), group, head)
        return scale[0], minimum and minimum[0]

    def _ends(self, scale: Any, minimum: Any) -> list[Any]:
        """Absolute values that no weight of the group exceeds."""
        e, b = self.e, self.e.b
        half = b.fmul(scale, e.const(_FLOATS, float(self.middle)))
        if minimum is None:
            return [self._size(half)]
        top = b.fmul(scale, e.const(_FLOATS, float(2 * self.middle - 1)))
        return [self._size(value) for value in (half, minimum, b.fsub(top, minimum))]

    def _size(self, value: Any) -> Any:
        return self.e.intrinsic("llvm.fabs.v16f32", _FLOATS, [value])

    def _largest(self, values: list[Any]) -> Any:
        b = self.e.b
        return reduce(lambda a, c: b.select(b.fcmp_ordered(">", c, a), c, a), values)

    def _unit(self, address: Any, head: Any, inverse: Any, place: Any) -> None:
        """Bytes of a unit; `inverse` is 256 over the wide scale."""
        e, b, groups = self.e, self.e.b, amx.groups_of(self.layout)
        steps = self.tile.steps(address)
        for g in range(groups):
            scale, minimum = self._factors(address, g, head)
            middle = b.fmul(scale, e.const(_FLOATS, float(self.middle)))
            factor = self._pairs(b.fmul(middle, inverse))
            if minimum is None:
                added = e.const(_SHORTS, 128)
            else:
                added = b.add(self._pairs(b.fmul(b.fsub(middle, minimum), inverse)), e.const(_SHORTS, 128))
            for k in range(g * STEPS // groups, (g + 1) * STEPS // groups):
                e.store(self._bytes(steps[k]()[0], factor, added), place, _ROW * k)

    def _pairs(self, values: Any) -> Any:
        """Whole numbers of 16 bits, each twice: a row's four columns are two pairs."""
        e, b = self.e, self.e.b
        words = b.and_(b.fptosi(e.intrinsic("llvm.rint.v16f32", _FLOATS, [values]), _WORDS), e.const(_WORDS, 0xFFFF))
        return b.bitcast(b.or_(words, b.shl(words, e.const(_WORDS, 16))), _SHORTS)

    def _bytes(self, codes: Any, factor: Any, added: Any) -> Any:
        e, b, bits = self.e, self.e.b, self.layout.bits
        pairs = b.bitcast(codes, _SHORTS)
        up, eight = e.const(_SHORTS, 16 - bits), e.const(_SHORTS, 8)
        even, odd = b.shl(pairs, up), b.shl(b.lshr(pairs, eight), up)
        if bits < 8:  # codes of eight bits have their sign
            even, odd = (b.xor(part, e.const(_SHORTS, 0x8000)) for part in (even, odd))
        even, odd = (b.add(e.intrinsic("llvm.x86.avx512.pmul.hr.sw.512", _SHORTS, [part, factor]), added)
                     for part in (even, odd))
        both = b.or_(b.lshr(even, eight), b.and_(odd, e.const(_SHORTS, 0xFF00)))
        return b.bitcast(b.xor(both, e.const(_SHORTS, 0x8080)), codes.type)


def tile(wide: int, tokens: int) -> Callable[..., None]:
    """Writer of tile(wide tile, block, units, out), for every format: out float32 (tokens, 16) = block · tileᵀ."""
    def write(builder: ir.IRBuilder, target: Target, weights: Any, block: Any, units: Any, out: Any) -> None:
        e = Emit(builder, target)
        totals = [e.variable(e.const(_FLOATS, 0.0)) for _ in range(tokens)]
        _sums(e, totals, weights, block, units, wide)
        for i, total in enumerate(totals):
            e.store(total.get(), out, _ROW * i)

    return write


def _sums(e: Emit, totals: list[Any], weights: Any, block: Any, units: Any, wide: int) -> None:
    """Add to `totals`, a vector of 16 rows for each token, the products of a wide tile; a block's sums take away what
    moved weights to 0 … 255."""
    columns, tokens = wide * UNIT, len(totals)
    groups = e.b.sdiv(units, e.word(wide))
    scales = e.at(block, e.times(units, UNIT * tokens))
    where, codes, scales, offsets = (e.variable(a) for a in (
        weights, block, scales, e.at(scales, e.times(groups, 4 * tokens))))
    zero = e.const(_WORDS, 0)
    with e.loop(groups):
        chains = [[e.splat(e.load(I32, offsets.get(), 4 * i), ROWS) for i in range(tokens)]]
        if tokens <= CHAINS:
            chains.append([zero] * tokens)
        for k in range(columns // 4):
            sums, row = chains[k % len(chains)], e.load(_WORDS, where.get(), _ROW * k)
            for i in range(tokens):
                x = e.splat(e.load(I32, codes.get(), 4 * (k * tokens + i)), ROWS)
                sums[i] = e.intrinsic("llvm.x86.avx512.vpdpbusd.512", _WORDS, [sums[i], row, x])
        factor = e.load(_FLOATS, where.get(), ROWS * columns)
        for i, total in enumerate(totals):
            amx.add(e, total, reduce(e.b.add, [sums[i] for sums in chains]), factor, e.at(scales.get(), 4 * i))
        where.set(e.at(where.get(), ROWS * columns + _ROW))
        codes.set(e.at(codes.get(), tokens * columns))
        for each in (scales, offsets):
            each.set(e.at(each.get(), 4 * tokens))
