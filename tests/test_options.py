"""Options: one statement of each, checked wherever it comes from."""
import dataclasses
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

from zonda import InvalidRequest
from zonda.environment import cache_folder, hub_folder, token_file
from zonda.options import (
    BenchOptions,
    EngineOptions,
    ModelOptions,
    RunOptions,
    SamplingOptions,
    TuneOptions,
    given,
    make,
    options_of,
    sampling_of,
    split,
)
from zonda.types import Sampling

GROUPS = (ModelOptions, EngineOptions, SamplingOptions, RunOptions, BenchOptions, TuneOptions)


@pytest.mark.parametrize("group", GROUPS)
def test_every_option_has_a_help_text_and_a_default(group: type) -> None:
    for each in options_of(group):
        assert each.help and each.help[0].islower() and not each.help.endswith("."), each.name
        assert each.default is not dataclasses.MISSING


@pytest.mark.parametrize("group", GROUPS)
def test_no_two_options_of_a_group_share_a_flag(group: type) -> None:
    flags = [flag for each in options_of(group) for flag in each.flags]
    assert len(flags) == len(set(flags))


def test_sampling_options_have_the_names_and_defaults_of_sampling() -> None:
    for each in options_of(SamplingOptions):
        assert getattr(Sampling(), each.name) == each.default


def test_values_are_split_among_groups() -> None:
    model, engine = split({"model": "m", "max_seqs": 3}, ModelOptions, EngineOptions)
    assert (model.model, engine.max_seqs) == ("m", 3)


def test_an_unknown_name_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(InvalidRequest, match="did you mean `max_seqs`"):
        split({"max_seq": 3}, EngineOptions)


@pytest.mark.parametrize(("values", "message"), [
    ({"max_seqs": 0}, "at least 1"), ({"max_seqs": 2.5}, "expected int"), ({"max_seqs": True}, "expected int"),
    ({"prefix_cache": "yes"}, "expected bool"), ({"kv_memory_fraction": 1.5}, "0 to 1"),
    ({"max_seqs": "many"}, "expected int"), ({"kv_memory_fraction": float("nan")}, "0 to 1"),
    ({"kv_memory_fraction": 10**400}, "expected float"), ({"max_seqs": [1]}, "expected int"),
])
def test_a_wrong_value_is_refused_by_name(values: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message) as caught:
        make(EngineOptions, values)
    assert caught.value.param == next(iter(values))


def test_a_value_outside_the_choices_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="plain, gguf"):
        make(ModelOptions, {"format": "pickle"})


def test_one_value_stands_for_a_list_of_one() -> None:
    assert make(SamplingOptions, {"stop": "a"}).stop == ("a",)
    assert make(SamplingOptions, {"stop": ["a", "b"]}).stop == ("a", "b")
    assert make(ModelOptions, {"file": Path("a.gguf")}).file == ("a.gguf",)


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.just(10**400)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=4)


@hypothesis.given(st.sampled_from(GROUPS), st.data())
def test_any_value_is_taken_within_its_range_or_refused_by_name(group: type, data: st.DataObject) -> None:
    each = data.draw(st.sampled_from(options_of(group)))
    try:
        made = make(group, {each.name: data.draw(VALUES)})
    except InvalidRequest as error:
        assert error.param == each.name and len(error.message) < 300
        return
    value = getattr(made, each.name)
    for one in value if each.many else (value,):
        assert one == each.default or (isinstance(one, each.type) and (not each.choices or one in each.choices))
        assert one is None or not isinstance(one, int | float) or (
            (each.low is None or one >= each.low) and (each.high is None or one <= each.high))
    assert make(group, given(made)) == made


def test_the_environment_fills_what_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZONDA_THREADS", "3")
    assert make(ModelOptions, {}).threads == 3
    assert make(ModelOptions, {"threads": 1}).threads == 1
    monkeypatch.setenv("ZONDA_THREADS", "")
    assert make(ModelOptions, {}).threads is None


def test_only_what_differs_from_the_defaults_is_given() -> None:
    assert given(SamplingOptions(top_k=3)) == {"top_k": 3}


def test_a_single_stop_string_and_lists_become_tuples() -> None:
    made = sampling_of({"stop": "x", "stop_token_ids": [1, 2]}, base=Sampling(seed=7))
    assert (made.stop, made.stop_token_ids, made.seed) == (("x",), (1, 2), 7)


def test_folders_follow_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ZONDA_CACHE", "HF_HUB_CACHE", "HF_HOME", "HF_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    found = [str(cache_folder()), str(hub_folder()), str(token_file())]
    assert found == ["/x/zonda", "/x/huggingface/hub", "/x/huggingface/token"]
    monkeypatch.setenv("HF_HOME", "/h")
    assert [str(hub_folder()), str(token_file())] == ["/h/hub", "/h/token"]
    monkeypatch.setenv("HF_HUB_CACHE", "/c")
    monkeypatch.setenv("ZONDA_CACHE", "/z")
    assert [str(hub_folder()), str(cache_folder())] == ["/c", "/z"]


@pytest.mark.parametrize("folder", [cache_folder, hub_folder, token_file])
def test_who_has_no_home_is_told_what_to_set(folder: Callable[[], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("ZONDA_CACHE", "HF_HUB_CACHE", "HF_HOME", "HF_TOKEN_PATH", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(InvalidRequest, match=r"no home folder\nhint: set HOME or XDG_CACHE_HOME"):
        folder()
