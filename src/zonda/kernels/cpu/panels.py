"""Attention's inner loops for rows that may be rounded: products of panels, a block of queries at a time.

What is multiplied lies in panels of 16 columns. A row of a panel has 16 words: float32, or pairs of bfloat16 that are
neighbours along the sum. So keys are dimensions by positions, values positions by dimensions, and either is at once
what vectors take and, in pairs, a tile of AMX's. A query's numbers do not depend on the others of its block.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

from llvmlite import ir

from zonda.kernels.cpu import amx
from zonda.kernels.cpu.attention_tiles import LOWEST
from zonda.kernels.cpu.frame import LINE, PAGE, SPAN, aligned
from zonda.kernels.cpu.library import Target
from zonda.kernels.cpu.vector import BF16, F16, F32, I16, I32, Emit, exp

PANEL = 16
ROW = 4 * PANEL
"""Columns of a panel, and bytes of one of its rows."""
STATES = 2 * ROW
"""Bytes of a block's state: the highest score of each query, and the sums of their weights."""
_FLOATS, _WORDS, _PAIRS = ir.VectorType(F32, PANEL), ir.VectorType(I32, PANEL), ir.VectorType(BF16, 2 * PANEL)
_NOTHING = -5e29
"""The peak of what sees nothing: far above what is unseen, whose weights so are 0."""
_EXP2 = 0.07802452, 0.22606717, 0.69583353, 0.99992522
"""2ˣ for 0 ≤ x ≤ 1 within 7e-05, a small part of what rounding costs fast rows."""
_NEAR_EXP2 = 0.05500893, 0.24221096, 0.69328293, 1.0
"""2ˣ for -½ ≤ x ≤ ½ within 1.1e-04, and 1 at 0."""
_WHOLE = 1.5 * 2**23
"""What is added to this is rounded to a whole number, which its lowest bits then are."""


