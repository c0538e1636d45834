"""Drawing tokens, as kernels/sample.py defines it, in a few passes over a row of logits. Imported only to compile."""
from __future__ import annotations

import math
from typing import Any

import numpy as np

from zonda.kernels import sample as s
from zonda.kernels.cpu import draws as d
from zonda.kernels.cpu.draws import BLOCK
from zonda.kernels.cpu.select import (
    INFINITE,
    SMALLEST,
    add_up,
    block_maxima,
    collect,
    deviation,
    f32,
    f64,
    first_at,
    i32,
    i64,
    kernel,
    kth_largest,
    mass_above,
    ordered,
    sort,
    unordered,
    weigh,
    weight,
)
from zonda.kernels.cpu.words import load_f32, load_i32, load_i64, load_u8, store_f32, store_i32

u64: Any = np.uint64
_GOLDEN, _MUL1, _MUL2 = u64(0x9E3779B97F4A7C15), u64(0xBF58476D1CE4E5B9), u64(0x94D049BB133111EB)


@kernel
def uniform(stream: int, number: int) -> float:
    z = u64(stream) + u64(number + 1) * _GOLDEN
    z = (z ^ (z >> u64(30))) * _MUL1
    z = (z ^ (z >> u64(27))) * _MUL2
    return f64(i64((z ^ (z >> u64(31))) >> u64(11))) * 2.0 ** -53


@kernel
def match(history: int, breaks: int, at: int, end: int) -> int:
    """How many tokens up to `at` equal those up to `end`, which is after it."""
    length = 1
    while length < s.DRY_REACH and length <= at:
        if load_i32(history, at - length) != load_i32(history, end - length) or load_u8(breaks, end - length):
            break
        length += 1
    return length


@kernel
def dry(x: int, history: int, breaks: int, length: int, floats: int, allowed: int, counts: int) -> None:
    end = length - 1
    if end < 1 or load_u8(breaks, end):
        return
    last = load_i32(history, end)
    for at in range(end):
        if load_i32(history, at) == last and not load_u8(breaks, at + 1):
            following = load_i32(history, at + 1)
            store_i32(counts, following, i32(max(match(history, breaks, at, end), load_i32(counts, following))))
    for at in range(end):
        following = load_i32(history, at + 1)
        longest = load_i32(counts, following)
        if longest >= allowed:
            penalty = f64(load_f32(floats, s.DRY_MULTIPLIER)) * f64(load_f32(floats, s.DRY_BASE)) ** (longest - allowed)
            store_f32(x, following, f32(load_f32(x, following) - penalty))
        store_i32(counts, following, i32(0))


@kernel
def penalize(x: int, history: int, length: int, prompt: int, floats: int, counts: int) -> None:
    repetition = f64(load_f32(floats, s.REPETITION))
    presence, frequency = f64(load_f32(floats, s.PRESENCE)), f64(load_f32(floats, s.FREQUENCY))
    if repetition == 1 and presence == 0 and frequency == 0:
        return
    for i in range(prompt, length):
        token = load_i32(history, i)
        store_i32(counts, token, i32(load_i32(counts, token) + 1))
    for i in range(length):
        token = load_i32(history, i)
        count = load_i32(counts, token)
        if count >= 0:
            value = f64(load_f32(x, token))
            if count:
                value = f64(f32(value - count * frequency - presence))
            store_f32(x, token, f32(value / repetition if value > 0 else value * repetition))
            store_i32(counts, token, i32(-1))
    for i in range(length):
        store_i32(counts, load_i32(history, i), i32(0))


# ---- the draw


