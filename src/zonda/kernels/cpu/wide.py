"""Wide tiles, for rows that may be rounded: codes of weights and of activations with one scale for 64 columns.

Where groups of 32 columns keep the scales of their format, sums take half as long again. So a tile of
weights is spread out once, rounded anew, and then meets block after block. Codes are bytes, or, where rounding matters
most, numbers of some 12 bits, which take twice as long. Results do not depend on how many tokens share a block.
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


GROUP = 2 * UNIT
"""Columns that share a scale."""


def most(size: int) -> int:
    """The largest code of so many bytes: a group's products of two-byte codes add up to less than 2³¹."""
    return 127 if size == 1 else int((2**31 / GROUP)**0.5) - 1


def token_bytes(cols: int, size: int) -> int:
    """Bytes of one token's share of a block: codes, and a scale and a sum for each group."""
    return cols * size + 8 * (cols // GROUP)


def group_bytes(size: int) -> int:
    """Bytes of a group of a tile that is spread out: codes, and 16 scales."""
    return ROWS * GROUP * size + _ROW


def spread(name: str, size: int) -> Callable[..., None]:
    """Writer of spread(weights, units, out, unused): groups of codes of `size` bytes and 16 scales each.

    Bytes are [K/4][16][4], and moved to 0 ... 255; codes of two bytes are [K/4][2][16][2], columns 0, 2, 1, 3."""
    def write(builder: ir.IRBuilder, target: Target, weights: Any, units: Any, out: Any, unused: Any) -> None:
        _Spread(Emit(builder, target), LAYOUTS[name], size).write(weights, units, out)

    return write


def quantize(size: int) -> Callable[..., None]:
    """Writer of one row x · factor · weight into its place in a block, as codes of `size` bytes.

    `factor` holds float32 bits."""
    def write(builder: ir.IRBuilder, target: Target, *words: Any) -> None:
        _write_row(Emit(builder, target), size, *words)

    return write


def _write_row(e: Emit, size: int, x: Any, weight: Any, factor: Any, units: Any, tokens: Any, block: Any,
               token: Any) -> None:
    b, lanes, most_code = e.b, e.registers.lanes, e.const(F32, float(most(size)))
    floats, words = ir.VectorType(F32, lanes), ir.VectorType(I32, lanes)
    factor = e.splat(b.bitcast(b.trunc(factor, I32), F32), lanes)
    groups = b.sdiv(units, e.word(GROUP // UNIT))
    scales = e.at(e.at(block, b.mul(e.times(units, UNIT * size), tokens)), e.times(token, 4))
    sums = e.at(scales, b.mul(e.times(groups, 4), tokens))
    with e.loop(groups) as group:
        values = []
        for place in range(0, 4 * GROUP, 4 * lanes):
            value = b.fmul(e.load(floats, e.at(x, e.times(group, 4 * GROUP)), place), factor)
            values.append(b.fmul(value, e.load(floats, e.at(weight, e.times(group, 4 * GROUP)), place)))
        peak = largest(e, [e.intrinsic(f"llvm.fabs.v{lanes}f32", floats, [value]) for value in values])
        nothing = b.fcmp_ordered("==", peak, e.const(F32, 0.0))
        inverse = e.splat(b.select(nothing, e.const(F32, 0.0), b.fdiv(most_code, peak)), lanes)
        codes = [b.fptosi(e.intrinsic(f"llvm.rint.v{lanes}f32", floats, [b.fmul(value, inverse)]), words)
                 for value in values]
        row = e.at(block, e.times(e.at(b.mul(group, tokens), token), GROUP * size))
        for i, each in enumerate(codes):
            e.store(_narrow(e, each, size), row, i * lanes * size)
        here = b.mul(e.times(group, 4), tokens)
        e.store(b.fmul(peak, e.const(F32, 1 / most(size))), e.at(scales, here))
        added = e.intrinsic(f"llvm.vector.reduce.add.v{lanes}i32", I32, [reduce(b.add, codes)])
        e.store(b.mul(added, e.const(I32, -128)), e.at(sums, here))


def _narrow(e: Emit, codes: Any, size: int) -> Any:
    """Codes of `size` bytes; of two bytes, each four are turned as `spread` says."""
    lanes = codes.type.count
    if size == 1:
        return e.b.trunc(codes, ir.VectorType(I8, lanes))
    turns = [4 * (i // 4) + (0, 2, 1, 3)[i % 4] for i in range(lanes)]
    codes = e.b.shuffle_vector(codes, codes, ir.Constant(ir.VectorType(I32, lanes), turns))
    return e.b.trunc(codes, ir.VectorType(I16, lanes))


class _Spread:
    """code -> (code - middle) · scale + (middle · scale - min), as a new code times the wide scale.

    Arithmetic is in 16 bits: codes and factors are fractions of 1, sums are codes, or 256ths of a byte's step.
    """

    def __init__(self, e: Emit, layout: Layout, size: int) -> None:
        self.e, self.layout, self.size = e, layout, size
        self.bytes = group_bytes(size)
        self.middle = 1 << layout.bits - 1
        self.tile = Tile(e, layout, 1, planes=1)

    def write(self, weights: Any, units: Any, out: Any) -> None:
        e, b, zero = self.e, self.e.b, self.e.word(0)
        widest = e.variable(e.const(_FLOATS, 0.0))
        count = e.variable(zero)

        def measure(address: Any, head: Any) -> None:
            for g in range(amx.groups_of(self.layout)):
                scale, minimum = self._factors(address, g, head)
                widest.set(self._largest([widest.get(), *self._ends(scale, minimum)]))

            def keep(group: Any) -> None:
                e.store(widest.get(), e.at(out, e.times(group, self.bytes)), self.bytes - _ROW)
                widest.set(e.const(_FLOATS, 0.0))

            self._last_of_group(count, keep)

        def convert(address: Any, head: Any) -> None:
            group = b.sdiv(count.get(), e.word(GROUP // UNIT))
            place = e.at(e.at(out, e.times(group, self.bytes)),
                         e.times(b.srem(count.get(), e.word(GROUP // UNIT)), ROWS * UNIT * self.size))
            largest = e.load(_FLOATS, e.at(out, e.times(group, self.bytes)), self.bytes - _ROW)
            nothing = b.fcmp_ordered("==", largest, e.const(_FLOATS, 0.0))
            top = e.const(_FLOATS, float(self._one * most(self.size)))
            inverse = b.select(nothing, e.const(_FLOATS, 0.0), b.fdiv(top, largest))
            self._unit(address, head, inverse, place)
            self._last_of_group(count, lambda group: e.store(
                b.fmul(largest, e.const(_FLOATS, 1 / most(self.size))), e.at(out, e.times(group, self.bytes)),
                self.bytes - _ROW))

        for visit in (measure, convert):
            count.set(zero)
            self.tile.walk(e.variable(weights), units, zero, visit)

    @property
    def _one(self) -> int:
        """What a code of 1 is, in arithmetic."""
        return 256 if self.size == 1 else 1

    def _last_of_group(self, count: Any, then: Callable[[Any], Any]) -> None:
        """Count a unit; after the last of a group, do `then` with the group's number."""
        e, b = self.e, self.e.b
        group = b.sdiv(count.get(), e.word(GROUP // UNIT))
        count.set(e.at(count.get(), 1))
        with b.if_then(b.icmp_signed("==", b.srem(count.get(), e.word(GROUP // UNIT)), e.word(0))):
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
        """Codes of a unit; `inverse` is 1, or 256 for bytes, over the wide scale."""
        e, b, groups = self.e, self.e.b, amx.groups_of(self.layout)
        half = 128 if self.size == 1 else 0
        steps = self.tile.steps(address)
        for g in range(groups):
            scale, minimum = self._factors(address, g, head)
            middle = b.fmul(scale, e.const(_FLOATS, float(self.middle)))
            factor = self._pairs(b.fmul(middle, inverse))
            if minimum is None:
                added = e.const(_SHORTS, half)
            else:
                added = b.add(self._pairs(b.fmul(b.fsub(middle, minimum), inverse)), e.const(_SHORTS, half))
            for k in range(g * STEPS // groups, (g + 1) * STEPS // groups):
                for i, codes in enumerate(self._codes(steps[k]()[0], factor, added)):
                    e.store(codes, place, _ROW * (self.size * k + i))

    def _pairs(self, values: Any) -> Any:
        """Whole numbers of 16 bits, each twice: a row's four columns are two pairs."""
        e, b = self.e, self.e.b
        words = b.and_(b.fptosi(e.intrinsic("llvm.rint.v16f32", _FLOATS, [values]), _WORDS), e.const(_WORDS, 0xFFFF))
        return b.bitcast(b.or_(words, b.shl(words, e.const(_WORDS, 16))), _SHORTS)

    def _codes(self, codes: Any, factor: Any, added: Any) -> list[Any]:
        e, b, bits = self.e, self.e.b, self.layout.bits
        pairs = b.bitcast(codes, _SHORTS)
        up, eight = e.const(_SHORTS, 16 - bits), e.const(_SHORTS, 8)
        even, odd = b.shl(pairs, up), b.shl(b.lshr(pairs, eight), up)
        if bits < 8:  # codes of eight bits have their sign
            even, odd = (b.xor(part, e.const(_SHORTS, 0x8000)) for part in (even, odd))
        even, odd = (b.add(e.intrinsic("llvm.x86.avx512.pmul.hr.sw.512", _SHORTS, [part, factor]), added)
                     for part in (even, odd))
        if self.size == 2:
            return [even, odd]
        both = b.or_(b.lshr(even, eight), b.and_(odd, e.const(_SHORTS, 0xFF00)))
        return [b.xor(both, e.const(_SHORTS, 0x8080))]


def tile(size: int, tokens: int) -> Callable[..., None]:
    """Writer of tile(wide tile, block, units, out), for every format: out float32 (tokens, 16) = block · tileᵀ."""
    def write(builder: ir.IRBuilder, target: Target, weights: Any, block: Any, units: Any, out: Any) -> None:
        e = Emit(builder, target)
        totals = [e.variable(e.const(_FLOATS, 0.0)) for _ in range(tokens)]
        _sums(e, totals, weights, block, units, size)
        for i, total in enumerate(totals):
            e.store(total.get(), out, _ROW * i)

    return write


def _sums(e: Emit, totals: list[Any], weights: Any, block: Any, units: Any, size: int) -> None:
    """Add to `totals`, a vector of 16 rows for each token, the products of a wide tile; a block's sums take away what
    moved bytes of weights to 0 … 255."""
    tokens, groups = len(totals), e.b.sdiv(units, e.word(GROUP // UNIT))
    scales = e.at(block, e.times(units, UNIT * tokens * size))
    where, codes, scales, offsets = (e.variable(a) for a in (
        weights, block, scales, e.at(scales, e.times(groups, 4 * tokens))))
    zero, dot = e.const(_WORDS, 0), f"llvm.x86.avx512.vpdp{'busd' if size == 1 else 'wssd'}.512"
    with e.loop(groups):
        chains = [[zero] * tokens for _ in range(2 if tokens <= CHAINS else 1)]
        if size == 1:
            chains[0] = [e.splat(e.load(I32, offsets.get(), 4 * i), ROWS) for i in range(tokens)]
        for k in range(GROUP * size // 4):
            sums, row = chains[k % len(chains)], e.load(_WORDS, where.get(), _ROW * k)
            for i in range(tokens):
                x = e.splat(e.load(I32, codes.get(), GROUP * size * i + 4 * k), ROWS)
                sums[i] = e.intrinsic(dot, _WORDS, [sums[i], row, x])
        factor = e.load(_FLOATS, where.get(), group_bytes(size) - _ROW)
        for i, total in enumerate(totals):
            amx.add(e, total, reduce(e.b.add, [sums[i] for sums in chains]), factor, e.at(scales.get(), 4 * i))
        where.set(e.at(where.get(), group_bytes(size)))
        codes.set(e.at(codes.get(), tokens * GROUP * size))
        for each in (scales, offsets):
            each.set(e.at(each.get(), 4 * tokens))
