"""Tool calls and reasoning over HTTP, with the official client and without."""
from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from fakes import Server, serving
from scripted import ScriptedLLM, scripted

WEATHER = {"type": "function", "function": {"name": "weather", "description": "Tells the weather.", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}
TIME = {"type": "function", "function": {"name": "time"}}
TOOLS: list[Any] = [WEATHER, TIME]
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'
SECOND = '\n<tool_call>\n{"name": "time", "arguments": {}}\n</tool_call>'
THOUGHT = "<think>\nLet me see.\n</think>\n\n"
ASKED: list[Any] = [{"role": "user", "content": "How is it in Paris?"}]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(scripted(), access_log=False) as server:
        yield server


@pytest.fixture
def llm(server: Server) -> ScriptedLLM:
    assert isinstance(server.llm, ScriptedLLM)
    return server.llm


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def choice(server: Server, **fields: Any) -> Any:
    return server.chat("x", tools=TOOLS, **fields).json["choices"][0]


def test_a_call_is_told_in_openais_shape(server: Server, llm: ScriptedLLM) -> None:
    llm.says(CALL)
    answer = choice(server)
    assert answer["finish_reason"] == "tool_calls"
    call = answer["message"].pop("tool_calls")[0]
    assert answer["message"] == {"role": "assistant", "content": None, "refusal": None}
    assert call.pop("id").startswith("call_")
    assert call == {"type": "function", "function": {"name": "weather", "arguments": '{"city":"Paris"}'}}


def test_text_and_several_calls_are_told_together(server: Server, llm: ScriptedLLM) -> None:
    llm.says("I will look.\n" + CALL + SECOND)
    message = choice(server)["message"]
    assert message["content"] == "I will look."
    assert [each["function"]["name"] for each in message["tool_calls"]] == ["weather", "time"]


def test_reasoning_is_told_apart_and_counted(server: Server, llm: ScriptedLLM) -> None:
    llm.says(THOUGHT + "Sunny.")
    answer = server.chat("x").json
    message = answer["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"], message["reasoning"]) == (
        "Sunny.", "Let me see.", "Let me see.")
    assert 12 <= answer["usage"]["completion_tokens_details"]["reasoning_tokens"] <= len(THOUGHT)
    assert answer["usage"]["prompt_tokens_details"] == {"cached_tokens": 2}


def test_reasoning_is_left_out_of_an_answer_where_it_is_not_wanted(server: Server, llm: ScriptedLLM) -> None:
    llm.says(THOUGHT + "Sunny.")
    answer = server.chat("x", reasoning={"exclude": True}).json
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "Sunny.", "refusal": None}
    assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] >= 12
    streamed = server.chat("x", reasoning={"exclude": True}, stream=True)
    assert b"reasoning" not in streamed.body and b"Sun" in streamed.body


def test_a_message_without_reasoning_has_no_field_for_it(server: Server, llm: ScriptedLLM) -> None:
    llm.says("Sunny.")
    assert choice(server)["message"] == {"role": "assistant", "content": "Sunny.", "refusal": None}


def test_a_call_is_streamed_in_fragments(server: Server, llm: ScriptedLLM) -> None:
    llm.says(THOUGHT + CALL + SECOND)
    events = server.chat("x", tools=TOOLS, stream=True, stream_options={"include_usage": True}).events
    deltas = [event["choices"][0]["delta"] for event in events[:-2]]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "Let me see."
    pieces = [delta["tool_calls"][0] for delta in deltas if "tool_calls" in delta]
    first = pieces[0]
    assert first.pop("id").startswith("call_")
    assert first == {"index": 0, "type": "function", "function": {"name": "weather", "arguments": ""}}
    assert all(set(piece) == {"index", "function"} for piece in pieces[1:] if piece["index"] == 0)
    fragments = [piece["function"]["arguments"] for piece in pieces if piece["index"] == 0]
    assert len(fragments) > 4 and json.loads("".join(fragments)) == {"city": "Paris"}
    assert events[-3]["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "tool_calls"}
    assert events[-2]["usage"]["completion_tokens_details"]["reasoning_tokens"] > 0


def test_a_stream_that_begins_with_a_call_has_no_content(server: Server, llm: ScriptedLLM) -> None:
    llm.says(CALL)
    events = server.chat("x", tools=TOOLS, stream=True).events
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": None}


def test_each_choice_has_its_own_calls(server: Server, llm: ScriptedLLM) -> None:
    llm.says(CALL, "Sunny.")
    choices = server.chat("x", tools=TOOLS, n=2).json["choices"]
    assert [each["finish_reason"] for each in choices] == ["tool_calls", "stop"]
    assert choices[1]["message"]["content"] == "Sunny."


def test_a_call_that_was_cut_short_ends_for_its_length(server: Server, llm: ScriptedLLM) -> None:
    llm.says(CALL[:57], finish="length")
    answer = choice(server)
    assert answer["finish_reason"] == "length"
    assert answer["message"]["tool_calls"][0]["function"]["arguments"].startswith('{"city":"')


@pytest.mark.parametrize("end", [5, 14, 25])
def test_a_call_that_was_cut_before_its_name_is_no_text(server: Server, llm: ScriptedLLM, end: int) -> None:
    llm.says("I will look.\n" + CALL[:end], finish="length")
    message = choice(server)["message"]
    assert message["content"].rstrip() == "I will look." and "tool_calls" not in message


def test_logprobs_cover_all_tokens_once(server: Server, llm: ScriptedLLM) -> None:
    llm.says("Hi. " + CALL)
    events = server.chat("x", tools=TOOLS, stream=True, logprobs=True).events
    parts = [event["choices"][0]["logprobs"] for event in events[:-1] if event["choices"]]
    tokens = [entry["token"] for part in parts if part for entry in part["content"]]
    assert "".join(tokens) == "Hi. " + CALL


@pytest.mark.parametrize(("given", "names", "kind"), [
    ("auto", None, None), ("none", None, None), ("required", ["weather", "time"], "lark"),
    ({"type": "function", "function": {"name": "time"}}, ["time"], "lark"),
    ({"type": "function", "name": "time"}, ["time"], "lark"),
    ({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [
        {"type": "function", "function": {"name": "weather"}}]}}, ["weather"], "lark"),
    ({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [
        {"type": "function", "function": {"name": "weather"}}]}}, None, None)])
