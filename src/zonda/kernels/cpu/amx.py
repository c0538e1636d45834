"""Matmul tiles in the matrix registers of AMX: 16 weight rows against blocks of 16 tokens.

A tile of weights is spread out once, and then meets block after block. Tiles that keep the format's own groups make
exact sums of integers, and what follows them are the operations of `tile.py`, so results are the same to the last bit.
But the sums of each group must leave the registers to be scaled, which takes far longer than making them; rows that
may be rounded take bfloat16 (`bfloat_tiles.py`).
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from llvmlite import ir

from zonda.kernels.cpu.layout import LAYOUTS, ROWS, UNIT, Layout
from zonda.kernels.cpu.library import Target
from zonda.kernels.cpu.tile import Tile
from zonda.kernels.cpu.vector import F32, I8, I32, I64, Emit

TOKENS = 16
SQUARE = 4 * ROWS * TOKENS
"""Bytes of a tile's results for a block."""
_FLOATS, _WORDS = ir.VectorType(F32, ROWS), ir.VectorType(I32, ROWS)
_ROW = 4 * ROWS
"""Bytes of 16 numbers: a row of sums, or four columns of weights."""
_WEIGHTS, _SUMS, _CODES, _MORE = 0, 1, 2, (3, 4, 5)
"""What the matrix registers hold; three more have sums of bfloat16 products."""
WHOLE = dict.fromkeys(range(8), (TOKENS, _ROW))
"""Shapes of registers that are used whole."""


def spread_bytes(name: str, units: int) -> int:
    """Bytes of a tile that is spread out, at most: codes, and scales and mins of each group."""
    layout = LAYOUTS[name]
    return units * (ROWS * UNIT + _ROW * groups_of(layout) * (2 if layout.mins else 1))


def groups_of(layout: Layout) -> int:
    return UNIT // layout.group


