"""Every answer and every event is what the vendors' own packages define, checked strictly: nothing required is left
out, and nothing is there that they do not know, save what is Zonda's own."""
from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from anthropic.types import Message, MessageTokensCount, ModelInfo, RawMessageStreamEvent
from fakes import WIND, Server, serving
from openai.types import Completion, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.conversations import Conversation, ConversationDeletedResource, ConversationItemList
from openai.types.responses import Response, ResponseItem, ResponseStreamEvent
from openai.types.responses.input_token_count_response import InputTokenCountResponse
from pydantic import BaseModel, TypeAdapter
from script import speaking

OURS = {"timings", "reasoning", "reasoning_content", "root", "parent", "aliases", "max_model_len", "capabilities",
        "status", "store", "presence_penalty", "frequency_penalty"}
"""What their types lack: extensions, what says how a model stands, and three fields that a response really has."""
TOLD = frozenset({"name", "bytes"})
"""What the published description of the events has and the package's types lack."""
TOOL = {"name": "look", "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}}}
FLAT, NESTED = {"type": "function", **TOOL}, {"type": "function", "function": TOOL}
MESSAGES = [{"role": "user", "content": "x"}]


@pytest.fixture(scope="module")
def speaker() -> Iterator[Server]:
    """Thinks, speaks and calls."""
    with serving(speaking(), access_log=False) as server:
        yield server


adapter = cache(TypeAdapter)


def unknown(value: Any) -> Iterator[str]:
    """The names of fields that the types do not have."""
    if isinstance(value, BaseModel):
        yield from (value.model_extra or {})
        for name in type(value).model_fields:
            yield from unknown(getattr(value, name))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from unknown(each)


def check(kind: Any, value: Any, also: frozenset[str] = frozenset()) -> None:
    found = adapter(kind).validate_python(value)
    assert set(unknown(found)) <= OURS | also, value


@pytest.mark.parametrize("fields", [
    {}, {"n": 2, "logprobs": True, "top_logprobs": 2}, {"max_tokens": 1}, {"stop": "y"},
    {"stream_options": {"include_usage": True}}], ids=str)
def test_chats_are_openais(server: Server, fields: dict[str, Any]) -> None:
    body = {"model": "chain", "messages": [{"role": "user", "content": "#"}]} | fields
    if "stream_options" not in fields:
        check(ChatCompletion, server.post("/v1/chat/completions", body).json)
    *chunks, done = server.post("/v1/chat/completions", body | {"stream": True}).events
    assert done == "[DONE]" and len(chunks) > 2
    for chunk in chunks:
        check(ChatCompletionChunk, chunk)


@pytest.mark.parametrize("fields", [{"tools": [NESTED]}, {"functions": [TOOL]}], ids=list)
def test_calls_in_chats_are_openais(speaker: Server, fields: dict[str, Any]) -> None:
    body = {"model": "chain", "messages": MESSAGES} | fields
    for chunk in speaker.post("/v1/chat/completions", body | {"stream": True}).events[:-1]:
        check(ChatCompletionChunk, chunk)


@pytest.mark.parametrize("fields", [{}, {"n": 2, "logprobs": 2}, {"max_tokens": 0, "echo": True}], ids=str)
def test_completions_are_openais(server: Server, fields: dict[str, Any]) -> None:
    body = {"model": "chain", "prompt": WIND + "w"} | fields
    check(Completion, server.post("/v1/completions", body).json)
    for chunk in server.post("/v1/completions", body | {"stream": True}).events[:-1]:
        for choice in chunk["choices"]:
            choice["finish_reason"] = choice["finish_reason"] or "stop"  # null until the end, which the type forgets
        check(Completion, chunk)


@pytest.mark.parametrize("fields", [
    {}, {"tools": [FLAT], "reasoning": {"summary": "auto"}, "include": ["reasoning.encrypted_content"]},
    {"text": {"format": {"type": "json_schema", "name": "a", "schema": {"type": "object"}}}},
    {"tools": [FLAT], "tool_choice": {"type": "function", "name": "look"}}, {"background": True}], ids=str)
def test_responses_are_openais(speaker: Server, fields: dict[str, Any]) -> None:
    body = {"model": "chain", "input": "x", "metadata": {"a": "b"}} | fields
    reply = speaker.post("/v1/responses", body)
    check(Response, reply.json)
    check(list[ResponseItem], speaker.get(f"/v1/responses/{reply.json['id']}/input_items").json["data"])
    *events, done = speaker.post("/v1/responses", body | {"stream": True}).events
    assert done == "[DONE]" and len(events) > 3
    for event in events:
        check(ResponseStreamEvent, event, TOLD)
    check(InputTokenCountResponse, speaker.post("/v1/responses/input_tokens", {"input": "x"}).json)


def test_a_response_tells_of_a_user_if_there_is_one(server: Server) -> None:
    assert "user" not in server.post("/v1/responses", {"input": "x"}).json
    assert server.post("/v1/responses", {"input": "x", "user": "u"}).json["user"] == "u"


def test_conversations_are_openais(server: Server) -> None:
    made = server.post("/v1/conversations", {"items": [{"role": "user", "content": "x"}], "metadata": {"a": "b"}}).json
    check(Conversation, made)
    check(Response, server.post("/v1/responses", {"input": "x", "conversation": made["id"]}).json)
    check(ConversationItemList, server.get(f"/v1/conversations/{made['id']}/items").json)
    check(ConversationDeletedResource, server.call("DELETE", f"/v1/conversations/{made['id']}").json)


def test_calls_of_custom_tools_are_openais() -> None:
    body = {"model": "chain", "input": "x", "tools": [{"type": "custom", "name": "look"}]}
    with serving(speaking(), access_log=False) as server:
        reply = server.post("/v1/responses", body).json
        check(Response, reply)
        assert "description" not in reply["tools"][0]  # which may not be null
        for event in server.post("/v1/responses", body | {"stream": True}).events[:-1]:
            check(ResponseStreamEvent, event, TOLD)


def test_log_probabilities_in_responses_are_openais(server: Server) -> None:
    body = {"model": "chain", "input": "#", "top_logprobs": 2, "include": ["message.output_text.logprobs"]}
    check(Response, server.post("/v1/responses", body).json)
    for event in server.post("/v1/responses", body | {"stream": True}).events[:-1]:
        check(ResponseStreamEvent, event, TOLD)


@pytest.mark.parametrize("fields", [
    {}, {"tools": [{"name": "look", "input_schema": {"type": "object"}}]}, {"thinking": {"type": "adaptive"}},
    {"thinking": {"type": "enabled", "budget_tokens": 1024, "display": "omitted"}}], ids=str)
def test_messages_are_anthropics(speaker: Server, fields: dict[str, Any]) -> None:
    body = {"model": "chain", "max_tokens": 50, "messages": MESSAGES} | fields
    check(Message, speaker.post("/v1/messages", body).json)
    for event in speaker.post("/v1/messages", body | {"stream": True}).events:
        if event["type"] != "ping":  # which the package drops before it looks at types
            check(RawMessageStreamEvent, event)


def test_models_and_counts_are_the_vendors(server: Server) -> None:
    check(Model, server.get("/v1/models/chain").json)
    check(ModelInfo, server.get("/v1/models/chain", **{"anthropic-version": "2023-06-01"}).json)
    check(MessageTokensCount, server.post("/v1/messages/count_tokens", {"model": "chain", "messages": MESSAGES}).json)
