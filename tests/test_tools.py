"""Python functions as tools: their schemas, and conversations in which they are called."""
from __future__ import annotations

import asyncio
import functools
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pydantic
import pytest
from letters import LettersTemplate, LettersTokenizer, letters_engine

import zonda
from zonda import LLM, AsyncLLM, Call, Completion, InvalidRequest, Usage
from zonda.completion import Choice
from zonda.tools import Tool, schemas, tool


@dataclass
class Place:
    city: str
    country: str = "FR"


@tool
def weather(place: Place, days: int = 1, unit: Literal["c", "f"] = "c",
            tags: list[str] | None = None) -> dict[str, Any]:
    """Tells the weather.

    For some days.

    Args:
        place: Where to
            look.
        days (int): How many.

    Returns:
        The weather.
    """
    return {"city": place.city, "days": days}


def test_a_function_becomes_a_tool_by_its_hints_and_its_docstring() -> None:
    schema = weather.schema["function"]
    assert (schema["name"], schema["description"]) == ("weather", "Tells the weather.\n\nFor some days.")
    parameters = schema["parameters"]
    assert parameters["required"] == ["place"] and parameters["additionalProperties"] is False
    assert parameters["properties"]["place"] == {"$ref": "#/$defs/Place", "description": "Where to look."}
    assert parameters["properties"]["days"] == {"type": "integer", "description": "How many.", "default": 1}
    assert parameters["properties"]["unit"] == {"enum": ["c", "f"], "default": "c"}
    assert parameters["$defs"]["Place"]["required"] == ["city"]


def test_a_tool_can_be_named_and_described_otherwise() -> None:
    @tool(name="sum", description="Adds.")
    def add(a: Annotated[int, "the first"], b: int) -> int:
        """:param b: the second"""
        return a + b

    function = add.schema["function"]
    assert (function["name"], function["description"]) == ("sum", "Adds.")
    described = [each["description"] for each in function["parameters"]["properties"].values()]
    assert described == ["the first", "the second"]
    assert add(1, b=2) == 3


def test_a_tool_is_called_with_json_and_answers_with_text() -> None:
    assert weather.call('{"place": {"city": "Paris"}, "days": "3"}') == '{"city":"Paris","days":3}'


def test_an_error_of_a_tool_is_told_to_the_model() -> None:
    for arguments in ("{", '{"place": 5}', '{"nothing": 1}'):
        assert weather.call(arguments).startswith("error: ")


def test_plain_functions_are_tools_too() -> None:
    def now() -> str:
        return "noon"

    given: dict[str, Any] = {"type": "function", "function": {"name": "f"}}
    assert [each["function"]["name"] for each in schemas([weather, now, given])] == ["weather", "now", "f"]


@pytest.fixture
def llm(monkeypatch: pytest.MonkeyPatch) -> Iterator[LLM]:
    with LLM.from_parts(letters_engine(), LettersTokenizer(), LettersTemplate()) as llm:  # type: ignore[arg-type]
        yield llm


def answers(*choices: tuple[str, tuple[Call, ...]]) -> list[Completion]:
    return [Completion((Choice(0, text, (), "stop", calls=calls),), Usage()) for text, calls in choices]