@kernel
def draw_by_id(weights: int, n: int, sums: int, target: float) -> int:
    """The token at which the running sum of all weights passes `target`."""
    last = 0
    for b in range((n + BLOCK - 1) // BLOCK):
        part = f64(load_f32(sums, b))
        if target >= part:
            target -= part
            continue
        for i in range(b * BLOCK, min(b * BLOCK + BLOCK, n)):
            value = f64(load_f32(weights, i))
            if value > 0:
                last = i
                if target < value:
                    return i
            target -= value
        return last
    for i in range(n - 1, -1, -1):
        if load_f32(weights, i) > 0:
            return i
    return last


@kernel
def sum_of(probs: int, start: int, end: int) -> float:
    total = 0.0
    for i in range(start, end):
        total += f64(load_f32(probs, i))
    return total


@kernel
def draw_sorted(probs: int, start: int, end: int, target: float) -> int:
    """The place at which the running sum passes `target`."""
    for i in range(start, end):
        target -= f64(load_f32(probs, i))
        if target < 0:
            return i
    return end - 1


@kernel
def typical(probs: int, end: int, share: float) -> tuple[int, int]:
    """The range of places whose surprise is nearest to the entropy, and whose mass is `share`."""
    while end > 1 and load_f32(probs, end - 1) <= 0:
        end -= 1
    mass = sum_of(probs, i64(0), end)
    entropy = 0.0
    for i in range(end):
        p = f64(load_f32(probs, i)) / mass
        entropy -= p * math.log(p)
    right = 0
    while right < end and -math.log(f64(load_f32(probs, right)) / mass) < entropy - s.NEAR:
        right += 1
    left, total = right - 1, 0.0
    while (left >= 0 or right < end) and (total < share * mass or right - left == 1):
        before = entropy + math.log(f64(load_f32(probs, left)) / mass) if left >= 0 else math.inf
        after = -math.log(f64(load_f32(probs, right)) / mass) - entropy if right < end else math.inf
        if before <= after:
            total += f64(load_f32(probs, left))
            left -= 1
        else:
            total += f64(load_f32(probs, right))
            right += 1
    return left + 1, right


@kernel
def nucleus(probs: int, start: int, end: int, cutoff: float) -> int:
    """The end of the places before which the running sum is less than `cutoff`."""
    total = 0.0
    for i in range(start, end):
        if total >= cutoff:
            return max(i, start + 1)
        total += f64(load_f32(probs, i))
    return end


@kernel
def at_least(probs: int, start: int, end: int, least: float) -> int:
    """The end of the places with a weight of at least `least`."""
    i = start
    while i < end and load_f32(probs, i) >= least:
        i += 1
    return i


@kernel
def lower(bound: int, x: float) -> int:
    """The larger of a bound and the ordered value of `x`, a little lowered."""
    return max(bound, ordered(f32(x - 1e-4 - 1e-6 * abs(x))))


@kernel
def bound_of(t: int, x: int, n: int, floats: int, top_k: int, top: float, total: float) -> int:
    """An ordered value below which no candidate lies."""
    bound, heat = i64(SMALLEST), f64(load_f32(floats, s.TEMPERATURE))
    if load_f32(floats, s.MIROSTAT_TAU) > 0:
        least = math.log(total) - math.log(2.0) * f64(load_f32(floats, s.MIROSTAT_MU))
        return min(lower(bound, top + heat * least), ordered(top))
    sigma, blocks = f64(load_f32(floats, s.TOP_N_SIGMA)), (n + BLOCK - 1) // BLOCK
    if sigma > 0:
        bound = lower(bound, top - sigma * deviation(x, n))
    if top_k:
        return max(bound, i64(kth_largest(load_i64(t, d.MAXIMA), blocks, top_k, load_i64(t, d.HEAP)))) \
            if top_k <= blocks else bound
    if load_f32(floats, s.TYPICAL_P) < 1 or (sigma > 0 and load_f32(floats, s.TOP_P) < 1):
        return bound  # the next filter wants the mass of all that are left
    if load_f32(floats, s.MIN_P) > 0:
        bound = lower(bound, top + heat * math.log(f64(load_f32(floats, s.MIN_P))))
    if load_f32(floats, s.TOP_P) < 1:
        cutoff, least = f64(load_f32(floats, s.TOP_P)) * total * (1 + 1e-5), 1 / 16
        while least > 1e-30 and mass_above(load_i64(t, d.WEIGHTS), n, f32(least)) < cutoff:
            least /= 64
        if least > 1e-30:
            bound = lower(bound, top + heat * math.log(least))
    return bound


@kernel
def draw_filtered(t: int, x: int, n: int, floats: int, ints: int, top: float, scale: float, total: float,
                  first: float, second: float) -> int:
    """Sort the candidates, narrow them, and draw one."""
    keys, ids, probs = load_i64(t, d.KEYS), load_i64(t, d.IDS), load_i64(t, d.PROBS)
    top_k = load_i64(ints, s.TOP_K)
    if top_k >= n:
        top_k = 0
    end = collect(x, n, load_i64(t, d.MAXIMA), bound_of(t, x, n, floats, top_k, top, total), keys, ids)
    sort(keys, ids, end, load_i64(t, d.MORE_KEYS), load_i64(t, d.MORE_IDS), load_i64(t, d.HEAP))
    if top_k and load_f32(floats, s.MIROSTAT_TAU) <= 0:
        end = min(end, top_k)
    for i in range(end):
        store_f32(probs, i, weight(unordered(load_i32(keys, i)), top, scale))
    if load_f32(floats, s.MIROSTAT_TAU) > 0:
        return draw_mirostat(ids, probs, end, floats, total, first)
    start, end = narrow(t, x, n, floats, top_k, end, total)
    if second < load_f32(floats, s.XTC_PROBABILITY):
        least = f64(load_f32(floats, s.XTC_THRESHOLD)) * sum_of(probs, start, end)
        start = max(start, at_least(probs, start, end, f32(least)) - 1)
    return load_i32(ids, draw_sorted(probs, start, end, first * sum_of(probs, start, end)))


@kernel
def narrow(t: int, x: int, n: int, floats: int, top_k: int, end: int, total: float) -> tuple[int, int]:
    """The places of the sorted candidates that top-n-sigma, typical-p, top-p and min-p leave."""
    probs, keys = load_i64(t, d.PROBS), load_i64(t, d.KEYS)
    start, complete = 0, top_k > 0
    sigma, typical_p = f64(load_f32(floats, s.TOP_N_SIGMA)), load_f32(floats, s.TYPICAL_P)
    if sigma > 0:
        complete = True
        least = f64(unordered(load_i32(keys, 0))) - sigma * deviation(x, n)
        while end > 1 and f64(unordered(load_i32(keys, end - 1))) < least:
            end -= 1
    if typical_p < 1:
        complete = True
        start, end = typical(probs, end, f64(typical_p))
    if load_f32(floats, s.TOP_P) < 1:
        mass = sum_of(probs, start, end) if complete else total
        end = nucleus(probs, start, end, f64(load_f32(floats, s.TOP_P)) * mass)
    if load_f32(floats, s.MIN_P) > 0:
        least = f64(load_f32(probs, start)) * f64(load_f32(floats, s.MIN_P))
        above = unordered(ordered(f32(least)) + 1)  # the next float32
        end = max(start + 1, at_least(probs, start, end, above))
    return start, end


@kernel
def draw_mirostat(ids: int, probs: int, end: int, floats: int, total: float, chance: float) -> int:
    mu, start = f64(load_f32(floats, s.MIROSTAT_MU)), i64(0)
    end = max(1, at_least(probs, start, end, f32(total * 2.0 ** -mu)))
    mass = sum_of(probs, start, end)
    at = draw_sorted(probs, start, end, chance * mass)
    surprise = -math.log2(f64(load_f32(probs, at)) / mass)
    step = f64(load_f32(floats, s.MIROSTAT_ETA)) * (surprise - f64(load_f32(floats, s.MIROSTAT_TAU)))
    store_f32(floats, s.MIROSTAT_MU, f32(mu - step))
    return load_i32(ids, at)


@kernel
def filtered(floats: int, top_k: int, n: int) -> bool:
    return (0 < top_k < n or load_f32(floats, s.TOP_P) < 1 or load_f32(floats, s.MIN_P) > 0
            or load_f32(floats, s.TYPICAL_P) < 1 or load_f32(floats, s.TOP_N_SIGMA) > 0
            or load_f32(floats, s.XTC_PROBABILITY) > 0 or load_f32(floats, s.MIROSTAT_TAU) > 0)


@kernel
def needs_total(floats: int, top_k: int, n: int) -> bool:
    """Whether the draw needs the weights of all tokens."""
    if load_f32(floats, s.MIROSTAT_TAU) > 0 or not filtered(floats, top_k, n):
        return True
    return (load_f32(floats, s.TOP_P) < 1 and not 0 < top_k < n and load_f32(floats, s.TOP_N_SIGMA) <= 0
            and load_f32(floats, s.TYPICAL_P) >= 1)


@kernel
def report(t: int, x: int, n: int, token: int, alternatives: int, top: float, scale: float, total: float, logprobs: int,
           tops: int) -> None:
    base = math.log(total)
    store_f32(logprobs, 0, f32(max((load_f32(x, token) - top) * f64(scale) - base, s.LOWEST)))
    if not alternatives:
        return
    maxima, blocks = load_i64(t, d.MAXIMA), (n + BLOCK - 1) // BLOCK
    keys, ids = load_i64(t, d.KEYS), load_i64(t, d.IDS)
    bound = i64(SMALLEST)
    if alternatives <= blocks:
        bound = i64(kth_largest(maxima, blocks, alternatives, load_i64(t, d.HEAP)))
    count = collect(x, n, maxima, bound, keys, ids)
    sort(keys, ids, count, load_i64(t, d.MORE_KEYS), load_i64(t, d.MORE_IDS), load_i64(t, d.HEAP))
    for i in range(alternatives):
        value = (unordered(load_i32(keys, i)) - top) * f64(scale) - base
        store_f32(logprobs, 1 + i, f32(max(value, s.LOWEST)))
        store_i32(tops, i, load_i32(ids, i))


@kernel
def draw_row(t: int, i: int) -> int:
    """Draw i's token, -1 where its logits are not finite."""
    n, slot = load_i64(t, d.VOCAB), i64(load_i32(load_i64(t, d.SLOTS), i))
    length = i64(load_i32(load_i64(t, d.LENGTHS), i))
    x = load_i64(t, d.LOGITS) + 4 * n * load_i32(load_i64(t, d.ROWS), i)
    floats, ints = load_i64(t, d.PARAMS_F) + 4 * s.FLOATS * slot, load_i64(t, d.PARAMS_I) + 8 * s.INTS * slot
    history = load_i64(t, d.TOKENS) + 4 * load_i64(t, d.MAX_LEN) * slot
    prompt = load_i64(ints, s.PROMPT)
    if load_f32(floats, s.DRY_MULTIPLIER) != 0:
        dry(x, history, load_i64(t, d.BREAKS) + load_i64(t, d.MAX_LEN) * slot, length, floats,
            load_i64(ints, s.DRY_ALLOWED), load_i64(t, d.COUNTS))
    penalize(x, history, length, prompt, floats, load_i64(t, d.COUNTS))
    for b in range(load_i32(load_i64(t, d.BIAS_STARTS), i), load_i32(load_i64(t, d.BIAS_STARTS), i + 1)):
        token = load_i32(load_i64(t, d.BIAS_IDS), b)
        store_f32(x, token, load_f32(x, token) + load_f32(load_i64(t, d.BIAS_VALUES), b))
    maxima = load_i64(t, d.MAXIMA)
    largest = block_maxima(x, n, maxima)
    if largest >= INFINITE or largest <= ~INFINITE:
        return -1
    top, heat, top_k = unordered(largest), load_f32(floats, s.TEMPERATURE), load_i64(ints, s.TOP_K)
    greedy, alternatives = heat < f32(s.GREEDY), load_i64(ints, s.LOGPROBS)
    scale, total = f32(1) if greedy else f32(1) / heat, 0.0
    if alternatives >= 0 or (not greedy and needs_total(floats, top_k, n)):
        weigh(x, n, top, scale, load_i64(t, d.WEIGHTS))
        total = add_up(load_i64(t, d.WEIGHTS), n, load_i64(t, d.SUMS))
    number, stream = 2 * (length - prompt), load_i64(ints, s.KEY)
    first, second = uniform(stream, number), uniform(stream, number + 1)
    if greedy:
        token = first_at(x, n, maxima, largest)
    elif filtered(floats, top_k, n):
        token = i64(draw_filtered(t, x, n, floats, ints, top, scale, total, first, second))
    else:
        token = draw_by_id(load_i64(t, d.WEIGHTS), n, load_i64(t, d.SUMS), first * total)
    if alternatives >= 0:
        report(t, x, n, token, alternatives, top, scale, total, load_i64(t, d.LOGPROBS_OUT) + 4 * (1 + s.TOP) * i,
               load_i64(t, d.TOPS) + 4 * s.TOP * i)
    return token


def draw_rows(table: int, begin: int, end: int) -> None:
    """Draws `begin` to `end` - 1 of the table of words that draws.py describes."""
    for i in range(begin, end):
        store_i32(load_i64(table, d.CHOSEN), i, i32(draw_row(table, i)))
