"""Drawing tokens from logits: the arrays that say how, and the plain numpy definition of the draw.

In this order: DRY; frequency, presence and repetition penalties; logit bias; temperature; then each filter on what the
one before kept: top-n-sigma, top-k, typical-p, top-p, min-p, XTC. Mirostat stands in place of all filters. Ties go to
the lower id. Random numbers come from a counter, so a draw depends on its key and position alone.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

GREEDY = 1e-7
"""Temperatures below take the first maximum."""
TOP = 20
"""Most alternatives that are reported beside a token."""
DRY_REACH = 50
NEAR = 1e-5
"""A surprise so near to the entropy, in nats, is not less than it."""
LOWEST = -9999.0
"""What is reported for a log-probability below it."""

# columns of `Draws.floats`
(TEMPERATURE, TOP_P, MIN_P, TYPICAL_P, TOP_N_SIGMA, XTC_PROBABILITY, XTC_THRESHOLD, MIROSTAT_TAU, MIROSTAT_ETA,
 MIROSTAT_MU, PRESENCE, FREQUENCY, REPETITION, DRY_MULTIPLIER, DRY_BASE) = range(15)
FLOATS = 16
# columns of `Draws.ints`
KEY, TOP_K, PROMPT, LOGPROBS, DRY_ALLOWED = range(5)
INTS = 8

GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


@dataclass(slots=True)
class Draws:
    """Rows to draw from. Rows of the first group of arrays belong to draws, of the second to slots.

    `bias_starts[i]:bias_starts[i+1]` are draw i's biases. Results: `chosen`, -1 where a row has no finite maximum or a
    NaN; `logprobs[i, 0]` of the chosen token and then of `tops[i]`. `logits` and the `MIROSTAT_MU` column are
    overwritten.
    """

    logits: np.ndarray  # float32 (samples, vocab)
    rows: np.ndarray  # int32 (draws,): rows of logits
    slots: np.ndarray  # int32 (draws,)
    lengths: np.ndarray  # int32 (draws,): tokens of prompt and output so far
    bias_starts: np.ndarray  # int32 (draws + 1,)
    bias_ids: np.ndarray  # int32
    bias_values: np.ndarray  # float32
    chosen: np.ndarray  # int32 (draws,)
    logprobs: np.ndarray  # float32 (draws, 1 + TOP)
    tops: np.ndarray  # int32 (draws, TOP)

    floats: np.ndarray  # float32 (slots, FLOATS)
    ints: np.ndarray  # int64 (slots, INTS)
    tokens: np.ndarray  # int32 (slots, max_len)
    breaks: np.ndarray  # uint8 (slots, max_len): 1 where the token breaks DRY's sequences


Kernel = Callable[[Draws], None]


def mix(value: int) -> int:
    """The finalizer of splitmix64."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def key(seed: int, index: int) -> int:
    """The random stream of one sequence of a request, as an int64."""
    value = mix((mix(seed & _MASK) + (index + 1) * GOLDEN) & _MASK)
    return value - (1 << 64) if value >> 63 else value


def uniform(stream: int, number: int) -> float:
    """Random number `number` of a stream, in [0, 1)."""
    return (mix((stream + (number + 1) * GOLDEN) & _MASK) >> 11) * 2.0 ** -53


def draw(draws: Draws) -> None:
    """Draw a token for every row: the definition."""
    for i in range(len(draws.rows)):
        draws.chosen[i] = _draw(draws, i)


