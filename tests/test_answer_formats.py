"""What callers say of an answer's form, as a grammar, and the value that comes of the text."""
from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import pydantic
import pytest
from letters import PATIENCE, LettersRunner, LettersTemplate, LettersTokenizer, letters_engine

from zonda import LLM, AsyncLLM, Grammar, InvalidRequest, ZondaError
from zonda.formats import take_format


class City(pydantic.BaseModel):
    name: str
    people: int


@dataclass
class Point:
    x: int
    y: int


class Pair(msgspec.Struct):
    left: Literal["a", "b"]
    right: list[int]


def schema_of(value: Any) -> Any:
    form = take_format({"schema": value})
    assert form.grammar and form.grammar.kind == "json_schema"
    return json.loads(form.grammar.source)


@pytest.fixture
def llm() -> LLM:
    with LLM.from_parts(letters_engine(LettersRunner()), LettersTokenizer(), LettersTemplate()) as llm:
        yield llm


def test_a_schema_may_be_a_mapping_or_its_text() -> None:
    assert schema_of({"type": "null"}) == schema_of('{"type": "null"}') == {"type": "null"}


@pytest.mark.parametrize(("kind", "text", "value"), [
    (City, '{"name": "Rome", "people": 3}', City(name="Rome", people=3)), (Point, '{"x":1,"y":2}', Point(1, 2)),
    (Pair, '{"left":"a","right":[1]}', Pair("a", [1])), (list[int], "[1, 2]", [1, 2]), (int, "5", 5),
    (Literal["x", "y"], '"x"', "x"), (pydantic.TypeAdapter(list[City]), '[{"name":"a","people":1}]',
                                      [City(name="a", people=1)]),
    ({"type": "object"}, '{"a": 1}', {"a": 1}), (pydantic.TypeAdapter(set[int]), "[1, 2]", {1, 2})])
def test_a_type_has_a_schema_and_reads_the_answer(kind: Any, text: str, value: Any) -> None:
    assert isinstance(schema_of(kind), dict)
    read = take_format({"schema": kind}).read
    assert read and read(text) == value


class Free(City, extra="allow"):
    near: City


@pytest.mark.parametrize("kind", [City, Point, Pair, pydantic.TypeAdapter(list[City])], ids=str)
def test_objects_of_a_type_have_its_members_alone(kind: Any) -> None:
    schema = schema_of(kind)
    objects = [each for each in (schema, *schema.get("$defs", {}).values()) if "properties" in each]
    assert [each["additionalProperties"] for each in objects] == [False]


def test_a_type_that_takes_other_members_may_have_them() -> None:
    schema = schema_of(Free)
    assert schema["additionalProperties"] is True and schema["$defs"]["City"]["additionalProperties"] is False
    assert "additionalProperties" not in schema_of({"type": "object", "properties": {"a": {}}})


def test_what_is_taken_is_gone_and_the_rest_stays() -> None:
    options = {"regex": "a", "temperature": 0, "schema": None}
    assert take_format(options).grammar == Grammar("regex", "a") and options == {"temperature": 0}
    assert take_format(options).grammar is None


@pytest.mark.parametrize(("options", "param"), [
    ({"schema": int, "regex": "a"}, "regex"), ({"schema": 5}, "schema"), ({"schema": open}, "schema"),
    ({"grammar": "a"}, "grammar"), ({"regex": 5}, "regex"), ({"choices": "abc"}, "choices")])
