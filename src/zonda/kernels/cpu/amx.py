"""Matmul tiles in the matrix registers of AMX: 16 weight rows against blocks of 16 tokens.

A tile of weights is spread out once, and then meets block after block. *Close* tiles keep the format's own groups:
sums of integers are exact and what follows them are the operations of `tile.py`, so results are the same to the last
bit. But the sums of each group must leave the registers to be scaled, which takes far longer than making them. So
rows that may be rounded take *wide* tiles: weights become bytes with one scale for up to 192 columns, and so
do activations.
"""
from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

from llvmlite import ir

from zonda.kernels.cpu.layout import LAYOUTS, ROWS, UNIT, Layout
from zonda.kernels.cpu.library import Target
from zonda.kernels.cpu.tile import STEPS, Tile
from zonda.kernels.cpu.vector import F32, I8, I16, I32, I64, Emit

TOKENS = 16
_FLOATS, _WORDS, _SHORTS = ir.VectorType(F32, ROWS), ir.VectorType(I32, ROWS), ir.VectorType(I16, 2 * ROWS)
_ROW = 4 * ROWS
"""Bytes of 16 numbers: a row of sums, or four columns of weights."""
STEP = 64
"""Columns that a product of matrix registers takes at most."""
_WEIGHTS, _SUMS, _CODES = 0, 1, 2
"""What the matrix registers hold."""


def wide_units(units: int) -> int:
    """The units of a row that share a scale in wide tiles; 0 where rows are not whole steps."""
    return next((n for n in (4, 6, 2) if units % n == 0), 0)


def spread_bytes(name: str, units: int) -> int:
    """Bytes of a tile that is spread out, close or wide: codes, and scales and mins of each group."""
    layout = LAYOUTS[name]
    return units * (ROWS * UNIT + _ROW * _groups(layout) * (2 if layout.mins else 1))


def _groups(layout: Layout) -> int:
    return UNIT // layout.group


def spread(name: str) -> Callable[..., None]:
    """Writer of spread(weights, units, out, unused) for close tiles; it also sets the matrix registers' shapes."""
    def write(builder: ir.IRBuilder, target: Target, weights: Any, units: Any, out: Any, unused: Any) -> None:
        e, layout = Emit(builder, target), LAYOUTS[name]
        _configure(e, layout.group)
        tile, to, zero = Tile(e, layout, 1, planes=1), e.variable(out), e.word(0)

        def unit(address: Any, head: Any) -> None:
            for k, step in enumerate(tile.steps(address)):
                codes = step()[0]
                if layout.offset:
                    codes = builder.sub(codes, e.const(codes.type, layout.offset))
                e.store(codes, to.get(), _ROW * k)
            for g in range(_groups(layout)):
                scale, minimum = tile.factors(address, zero, g, head)
                e.store(scale[0], to.get(), ROWS * UNIT + _ROW * g)
                if minimum is not None:
                    e.store(minimum[0], to.get(), ROWS * UNIT + _ROW * (_groups(layout) + g))
            to.set(e.at(to.get(), spread_bytes(name, 1)))

        tile.walk(e.variable(weights), units, zero, unit)

    return write


def spread_wide(name: str, wide: int) -> Callable[..., None]:
    """Writer of spread(weights, units, out, room) for wide tiles; `room` has 64 bytes for each group of the tile."""
    def write(builder: ir.IRBuilder, target: Target, weights: Any, units: Any, out: Any, room: Any) -> None:
        e, layout = Emit(builder, target), LAYOUTS[name]
        _configure(e, STEP)
        _Wide(e, layout, wide).write(weights, units, out)

    return write


class _Wide:
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
            for g in range(_groups(self.layout)):
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
        e, b, groups = self.e, self.e.b, _groups(self.layout)
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
        return b.bitcast(b.or_(b.lshr(even, eight), b.and_(odd, e.const(_SHORTS, 0xFF00))), codes.type)


def release(builder: ir.IRBuilder, target: Target, *unused: Any) -> None:
    """Write release(…): give the matrix registers back, which the system else saves whenever it switches threads."""
    Emit(builder, target).intrinsic("llvm.x86.tilerelease", ir.VoidType(), [])


def tile(name: str, exact: bool) -> Callable[..., None]:
    """Writer of tile(close tile, block, units, out): out float32 (16 tokens, 16 rows) for `units` · 32 columns."""
    layout, planes = LAYOUTS[name], 2 if exact else 1
    groups = _groups(layout)

    def write(builder: ir.IRBuilder, target: Target, weights: Any, block: Any, units: Any, out: Any) -> None:
        e = Emit(builder, target)
        room = _room(e, planes * groups)
        scales = e.at(block, e.times(units, UNIT * TOKENS * planes))
        sums = e.at(scales, e.times(units, (8 if groups == 1 else 20) * TOKENS))
        where, codes, scales, sums = (e.variable(a) for a in (weights, block, scales, sums))
        totals = [e.variable(e.const(_FLOATS, 0.0)) for _ in range(TOKENS)]
        with e.loop(units):
            unit = where.get()
            for g in range(groups):
                for p in range(planes):
                    activations = e.at(codes.get(), p * TOKENS * UNIT + g * layout.group)
                    _multiply(e, [(activations, UNIT, e.at(unit, g * ROWS * layout.group))],
                              e.at(room, (g * planes + p) * TOKENS * _ROW))
            for g in range(groups):
                factor = e.load(_FLOATS, unit, ROWS * UNIT + _ROW * g)
                minimum = e.load(_FLOATS, unit, ROWS * UNIT + _ROW * (groups + g)) if layout.mins else None
                for i, total in enumerate(totals):
                    exactly = _sum(e, room, (g * planes * TOKENS + i) * _ROW, planes)
                    _add(e, total, exactly, factor, e.at(scales.get(), 4 * i))
                    if minimum is not None:
                        token_sum = e.splat(e.load(F32, sums.get(), 4 * (g * TOKENS + i)), ROWS)
                        total.set(e.fma(minimum, token_sum, total.get()))
            where.set(e.at(unit, spread_bytes(name, 1)))
            codes.set(e.at(codes.get(), UNIT * TOKENS * planes))
            scales.set(e.at(scales.get(), 4 * TOKENS))
            sums.set(e.at(sums.get(), 4 * TOKENS * groups))
        for i, total in enumerate(totals):
            e.store(total.get(), out, _ROW * i)

    return write