def _draw(d: Draws, i: int) -> int:
    slot = d.slots[i]
    x = adjusted(d, i)
    if np.isnan(x).any() or not np.isfinite(x.max()):
        return -1
    floats, ints = d.floats[slot].astype(np.float64), d.ints[slot]
    number = 2 * (int(d.lengths[i]) - int(ints[PROMPT]))
    ids, p = kept(x, floats, ints, uniform(int(ints[KEY]), number + 1))
    cumulative = np.cumsum(p)
    at = int(np.searchsorted(cumulative, uniform(int(ints[KEY]), number) * cumulative[-1], side="right"))
    at = min(at, len(ids) - 1)
    if floats[TEMPERATURE] >= GREEDY and floats[MIROSTAT_TAU] > 0:
        surprise = -math.log2(p[at] / cumulative[-1])
        d.floats[slot, MIROSTAT_MU] -= floats[MIROSTAT_ETA] * (surprise - floats[MIROSTAT_TAU])
    token = int(ids[at])
    if ints[LOGPROBS] >= 0:
        report(x, floats, token, d.logprobs[i], d.tops[i, :ints[LOGPROBS]])
    return token


def adjusted(d: Draws, i: int) -> np.ndarray:
    """Logits after penalties and bias."""
    slot, length = d.slots[i], d.lengths[i]
    floats, ints = d.floats[slot].astype(np.float64), d.ints[slot]
    x = d.logits[d.rows[i]].copy()
    history = d.tokens[slot, :length]
    if floats[DRY_MULTIPLIER] != 0:
        _dry(x, history, d.breaks[slot, :length], floats, int(ints[DRY_ALLOWED]))
    _penalize(x, history, history[ints[PROMPT]:], floats)
    biases = slice(d.bias_starts[i], d.bias_starts[i + 1])
    np.add.at(x, d.bias_ids[biases], d.bias_values[biases])
    return x


def _dry(x: np.ndarray, history: np.ndarray, breaks: np.ndarray, floats: np.ndarray, allowed: int) -> None:
    end = len(history) - 1
    if end < 1 or breaks[end]:
        return
    longest: dict[int, int] = {}
    for at in np.flatnonzero(history[:end] == history[end]):
        if not breaks[at + 1]:
            following = int(history[at + 1])
            longest[following] = max(longest.get(following, 0), _match(history, breaks, int(at), end))
    for token, length in longest.items():
        if length >= allowed:
            x[token] = x[token] - floats[DRY_MULTIPLIER] * math.pow(floats[DRY_BASE], length - allowed)


def _match(history: np.ndarray, breaks: np.ndarray, at: int, end: int) -> int:
    """How many tokens up to `at` equal those up to `end`, which is after it."""
    length = 1
    while length < DRY_REACH and length <= at:
        if history[at - length] != history[end - length] or breaks[end - length]:
            break
        length += 1
    return length


def _penalize(x: np.ndarray, history: np.ndarray, generated: np.ndarray, floats: np.ndarray) -> None:
    if floats[REPETITION] == 1 and not floats[FREQUENCY] and not floats[PRESENCE]:
        return
    seen, counts = np.unique(generated, return_counts=True)
    x[seen] = x[seen] - counts * floats[FREQUENCY] - floats[PRESENCE]
    seen = np.unique(history)
    values = x[seen].astype(np.float64)
    x[seen] = np.where(values > 0, values / floats[REPETITION], values * floats[REPETITION])


def kept(x: np.ndarray, floats: np.ndarray, ints: np.ndarray, chance: float) -> tuple[np.ndarray, np.ndarray]:
    """The tokens that may be drawn, in the order of the draw, and their weights. `chance` decides on XTC."""
    if floats[TEMPERATURE] < GREEDY:
        return np.array([x.argmax()]), np.ones(1)
    top_k = int(ints[TOP_K])
    if not filtered(floats, top_k, len(x)):
        return np.arange(len(x)), _weights(x, x.max(), floats)
    ids = _sorted(x, top_k if 0 < top_k < len(x) and floats[MIROSTAT_TAU] <= 0 else len(x))
    p = _weights(x[ids], x.max(), floats)
    if floats[MIROSTAT_TAU] > 0:
        count = max(1, np.count_nonzero(p / p.sum() >= 2.0 ** -floats[MIROSTAT_MU]))
        return ids[:count], p[:count]
    if floats[TOP_N_SIGMA] > 0:
        count = np.count_nonzero(x >= x.max() - floats[TOP_N_SIGMA] * deviation(x))
        ids, p = ids[:count], p[:count]
    for narrow in (_typical, _nucleus, _likely):
        ids, p = narrow(ids, p, floats)
    return _without_top(ids, p, floats) if chance < floats[XTC_PROBABILITY] else (ids, p)


