"""Vocabularies that lie: each is refused with the name of the field, and none costs much."""
from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vocabularies import KEY

from zonda.errors import InvalidModel, Unsupported, ZondaError
from zonda.text import gguf_tokenizer
from zonda.text.tokenizer import Tokenizer

SOUND: dict[str, dict[str, Any]] = {
    "gpt2": {"model": "gpt2", "tokens": ["a", "b", "ab"], "merges": ["a b"], "token_type": [1, 1, 1]},
    "llama": {"model": "llama", "tokens": ["<unk>", "a", "▁"], "scores": [0.0, 0.0, 0.0], "token_type": [2, 1, 1]},
    "t5": {"model": "t5", "tokens": ["a", "</s>", "<unk>"], "scores": [0.0, 0.0, 0.0], "token_type": [1, 3, 2]},
    "bert": {"model": "bert", "tokens": ["▁a", "b", "[UNK]"], "unknown_token_id": 2, "token_type": [1, 1, 3]},
}


def build(values: Mapping[str, Any]) -> Tokenizer:
    return Tokenizer.from_gguf({KEY + name: value for name, value in values.items() if value is not ...})


@pytest.mark.parametrize("model", SOUND)
def test_the_sound_ones_are_sound(model: str) -> None:
    assert build(SOUND[model]).encode("ab a", add_special=False)


@pytest.mark.parametrize(("change", "says"), [
    ({"model": ...}, "model"),
    ({"tokens": ...}, "tokens"),
    ({"tokens": []}, "tokens"),
    ({"tokens": "abc"}, "tokens"),
    ({"tokens": 5}, "tokens"),
    ({"tokens": ["a", 5, "ab"]}, "tokens"),
    ({"tokens": ["a", "a", "ab"]}, "tokens 0 and 1 are both 'a'"),
    ({"tokens": ["a", "x" * (1 << 16) + "x", "ab"]}, "characters"),
    ({"token_type": [1, 1]}, "token_type has 2 entries for 3 tokens"),
    ({"token_type": [1, 1, 1, 1]}, "token_type"),
    ({"token_type": ["1", "1", "1"]}, "token_type"),
    ({"token_type": 1}, "token_type"),
    ({"bos_token_id": 3}, "bos_token_id"),
    ({"eos_token_id": -1}, "eos_token_id"),
    ({"eot_token_id": 4_000_000_000}, "eot_token_id"),
    ({"eos_token_id": "a"}, "eos_token_id"),
    ({"add_bos_token": 1}, "add_bos_token"),
])
@pytest.mark.parametrize("model", SOUND)
def test_a_field_that_lies_is_named(model: str, change: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidModel, match=says):
        build({**SOUND[model], **change})


@pytest.mark.parametrize(("model", "change", "says"), [
    ("gpt2", {"merges": ...}, "merges"),
    ("gpt2", {"merges": ["ab"]}, "merges"),
    ("gpt2", {"merges": [""]}, "merges"),
    ("gpt2", {"merges": [5]}, "merges"),
    ("gpt2", {"merges": ["a c"]}, "damaged"),
    ("llama", {"scores": [0.0]}, "scores"),
    ("llama", {"scores": "abc"}, "scores"),
    ("llama", {"add_space_prefix": "yes"}, "add_space_prefix"),
    ("t5", {"precompiled_charsmap": [1, 2, 3]}, "damaged"),
    ("t5", {"precompiled_charsmap": [0, 0, 0, 255, 1]}, "damaged"),
    ("t5", {"precompiled_charsmap": [math.inf, 1]}, "damaged"),
    ("t5", {"precompiled_charsmap": 1 << 40}, "precompiled_charsmap"),
    ("t5", {"tokens": ["a"], "scores": [0.0], "token_type": [1]}, "unknown_token_id"),
    ("bert", {"normalizer.lowercase": 3}, "lowercase"),
    ("bert", {"unknown_token_id": ...}, "unknown_token_id"),
])
def test_what_only_one_kind_has_is_checked_too(model: str, change: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidModel, match=says):
        build({**SOUND[model], **change})


def test_too_many_tokens_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_tokenizer, "MOST_TOKENS", 2)
    with pytest.raises(InvalidModel, match="at most 2"):
        build(SOUND["gpt2"])


def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    with pytest.raises(Unsupported, match=r"'rwkv'.*bert.*gpt2.*llama.*t5"):
        build({**SOUND["gpt2"], "model": "rwkv"})


def test_a_token_without_text_is_one_that_no_text_has() -> None:
    tokenizer = build({"model": "gpt2", "tokens": ["a", "", "aa"], "merges": ["a a"], "token_type": [1, 1, 1]})
    assert tokenizer.encode("aaa", add_special=False) == [2, 0]


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_scores_that_are_no_numbers_still_encode(score: float) -> None:
    tokens = ["<unk>", "a", "aa", "aaa"]
    tokenizer = build({"model": "llama", "tokens": tokens, "scores": [0.0, 0.0, score, score],
                       "token_type": [2, 1, 1, 1], "add_space_prefix": False})
    assert tokenizer.decode(tokenizer.encode("aaaaaaa", add_special=False)) == "aaaaaaa"


def test_numbers_may_come_as_arrays() -> None:
    values = SOUND["llama"] | {"scores": np.zeros(3, np.float32), "token_type": np.array([2, 1, 1], np.int32)}
    assert build(values).encode("a", add_special=False) == build(SOUND["llama"]).encode("a", add_special=False)


ANYTHING = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
                        lambda inner: st.lists(inner, max_size=4), max_leaves=6)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(SOUND)), st.data())
def test_whatever_a_field_holds_the_error_is_one_of_ours(model: str, data: st.DataObject) -> None:
    fields = st.sampled_from([*SOUND[model], "pre", "bos_token_id", "scores", "merges", "precompiled_charsmap"])
    values = SOUND[model] | {name: data.draw(ANYTHING) for name in data.draw(st.sets(fields, min_size=1, max_size=3))}
    with contextlib.suppress(ZondaError):
        build(values).encode("ab é", add_special=False)
