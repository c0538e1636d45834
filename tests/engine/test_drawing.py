"""What each sampling setting means, by example."""
from __future__ import annotations

import math

import numpy as np
import pytest
from rows import draws, kept

from zonda.kernels import sample

PROBS = [0.4, 0.3, 0.15, 0.1, 0.05]
LOGITS = np.log(PROBS)


def adjusted(logits, **settings) -> list[float]:
    return sample.adjusted(draws([(np.asarray(logits, np.float32), settings)]), 0).tolist()


def draw(logits, **settings) -> int:
    d = draws([(np.asarray(logits, np.float32), settings)])
    sample.draw(d)
    return int(d.chosen[0])


def test_greedy_takes_the_first_of_equal_maxima() -> None:
    assert draw([1, 3, 2, 3], TEMPERATURE=0) == 1
    assert draw([1, 3, 2, 3], TEMPERATURE=1e-8, TOP_K=3) == 1


def test_without_filters_every_token_may_be_drawn_with_its_softmax() -> None:
    assert list(kept(LOGITS).values()) == pytest.approx(PROBS)


def test_the_temperature_divides_before_the_softmax() -> None:
    hot = np.array(PROBS) ** 0.5
    assert list(kept(LOGITS, TEMPERATURE=2.0).values()) == pytest.approx(hot / hot.sum())


def test_top_k_keeps_the_k_likeliest_and_of_equals_the_first() -> None:
    assert list(kept(LOGITS, TOP_K=2)) == [0, 1]
    assert list(kept([1, 1, 1, 1], TOP_K=3)) == [0, 1, 2]
    assert len(kept(LOGITS, TOP_K=0)) == len(kept(LOGITS, TOP_K=9)) == 5


@pytest.mark.parametrize(("top_p", "count"), [(0.39, 1), (0.41, 2), (0.69, 2), (0.71, 3), (0.0, 1), (0.999, 5)])
def test_top_p_keeps_tokens_while_the_sum_before_them_is_less(top_p: float, count: int) -> None:
    assert len(kept(LOGITS, TOP_P=top_p)) == count


def test_top_p_is_relative_to_what_top_k_kept() -> None:
    assert len(kept(LOGITS, TOP_K=2, TOP_P=0.56)) == 1
    assert len(kept(LOGITS, TOP_K=2, TOP_P=0.58)) == 2


def test_min_p_drops_what_is_no_likelier_than_its_share_of_the_likeliest() -> None:
    assert list(kept([3.0, 2.0, 1.0], MIN_P=math.exp(-1.5))) == [0, 1]
    assert list(kept([0.0, 0.0, 0.0], MIN_P=1.0)) == [0]


def test_typical_p_keeps_the_tokens_nearest_to_the_entropy() -> None:
    surprise = -np.log(PROBS)
    nearest = np.argsort(np.abs(surprise - (PROBS * surprise).sum()))
    assert list(kept(LOGITS, TYPICAL_P=0.2)) == [nearest[0]]
    assert set(kept(LOGITS, TYPICAL_P=0.5)) == set(nearest[:2].tolist())


def test_top_n_sigma_keeps_what_lies_within_n_deviations_of_the_maximum() -> None:
    assert list(kept([0, 0, 0, 10], TOP_N_SIGMA=1.0)) == [3]
    assert list(kept([0, 0, 0, 10], TOP_N_SIGMA=3.0)) == [3, 0, 1, 2]


def test_xtc_removes_the_likely_tokens_but_for_the_least_of_them() -> None:
    assert list(kept(LOGITS, XTC_PROBABILITY=1.0, XTC_THRESHOLD=0.12)) == [2, 3, 4]
    assert list(kept(LOGITS, XTC_PROBABILITY=1.0, XTC_THRESHOLD=0.35)) == [0, 1, 2, 3, 4]
    assert len(kept(LOGITS, XTC_PROBABILITY=0.0, XTC_THRESHOLD=0.12)) == 5


def test_mirostat_drops_surprising_tokens_and_steers_towards_its_target() -> None:
    d = draws([(LOGITS, {"MIROSTAT_TAU": 1.0, "MIROSTAT_ETA": 0.5})])
    assert list(kept(LOGITS, MIROSTAT_TAU=1.0, TOP_K=1)) == [0, 1]
    sample.draw(d)
    drawn = PROBS[d.chosen[0]] / 0.7
    assert d.floats[0, sample.MIROSTAT_MU] == pytest.approx(2.0 - 0.5 * (-math.log2(drawn) - 1.0), abs=1e-5)


def test_presence_and_frequency_count_generated_tokens_only() -> None:
    got = adjusted([1, 1, 1, 1], history=[0, 0, 1, 2, 1], PROMPT=3, PRESENCE=0.5, FREQUENCY=0.25)
    assert got == [1, 0.25, 0.25, 1]
    assert adjusted([1, 1], history=[0, 1, 1, 1], PROMPT=1, FREQUENCY=0.25) == [1, 0.25]


