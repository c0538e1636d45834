"""Attention's inner loops for rows that may be rounded: products of bfloat16 pairs, 16 queries at a time.

What is multiplied lies in panels of 16 columns: for each pair of numbers along the sum, 16 times two neighbours. So
keys are pairs of dimensions by positions, values pairs of positions by dimensions, and either is at once what a dot
product of vectors takes and a tile of AMX's. A query's numbers do not depend on the others of its block.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from zonda.kernels.cpu import amx
from zonda.kernels.cpu.attention_tiles import LOWEST, PEAK, SUM
from zonda.kernels.cpu.frame import LINE, PAGE, SPAN, STATE, aligned
from zonda.kernels.cpu.library import Target
from zonda.kernels.cpu.vector import BF16, F16, F32, I16, I32, Emit, largest, total

BLOCK = 16
"""Queries that are multiplied together, always so many."""
STEP = 32
"""Numbers of a query that a product takes at a time: queries and keys are filled up with zeros."""
PANEL = 16
_ROW = 4 * PANEL
"""Columns of a panel, and bytes of a pair of its rows."""
TILE = STEP // 2 * _ROW
"""Bytes of a panel's step."""
_FLOATS, _WORDS, _PAIRS = ir.VectorType(F32, 16), ir.VectorType(I32, 16), ir.VectorType(BF16, 32)
_NOTHING = -5e29
"""The peak of what sees nothing: far above what is unseen, whose weights so are 0."""
_EXP2 = 0.07802452, 0.22606717, 0.69583353, 0.99992522
"""2ˣ for 0 ≤ x ≤ 1 within 7e-05, a small part of what rounding to bfloat16 costs."""


def scratch_bytes(queries: int, padded: int) -> int:
    """What a work item of so many queries takes: queries, their results, a run's panels, and a block's numbers."""
    queries, width = aligned(queries, BLOCK), aligned(padded, STEP)
    return (queries * (2 * width + 4 * padded + STATE) + SPAN * 2 * (width + padded)
            + BLOCK * (4 * SPAN + 4 * padded + STATE) + LINE)


def begin(matrices: bool) -> Callable[..., None]:
    """Writer of begin(…): take the matrix registers, if they are used."""
    def write(builder: ir.IRBuilder, target: Target, unused: Any) -> None:
        if matrices:
            amx.configure(Emit(builder, target), amx.WHOLE)

    return write


def end(matrices: bool) -> Callable[..., None]:
    """Writer of end(…): give them back."""
    def write(builder: ir.IRBuilder, target: Target, unused: Any) -> None:
        if matrices:
            amx.release(builder, target)

    return write


def _narrow(e: Emit, low: Any, high: Any) -> Any:
    """32 numbers as bfloat16."""
    return e.intrinsic("llvm.x86.avx512bf16.cvtne2ps2bf16.512", _PAIRS, [high, low])


def narrow(builder: ir.IRBuilder, target: Target, x: Any, count: Any, out: Any) -> None:
    """Write narrow(x, count, out): so many float32, a multiple of 16, as bfloat16, filled up to a whole step."""
    e, zero = Emit(builder, target), ir.Constant(_FLOATS, None)
    whole = builder.sdiv(count, e.word(STEP))
    with e.loop(whole) as i:
        place = e.at(x, e.times(i, 4 * STEP))
        e.store(_narrow(e, e.load(_FLOATS, place), e.load(_FLOATS, place, 64)), out, e.times(i, 2 * STEP))
    with builder.if_then(builder.icmp_signed("!=", builder.srem(count, e.word(STEP)), e.word(0))):
        e.store(_narrow(e, e.load(_FLOATS, x, e.times(whole, 4 * STEP)), zero), out, e.times(whole, 2 * STEP))


def pair(builder: ir.IRBuilder, target: Target, *words: Any) -> None:
    """Write pair(source, columns, pairs, out, panel bytes): float16 (2 · pairs, columns) into panels."""
    source, columns, pairs, out, panel_bytes = words
    e = Emit(builder, target)
    halves = ir.VectorType(F16, PANEL)
    turns = ir.Constant(ir.VectorType(I32, 32), [half * 16 + i for i in range(16) for half in (0, 1)])
    with e.loop(pairs) as p, e.loop(builder.sdiv(columns, e.word(PANEL))) as panel:
        first = e.at(e.at(source, e.times(builder.mul(p, columns), 4)), e.times(panel, 2 * PANEL))
        low, high = (e.from_half(e.load(halves, row)) for row in (first, e.at(first, e.times(columns, 2))))
        numbers = _narrow(e, low, high)
        numbers = builder.shuffle_vector(numbers, ir.Constant(_PAIRS, ir.Undefined), turns)
        e.store(numbers, e.at(e.at(out, builder.mul(panel, panel_bytes)), e.times(p, _ROW)))


