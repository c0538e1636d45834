"""Whatever a random model would say, a schema makes it say what is valid under it."""
from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
from fakerunner import Collector
from schemas import SCHEMAS
from spelled import constrained, running, said

from zonda.engine.engine import Engine
from zonda.types import Grammar

COUNT = 6


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with running() as engine:
        yield engine


def answers(engine: Engine, schema: Any, **sampling: Any) -> list[str]:
    """What the finished ones of `COUNT` sequences have said."""
    got = Collector()
    engine.submit(constrained("r", Grammar("json_schema", json.dumps(schema)), n=COUNT, **sampling), got)
    got.wait("r")
    assert {got.finish("r", i) for i in range(COUNT)} <= {"stop", "length"}, got.last("r").error
    return [said(got, "r", i) for i in range(COUNT) if got.finish("r", i) == "stop"]


@pytest.mark.parametrize("name", SCHEMAS)
@pytest.mark.parametrize("sampling", [{"temperature": 1.0}, {"temperature": 0.0}, {"temperature": 3.0, "top_p": 0.9}],
                         ids=["random", "greedy", "wild"])
def test_answers_are_valid(engine: Engine, name: str, sampling: dict[str, Any]) -> None:
    schema = SCHEMAS[name]
    validator = jsonschema_rs.Draft202012Validator(schema, validate_formats=True)
    texts = answers(engine, schema, **sampling)
    assert texts, "none came to its end"
    for text in texts:
        assert [error.message for error in validator.iter_errors(json.loads(text))] == [], text


def test_answers_differ(engine: Engine) -> None:
    assert len(set(answers(engine, SCHEMAS["tree"]))) > 1


def test_white_space_is_at_most_one_space(engine: Engine) -> None:
    bias = {ord(" "): 100.0, ord("\n"): 100.0}
    for text in answers(engine, SCHEMAS["nested"], logit_bias=bias):
        assert "\n" not in text and ": " in text
