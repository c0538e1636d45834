"""Attention's inner loops: scores of a page of 32 positions, their softmax over a run of pages, the mix of values.

Each query's numbers are computed by the same operations in the same order however many queries share a call.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from zonda.kernels.cpu.frame import PAGE, SPAN
from zonda.kernels.cpu.library import Target
from zonda.kernels.cpu.vector import F16, F32, I32, Emit, Registers, exp, largest, total

PEAK, SUM, SEEN_FROM, SEEN_TO = range(0, 16, 4)
"""In a query's state: its highest score and the sum of its weights, and the positions of the run of pages that it sees,
from and to (int32)."""
LOWEST = -1e30


def _sums(e: Emit) -> int:
    """How many vectors of sums stay in registers, beside two of the cache and one factor."""
    return 12 if e.registers.count == 16 else 24


def most_queries(target: Target) -> int:
    """The queries that share what is read of the cache, as many as registers hold."""
    return 12 if Registers.of(target).lanes == 16 else 6


def _cache_vector(e: Emit, half: bool, address: Any, offset: int) -> Any:
    floats = ir.VectorType(F32, e.registers.lanes)
    if not half:
        return e.load(floats, address, offset)
    return e.from_half(e.load(ir.VectorType(F16, e.registers.lanes), address, offset))


def scores(half: bool, queries: int) -> Callable[..., None]:
    """Writer of scores(q, stride, keys, dim, out): 32 of each query's SPAN numbers in out = q · keys."""
    def write(builder: ir.IRBuilder, target: Target, q: Any, stride: Any, keys: Any, dim: Any, out: Any) -> None:
        e = Emit(builder, target)
        lanes, size = e.registers.lanes, 2 if half else 4
        vectors = max(1, min(PAGE // lanes, _sums(e) // queries))
        while PAGE // lanes % vectors:
            vectors -= 1
        with e.loop(e.word(PAGE // lanes // vectors)) as p:
            first = e.times(p, vectors * lanes)
            zero = e.const(ir.VectorType(F32, lanes), 0.0)
            totals = [[e.variable(zero) for _ in range(vectors)] for _ in range(queries)]
            with e.loop(dim) as d:
                row = e.at(e.at(keys, e.times(d, PAGE * size)), e.times(first, size))
                key = [_cache_vector(e, half, row, v * lanes * size) for v in range(vectors)]
                for i in range(queries):
                    x = e.splat(e.load(F32, e.at(e.at(q, e.times(stride, 4 * i)), e.times(d, 4))), lanes)
                    for v in range(vectors):
                        totals[i][v].set(e.fma(key[v], x, totals[i][v].get()))
            for i in range(queries):
                for v in range(vectors):
                    e.store(totals[i][v].get(), e.at(out, e.times(first, 4)), 4 * (i * SPAN + v * lanes))

    return write


def soften(builder: ir.IRBuilder, target: Target, scores: Any, state: Any, pages: Any) -> None:
    """Write soften(scores, state, pages): one query's scores of a run become weights, zero where unseen."""
    e, b, lanes = Emit(builder, target), builder, Emit(builder, target).registers.lanes
    floats, words = ir.VectorType(F32, lanes), ir.VectorType(I32, lanes)
    since, until = (e.splat(e.load(I32, state, at), lanes) for at in (SEEN_FROM, SEEN_TO))
    lowest, zero, parts = e.const(floats, LOWEST), e.const(floats, 0.0), range(PAGE // lanes)

    def seen(page: Any, part: int) -> Any:
        within = ir.Constant(words, list(range(part * lanes, (part + 1) * lanes)))
        place = b.add(e.splat(b.trunc(e.times(page, PAGE), I32), lanes), within)
        return b.and_(b.icmp_signed(">=", place, since), b.icmp_signed("<", place, until))

    peaks, sums = ([e.variable(start) for _ in parts] for start in (lowest, zero))
    with e.loop(pages) as page:
        for part in parts:
            value = e.load(floats, e.at(scores, e.times(page, 4 * PAGE)), 4 * part * lanes)
            value, peak = b.select(seen(page, part), value, lowest), peaks[part].get()
            peaks[part].set(b.select(b.fcmp_unordered(">", value, peak), value, peak))
    highest = largest(e, [peak.get() for peak in peaks])
    with e.loop(pages) as page:
        for part in parts:
            place = e.at(scores, e.at(e.times(page, 4 * PAGE), 4 * part * lanes))
            weight = exp(e, b.fsub(e.load(floats, place), e.splat(highest, lanes)))
            weight = b.select(seen(page, part), weight, zero)
            e.store(weight, place)
            sums[part].set(e.plus(sums[part].get(), weight))
    e.store(highest, state, PEAK)
    e.store(total(e, [each.get() for each in sums]), state, SUM)


def merge(builder: ir.IRBuilder, target: Target, *words: Any) -> None:
    """Write merge(state, mixed, total state, total, dim): take one run of pages into a query's total.

    A run of which the query sees nothing leaves every bit as it is, and so does a total that has seen nothing yet.
    """
    state, mixed, whole, total, dim = words
    e, b = Emit(builder, target), builder
    floats = ir.VectorType(F32, e.registers.lanes)
    before, here = e.load(F32, whole, PEAK), e.load(F32, state, PEAK)
    peak = b.select(b.fcmp_unordered(">", here, before), here, before)
    old, new = (exp(e, e.splat(b.fsub(part, peak), e.registers.lanes)) for part in (before, here))
    sums, more = (e.splat(e.load(F32, each, SUM), e.registers.lanes) for each in (whole, state))
    e.store(b.extract_element(e.fma(sums, old, e.product(more, new)), e.const(I32, 0)), whole, SUM)
    e.store(peak, whole, PEAK)
    with e.loop(b.sdiv(dim, e.word(e.registers.lanes))) as i:
        place = e.times(i, 4 * e.registers.lanes)
        part = e.product(e.load(floats, e.at(mixed, place)), new)
        e.store(e.fma(e.load(floats, e.at(total, place)), old, part), e.at(total, place))


def finish(builder: ir.IRBuilder, target: Target, *words: Any) -> None:
    """Write finish(state, total, dim, sink): divide by the sum of the weights, among them that of the score at `sink`.

    A sink of LOWEST leaves every bit as it is.
    """
    state, total, dim, sink = words
    e = Emit(builder, target)
    floats = ir.VectorType(F32, e.registers.lanes)
    above = builder.fsub(e.load(F32, sink), e.load(F32, state, PEAK))
    share = builder.extract_element(exp(e, e.splat(above, e.registers.lanes)), e.const(I32, 0))
    weights = e.plus(e.load(F32, state, SUM), share)
    inverse = e.splat(builder.fdiv(e.const(F32, 1.0), weights, flags=("nsz",)), e.registers.lanes)
    with e.loop(builder.sdiv(dim, e.word(e.registers.lanes))) as i:
        place = e.at(total, e.times(i, 4 * e.registers.lanes))
        e.store(e.product(e.load(floats, place), inverse), place)


def mix(half: bool, queries: int) -> Callable[..., None]:
    """Writer of mix(weights, values, dim, out, used): out (queries, dim) += weights (queries, SPAN) · `used` values of
    a page: memory that is not in use may hold what is no number."""
    def write(builder: ir.IRBuilder, target: Target, *arguments: Any) -> None:
        dim = arguments[2]
        e = Emit(builder, target)
        lanes = e.registers.lanes
        narrow = 16 // lanes
        wide = narrow
        while 2 * wide * queries <= _sums(e) and 2 * wide * lanes <= 64:
            wide *= 2
        strips = e.b.sdiv(dim, e.word(wide * lanes))
        _mix_strips(e, half, queries, wide, strips, e.word(0), arguments)
        done = e.times(strips, wide * lanes)
        rest = e.b.sdiv(e.b.sub(dim, done), e.word(narrow * lanes))
        _mix_strips(e, half, queries, narrow, rest, done, arguments)

    return write


def _mix_strips(e: Emit, half: bool, queries: int, vectors: int, count: Any, start: Any,
                words: tuple[Any, ...]) -> None:
    """`count` strips of so many vectors of dimensions, from dimension `start` on."""
    weights, values, dim, out, used = words
    lanes, size = e.registers.lanes, 2 if half else 4
    floats = ir.VectorType(F32, lanes)
    with e.loop(count) as p:
        first = e.at(start, e.times(p, vectors * lanes))
        place = [e.at(e.at(out, e.times(first, 4)), e.times(dim, 4 * i)) for i in range(queries)]
        totals = [[e.variable(e.load(floats, row, 4 * v * lanes)) for v in range(vectors)] for row in place]
        with e.loop(used) as t:
            row = e.at(e.at(values, e.b.mul(e.times(dim, size), t)), e.times(first, size))
            value = [_cache_vector(e, half, row, v * lanes * size) for v in range(vectors)]
            for i in range(queries):
                w = e.splat(e.load(F32, e.at(weights, e.times(t, 4)), 4 * SPAN * i), lanes)
                for v in range(vectors):
                    totals[i][v].set(e.fma(value[v], w, totals[i][v].get()))
        for i in range(queries):
            for v in range(vectors):
                e.store(totals[i][v].get(), place[i], 4 * v * lanes)
