"""Which requests are refused, and what the others become."""
from __future__ import annotations

import math

import numpy as np
import pytest

from zonda.engine.intake import Intake
from zonda.engine.request import Group
from zonda.errors import ContextExceeded, InvalidModel, InvalidRequest
from zonda.kernels import sample
from zonda.types import Request, Sampling


def intake(**options) -> Intake:
    values = {"vocab": 100, "max_len": 50, "stop_ids": frozenset({7}), "defaults": {}, "seed": 0, **options}
    return Intake(**values)


def accept(prompt=(1, 2, 3), /, *, door: Intake | None = None, **sampling) -> Group:
    return (door or intake()).accept(Request("r", prompt, Sampling(**sampling)), lambda events: None)


BAD = [
    ("n", 0), ("n", 129), ("n", 1.5), ("n", True), ("n", "2"),
    ("max_tokens", -1), ("min_tokens", -1), ("max_tokens", 2.0),
    ("logprobs", -1), ("logprobs", 21),
    ("stop", ("x",) * 17), ("stop", ("",)), ("stop", (3,)), ("stop_token_ids", tuple(range(1, 100)) * 2),
    ("stop_token_ids", (100,)), ("stop_token_ids", (-1,)),
    ("logit_bias", {100: 1.0}), ("logit_bias", {-1: 1.0}), ("logit_bias", {1: math.nan}), ("logit_bias", {1: math.inf}),
    ("logit_bias", {1: "x"}), ("logit_bias", {"1": 1.0}), ("logit_bias", dict.fromkeys(range(101), 0.0)),
    ("temperature", -0.1), ("temperature", math.nan), ("temperature", math.inf), ("temperature", "hot"),
    ("temperature", 10**400), ("top_p", 1.1), ("top_p", -0.1), ("top_p", math.nan), ("min_p", 1.1), ("min_p", math.nan),
    ("top_k", 0.5), ("top_k", math.nan), ("typical_p", 2), ("top_n_sigma", math.nan), ("top_n_sigma", math.inf),
    ("xtc_probability", 1.1), ("xtc_threshold", -1), ("mirostat_tau", math.nan), ("mirostat_eta", math.inf),
    ("presence_penalty", math.nan), ("frequency_penalty", -math.inf), ("repetition_penalty", 0),
    ("repetition_penalty", -1), ("repetition_penalty", math.nan), ("dry_multiplier", math.nan), ("dry_base", -1),
    ("dry_allowed_length", 0), ("dry_sequence_breakers", ("x",) * 129), ("seed", 1.5), ("seed", 2**64),
]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_field_out_of_range_is_refused_by_its_name(name: str, value: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        accept(**{name: value})
    assert caught.value.param == name and name in caught.value.message
    assert len(str(caught.value)) < 300


EDGES = [("n", 128), ("logprobs", 20), ("stop", ("x",) * 16), ("logit_bias", {99: -1e9}), ("temperature", 0),
         ("top_p", 0.0), ("top_p", 1), ("top_k", -1), ("seed", -1), ("seed", 2**64 - 1), ("max_tokens", 0)]


@pytest.mark.parametrize(("name", "value"), EDGES)
def test_a_field_at_the_edge_of_its_range_is_taken(name: str, value: object) -> None:
    accept(**{name: value})


@pytest.mark.parametrize("prompt", [(), (100,), (-1,), (1.5,), ("a",), (None,), (2**70,), ((1, 2),), (1, 2**63)])
def test_a_prompt_that_is_not_token_ids_is_refused(prompt: tuple) -> None:
    with pytest.raises(InvalidRequest) as caught:
        accept(prompt)
    assert caught.value.param == "prompt"


def test_min_tokens_above_max_tokens_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="min_tokens 5 is more than max_tokens 4"):
        accept(min_tokens=5, max_tokens=4)


def test_a_prompt_that_leaves_no_room_is_refused_with_the_numbers() -> None:
    with pytest.raises(ContextExceeded, match=r"too long: 50 tokens > 49 maximum; this model's.* 50 tokens") as caught:
        accept((1,) * 50)
    assert caught.value.status == 400 and caught.value.code == "context_length_exceeded"


def test_a_prompt_that_leaves_room_for_one_token_is_taken() -> None:
    assert accept((1,) * 49, max_tokens=10).params.max_tokens == 1


def test_max_tokens_is_cut_to_what_the_context_leaves() -> None:
    assert accept((1,) * 10).params.max_tokens == 40
    assert accept((1,) * 10, max_tokens=1000).params.max_tokens == 40
    assert accept((1,) * 10, max_tokens=3).params.max_tokens == 3


