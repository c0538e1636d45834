"""A real model says the same by every protocol, and calls the tools that it must call."""
from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from fakes import Server

pytestmark = pytest.mark.e2e
ASKED: list[Any] = [{"role": "user", "content": "Name three colours."}]
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"x": {"enum": [3, 4]}}, "required": ["x"],
                          "additionalProperties": False}


@pytest.fixture
def one(real: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{real.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def other(real: Server) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=real.url, api_key="none", max_retries=0) as client:
        yield client


def test_an_answer_is_the_same_by_every_protocol(real: Server, one: openai.OpenAI, other: anthropic.Anthropic) -> None:
    assert real.llm
    expected = asyncio.run(real.llm.chat(ASKED, temperature=0, max_tokens=24)).text
    response = one.responses.create(model="default", input=ASKED, temperature=0, max_output_tokens=24)
    with one.responses.stream(model="default", input=ASKED, temperature=0, max_output_tokens=24) as stream:
        streamed = "".join(each.delta for each in stream if each.type == "response.output_text.delta")
    cold: Any = {"extra_body": {"temperature": 0}}
    message = other.messages.create(model="default", messages=ASKED, max_tokens=24, **cold)
    with other.messages.stream(model="default", messages=ASKED, max_tokens=24, **cold) as texts:
        gathered = "".join(texts.text_stream)
    assert response.output_text == streamed == message.content[0].text == gathered == expected  # type: ignore[union-attr]


def test_a_conversation_goes_on_from_a_stored_response(one: openai.OpenAI) -> None:
    first = one.responses.create(model="default", input="Hello!", temperature=0, max_output_tokens=8)
    second = one.responses.create(model="default", input="And now?", previous_response_id=first.id, temperature=0,
                                  max_output_tokens=8)
    whole = one.responses.create(model="default", temperature=0, max_output_tokens=8, input=[
        {"role": "user", "content": "Hello!"}, {"role": "assistant", "content": first.output_text},
        {"role": "user", "content": "And now?"}])
    assert second.output_text == whole.output_text and second.usage and whole.usage
    assert second.usage.input_tokens == whole.usage.input_tokens


def test_a_tool_that_must_be_called_is_called(one: openai.OpenAI, other: anthropic.Anthropic) -> None:
    response = one.responses.create(
        model="default", input="Look at 3.", max_output_tokens=200, tool_choice={"type": "function", "name": "look"},
        tools=[{"type": "function", "name": "look", "parameters": SCHEMA, "strict": True}])
    call: Any = response.output[0]
    assert call.name == "look" and isinstance(json.loads(call.arguments)["x"], int)
    message = other.messages.create(model="default", max_tokens=200, tool_choice={"type": "tool", "name": "look"},
                                    messages=[{"role": "user", "content": "Look at 3."}],
                                    tools=[{"name": "look", "input_schema": SCHEMA}])  # type: ignore[typeddict-item]
    used: Any = message.content[0]
    assert (used.type, used.name, message.stop_reason) == ("tool_use", "look", "tool_use")
    assert isinstance(used.input["x"], int)


def test_a_tool_without_parameters_is_called_without_arguments(one: openai.OpenAI, other: anthropic.Anthropic) -> None:
    response = one.responses.create(  # type: ignore[call-overload]
        model="default", input="Look at 3.", max_output_tokens=200, tool_choice="required", parallel_tool_calls=False,
        tools=[{"type": "function", "name": "look"}])
    chat: Any = one.chat.completions.create(
        model="default", messages=ASKED, max_tokens=200, tool_choice="required", parallel_tool_calls=False,
        tools=[{"type": "function", "function": {"name": "look"}}])
    message: Any = other.messages.create(
        model="default", max_tokens=200, messages=ASKED,
        tool_choice={"type": "tool", "name": "look", "disable_parallel_tool_use": True},
        tools=[{"name": "look", "input_schema": {"type": "object", "properties": {}}}])
    assert json.loads(response.output[0].arguments) == message.content[0].input == {}
    assert json.loads(chat.choices[0].message.tool_calls[0].function.arguments) == {}


def test_a_text_has_the_form_that_was_asked_for(one: openai.OpenAI, other: anthropic.Anthropic) -> None:
    response = one.responses.create(model="default", input="A number.", max_output_tokens=200, text={
        "format": {"type": "json_schema", "name": "number", "schema": SCHEMA}})
    message = other.messages.create(model="default", max_tokens=200, messages=ASKED,
                                    output_config={"format": {"type": "json_schema", "schema": SCHEMA}})
    for text in (response.output_text, message.content[0].text):  # type: ignore[union-attr]
        assert isinstance(json.loads(text)["x"], int)


def test_a_prompt_is_counted_as_it_is_read(one: openai.OpenAI, other: anthropic.Anthropic) -> None:
    counted = other.messages.count_tokens(model="default", messages=ASKED).input_tokens
    response = one.responses.create(model="default", input=ASKED, max_output_tokens=1)
    assert response.usage and response.usage.input_tokens == counted
    assert one.responses.input_tokens.count(model="default", input=ASKED).input_tokens == counted
