"""The compiled kernel draws what the definition draws."""
from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rows import draws

from zonda.kernels import sample
from zonda.kernels.cpu.draws import CompiledDraw
from zonda.kernels.cpu.library import Library

VOCABS = (5, 64, 1000, 3001)
EXAMPLES = int(os.environ.get("ZONDA_TEST_EXAMPLES", "150"))


@pytest.fixture(scope="module")
def compiled(request: pytest.FixtureRequest) -> dict[int, CompiledDraw]:
    """Kernels for some vocabularies; their object code is kept between runs of the tests."""
    library = Library(request.config.cache.mkdir("kernels"))
    return {vocab: CompiledDraw(library, vocab=vocab) for vocab in VOCABS}


def optional(strategy: st.SearchStrategy, off: float) -> st.SearchStrategy:
    return st.one_of(st.just(off), strategy)


SETTINGS = st.fixed_dictionaries({
    "TEMPERATURE": st.sampled_from([0.0, 0.3, 1.0, 1.0, 2.5]),
    "TOP_K": st.sampled_from([0, 0, 1, 2, 40, 700, 5000]),
    "TOP_P": optional(st.floats(0, 1, width=32), 1.0),
    "MIN_P": optional(st.floats(0, 1, width=32), 0.0),
    "TYPICAL_P": optional(st.floats(0, 1, width=32), 1.0),
    "TOP_N_SIGMA": optional(st.floats(0.1, 4), 0.0),
    "XTC_PROBABILITY": optional(st.just(1.0), 0.0),
    "XTC_THRESHOLD": st.floats(0, 0.5),
    "MIROSTAT_TAU": st.sampled_from([0, 0, 0, 0, 1.0, 5.0]),
    "MIROSTAT_ETA": st.floats(0, 1),
    "PRESENCE": optional(st.floats(-2, 2), 0.0),
    "FREQUENCY": optional(st.floats(-2, 2), 0.0),
    "REPETITION": optional(st.floats(0.5, 2), 1.0),
    "DRY_MULTIPLIER": optional(st.floats(0.1, 2), 0.0),
    "DRY_ALLOWED": st.integers(1, 4),
    "LOGPROBS": st.sampled_from([-1, -1, 0, 5]),
    "KEY": st.integers(-2**63, 2**63 - 1),
})


@st.composite
def rows(draw: st.DrawFn) -> list[tuple[np.ndarray, dict]]:
    vocab = draw(st.sampled_from(VOCABS))
    chance = np.random.default_rng(draw(st.integers(0, 2**32)))
    made = []
    for _ in range(draw(st.integers(1, 4))):
        logits = chance.normal(size=vocab) * draw(st.sampled_from([0.0, 0.5, 3.0, 12.0]))
        if draw(st.booleans()):
            logits = np.round(logits)
        if draw(st.integers(0, 3)) == 0:
            logits[chance.integers(0, vocab, vocab // 2)] = -np.inf
        if draw(st.integers(0, 15)) == 0:
            logits[chance.integers(vocab)] = draw(st.sampled_from([np.nan, -np.nan, np.inf]))
        history = chance.integers(0, draw(st.sampled_from([3, vocab])), draw(st.integers(1, 250))) % vocab
        bias = {int(id): float(chance.normal() * 5) for id in chance.integers(0, vocab, draw(st.integers(0, 3)))}
        made.append((logits, {**draw(SETTINGS), "history": history, "PROMPT": draw(st.integers(1, len(history))),
                              "breaks": [1] if draw(st.booleans()) else [], "bias": bias}))
    return made


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows())
def test_any_settings_draw_the_token_of_the_definition(compiled: dict[int, CompiledDraw], rows: list) -> None:
    fast, plain = draws(rows), draws(rows)
    x = [sample.adjusted(plain, i) for i in range(len(rows))]
    compiled[len(rows[0][0])](fast)
    sample.draw(plain)
    for i in range(len(rows)):
        if fast.chosen[i] != plain.chosen[i]:
            assert _at_an_edge(plain, i, x[i], int(fast.chosen[i]))
            continue
        assert fast.logprobs[i] == pytest.approx(plain.logprobs[i], abs=2e-4, rel=1e-5)
        assert fast.tops[i].tolist() == plain.tops[i].tolist()
        assert fast.floats[i] == pytest.approx(plain.floats[i], abs=1e-3)


def _at_an_edge(d: sample.Draws, i: int, x: np.ndarray, token: int) -> bool:
    """Whether another token is right too, because a sum or a filter is met within float32's rounding."""
    floats, ints = d.floats[i].astype(float), d.ints[i]
    floats[sample.MIROSTAT_MU] = 2 * floats[sample.MIROSTAT_TAU]
    number = 2 * int(d.lengths[i] - ints[sample.PROMPT])
    first, second = (sample.uniform(int(ints[sample.KEY]), number + k) for k in (0, 1))
    for name in (None, "TOP_P", "MIN_P", "TYPICAL_P", "TOP_N_SIGMA", "XTC_THRESHOLD", "MIROSTAT_MU"):
        for nudge in (1 - 3e-5, 1 + 3e-5) if name else (1.0,):
            nudged = floats.copy()
            if name:
                nudged[getattr(sample, name)] *= nudge
            ids, p = sample.kept(x, nudged, ints, second)
            ends = np.cumsum(p) / p.sum()
            at = np.flatnonzero(ids == token)
            if len(at) and ends[at[0]] - p[at[0]] / p.sum() - 1e-5 <= first <= ends[at[0]] + 1e-5:
                return True
    return False


def test_rows_and_slots_need_not_be_in_order(compiled: dict[int, CompiledDraw]) -> None:
    chance = np.random.default_rng(1)
    made = [(chance.normal(size=64), {"KEY": i, "TOP_K": 5 * i}) for i in range(6)]
    straight, crossed = draws(made), draws(made)
    crossed.rows = crossed.slots = np.array([4, 2, 0], np.int32)
    crossed.lengths, crossed.bias_starts = crossed.lengths[:3], crossed.bias_starts[:4]
    crossed.chosen = crossed.chosen[:3]
    compiled[64](straight)
    compiled[64](crossed)
    assert crossed.chosen.tolist() == straight.chosen[[4, 2, 0]].tolist()


def test_a_call_leaves_no_trace_for_the_next(compiled: dict[int, CompiledDraw]) -> None:
    chance = np.random.default_rng(2)
    busy = [(chance.normal(size=1000), {"history": chance.integers(0, 9, 200), "PROMPT": 50, "REPETITION": 1.3,
                                        "FREQUENCY": 0.2, "DRY_MULTIPLIER": 1.0, "DRY_ALLOWED": 1, "LOGPROBS": 5})]
    first, second = draws(busy), draws(busy)
    compiled[1000](first)
    compiled[1000](second)
    assert first.chosen.tolist() == second.chosen.tolist() and (first.logits == second.logits).all()