def tile_wide(wide: int) -> Callable[..., None]:
    """Writer of tile(wide tile, block, units, out), the same for tiles and blocks with a scale for `wide` units."""
    def write(builder: ir.IRBuilder, target: Target, weights: Any, block: Any, units: Any, out: Any) -> None:
        e = Emit(builder, target)
        room, columns = _room(e, 1), wide * UNIT
        where, codes, scales = (e.variable(a) for a in (weights, block, e.at(block, e.times(units, UNIT * TOKENS))))
        totals = [e.variable(e.const(_FLOATS, 0.0)) for _ in range(TOKENS)]
        with e.loop(builder.sdiv(units, e.word(wide))):
            _multiply(e, [(e.at(codes.get(), TOKENS * k), STEP, e.at(where.get(), ROWS * k))
                          for k in range(0, columns, STEP)], room)
            factor = e.load(_FLOATS, where.get(), ROWS * columns)
            for i, total in enumerate(totals):
                _add(e, total, _sum(e, room, i * _ROW, 1), factor, e.at(scales.get(), 4 * i))
            where.set(e.at(where.get(), ROWS * columns + _ROW))
            codes.set(e.at(codes.get(), TOKENS * columns))
            scales.set(e.at(scales.get(), 4 * TOKENS))
        for i, total in enumerate(totals):
            e.store(total.get(), out, _ROW * i)

    return write


def _room(e: Emit, count: int) -> Any:
    """The address of memory for `count` matrices of sums."""
    with e.b.goto_entry_block():
        room = e.b.alloca(ir.VectorType(I32, ROWS), TOKENS * count)
        room.align = 64
    return e.b.ptrtoint(room, I64)


def _add(e: Emit, total: Any, sums: Any, factor: Any, scale: Any) -> None:
    """total += sums · (factor · scale), the scale a float32 at an address."""
    both = e.b.fmul(factor, e.splat(e.load(F32, scale), ROWS))
    total.set(e.fma(e.b.sitofp(sums, _FLOATS), both, total.get()))


def _multiply(e: Emit, parts: list[tuple[Any, int, Any]], room: Any) -> None:
    """Sums of products into `room`, int32 (16 tokens, 16 rows). Each part: where activations are, their stride, and
    where weights are."""
    e.intrinsic("llvm.x86.tilezero", ir.VoidType(), [e.const(I8, _SUMS)])
    for activations, stride, weights in parts:
        _move(e, "tileloadd64", _WEIGHTS, weights, _ROW)
        _move(e, "tileloadd64", _CODES, activations, stride)
        e.intrinsic("llvm.x86.tdpbssd", ir.VoidType(), [e.const(I8, n) for n in (_SUMS, _CODES, _WEIGHTS)])
    _move(e, "tilestored64", _SUMS, room, _ROW)


def _move(e: Emit, name: str, number: int, address: Any, stride: int) -> None:
    pointer = e.b.inttoptr(address, I8.as_pointer())
    e.intrinsic(f"llvm.x86.{name}", ir.VoidType(), [e.const(I8, number), pointer, e.word(stride)])


def _sum(e: Emit, room: Any, offset: int, planes: int) -> Any:
    """One token's sums, of both planes."""
    last = e.load(_WORDS, room, offset + (planes - 1) * TOKENS * _ROW)
    if planes == 1:
        return last
    return e.b.add(e.b.shl(e.load(_WORDS, room, offset), e.const(_WORDS, 7)), last)


def _configure(e: Emit, columns: int) -> None:
    """Rows and bytes a row of each register, for products of so many columns at a time."""
    widths = [_ROW, _ROW, columns, *[0] * 13]
    heights = [columns // 4, TOKENS, TOKENS, *[0] * 13]
    words = [1, *[0] * 7, *widths]  # palette 1, then 16 words of bytes a row, and 16 bytes of rows
    content = b"".join(word.to_bytes(2, "little") for word in words) + bytes(heights)
    kind = ir.ArrayType(I8, len(content))
    constant = ir.GlobalVariable(e.b.module, kind, "registers")
    constant.initializer, constant.global_constant, constant.linkage = kind(bytearray(content)), True, "internal"
    e.intrinsic("llvm.x86.ldtilecfg", ir.VoidType(), [e.b.bitcast(constant, I8.as_pointer())])