def _weights(x: np.ndarray, top: float, floats: np.ndarray) -> np.ndarray:
    return np.exp((x.astype(np.float64) - top) / floats[TEMPERATURE])


def _sorted(x: np.ndarray, count: int) -> np.ndarray:
    """The ids of the `count` largest logits, from the largest on."""
    ids = np.arange(len(x))
    if count < len(x):
        ids = np.flatnonzero(x >= np.partition(x, len(x) - count)[len(x) - count])
    return ids[np.argsort(-x[ids], kind="stable")[:count]]


def filtered(floats: np.ndarray, top_k: int, vocab: int) -> bool:
    """Whether anything narrows the choice. If so the draw walks the tokens from the likeliest on, else by id."""
    return bool(0 < top_k < vocab or floats[TOP_P] < 1 or floats[MIN_P] > 0 or floats[TYPICAL_P] < 1
                or floats[TOP_N_SIGMA] > 0 or floats[XTC_PROBABILITY] > 0 or floats[MIROSTAT_TAU] > 0)


def deviation(x: np.ndarray) -> float:
    """Standard deviation of the finite logits."""
    finite = x[np.isfinite(x)].astype(np.float64)
    return float(finite.std())


def _typical(ids: np.ndarray, p: np.ndarray, floats: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The tokens whose surprise is nearest to the entropy, up to the wanted mass."""
    if floats[TYPICAL_P] >= 1:
        return ids, p
    ids, p = ids[p > 0], p[p > 0]
    surprise = -np.log(p / p.sum())
    entropy = (p * surprise).sum() / p.sum()
    places = np.arange(len(p))
    outward = np.where(surprise < entropy - NEAR, -1 - places, places)
    order = np.lexsort((outward, np.abs(surprise - entropy)))
    before = np.cumsum(p[order]) - p[order]
    chosen = np.sort(order[:max(1, np.count_nonzero(before < floats[TYPICAL_P] * p.sum()))])
    return ids[chosen], p[chosen]


def _nucleus(ids: np.ndarray, p: np.ndarray, floats: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if floats[TOP_P] >= 1:
        return ids, p
    before = np.cumsum(p) - p
    count = max(1, np.count_nonzero(before < floats[TOP_P] * p.sum()))
    return ids[:count], p[:count]


def _likely(ids: np.ndarray, p: np.ndarray, floats: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if floats[MIN_P] <= 0:
        return ids, p
    count = max(1, np.count_nonzero(p > p[0] * floats[MIN_P]))
    return ids[:count], p[:count]


def _without_top(ids: np.ndarray, p: np.ndarray, floats: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """XTC: of the tokens at or above the threshold only the least likely stays."""
    above = np.count_nonzero(p / p.sum() >= floats[XTC_THRESHOLD])
    return ids[max(0, above - 1):], p[max(0, above - 1):]


def report(x: np.ndarray, floats: np.ndarray, token: int, logprobs: np.ndarray, tops: np.ndarray) -> None:
    """Log-probabilities before the filters: of the token, then of the likeliest ones, whose ids go to `tops`."""
    temperature = floats[TEMPERATURE] if floats[TEMPERATURE] >= GREEDY else 1.0
    scaled = (x.astype(np.float64) - x.max()) / temperature
    scaled -= math.log(np.exp(scaled).sum())
    tops[:] = np.argsort(-x, kind="stable")[:len(tops)]
    logprobs[0] = max(scaled[token], LOWEST)
    logprobs[1:1 + len(tops)] = np.maximum(scaled[tops], LOWEST)