def test_functions_are_called_until_the_model_has_its_answer(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Call("1", "weather", '{"place": {"city": "Rome"}}')
    script = answers(("", (first, Call("2", "none", "{}"))), ("Sunny", ()))
    seen: list[Any] = []

    def chat(messages: Any, **options: Any) -> Completion:
        seen.append(list(messages))
        return script[len(seen) - 1]

    monkeypatch.setattr(llm, "chat", chat)
    run = llm.run_tools("How is it?", [weather])
    assert str(run) == "Sunny" and len(seen) == 2
    assert [each["role"] for each in run.messages] == ["user", "assistant", "tool", "tool", "assistant"]
    assert run.messages[2] == {"role": "tool", "tool_call_id": "1", "name": "weather",
                               "content": '{"city":"Rome","days":1}'}
    assert run.messages[3]["content"] == "error: there is no tool 'none'"


def test_rounds_are_bounded(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    again = answers(("", (Call("1", "weather", "{}"),)))[0]
    monkeypatch.setattr(llm, "chat", lambda messages, **options: again)
    assert llm.run_tools("x", [weather], max_rounds=3).answer.calls
    for tools, rounds in (([], 1), ([weather], 0)):
        with pytest.raises(InvalidRequest):
            llm.run_tools("x", tools, max_rounds=rounds)


async def test_functions_are_called_from_an_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    script = iter(answers(("", (Call("1", "weather", "{}"),)), ("Sunny", ())))

    async def chat(messages: Any, **options: Any) -> Completion:
        return next(script)

    async with AsyncLLM.from_parts(letters_engine(), LettersTokenizer(), LettersTemplate()) as llm:  # type: ignore
        monkeypatch.setattr(llm, "chat", chat)
        assert (await llm.run_tools("How is it?", [weather])).text == "Sunny"


class Echo(LettersTemplate):
    def render(self, messages: Any, *, tools: Any = None, **kwargs: Any) -> str:  # type: ignore[override]
        self.tools = tools
        return super().render(messages)


def test_a_chat_tells_of_its_tools_and_gives_calls() -> None:
    template = Echo()
    with LLM.from_parts(letters_engine(), LettersTokenizer(), template) as llm:  # type: ignore[arg-type]
        answer = llm.chat("wx", tools=[weather])
        assert (answer.text, answer.calls, answer.thought, answer.finish_reason) == ("yz", (), "", "stop")
        assert template.tools == [weather.schema]
        assert llm.chat("wx", tools=[weather], tool_choice="none").text == "yz" and template.tools is None


def test_tools_are_public() -> None:
    assert zonda.tool is tool and zonda.Tool is Tool

def test_a_result_that_is_no_json_is_an_error_too() -> None:
    endless: list[Any] = []
    endless.append(endless)
    for result in (endless, ["\ud800"], {(): endless}):
        assert Tool(lambda result=result: result, "f", "", {}).call("{}").startswith("error: ")


@pytest.mark.parametrize("made", ["f", 5, None])
def test_what_is_no_function_is_no_tool(made: Any) -> None:
    with pytest.raises(InvalidRequest, match="expected a function"):
        schemas([made])


@tool
async def look(place: str) -> dict[str, str]:
    """Looks."""
    if place == "nowhere":
        raise ValueError("no such place")
    await asyncio.sleep(0)
    return {"seen": place, "by": threading.current_thread().name}


class Looking:
    async def __call__(self, place: str) -> str:
        return place


async def test_coroutine_functions_are_awaited_in_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = (Call("1", "look", '{"place": "sea"}'), Call("2", "look", '{"place": "nowhere"}'),
             Call("3", "Looking", '{"place": "sky"}'), Call("4", "weather", '{"place": {"city": "Rome"}}'))
    script = iter(answers(("", calls), ("Seen", ())))

    async def chat(messages: Any, **options: Any) -> Completion:
        return next(script)

    async with AsyncLLM.from_parts(letters_engine(), LettersTokenizer(), LettersTemplate()) as llm:  # type: ignore
        monkeypatch.setattr(llm, "chat", chat)
        run = await llm.run_tools("What is there?", [look, Looking(), weather])
    results = [each["content"] for each in run.messages if each["role"] == "tool"]
    assert results == [f'{{"seen":"sea","by":"{threading.current_thread().name}"}}',
                       "error: ValueError: no such place", "sky", '{"city":"Rome","days":1}']


def test_a_coroutine_function_needs_an_event_loop(llm: LLM) -> None:
    assert look.schema["function"]["description"] == "Looks."
    for each in (look, Looking()):
        with pytest.raises(InvalidRequest, match="is a coroutine function") as caught:
            llm.run_tools("x", [each])
        assert caught.value.hint == "AsyncLLM awaits tools"



class Size(pydantic.BaseModel):
    width: int


SMALL = Size(width=2)


class Parcel(pydantic.BaseModel):
    name: str
    sizes: list[Size] = []
    inside: Parcel | None = None


def test_pydantic_models_are_arguments_and_results() -> None:
    @tool
    def send(parcel: Parcel, others: list[Size], size: Size = SMALL) -> Parcel:
        assert isinstance(parcel.sizes[0], Size) and isinstance(others[0], Size)
        return parcel

    parameters = send.schema["function"]["parameters"]
    assert {"Parcel", "Size"} <= {*parameters["$defs"]} and parameters["properties"]["size"]["default"] == {"width": 2}
    refs = set(re.findall(r'"\$ref": "#/\$defs/(\w+)"', json.dumps(parameters)))
    assert refs <= {*parameters["$defs"]}
    given = '{"parcel": {"name": "x", "sizes": [{"width": 1}]}, "others": [{"width": 3}]}'
    assert json.loads(send.call(given)) == {"name": "x", "sizes": [{"width": 1}], "inside": None}
    assert send.call('{"parcel": {"name": "x", "sizes": [{"width": "wide"}]}, "others": []}').startswith("error: ")


def test_whatever_can_be_called_is_a_tool() -> None:
    class Adder:
        def __call__(self, x: int, y: int = 1) -> int:
            return x + y

        def twice(self, x: int) -> int:
            return 2 * x

    assert schemas([Adder()])[0]["function"]["name"] == "Adder"
    assert tool(Adder().twice).call('{"x": "4"}') == "8"
    assert tool(name="add")(functools.partial(Adder().__call__, y=3)).call('{"x": 4}') == "7"


def test_what_cannot_be_told_to_a_model_is_refused() -> None:
    def run(code: threading.Thread) -> None:
        """Runs."""

    for function, said in ((lambda x: x, "no name for a tool"), (run, "arguments of run cannot be told to a model")):
        with pytest.raises(InvalidRequest, match=said):
            tool(function)
    with pytest.raises(InvalidRequest, match="`x` cannot be given by its name"):
        tool(name="x")(lambda x, /: x)
