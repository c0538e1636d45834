"""Stored chat completions, driven by the official client."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from fakes import Server, model, serving
from scripted import scripted


def client_of(server: Server, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0)


@pytest.fixture
def client() -> Iterator[openai.OpenAI]:
    with serving(model(), access_log=False) as server, client_of(server) as client:
        yield client


def ask(client: openai.OpenAI, text: Any = "w", **fields: Any) -> Any:
    return client.chat.completions.create(model="default", messages=[{"role": "user", "content": text}], **fields)


def test_a_stored_answer_is_shown_noted_and_forgotten(client: openai.OpenAI) -> None:
    made = ask(client, store=True, metadata={"a": "b"}, n=2)
    stored = client.chat.completions
    assert stored.retrieve(made.id) == made and made.metadata == {"a": "b"} and len(made.choices) == 2
    assert stored.update(made.id, metadata={"c": "d"}).metadata == {"c": "d"} == stored.retrieve(made.id).metadata
    assert stored.delete(made.id).deleted and not stored.list().data
    for gone in (stored.retrieve, stored.delete, stored.messages.list):
        with pytest.raises(openai.NotFoundError):
            gone(made.id)


def test_what_is_not_to_be_stored_is_not(client: openai.OpenAI) -> None:
    for fields in ({}, {"store": False}, {"metadata": {"a": "b"}}):
        assert ask(client, **fields).metadata is None
    assert not client.chat.completions.list().data


def test_stored_answers_are_listed_a_page_at_a_time(client: openai.OpenAI) -> None:
    ids = [ask(client, store=True, metadata={"n": str(number % 2)}).id for number in range(5)]
    stored = client.chat.completions
    first = stored.list(limit=2)
    assert [each.id for each in first.data] == ids[:2] and first.has_more
    assert [each.id for each in stored.list(limit=2)] == ids
    assert [each.id for each in stored.list(order="desc")] == ids[::-1]
    assert [each.id for each in stored.list(metadata={"n": "1"})] == ids[1::2]
    assert len(stored.list(model="chain").data) == 5 and not stored.list(model="other").data
    with pytest.raises(openai.BadRequestError) as caught:
        stored.list(after="x")
    assert caught.value.param == "after"


def test_a_stream_is_stored_as_the_whole_answer_is() -> None:
    llm = scripted()
    llm.says('<think>\nHm.\n</think>\n\nI look.<tool_call>\n{"name": "look", "arguments": {"x": 1}}\n</tool_call>')
    tools: Any = [{"type": "function", "function": {"name": "look"}}]
    with serving(llm, access_log=False) as server, client_of(server) as client:
        *_, last = ask(client, store=True, stream=True, tools=tools)
        (stored,) = client.chat.completions.list()
        whole = ask(client, tools=tools)
    assert stored.id == last.id and stored.usage == whole.usage
    one, other = ({**each.choices[0].to_dict(), "message": {**each.choices[0].message.to_dict(), "tool_calls": [
        call.function.to_dict() for call in each.choices[0].message.tool_calls]}} for each in (stored, whole))
    assert one == other and one["message"]["content"] == "I look." and one["message"]["reasoning_content"]


def test_the_messages_that_led_to_an_answer_are_listed(client: openai.OpenAI) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    said: Any = [{"role": "user", "content": parts}, {"role": "assistant", "content": None, "tool_calls": [call]},
                 {"role": "tool", "tool_call_id": "c", "content": "x"}]
    id = client.chat.completions.create(model="chain", store=True, messages=said).id
    first = client.chat.completions.messages.list(id, limit=2)
    found: list[Any] = list(first)
    assert first.has_more and [each.role for each in found] == ["user", "assistant", "tool"]
    assert found[0].content is None and [part.text for part in found[0].content_parts] == ["a", "b"]
    assert found[1].tool_calls[0].function.name == "look" and (found[2].content, found[2].tool_call_id) == ("x", "c")
    assert len({each.id for each in found}) == 3


def test_each_key_sees_its_own_alone() -> None:
    with (serving(model(), api_key=("one", "two"), access_log=False) as server, client_of(server, "one") as one,
          client_of(server, "two") as two):
        id = ask(one, store=True).id
        assert len(one.chat.completions.list().data) == 1 and not two.chat.completions.list().data
        with pytest.raises(openai.NotFoundError):
            two.chat.completions.retrieve(id)


def test_a_server_may_keep_none() -> None:
    with serving(model(), stored_responses=0, access_log=False) as server, client_of(server) as client:
        assert ask(client, store=True).metadata is None and not client.chat.completions.list().data


@pytest.mark.parametrize("metadata", [
    {"a": 1}, {"k" * 65: "v"}, {"k": "v" * 513}, dict.fromkeys(map(str, range(17)), "v"), "a"],
    ids=lambda each: str(each)[:20])
def test_metadata_is_bounded(server: Server, metadata: Any) -> None:
    assert server.chat("w", store=True, metadata=metadata).error["param"].startswith("metadata")