def test_a_choice_becomes_a_grammar(server: Server, llm: ScriptedLLM, given: Any, names: Any, kind: str | None) -> None:
    llm.says("x")
    assert server.chat("x", tools=TOOLS, tool_choice=given).status == 200
    grammar = llm.requests[-1].grammar
    assert (grammar.kind if grammar else None) == kind
    if grammar:
        assert [name for name in ("weather", "time") if f'"{name}"' in grammar.source] == names


def test_tools_that_are_not_allowed_are_shown_but_not_called(server: Server, llm: ScriptedLLM) -> None:
    llm.says(CALL)
    allowed = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "time"}]}
    assert choice(server, tool_choice=allowed)["finish_reason"] == "tool_calls"
    assert len(llm.template.calls[-1]["tools"]) == 2  # type: ignore[union-attr]


def test_one_call_alone_is_told_where_calls_may_not_be_parallel(server: Server, llm: ScriptedLLM) -> None:
    llm.says(CALL + SECOND)
    message = choice(server, parallel_tool_calls=False)["message"]
    assert [each["function"]["name"] for each in message["tool_calls"]] == ["weather"]
    server.chat("x", tools=TOOLS, tool_choice="required", parallel_tool_calls=False)
    assert "){0,15}" not in llm.requests[-1].grammar.source  # type: ignore[union-attr]


def test_functions_are_told_under_their_old_names(server: Server, llm: ScriptedLLM) -> None:
    llm.says(CALL + SECOND)
    fields: dict[str, Any] = {"functions": [WEATHER["function"]], "function_call": "auto"}
    answer = server.chat("x", **fields).json["choices"][0]
    assert answer["finish_reason"] == "function_call" and "tool_calls" not in answer["message"]
    assert answer["message"]["function_call"] == {"name": "weather", "arguments": '{"city":"Paris"}'}
    events = server.chat("x", stream=True, **fields).events
    pieces = [event["choices"][0]["delta"].get("function_call") for event in events[:-1]]
    assert next(filter(None, pieces)) == {"name": "weather", "arguments": ""}
    assert events[-2]["choices"][0]["finish_reason"] == "function_call"


def test_results_of_functions_reach_the_template(server: Server, llm: ScriptedLLM) -> None:
    llm.says("ok")
    server.post("/v1/chat/completions", {"messages": [
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "5"}]})
    call, result = llm.template.calls[-1]["messages"]  # type: ignore[union-attr]
    assert call["tool_calls"] == [{"type": "function", "function": {"name": "f", "arguments": "{}"}}]
    assert result == {"role": "tool", "name": "f", "content": "5"}


def test_what_only_concerns_openai_changes_nothing(server: Server, llm: ScriptedLLM) -> None:
    llm.says("ok")
    reply = server.chat("x", store=True, metadata={"a": "b"}, user="me", safety_identifier="s", service_tier="auto",
                        prompt_cache_key="k", verbosity="low", prediction={"type": "content", "content": "x"},
                        modalities=["text"])
    assert reply.json["choices"][0]["message"]["content"] == "ok"


def test_the_client_makes_a_round_trip(client: openai.OpenAI, llm: ScriptedLLM) -> None:
    llm.says(THOUGHT + CALL)
    answer = client.chat.completions.create(model="scripted", messages=ASKED, tools=TOOLS)
    message = answer.choices[0].message
    assert message.tool_calls and message.reasoning_content == "Let me see."  # type: ignore[attr-defined]
    llm.says("Sunny.")
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "sun"}
    again = client.chat.completions.create(model="scripted", tools=TOOLS,
                                           messages=[*ASKED, message.model_dump(exclude_none=True), result])
    assert again.choices[0].message.content == "Sunny."
    shown = llm.template.calls[-1]["messages"]  # type: ignore[union-attr]
    assert [each["role"] for each in shown] == ["user", "assistant", "tool"]
    assert shown[1]["reasoning_content"] == "Let me see."


def test_the_clients_stream_helper_gathers_calls(client: openai.OpenAI, llm: ScriptedLLM) -> None:
    llm.says("Well. " + CALL + SECOND)
    with client.chat.completions.stream(model="scripted", messages=ASKED, tools=TOOLS) as stream:
        kinds = {event.type for event in stream}
        message = stream.get_final_completion().choices[0].message
    assert {"tool_calls.function.arguments.delta", "tool_calls.function.arguments.done", "content.delta"} <= kinds
    assert [(each.function.name, each.function.arguments) for each in message.tool_calls or ()] == [
        ("weather", '{"city":"Paris"}'), ("time", "{}")]


def test_the_asynchronous_client_streams_calls(server: Server, llm: ScriptedLLM) -> None:
    llm.says(CALL)

    async def ask() -> str:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
            chunks = await client.chat.completions.create(model="scripted", messages=ASKED, tools=TOOLS, stream=True)
            return "".join([call.function.arguments or "" async for chunk in chunks if chunk.choices
                            for call in chunk.choices[0].delta.tool_calls or () if call.function])

    assert asyncio.run(ask()) == '{"city":"Paris"}'