def test_truncation_drops_the_oldest_tokens_and_leaves_room_for_the_answer() -> None:
    prompt = tuple(range(90))
    group = accept(prompt, truncate_sequence=True, max_tokens=5)
    assert group.prompt.tolist() == list(prompt[-45:]) and group.params.max_tokens == 5
    assert len(accept(prompt, truncate_sequence=True).prompt) == 25
    assert accept(prompt[:30], truncate_sequence=True).prompt.tolist() == list(prompt[:30])


def test_numpy_and_list_prompts_are_taken() -> None:
    assert accept(np.array([1, 2], np.int64)).prompt.tolist() == [1, 2]
    assert accept([1, 2]).prompt.dtype == np.int32


def test_what_a_request_leaves_open_comes_from_the_generation_config() -> None:
    door = intake(defaults={"temperature": 0.5, "top_k": 3, "top_p": 0.25, "min_p": 0.125, "repetition_penalty": 2.0,
                            "max_new_tokens": 1, "unknown": object()})
    params = accept(door=door, top_k=5).params
    assert params.ints[sample.TOP_K] == 5 and params.max_tokens == 47
    columns = [sample.TEMPERATURE, sample.TOP_P, sample.MIN_P, sample.REPETITION]
    assert params.floats[columns].tolist() == [0.5, 0.25, 0.125, 2.0]


def test_do_sample_false_is_greedy_unless_the_request_has_a_temperature() -> None:
    door = intake(defaults={"do_sample": False, "temperature": 0.7})
    assert accept(door=door).params.plain
    assert accept(door=door, temperature=0.5).params.floats[sample.TEMPERATURE] == 0.5


def test_the_temperature_is_one_where_nobody_says_otherwise() -> None:
    assert accept().params.floats[sample.TEMPERATURE] == 1


def test_suppressed_tokens_get_a_bias_beside_the_requests_own() -> None:
    params = accept(door=intake(defaults={"suppress_tokens": [3, 4, 1000]}), logit_bias={9: 1.5}).params
    assert dict(zip(params.bias_ids.tolist(), params.bias_values.tolist())) == {9: 1.5, 3: -1e9, 4: -1e9}


def test_a_damaged_generation_config_is_the_models_fault() -> None:
    with pytest.raises(InvalidModel, match="generation_config"):
        intake(defaults={"temperature": math.nan})
    for tokens in (5, "3", ["3"], [1.5], {"3": 1}):
        with pytest.raises(InvalidModel, match="suppress_tokens"):
            intake(defaults={"suppress_tokens": tokens})


def test_stop_tokens_are_the_models_and_the_requests_own() -> None:
    assert accept(stop_token_ids=(9,)).params.stops == {7, 9}
    assert accept(stop_token_ids=(9,), ignore_eos=True).params.stops == {9}


def test_breakers_are_resolved_only_for_requests_that_use_them() -> None:
    asked: list[str] = []

    def breakers(text: str) -> list[int]:
        asked.append(text)
        return [len(text), 50]

    door = intake(breakers=breakers)
    assert accept(door=door).params.breaks == frozenset() and not asked
    params = accept(door=door, dry_multiplier=1.0, dry_sequence_breakers=("a", "bcd")).params
    assert params.breaks == {1, 3, 50}
    accept(door=door, dry_multiplier=1.0, dry_sequence_breakers=("a",))
    assert asked == ["a", "bcd"]


def test_seeds_are_drawn_from_the_engines_seed() -> None:
    first, second, other = intake(seed=1), intake(seed=1), intake(seed=2)
    drawn = [accept(door=first).params.seed, accept(door=first).params.seed]
    assert drawn == [accept(door=second).params.seed, accept(door=second).params.seed]
    assert len({*drawn, accept(door=other).params.seed}) == 3


@pytest.mark.parametrize("sampling", [
    {"temperature": 0.5}, {"temperature": 0, "repetition_penalty": 1.1}, {"temperature": 0, "presence_penalty": 0.1},
    {"temperature": 0, "dry_multiplier": 1.0}, {"temperature": 0, "logit_bias": {1: 1.0}},
    {"temperature": 0, "min_tokens": 1}, {"temperature": 0, "logprobs": 0}])
def test_only_greedy_requests_that_want_nothing_else_bypass_the_sampler(sampling: dict) -> None:
    assert not accept(**sampling).params.plain
    assert accept(temperature=0, top_k=4, top_p=0.5).params.plain