@dataclass(frozen=True, slots=True)
class Form:
    """What is multiplied: numbers of a cache of `half`s or float32, in `pairs` of bfloat16 or not, by AMX or not."""

    half: bool
    pairs: bool
    matrices: bool

    @classmethod
    def of(cls, target: Target, half: bool) -> Form:
        """The fastest form; a float32 cache is not rounded."""
        return cls(half, half and target.bfloats, half and target.bfloat_matrices)

    @property
    def block(self) -> int:
        """Queries that are multiplied together, always so many."""
        return 16 if self.pairs else 12

    @property
    def numbers(self) -> int:
        """Numbers in a word."""
        return 2 if self.pairs else 1

    @property
    def step(self) -> int:
        """Words of a query that a product takes at a time: queries and keys are filled up with zeros."""
        return 16 if self.pairs else 1

    def scratch_bytes(self, queries: int, padded: int) -> int:
        """What a work item of so many queries takes: queries, their results, a run's panels, and a block's numbers."""
        queries, words = aligned(queries, self.block), aligned(padded // self.numbers, self.step)
        return (queries * 4 * (words + padded) + SPAN * 4 * (words + padded // self.numbers)
                + self.block * 4 * (SPAN + padded) + (1 + queries // self.block) * STATES + LINE)


def begin(form: Form) -> Callable[..., None]:
    """Writer of begin(…): take the matrix registers, if they are used."""
    def write(builder: ir.IRBuilder, target: Target, unused: Any) -> None:
        if form.matrices:
            amx.configure(Emit(builder, target), amx.WHOLE)

    return write


def end(form: Form) -> Callable[..., None]:
    """Writer of end(…): give them back."""
    def write(builder: ir.IRBuilder, target: Target, unused: Any) -> None:
        if form.matrices:
            amx.release(builder, target)

    return write


def _narrow(e: Emit, low: Any, high: Any) -> Any:
    """32 numbers as bfloat16."""
    return e.intrinsic("llvm.x86.avx512bf16.cvtne2ps2bf16.512", _PAIRS, [high, low])


def take(form: Form) -> Callable[..., None]:
    """Writer of take(x, count, out): a query's numbers, a multiple of 16, as words, filled up to a whole step."""
    def write(builder: ir.IRBuilder, target: Target, x: Any, count: Any, out: Any) -> None:
        e, zero, numbers = Emit(builder, target), ir.Constant(_FLOATS, None), form.numbers * PANEL
        whole = builder.sdiv(count, e.word(numbers))
        with e.loop(whole) as i:
            parts = [e.load(_FLOATS, e.at(x, e.times(i, 4 * numbers)), ROW * k) for k in range(form.numbers)]
            e.store(_narrow(e, *parts) if form.pairs else parts[0], out, e.times(i, ROW))
        if form.pairs:
            with builder.if_then(builder.icmp_signed("!=", builder.srem(count, e.word(numbers)), e.word(0))):
                e.store(_narrow(e, e.load(_FLOATS, x, e.times(whole, 2 * ROW)), zero), out, e.times(whole, ROW))

    return write


def fill(form: Form) -> Callable[..., None]:
    """Writer of fill(source, columns, rows, out, panel bytes): numbers of the cache, (rows · numbers of a word,
    columns), into panels."""
    def write(builder: ir.IRBuilder, target: Target, *words: Any) -> None:
        source, columns, rows, out, panel_bytes = words
        e, size = Emit(builder, target), 2 if form.half else 4
        turns = ir.Constant(ir.VectorType(I32, 32), [half * 16 + i for i in range(16) for half in (0, 1)])

        def load(place: Any) -> Any:
            return e.from_half(e.load(ir.VectorType(F16, PANEL), place)) if form.half else e.load(_FLOATS, place)

        with e.loop(rows) as p, e.loop(builder.sdiv(columns, e.word(PANEL))) as panel:
            first = e.at(e.at(source, e.times(builder.mul(p, columns), form.numbers * size)),
                         e.times(panel, size * PANEL))
            numbers = load(first)
            if form.pairs:
                numbers = _narrow(e, numbers, load(e.at(first, e.times(columns, size))))
                numbers = builder.shuffle_vector(numbers, ir.Constant(_PAIRS, ir.Undefined), turns)
            e.store(numbers, e.at(e.at(out, builder.mul(panel, panel_bytes)), e.times(p, ROW)))

    return write


def product(form: Form) -> Callable[..., None]:
    """Writer of product(a, stride, b, panel bytes, steps, out, out stride, panels): out is a · b, a block of rows."""
    def write(builder: ir.IRBuilder, target: Target, *words: Any) -> None:
        a, stride, b, panel_bytes, steps, out, out_stride, panels = words
        e = Emit(builder, target)
        at_once = 4 if form.matrices else 2 if e.registers.lanes == PANEL and not form.pairs else 1
        whole = builder.sdiv(panels, e.word(at_once))

        def strips(count: Any, width: int, start: Any) -> None:
            with e.loop(count) as i:
                first = e.at(start, e.times(i, width))
                places = [e.at(b, builder.mul(e.at(first, k), panel_bytes)) for k in range(width)]
                here = e.at(out, e.times(first, ROW))
                if form.matrices:
                    amx.bfloat_sums(e, a, stride, places, steps, here, out_stride)
                else:
                    _sums(e, form, a, stride, places, e.times(steps, form.step), here, out_stride)

        strips(whole, at_once, e.word(0))
        if at_once > 1:
            strips(builder.srem(panels, e.word(at_once)), 1, e.times(whole, at_once))

    return write


def _queries(e: Emit, form: Form) -> int:
    """Queries whose sums with a panel, or with two where registers are as wide, stay in registers."""
    if form.pairs:
        return form.block
    return min(form.block, (24 if e.registers.count > 16 else 12) * e.registers.lanes // PANEL)


def _sums(e: Emit, form: Form, a: Any, stride: Any, panels: list[Any], words: Any, out: Any, out_stride: Any) -> None:
    """The same as `amx.bfloat_sums` by vectors, so many words of each query."""
    count, near = _queries(e, form), 4
    strides = [e.times(stride, i) for i in range(near)]
    with e.loop(e.word(form.block // count)) as part:
        first, to = (e.at(base, e.b.mul(e.times(part, count), each)) for base, each in ((a, stride), (out, out_stride)))
        starts = [e.at(first, e.times(stride, i)) for i in range(0, count, near)]
        totals = [[e.variable(ir.Constant(_FLOATS, None)) for _ in panels] for _ in range(count)]
        with e.loop(words) as p:
            rows = [e.at(panel, e.times(p, ROW)) for panel in panels]
            numbers = [e.load(_PAIRS if form.pairs else _FLOATS, row) for row in rows]
            for i, each in enumerate(totals):
                x = e.load(I32, e.at(e.at(starts[i // near], e.times(p, 4)), strides[i % near]))
                for sums, column in zip(each, numbers):
                    sums.set(_add_product(e, form, e.splat(x, PANEL), column, sums.get()))
        for i, each in enumerate(totals):
            for k, sums in enumerate(each):
                e.store(sums.get(), e.at(to, e.times(out_stride, i)), ROW * k)


def _add_product(e: Emit, form: Form, x: Any, column: Any, sums: Any) -> Any:
    if form.pairs:
        return e.intrinsic("llvm.x86.avx512bf16.dpbf16ps.512", _FLOATS, [sums, e.b.bitcast(x, _PAIRS), column])
    return e.fma(e.b.bitcast(x, _FLOATS), column, sums)


def soften(form: Form) -> Callable[..., None]:
    """Writer of soften(scores, state, pages, position, place, group, window, queries, room): a block's scores of a run
    become weights, words in their place.

    `position` is where in the run the item's first row is, `place` where in the item the block's first query is. What a
    query does not see weighs nothing. `room` holds a vector for each query meanwhile.
    """
    def write(builder: ir.IRBuilder, target: Target, *words: Any) -> None:
        scores, state, pages, position, place, group, window, queries, room = words
        e, parts = Emit(builder, target), range(PAGE // PANEL)

        def load(row: Any, page: Any) -> list[Any]:
            return [e.load(_FLOATS, e.at(row, e.times(page, 4 * PAGE)), ROW * part) for part in parts]

        with e.loop(queries) as i:
            row = e.at(scores, e.times(i, 4 * SPAN))
            until = e.at(e.at(position, builder.sdiv(builder.add(place, i), group)), 1)
            _hide(e, row, window, until, pages)
            peaks = [e.variable(e.const(_FLOATS, _NOTHING)) for _ in parts]
            with e.loop(pages) as page:
                for peak, value in zip(peaks, load(row, page)):
                    peak.set(_larger(e, value, peak.get()))
            e.store(reduce(partial(_larger, e), [peak.get() for peak in peaks]), room, e.times(i, ROW))
        e.store(_each(e, form, room, partial(_larger, e)), state)
        with e.loop(queries) as i:
            row = e.at(scores, e.times(i, 4 * SPAN))
            highest = e.load(F32, e.at(state, e.times(i, 4)))
            offset = e.splat(builder.fmul(highest, e.const(F32, -1.44269504)), PANEL)
            sums = [e.variable(e.const(_FLOATS, 0.0)) for _ in parts]
            with e.loop(pages) as page:
                weights = [exp2(e, e.fma(value, e.const(_FLOATS, 1.44269504), offset)) for value in load(row, page)]
                for each, weight in zip(sums, weights):
                    each.set(e.plus(each.get(), weight))
                at = e.at(row, e.times(page, 4 * PAGE // form.numbers))
                for part, word in enumerate([_narrow(e, *weights)] if form.pairs else weights):
                    e.store(word, at, ROW * part)
            e.store(reduce(e.plus, [each.get() for each in sums]), room, e.times(i, ROW))
        e.store(_each(e, form, room, e.plus), state, ROW)

    return write


def _larger(e: Emit, a: Any, b: Any) -> Any:
    return e.b.select(e.b.fcmp_ordered(">", a, b), a, b)


def _each(e: Emit, form: Form, room: Any, join: Callable[[Any, Any], Any]) -> Any:
    """A vector with what is made of each vector in `room` by joining all of its numbers, in the same order for all."""
    low = [k // 2 + k % 2 * PANEL for k in range(PANEL)]
    picks = [ir.Constant(_WORDS, [k + half for k in low]) for half in (0, PANEL // 2)]

    def joined(vectors: list[Any]) -> Any:
        if len(vectors) == 1:
            return vectors[0]
        even, odd = joined(vectors[::2]), joined(vectors[1::2])
        return join(*(e.b.shuffle_vector(even, odd, pick) for pick in picks))

    return joined([e.load(_FLOATS, room, ROW * (i % form.block)) for i in range(PANEL)])


def merge(builder: ir.IRBuilder, target: Target, *words: Any) -> None:
    """Write merge(state, mixed, total state, totals, dim, queries): `attention_tiles.merge` of a block.

    The factors of both take the place of the run's state.
    """
    state, mixed, whole, totals, dim, queries = words
    e, b = Emit(builder, target), builder
    before, here = e.load(_FLOATS, whole), e.load(_FLOATS, state)
    peak = _larger(e, here, before)
    old, new = (exp(e, e.minus(part, peak)) for part in (before, here))
    sums = e.fma(e.load(_FLOATS, whole, ROW), old, e.product(e.load(_FLOATS, state, ROW), new))
    for value, place in ((peak, whole), (sums, e.at(whole, ROW)), (old, state), (new, e.at(state, ROW))):
        e.store(value, place)
    with e.loop(queries) as i:
        factors = [e.splat(e.load(F32, e.at(state, e.times(i, 4)), row), PANEL) for row in (0, ROW)]
        with e.loop(b.sdiv(dim, e.word(PANEL))) as k:
            at = e.at(e.times(b.mul(i, dim), 4), e.times(k, ROW))
            part = e.product(e.load(_FLOATS, e.at(mixed, at)), factors[1])
            e.store(e.fma(e.load(_FLOATS, e.at(totals, at)), factors[0], part), e.at(totals, at))


def finish(builder: ir.IRBuilder, target: Target, *words: Any) -> None:
    """Write finish(state, sinks): the sinks of a block's queries become what `attention_tiles.finish` multiplies by."""
    state, sinks = words
    e = Emit(builder, target)
    share = exp(e, e.minus(e.load(_FLOATS, sinks), e.load(_FLOATS, state)))
    weights = e.plus(e.load(_FLOATS, state, ROW), share)
    e.store(builder.fdiv(e.const(_FLOATS, 1.0), weights, flags=("nsz",)), sinks)


def give(builder: ir.IRBuilder, target: Target, *words: Any) -> None:
    """Write give(x, factor, count, out): numbers times the one at `factor`."""
    x, factor, count, out = words
    e, factor = Emit(builder, target), Emit(builder, target).load(F32, factor)
    whole = builder.sdiv(count, e.word(PANEL))
    with e.loop(whole) as i:
        at = e.times(i, ROW)
        e.store(e.product(e.load(_FLOATS, e.at(x, at)), e.splat(factor, PANEL)), e.at(out, at))
    with e.loop(builder.srem(count, e.word(PANEL))) as i:
        at = e.at(e.times(whole, ROW), e.times(i, 4))
        e.store(e.product(e.load(F32, e.at(x, at)), factor), e.at(out, at))


def _hide(e: Emit, scores: Any, window: Any, until: Any, pages: Any) -> None:
    """Make a query's scores the lowest that are outside the last `window` (if not 0) positions before `until`."""
    b, zero, positions = e.b, e.word(0), e.times(pages, PAGE)

    def within(value: Any) -> Any:
        value = b.select(b.icmp_signed(">", value, zero), value, zero)
        return b.select(b.icmp_signed("<", value, positions), value, positions)

    since = b.select(b.icmp_signed("==", window, zero), zero, within(b.sub(until, window)))
    with b.if_then(b.icmp_signed(">", since, zero)):
        _hide_pages(e, scores, since, until, zero, b.sdiv(e.at(since, PAGE - 1), e.word(PAGE)))
    with b.if_then(b.icmp_signed("<", until, positions)):
        first = b.sdiv(within(until), e.word(PAGE))
        _hide_pages(e, scores, since, until, first, b.sub(pages, first))


def _hide_pages(e: Emit, scores: Any, since: Any, until: Any, first: Any, count: Any) -> None:
    """The same, outside since … until, on `count` pages."""
    b, (start, stop) = e.b, (e.splat(e.b.trunc(word, I32), PANEL) for word in (since, until))
    with e.loop(count) as i:
        page = e.at(first, i)
        for part in range(PAGE // PANEL):
            within = ir.Constant(_WORDS, list(range(part * PANEL, (part + 1) * PANEL)))
            place = b.add(e.splat(b.trunc(e.times(page, PAGE), I32), PANEL), within)
            seen = b.and_(b.icmp_signed(">=", place, start), b.icmp_signed("<", place, stop))
            at = e.at(scores, e.at(e.times(page, 4 * PAGE), ROW * part))
            e.store(b.select(seen, e.load(_FLOATS, at), e.const(_FLOATS, LOWEST)), at)


def exp2(e: Emit, x: Any) -> Any:
    """2ˣ of a vector, x at most 0 or near it; 0 for the lowest x."""
    if not e.target.has("avx512dq"):
        return _exp2_by_bits(e, x)
    every, here, down = e.const(I16, -1), e.const(I32, 4), e.const(I32, 9)  # no mask; as rounding is set; x - floor(x)
    rest = e.intrinsic("llvm.x86.avx512.mask.reduce.ps.512", _FLOATS, [x, down, x, every, here])
    return e.intrinsic("llvm.x86.avx512.mask.scalef.ps.512", _FLOATS, [e.powers(_EXP2, rest), x, x, every, here])


def _exp2_by_bits(e: Emit, x: Any) -> Any:
    """The same by adding to the exponent of 2ˣ for what x has beside a whole number; -127 takes 1 to 0."""
    b, whole, low = e.b, e.const(_FLOATS, _WHOLE), e.const(_FLOATS, -127.0)
    x = b.select(b.fcmp_ordered(">", x, low), x, low)
    near = e.plus(x, whole)
    rest = e.minus(x, e.minus(near, whole))
    shift = b.shl(b.bitcast(near, _WORDS), e.const(_WORDS, 23))
    return b.bitcast(b.add(b.bitcast(e.powers(_NEAR_EXP2, rest), _WORDS), shift), _FLOATS)