def product(matrices: bool) -> Callable[..., None]:
    """Writer of product(a, stride, b, panel bytes, steps, out, out stride, panels): out (16, 16 · panels) = a · b."""
    sums, at_once = (amx.bfloat_sums, 4) if matrices else (_sums, 1)

    def write(builder: ir.IRBuilder, target: Target, *words: Any) -> None:
        a, stride, b, panel_bytes, steps, out, out_stride, panels = words
        e = Emit(builder, target)
        whole = builder.sdiv(panels, e.word(at_once))

        def strips(count: Any, width: int, start: Any) -> None:
            with e.loop(count) as i:
                first = e.at(start, e.times(i, width))
                places = [e.at(b, builder.mul(e.at(first, k), panel_bytes)) for k in range(width)]
                sums(e, a, stride, places, steps, e.at(out, e.times(first, _ROW)), out_stride)

        strips(whole, at_once, e.word(0))
        if at_once > 1:
            strips(builder.srem(panels, e.word(at_once)), 1, e.times(whole, at_once))

    return write


def _sums(e: Emit, a: Any, stride: Any, panels: list[Any], steps: Any, out: Any, out_stride: Any) -> None:
    """The same as `amx.bfloat_sums` by dot products of vectors, for one panel."""
    [panel], rows = panels, 4
    starts = [e.at(a, e.times(stride, rows * i)) for i in range(BLOCK // rows)]
    strides = [e.times(stride, i) for i in range(rows)]
    totals = [e.variable(ir.Constant(_FLOATS, None)) for _ in range(BLOCK)]
    with e.loop(e.times(steps, STEP // 2)) as p:
        numbers = e.load(_PAIRS, e.at(panel, e.times(p, _ROW)))
        for i, each in enumerate(totals):
            place = e.at(e.at(starts[i // rows], e.times(p, 4)), strides[i % rows])
            x = e.b.bitcast(e.splat(e.load(I32, place), PANEL), _PAIRS)
            each.set(e.intrinsic("llvm.x86.avx512bf16.dpbf16ps.512", _FLOATS, [each.get(), x, numbers]))
    for i, each in enumerate(totals):
        e.store(each.get(), e.at(out, e.times(out_stride, i)))


def soften(builder: ir.IRBuilder, target: Target, *words: Any) -> None:
    """Write soften(scores, state, pages, since, until): one query's scores become weights in bfloat16, in their place.

    Weights of positions outside since … until are 0."""
    scores, state, pages, since, until = words
    e, parts = Emit(builder, target), range(PAGE // 16)

    def load(page: Any) -> list[Any]:
        return [e.load(_FLOATS, e.at(scores, e.times(page, 4 * PAGE)), 64 * part) for part in parts]

    _hide(e, scores, since, until, e.word(0), builder.sdiv(e.at(since, PAGE - 1), e.word(PAGE)))
    last = builder.sdiv(until, e.word(PAGE))
    _hide(e, scores, since, until, last, builder.sub(pages, last))
    peaks, sums = ([e.variable(e.const(_FLOATS, start)) for _ in parts] for start in (_NOTHING, 0.0))
    with e.loop(pages) as page:
        for peak, value in zip(peaks, load(page)):
            peak.set(builder.select(builder.fcmp_ordered(">", value, peak.get()), value, peak.get()))
    highest = largest(e, [peak.get() for peak in peaks])
    offset = e.splat(builder.fmul(highest, e.const(F32, -1.44269504)), 16)
    with e.loop(pages) as page:
        weights = [_exp2(e, e.fma(value, e.const(_FLOATS, 1.44269504), offset)) for value in load(page)]
        for each, weight in zip(sums, weights):
            each.set(e.plus(each.get(), weight))
        e.store(_narrow(e, *weights), e.at(scores, e.times(page, 2 * PAGE)))
    e.store(highest, state, PEAK)
    e.store(total(e, [each.get() for each in sums]), state, SUM)


def _hide(e: Emit, scores: Any, since: Any, until: Any, first: Any, count: Any) -> None:
    """Make scores outside since … until the lowest, on `count` pages."""
    b, (start, stop) = e.b, (e.splat(e.b.trunc(word, I32), 16) for word in (since, until))
    with e.loop(count) as i:
        page = e.at(first, i)
        for part in range(PAGE // 16):
            within = ir.Constant(_WORDS, list(range(part * 16, (part + 1) * 16)))
            place = b.add(e.splat(b.trunc(e.times(page, PAGE), I32), 16), within)
            seen = b.and_(b.icmp_signed(">=", place, start), b.icmp_signed("<", place, stop))
            at = e.at(scores, e.at(e.times(page, 4 * PAGE), 64 * part))
            e.store(b.select(seen, e.load(_FLOATS, at), e.const(_FLOATS, LOWEST)), at)


def _exp2(e: Emit, x: Any) -> Any:
    """2ˣ of a vector."""
    every, here, down = e.const(I16, -1), e.const(I32, 4), e.const(I32, 9)  # no mask; as rounding is set; x - floor(x)
    rest = e.intrinsic("llvm.x86.avx512.mask.reduce.ps.512", _FLOATS, [x, down, x, every, here])
    power = e.const(_FLOATS, _EXP2[0])
    for c in _EXP2[1:]:
        power = e.fma(power, rest, e.const(_FLOATS, c))
    return e.intrinsic("llvm.x86.avx512.mask.scalef.ps.512", _FLOATS, [power, x, x, every, here])