def spread(name: str) -> Callable[..., None]:
    """Writer of spread(weights, units, out, unused), which also sets the matrix registers' shapes."""
    def write(builder: ir.IRBuilder, target: Target, weights: Any, units: Any, out: Any, unused: Any) -> None:
        e, layout = Emit(builder, target), LAYOUTS[name]
        configure(e, {_WEIGHTS: (layout.group // 4, _ROW), _SUMS: (TOKENS, _ROW), _CODES: (TOKENS, layout.group)})
        tile, to, zero = Tile(e, layout, 1, planes=1), e.variable(out), e.word(0)

        def unit(address: Any, head: Any) -> None:
            for k, step in enumerate(tile.steps(address)):
                codes = step()[0]
                if layout.offset:
                    codes = builder.sub(codes, e.const(codes.type, layout.offset))
                e.store(codes, to.get(), _ROW * k)
            for g in range(groups_of(layout)):
                scale, minimum = tile.factors(address, zero, g, head)
                e.store(scale[0], to.get(), ROWS * UNIT + _ROW * g)
                if minimum is not None:
                    e.store(minimum[0], to.get(), ROWS * UNIT + _ROW * (groups_of(layout) + g))
            to.set(e.at(to.get(), spread_bytes(name, 1)))

        tile.walk(e.variable(weights), units, zero, unit)

    return write


def release(builder: ir.IRBuilder, target: Target, *unused: Any) -> None:
    """Write release(…): give the matrix registers back, which the system else saves whenever it switches threads."""
    Emit(builder, target).intrinsic("llvm.x86.tilerelease", ir.VoidType(), [])


def tile(name: str) -> Callable[..., None]:
    """Writer of tile(spread tile, block, units, out): out float32 (16 tokens, 16 rows) for `units` · 32 columns."""
    layout = LAYOUTS[name]
    groups = groups_of(layout)

    def write(builder: ir.IRBuilder, target: Target, weights: Any, block: Any, units: Any, out: Any) -> None:
        e = Emit(builder, target)
        room = _room(e, 2 * groups)
        scales = e.at(block, e.times(units, 2 * UNIT * TOKENS))
        sums = e.at(scales, e.times(units, (8 if groups == 1 else 20) * TOKENS))
        where, codes, scales, sums = (e.variable(a) for a in (weights, block, scales, sums))
        totals = [e.variable(e.const(_FLOATS, 0.0)) for _ in range(TOKENS)]
        with e.loop(units):
            unit = where.get()
            for g in range(groups):
                for p in range(2):
                    activations = e.at(codes.get(), p * TOKENS * UNIT + g * layout.group)
                    _multiply(e, activations, e.at(unit, g * ROWS * layout.group),
                              e.at(room, (2 * g + p) * TOKENS * _ROW))
            for g in range(groups):
                factor = e.load(_FLOATS, unit, ROWS * UNIT + _ROW * g)
                minimum = e.load(_FLOATS, unit, ROWS * UNIT + _ROW * (groups + g)) if layout.mins else None
                for i, total in enumerate(totals):
                    add(e, total, _sum(e, room, (2 * g * TOKENS + i) * _ROW), factor, e.at(scales.get(), 4 * i))
                    if minimum is not None:
                        token_sum = e.splat(e.load(F32, sums.get(), 4 * (g * TOKENS + i)), ROWS)
                        total.set(e.fma(minimum, token_sum, total.get()))
            where.set(e.at(unit, spread_bytes(name, 1)))
            codes.set(e.at(codes.get(), 2 * UNIT * TOKENS))
            scales.set(e.at(scales.get(), 4 * TOKENS))
            sums.set(e.at(sums.get(), 4 * TOKENS * groups))
        for i, total in enumerate(totals):
            e.store(total.get(), out, _ROW * i)

    return write


def bfloat_sums(e: Emit, a: Any, stride: Any, panels: list[Any], steps: Any, out: Any, out_stride: Any) -> None:
    """Store products of 16 rows of pairs with one to four panels (see `panels.py`), 16 pairs a step."""
    sums = (_SUMS, *_MORE)[:len(panels)]
    for number in sums:
        e.intrinsic("llvm.x86.tilezero", ir.VoidType(), [register(number)])
    with e.loop(steps) as step:
        move(e, "tileloadd64", _CODES, e.at(a, e.times(step, _ROW)), stride)
        for number, panel in zip(sums, panels):
            move(e, "tileloadd64", _WEIGHTS, e.at(panel, e.times(step, TOKENS * _ROW)), _ROW)
            e.intrinsic("llvm.x86.tdpbf16ps", ir.VoidType(), [register(n) for n in (number, _CODES, _WEIGHTS)])
    for place, number in enumerate(sums):
        move(e, "tilestored64", number, e.at(out, _ROW * place), out_stride)


def _room(e: Emit, count: int) -> Any:
    """The address of memory for `count` matrices of sums."""
    with e.b.goto_entry_block():
        room = e.b.alloca(ir.VectorType(I32, ROWS), TOKENS * count)
        room.align = 64
    return e.b.ptrtoint(room, I64)


def add(e: Emit, total: Any, sums: Any, factor: Any, scale: Any) -> None:
    """total += sums · (factor · scale), the scale a float32 at an address."""
    both = e.b.fmul(factor, e.splat(e.load(F32, scale), ROWS))
    total.set(e.fma(e.b.sitofp(sums, _FLOATS), both, total.get()))


def _multiply(e: Emit, activations: Any, weights: Any, room: Any) -> None:
    """Sums of products into `room`, int32 (16 tokens, 16 rows)."""
    e.intrinsic("llvm.x86.tilezero", ir.VoidType(), [register(_SUMS)])
    move(e, "tileloadd64", _WEIGHTS, weights, _ROW)
    move(e, "tileloadd64", _CODES, activations, UNIT)
    e.intrinsic("llvm.x86.tdpbssd", ir.VoidType(), [register(n) for n in (_SUMS, _CODES, _WEIGHTS)])
    move(e, "tilestored64", _SUMS, room, _ROW)


def move(e: Emit, name: str, number: int, address: Any, stride: Any) -> None:
    """Load or store a register, its rows `stride` bytes apart in memory."""
    pointer = e.b.inttoptr(address, I8.as_pointer())
    stride = e.word(stride) if isinstance(stride, int) else stride
    e.intrinsic(f"llvm.x86.{name}", ir.VoidType(), [register(number), pointer, stride])


def register(number: int) -> Any:
    """How an instruction names one."""
    return ir.Constant(I8, number)


def _sum(e: Emit, room: Any, offset: int) -> Any:
    """One token's sums, of both planes."""
    high, low = (e.load(_WORDS, room, offset + p * TOKENS * _ROW) for p in range(2))
    return e.b.add(e.b.shl(high, e.const(_WORDS, 7)), low)


def configure(e: Emit, shapes: Mapping[int, tuple[int, int]]) -> None:
    """Rows and bytes a row of each register."""
    heights, widths = zip(*(shapes.get(number, (0, 0)) for number in range(16)))
    words = [1, *[0] * 7, *widths]  # palette 1, then 16 words of bytes a row, and 16 bytes of rows
    content = b"".join(word.to_bytes(2, "little") for word in words) + bytes(heights)
    kind = ir.ArrayType(I8, len(content))
    constant = ir.GlobalVariable(e.b.module, kind, "registers")
    constant.initializer, constant.global_constant, constant.linkage = kind(bytearray(content)), True, "internal"
    e.intrinsic("llvm.x86.ldtilecfg", ir.VoidType(), [e.b.bitcast(constant, I8.as_pointer())])