def test_what_makes_no_sense_is_refused(options: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        take_format(options)
    assert caught.value.param == param


def test_chat_complete_and_stream_keep_to_the_form(llm: LLM) -> None:
    assert llm.chat("a", choices=["bd", "xy"]).text == "bd"
    assert llm.complete("a", regex="[x-z]{3}", temperature=0).text == "xyz"
    assert "".join(chunk.text for chunk in llm.stream("a", choices=["cab"])) == "cab"
    assert [each.text for each in llm.complete(["a", "b"], grammar=Grammar("regex", "q"))] == ["q", "q"]


async def test_the_same_for_an_event_loop() -> None:
    async with AsyncLLM.from_parts(letters_engine(), LettersTokenizer(), LettersTemplate()) as llm:
        assert (await llm.chat("a", choices=["bd", "xy"])).text == "bd"
        assert (await llm.complete("a", regex="x{3}")).text == "xxx"
        assert (await llm.stream("a", choices=["cab"]).completion()).text == "cab"
        with pytest.raises(InvalidRequest, match="unclosed"):
            await llm.chat("a", regex="(")


async def test_a_grammar_that_takes_long_does_not_hold_up_the_event_loop() -> None:
    begun, go_on = threading.Event(), threading.Event()
    async with AsyncLLM.from_parts(letters_engine(), LettersTokenizer(), LettersTemplate()) as llm:
        make = llm.engine.grammars._make

        def slowly(grammar: Grammar) -> Any:
            begun.set()
            assert go_on.wait(PATIENCE)
            return make(grammar)

        llm.engine.grammars._make = slowly  # type: ignore[method-assign]
        stream, other = llm.stream("a", choices=["cab"]), llm.generate("a", grammar=Grammar("regex", "xyz"))
        dropped = llm.generate("a", grammar=Grammar("regex", "q"))
        texts = asyncio.gather(stream.completion(), other.completion())
        gone = asyncio.create_task(anext(dropped))
        assert await asyncio.to_thread(begun.wait, PATIENCE)
        assert (await llm.complete("a", max_tokens=2)).text == "bc" and not texts.done()
        dropped.cancel()
        go_on.set()
        assert [each.text for each in await texts] == ["cab", "xyz"]
        with pytest.raises(StopAsyncIteration):
            await gone
        assert (await llm.generate("a", grammar=Grammar("regex", "xyz")).completion()).text == "xyz"


async def test_a_grammar_that_cannot_be_compiled_fails_the_first_chunk() -> None:
    async with AsyncLLM.from_parts(letters_engine(), LettersTokenizer(), LettersTemplate()) as llm:
        stream = llm.stream("a", regex="(")
        with pytest.raises(InvalidRequest, match="unclosed"):
            await anext(stream)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


@pytest.mark.parametrize(("option", "value"), [
    ("schema", {"type": "objekt"}), ("regex", "("), ("choices", []), ("grammar", Grammar("regex", "("))], ids=str)
async def test_errors_name_the_option_that_a_form_was_given_as(llm: LLM, option: str, value: Any) -> None:
    found = []
    for ask in (llm.chat, llm.complete, lambda *given, **form: [*llm.stream(*given, **form)]):
        with pytest.raises(InvalidRequest) as caught:
            ask("a", **{option: value})
        found.append(caught.value.param)
    async with AsyncLLM.from_parts(letters_engine(), LettersTokenizer(), LettersTemplate()) as other:
        for _ in range(2):  # compiled, then known to be wrong
            with pytest.raises(InvalidRequest) as caught:
                await other.stream("a", **{option: value}).completion()
            found.append(caught.value.param)
    assert found == [option] * 5


def test_an_answer_without_a_schema_or_cut_short_stands_for_no_value(llm: LLM) -> None:
    with pytest.raises(ZondaError, match="no value"):
        _ = llm.chat("a", regex="b").parsed
    answer = llm.complete("a", regex="b{9}", max_tokens=3).readable(json.loads)
    with pytest.raises(ZondaError, match="not whole"):
        _ = answer.parsed


def test_a_set_has_different_items() -> None:
    assert schema_of(pydantic.TypeAdapter(set[str]))["uniqueItems"] is True


def test_a_grammar_that_cannot_be_compiled_is_refused(llm: LLM) -> None:
    with pytest.raises(InvalidRequest, match="contains"):
        llm.chat("a", schema={"type": "array", "contains": {}})