def test_repetition_divides_positive_and_multiplies_negative_logits_of_all_seen_tokens() -> None:
    assert adjusted([2, -2, 2, -2], history=[0, 1], PROMPT=1, REPETITION=2.0) == [1, -4, 2, -2]


def test_repetition_follows_presence() -> None:
    assert adjusted([1, 5], history=[5 % 2, 0], PROMPT=1, REPETITION=2.0, PRESENCE=2.0) == [-2, 2.5]


def test_the_bias_is_added_after_the_penalties() -> None:
    assert adjusted([4, 0], history=[0], REPETITION=2.0, bias={0: 3.0, 1: -1.0}) == [5, -1]


def test_dry_penalizes_the_token_that_would_lengthen_a_repetition() -> None:
    settings = {"DRY_MULTIPLIER": 1.0, "DRY_BASE": 2.0, "DRY_ALLOWED": 2}
    assert adjusted([0] * 5, history=[1, 2, 3, 4, 1, 2, 3], **settings) == [0, 0, 0, 0, -2]
    assert adjusted([0] * 5, history=[2, 3, 4, 1, 2, 3], **settings) == [0, 0, 0, 0, -1]
    assert adjusted([0] * 5, history=[3, 4, 1, 2, 3], **settings) == [0] * 5


def test_dry_takes_the_longest_repetition_and_stops_at_breakers() -> None:
    settings = {"DRY_MULTIPLIER": 1.0, "DRY_BASE": 2.0, "DRY_ALLOWED": 1}
    history = [1, 2, 3, 4, 0, 3, 4, 0, 1, 2, 3]
    assert adjusted([0] * 5, history=history, **settings)[4] == -4
    assert adjusted([0] * 5, history=history, breaks=[2], **settings)[4] == -1
    assert adjusted([0] * 5, history=history, breaks=[3], **settings) == [0] * 5
    assert adjusted([0] * 5, history=history, breaks=[4], **settings)[4] == 0


def test_dry_looks_back_fifty_tokens_at_most() -> None:
    got = adjusted([0, 0], history=[1] * 200, DRY_MULTIPLIER=1.0, DRY_BASE=1.5, DRY_ALLOWED=2)
    assert got[1] == pytest.approx(-(1.5 ** 48), rel=1e-6)


def test_log_probabilities_are_those_before_top_k_and_after_temperature_and_bias() -> None:
    d = draws([(LOGITS, {"TOP_K": 1, "LOGPROBS": 3, "TEMPERATURE": 2.0, "bias": {4: 10.0}})])
    sample.draw(d)
    expected = LOGITS / 2
    expected[4] += 5
    expected -= np.log(np.exp(expected).sum())
    assert d.chosen[0] == 4 and d.tops[0, :3].tolist() == [4, 0, 1]
    assert d.logprobs[0, :4] == pytest.approx(expected[[4, 4, 0, 1]], abs=1e-5)


def test_greedy_log_probabilities_have_temperature_one_and_a_floor() -> None:
    d = draws([([0.0, 1.0, -np.inf], {"TEMPERATURE": 0, "LOGPROBS": 3})])
    sample.draw(d)
    assert d.logprobs[0, :4] == pytest.approx([-0.31326, -0.31326, -1.31326, sample.LOWEST], abs=1e-4)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.nan])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_row_that_is_not_finite_gives_no_token(bad: float, temperature: float) -> None:
    assert draw([1, bad, 2], TEMPERATURE=temperature) == -1
    assert draw([-np.inf] * 3, TEMPERATURE=temperature) == -1
    assert draw([-np.inf, 1, -np.inf], TEMPERATURE=temperature) == 1


def test_draws_follow_the_distribution() -> None:
    d = draws([(LOGITS, {"KEY": sample.key(3, i), "TOP_P": 0.8}) for i in range(4000)])
    sample.draw(d)
    counts = np.bincount(d.chosen, minlength=5) / 4000
    assert counts == pytest.approx(np.array([0.4, 0.3, 0.15, 0, 0]) / 0.85, abs=0.03)


def test_random_numbers_depend_on_seed_sibling_and_place_alone() -> None:
    streams = [sample.key(seed, index) for seed in (0, 1) for index in (0, 1)]
    numbers = {sample.uniform(stream, place) for stream in streams for place in range(50)}
    assert len(numbers) == 200 and all(0 <= number < 1 for number in numbers)
    assert np.mean(list(numbers)) == pytest.approx(0.5, abs=0.07)
    assert sample.uniform(sample.key(7, 1), 9) == sample.uniform(sample.key(7, 1), 9)
    assert sample.key(-1, 0) == sample.key(2**64 - 1, 0)
