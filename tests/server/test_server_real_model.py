"""A real model behind the server says what it says without one."""
from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
from fakes import Server

pytestmark = pytest.mark.e2e
ASKED: list[Any] = [{"role": "system", "content": "Answer briefly, and in the language of the question. " * 8},
                    {"role": "user", "content": "Name three colours. 🎨"}]


@pytest.fixture
def client(real: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{real.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def streamed(client: openai.OpenAI) -> str:
    chunks = client.chat.completions.create(model="default", messages=ASKED, temperature=0, max_tokens=32, stream=True)
    return "".join(each.choices[0].delta.content or "" for each in chunks)


def test_an_answer_is_the_same_with_and_without_the_server(real: Server, client: openai.OpenAI) -> None:
    assert real.llm
    expected = asyncio.run(real.llm.chat(ASKED, temperature=0, max_tokens=32)).text
    answer = client.chat.completions.create(model="default", messages=ASKED, temperature=0, max_tokens=32,
                                            logprobs=True)
    assert answer.choices[0].message.content == expected == streamed(client) and expected
    assert answer.choices[0].logprobs and answer.choices[0].logprobs.content
    spelled = b"".join(bytes(each.bytes or ()) for each in answer.choices[0].logprobs.content)
    assert spelled.decode("utf-8", "replace").strip() == expected.strip()


def test_streams_side_by_side_say_what_each_says_alone(real: Server, client: openai.OpenAI) -> None:
    alone = streamed(client)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: streamed(client), range(4))) == [alone] * 4


def test_a_second_question_finds_the_first_ones_beginning(client: openai.OpenAI) -> None:
    for _ in range(2):
        answer = client.chat.completions.create(model="default", messages=ASKED, max_tokens=1)
    assert answer.usage and answer.usage.prompt_tokens_details and answer.usage.prompt_tokens_details.cached_tokens


def test_a_prompt_is_scored(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="default", prompt="The capital of France is Paris", echo=True, logprobs=1,
                                       max_tokens=0)
    logprobs = answer.choices[0].logprobs
    assert answer.choices[0].text == "The capital of France is Paris"
    assert logprobs and logprobs.tokens and logprobs.token_logprobs
    assert "".join(logprobs.tokens) == answer.choices[0].text and max(logprobs.token_logprobs[1:]) > -2


def test_answers_of_a_real_model_keep_to_a_schema(real: Server) -> None:
    schema = {"type": "object", "additionalProperties": False,
              "properties": {"city": {"type": "string", "maxLength": 20}, "large": {"type": "boolean"}},
              "required": ["city", "large"]}
    form = {"type": "json_schema", "json_schema": {"name": "city", "schema": schema}}
    reply = real.chat("Describe Paris.", response_format=form, temperature=0.7, seed=1, n=3, max_tokens=60)
    for choice in reply.json["choices"]:
        assert choice["finish_reason"] == "stop" and set(json.loads(choice["message"]["content"])) == {"city", "large"}


WEATHER: list[Any] = [{"type": "function", "function": {"name": "get_weather", "parameters": {
    "type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"],
    "additionalProperties": False}}}]


def test_a_model_that_must_call_a_tool_does_whole_and_streamed(client: openai.OpenAI) -> None:
    fields: dict[str, Any] = {"model": "default", "tools": WEATHER, "temperature": 0, "max_tokens": 80,
                              "parallel_tool_calls": False,
                              "messages": [{"role": "user", "content": "What is the weather in Paris?"}]}
    for choice in ("required", {"type": "function", "function": {"name": "get_weather"}}):
        message = client.chat.completions.create(tool_choice=choice, **fields).choices[0].message
        assert message.content is None and message.tool_calls
        call = message.tool_calls[0].function  # type: ignore[union-attr]
        assert call.name == "get_weather" and set(json.loads(call.arguments)) == {"city"}
        with client.chat.completions.stream(tool_choice=choice, **fields) as stream:
            for _ in stream:
                pass
            streamed = stream.get_final_completion().choices[0]
        assert streamed.finish_reason == "tool_calls"
        assert streamed.message.tool_calls[0].function.arguments == call.arguments  # type: ignore[index]


def test_results_of_tools_can_be_given_back(client: openai.OpenAI) -> None:
    function = {"name": "get_weather", "arguments": '{"city":"Rome"}'}
    call: Any = {"id": "call_1", "type": "function", "function": function}
    messages: list[Any] = [{"role": "user", "content": "How is Rome?"},
                           {"role": "assistant", "content": None, "tool_calls": [call]},
                           {"role": "tool", "tool_call_id": "call_1", "content": "Sunny, 20 degrees."}]
    answer = client.chat.completions.create(model="default", messages=messages, tools=WEATHER, tool_choice="none",
                                            temperature=0, max_tokens=24)
    assert answer.choices[0].message.content and not answer.choices[0].message.tool_calls
