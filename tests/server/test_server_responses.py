"""The Responses API, driven by the official client: a model says scripted parts, another goes on with letters."""
from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import openai
import pytest
from fakes import Server, hold, let_go, model, serving, until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from script import PARTS, speaking

from zonda.server.custom_tools import Input
from zonda.server.responses import MAX_FOLLOWERS
from zonda.text.parts import CallArguments, CallStart, Part, Text, Thought

LOOK = {"type": "function", "name": "look", "description": "Looks.", "strict": False,
        "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}}}
GO = {"type": "function", "name": "go"}


def client_of(server: Server, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0)


WHOLE_ITEM = ["response.created", "response.in_progress", "response.output_item.added", "response.output_item.done",
              "response.completed"]
"""Events of a response whose one item comes at once."""


def of_one_item(client: openai.OpenAI, fields: Any, *, streamed: bool) -> Any:
    """A response whose one item comes at once, asked for whole or by its events."""
    if not streamed:
        return client.responses.create(**fields)
    with client.responses.stream(**fields) as stream:
        assert [event.type for event in stream] == WHOLE_ITEM
        return stream.get_final_response()


@contextmanager
def asking(llm: Any, **options: Any) -> Iterator[tuple[openai.OpenAI, Server]]:
    with serving(llm, access_log=False, **options) as server, client_of(server) as client:
        yield client, server


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with client_of(server) as client:
        yield client


def output(response: Any) -> list[dict[str, Any]]:
    return [{name: value for name, value in item.model_dump(exclude_none=True).items() if name not in ("id", "parsed")}
            for item in response.output]


def test_an_answer_has_reasoning_text_and_calls_as_items() -> None:
    with asking(speaking()) as (client, _):
        response = client.responses.create(model="chain", input="x", tools=[LOOK, GO])  # type: ignore[list-item]
    assert [each.type for each in response.output] == ["reasoning", "message", "function_call", "function_call"]
    assert response.output_text == "Hello" and response.status == "completed" and response.completed_at
    assert response.output[0].content[0].text == "Let me see."  # type: ignore[union-attr, index]
    assert [(each.call_id, each.name, each.arguments) for each in response.output[2:]] == [  # type: ignore[union-attr]
        ("call_a", "look", '{"x": 1}'), ("call_b", "go", "{}")]
    assert response.usage and response.usage.input_tokens_details.cached_tokens == 4
    assert (response.usage.output_tokens_details.reasoning_tokens, response.usage.total_tokens) == (2, 18)


def test_a_last_message_that_is_to_go_on_begins_the_answer(server: Server) -> None:
    items = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "wx"}]
    reply = server.post("/v1/responses", {"input": items, "continue_final_message": True}).json
    assert reply["output"][0]["content"][0]["text"] == "yz"
    counted = server.post("/v1/responses/input_tokens", {"input": items, "continue_final_message": True})
    assert counted.json["input_tokens"] == reply["usage"]["input_tokens"]
    refused = server.post("/v1/responses", {"input": "x", "continue_final_message": True})
    assert (refused.status, refused.error["param"]) == (400, "input")


def test_events_come_in_order_and_are_counted() -> None:
    with asking(speaking()) as (client, _):
        events = list(client.responses.create(model="chain", input="x", stream=True, reasoning={"summary": "auto"}))
    assert [each.sequence_number for each in events] == list(range(len(events)))
    assert [each.type.removeprefix("response.") for each in events] == [
        "created", "in_progress",
        "output_item.added", "content_part.added", "reasoning_summary_part.added",
        "reasoning_text.delta", "reasoning_summary_text.delta", "reasoning_text.delta", "reasoning_summary_text.delta",
        "reasoning_text.done", "content_part.done", "reasoning_summary_text.done", "reasoning_summary_part.done",
        "output_item.done",
        "output_item.added", "content_part.added", "output_text.delta", "output_text.delta", "output_text.done",
        "content_part.done", "output_item.done",
        "output_item.added", "function_call_arguments.delta", "function_call_arguments.delta",
        "function_call_arguments.done", "output_item.done",
        "output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done",
        "completed"]


words = st.text(min_size=1, max_size=5)
blocks = st.lists(st.one_of(words.map(lambda text: [Text(text)]), words.map(lambda text: [Thought(text)]),
                            words.map(lambda text: ["call", json.dumps({"v": text})])), max_size=6)


def numbered(blocks: list[Any], cuts: list[int]) -> list[Part]:
    """The blocks as parts, calls numbered and their arguments cut in two."""
    parts: list[Part] = []
    for place, block in enumerate(blocks):
        if block[0] != "call":
            parts += block
            continue
        index, cut = sum(isinstance(each, CallStart) for each in parts), cuts[place % len(cuts)]
        parts += [CallStart(index, f"call_{index}", "f"), CallArguments(index, block[1][:cut]),
                  CallArguments(index, block[1][cut:])]
    return parts


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(blocks, st.lists(st.integers(0, 9), min_size=1))
def test_what_a_client_gathers_from_a_stream_is_the_unstreamed_answer(scripted: Any, blocks: list[Any],
                                                                       cuts: list[int]) -> None:
    llm, client = scripted
    llm.script[:] = numbered(blocks, cuts)
    whole = client.responses.create(model="chain", input="x")
    with client.responses.stream(model="chain", input="x") as stream:
        items, gathered = {}, None
        for event in stream:
            if event.type == "response.output_item.done":
                items[event.output_index] = event.item
        gathered = stream.get_final_response()
    assert output(whole) == output(gathered)
    assert [item.id for _, item in sorted(items.items())] == [item.id for item in gathered.output]


@pytest.fixture
def scripted() -> Iterator[tuple[Any, openai.OpenAI]]:
    script: list[Part] = []
    llm: Any = speaking(script)
    llm.script = script
    with asking(llm) as (client, _):
        yield llm, client


def test_an_answer_that_is_cut_short_is_incomplete() -> None:
    with asking(speaking(PARTS[:3], "length")) as (client, _):
        response = client.responses.create(model="chain", input="x", max_output_tokens=7)
        events = list(client.responses.create(model="chain", input="x", max_output_tokens=7, stream=True))
    assert (response.status, response.incomplete_details.reason) == (  # type: ignore[union-attr]
        "incomplete", "max_output_tokens")
    assert [item.status for item in response.output] == ["completed", "incomplete"]  # type: ignore[union-attr]
    assert events[-1].type == "response.incomplete"


def test_a_failure_ends_a_stream_with_the_failed_response() -> None:
    with asking(speaking([Text("Hel"), RuntimeError("/secret")])) as (client, server):
        events = list(client.responses.create(model="chain", input="x", stream=True))
        reply = server.post("/v1/responses", {"input": "x"})
    assert events[-1].type == "response.failed" and events[-1].response.error.code == "server_error"
    assert "secret" not in events[-1].model_dump_json()
    assert reply.status == 500 and reply.error["code"] == "internal_error"


def test_a_stream_that_takes_too_long_ends_with_the_failed_response() -> None:
    with asking(model(), request_timeout=2) as (client, server):  # seconds; the answer must have begun by then
        hold(server.llm).release(2)  # type: ignore[arg-type]
        stream = server.post("/v1/responses", {"input": "A", "stream": True}).events
        let_go(server.llm)  # type: ignore[arg-type]
        *_, last, done = stream
        assert (last["type"], done) == ("response.failed", "[DONE]")
        assert [event["sequence_number"] for event in stream[:-1]] == list(range(len(stream) - 1))
        error = last["response"]["error"]
        assert "within 2 s" in error["message"] and error["code"] == "server_error"
        assert last["response"]["output"][0]["status"] == "incomplete"
        assert client.responses.retrieve(last["response"]["id"]).status == "failed"


def test_a_tool_round_trip_reaches_the_model_as_a_chat() -> None:
    llm: Any = speaking()
    with asking(llm) as (client, _):
        first = client.responses.create(model="chain", input="x", instructions="Be kind.",
                                        tools=[LOOK, GO])  # type: ignore[list-item]
        result = {"type": "function_call_output", "call_id": "call_a", "output": "42"}
        client.responses.create(model="chain", previous_response_id=first.id, input=[result])  # type: ignore[list-item]
        everything = [{"role": "user", "content": [{"type": "input_text", "text": "x"}]},
                      *[each.model_dump(exclude_none=True) for each in first.output], result]
        client.responses.create(model="chain", store=False, input=everything)  # type: ignore[arg-type]
    said = {"role": "assistant", "content": "Hello", "reasoning_content": "Let me see.", "tool_calls": [
        {"id": "call_a", "type": "function", "function": {"name": "look", "arguments": '{"x": 1}'}},
        {"id": "call_b", "type": "function", "function": {"name": "go", "arguments": "{}"}}]}
    expected = [{"role": "user", "content": "x"}, said, {"role": "tool", "tool_call_id": "call_a", "content": "42"}]
    assert llm.turns[0].messages == [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "x"}]
    assert llm.turns[0].tools[0] == {"type": "function", "function": {
        name: LOOK[name] for name in ("name", "description", "parameters", "strict")}}
    assert llm.turns[1].messages == llm.turns[2].messages == expected


def test_sealed_reasoning_comes_back_as_reasoning() -> None:
    llm: Any = speaking()
    with asking(llm) as (client, _):
        first = client.responses.create(model="chain", input="x", store=False, include=["reasoning.encrypted_content"])
        sealed = {"type": "reasoning", "id": "rs_1", "summary": [],
                  "encrypted_content": first.output[0].encrypted_content}  # type: ignore[union-attr]
        client.responses.create(model="chain", input=[sealed, {"role": "user", "content": "y"}])  # type: ignore[list-item]
    assert llm.turns[1].messages[0]["reasoning_content"] == "Let me see."


@pytest.mark.parametrize(("fields", "told", "length"), [
    ({"enable_thinking": False, "max_tokens": 5}, {"enable_thinking": False}, 5),
    ({"reasoning_effort": "low", "max_completion_tokens": 6, "max_tokens": 7},
     {"enable_thinking": True, "reasoning_effort": "low"}, 6),
    ({"reasoning_effort": "low", "reasoning": {"effort": "high"}, "max_output_tokens": 5, "max_tokens": 7},
     {"enable_thinking": True, "reasoning_effort": "high"}, 5)])
def test_other_routes_names_of_fields_are_taken(fields: dict[str, Any], told: dict[str, Any], length: int) -> None:
    llm: Any = speaking()
    with asking(llm) as (_, server):
        reply = server.post("/v1/responses", {"input": "x", **fields})
    assert llm.turns[0].variables == told
    assert llm.turns[0].sampling.max_tokens == reply.json["max_output_tokens"] == length


def test_the_choice_of_tools_and_the_form_of_the_answer_reach_the_turn() -> None:
    llm: Any = speaking()
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    named = {"type": "function", "name": "look"}
    with asking(llm) as (_, server):
        for choice in ("none", named, {"type": "allowed_tools", "mode": "required", "tools": [named]}):
            assert server.post("/v1/responses", {
                "input": "x", "tools": [LOOK, GO], "tool_choice": choice, "parallel_tool_calls": False,
                "reasoning": {"effort": "low"}, "text": {"verbosity": "low", "format": {
                    "type": "json_schema", "name": "a", "schema": schema}}}).status == 200
    none, one, allowed = llm.turns
    assert none.choice == "none" and one.choice.name == "look"
    assert (allowed.choice, allowed.allowed, allowed.parallel) == ("required", ("look",), False)
    assert json.loads(none.format.source) == schema
    assert none.variables == {"enable_thinking": True, "reasoning_effort": "low"}


def test_a_stored_response_is_shown_continued_listed_and_deleted(client: openai.OpenAI) -> None:
    first = client.responses.create(model="chain", input="w", metadata={"a": "b"})
    second = client.responses.create(model="chain", input="x", previous_response_id=first.id)
    assert client.responses.retrieve(first.id) == first and first.metadata == {"a": "b"}
    assert (first.output_text, second.output_text, second.previous_response_id) == ("xyz", "yz", first.id)
    ids = [each.id for each in client.responses.input_items.list(second.id, limit=1, order="asc")]
    assert len(ids) == 3 and ids[1] == first.output[0].id
    page = client.responses.input_items.list(second.id, limit=2)
    assert [each.id for each in page.data] == ids[:0:-1] and page.has_more
    client.responses.delete(first.id)
    for asked in (client.responses.retrieve, client.responses.delete, client.responses.input_items.list):
        with pytest.raises(openai.NotFoundError):
            asked(first.id)
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model="chain", input="x", previous_response_id=first.id)
    assert (caught.value.param, caught.value.code) == ("previous_response_id", "previous_response_not_found")


def test_messages_keep_the_phase_that_they_are_of(server: Server) -> None:
    said = [{"role": "assistant", "phase": "commentary", "content": "y"}, {"role": "user", "content": "w"}]
    id = server.post("/v1/responses", {"input": said}).json["id"]
    user, assistant = server.get(f"/v1/responses/{id}/input_items").json["data"]
    assert assistant["phase"] == "commentary" and "phase" not in user
    wrong = server.post("/v1/responses", {"input": [said[0] | {"phase": "x"}]})
    assert (wrong.status, wrong.error["param"]) == (400, "input[0].phase")


def test_an_item_can_be_referred_to(client: openai.OpenAI, server: Server) -> None:
    first = client.responses.create(model="chain", input="w")
    reference = {"type": "item_reference", "id": first.output[0].id}
    reply = server.post("/v1/responses", {"input": [reference, {"role": "user", "content": "x"}]})
    assert reply.status == 200
    reply = server.post("/v1/responses", {"input": [{"type": "item_reference", "id": "msg_1"}]})
    assert (reply.status, reply.error["param"]) == (400, "input[0].id")


def test_what_is_not_to_be_stored_is_not_stored(client: openai.OpenAI) -> None:
    response = client.responses.create(model="chain", input="w", store=False)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(response.id)


def test_each_key_sees_its_own_responses() -> None:
    with (serving(model(), api_key=("one", "two"), access_log=False) as server, client_of(server, "one") as one,
          client_of(server, "two") as two):
        response = one.responses.create(model="chain", input="w")
        assert one.responses.retrieve(response.id).id == response.id
        with pytest.raises(openai.NotFoundError):
            two.responses.retrieve(response.id)
        with pytest.raises(openai.BadRequestError):
            two.responses.create(model="chain", input="w", previous_response_id=response.id)


def test_a_response_in_the_background_is_queued_written_and_followed() -> None:
    with asking(model()) as (client, server):
        hold(server.llm)  # type: ignore[arg-type]
        queued = client.responses.create(model="chain", input="w", background=True)
        assert queued.status == "queued" and client.responses.retrieve(queued.id).status == "queued"
        let_go(server.llm)  # type: ignore[arg-type]
        events = list(client.responses.retrieve(queued.id, stream=True))
        done = client.responses.retrieve(queued.id)
        later = list(client.responses.retrieve(queued.id, stream=True, starting_after=3))
        assert client.responses.cancel(queued.id).status == "completed"
    assert (done.status, done.output_text) == ("completed", "xyz")
    assert [each.type for each in events[:3]] == ["response.created", "response.queued", "response.in_progress"]
    assert [each.sequence_number for each in events] == list(range(len(events))) and later == events[4:]


def test_a_response_in_the_background_is_cancelled() -> None:
    with asking(model()) as (client, server):
        gate = hold(server.llm)  # type: ignore[arg-type]
        stream = client.responses.create(model="chain", input="A", background=True, stream=True)
        gate.release(3)
        events = [next(stream)]  # type: ignore[call-overload]
        while events[-1].type != "response.output_text.delta":
            events.append(next(stream))  # type: ignore[call-overload]
        assert client.responses.cancel(events[0].response.id).status == "cancelled"
        assert client.responses.cancel(events[0].response.id).status == "cancelled"
        let_go(server.llm)  # type: ignore[arg-type]
        events += list(stream)
        until(lambda: not server.service.flights and not server.llm.engine.stats().running)  # type: ignore[union-attr]
        later = server.get(f"/v1/responses/{events[0].response.id}?stream=true").events
        assert client.responses.retrieve(events[0].response.id).status == "cancelled"
    assert events[-1].type == "response.output_item.done" and events[-1].item.status == "incomplete"
    assert [each["type"] for each in later[:-1]] == [each.type for each in events] and later[-1] == "[DONE]"


def test_not_everybody_can_follow_one_response() -> None:
    """Each piece wakes all of them: thousands would slow everything down."""
    with serving(llm := model(), access_log=False) as server, ExitStack() as stack:
        hold(llm)
        running = server.post("/v1/responses", {"input": "w", "background": True}).json["id"]
        path = f"/v1/responses/{running}?stream=true"
        for _ in range(MAX_FOLLOWERS):
            sock = stack.enter_context(server.connect())
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert sock.recv(4096).startswith(b"HTTP/1.1 200 ")
        refused = server.get(path)
        assert (refused.status, refused.error["code"]) == (429, "too_many_requests") and refused.headers["retry-after"]
        sock.close()
        until(lambda: len(server.service.calls) == MAX_FOLLOWERS - 1)
        let_go(llm)
        assert server.get(path).events[-2]["type"] == "response.completed"


def test_a_stream_in_the_background_outlives_its_client() -> None:
    with asking(model()) as (client, server):
        hold(server.llm)  # type: ignore[arg-type]
        stream = client.responses.create(model="chain", input="w", background=True, stream=True)
        id = next(iter(stream)).response.id  # type: ignore[union-attr]
        stream.close()
        let_go(server.llm)  # type: ignore[arg-type]
        until(lambda: client.responses.retrieve(id).status == "completed")


def test_a_response_in_the_background_is_waited_for_and_then_failed_when_the_server_stops() -> None:
    with asking(model()) as (client, server):
        hold(server.llm)  # type: ignore[arg-type]
        response = client.responses.create(model="chain", input="A", background=True)
        until(lambda: len(server.service.flights) == 1)  # and not the request that began it
        assert server.service.responses.get(response.id, b"")
        server.listener.servers[0].get_loop().call_soon_threadsafe(server.service.abort)
        until(lambda: not server.service.flights)
        failed = client.responses.retrieve(response.id)
    assert failed.status == "failed" and failed.error and failed.error.code == "server_error"


def test_leaving_a_stream_cancels_the_answer() -> None:
    with asking(model()) as (client, server):
        hold(server.llm).release(3)  # type: ignore[arg-type]
        stream = client.responses.create(model="chain", input="A", stream=True)
        next(iter(stream))
        stream.close()
        until(lambda: not server.service.flights)
        let_go(server.llm)  # type: ignore[arg-type]
        until(lambda: server.llm.engine.stats().finished["cancelled"] == 1)  # type: ignore[union-attr]
        assert len(server.service.responses) == 0


def test_a_stored_response_can_be_streamed_again(client: openai.OpenAI) -> None:
    response = client.responses.create(model="chain", input="w")
    events = list(client.responses.retrieve(response.id, stream=True))
    assert [each.type for each in events][-1] == "response.completed"
    assert "".join(each.delta for each in events if each.type == "response.output_text.delta") == "xyz"


def test_a_stream_can_hide_the_lengths_of_its_pieces(server: Server) -> None:
    body = {"input": "w", "stream": True, "stream_options": {"include_obfuscation": True}}
    reply = server.post("/v1/responses", body)
    id = reply.events[0]["response"]["id"]
    again = server.get(f"/v1/responses/{id}?stream=true&include_obfuscation=true")
    for told in (reply, again):
        pieces = [frame for frame in told.body.split(b"\n\n") if b"_text.delta" in frame]
        assert pieces and all(b'"obfuscation":"' in frame for frame in pieces)
        assert len({len(frame) % 32 for frame in pieces}) == 1
    assert b"obfuscation" not in server.get(f"/v1/responses/{id}?stream=true").body


def test_truncation_drops_the_oldest_rounds() -> None:
    with asking(model(max_len=64)) as (client, server):
        rounds = [{"role": role, "content": "A" * 20} for _ in range(3) for role in ("user", "assistant")]
        asked = [{"role": "system", "content": "s"}, *rounds, {"role": "user", "content": "w"}]
        with pytest.raises(openai.BadRequestError) as caught:
            client.responses.create(model="chain", input=asked)  # type: ignore[arg-type]
        assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "input")
        answer = client.responses.create(model="chain", input=asked, truncation="auto")  # type: ignore[arg-type]
        last = server.llm.template.calls[-1]["messages"]  # type: ignore[union-attr]
    assert answer.output_text == "xyz" and [each["role"] for each in last] == ["system", "user"]


def test_log_probabilities_come_with_the_text(client: openai.OpenAI) -> None:
    response = client.responses.create(model="chain", input="w", top_logprobs=2,
                                       include=["message.output_text.logprobs"])
    part = response.output[0].content[0]  # type: ignore[union-attr, index]
    assert "".join(each.token for each in part.logprobs) == "xyz"
    assert all(len(each.top_logprobs) == 2 for each in part.logprobs)


def test_a_prompt_is_counted_as_it_would_be_read(client: openai.OpenAI) -> None:
    asked: Any = [{"role": "user", "content": "hello"}]
    counted = client.responses.input_tokens.count(model="chain", input=asked, instructions="be kind")
    answered = client.responses.create(model="chain", input=asked, instructions="be kind")
    assert answered.usage and counted.input_tokens == answered.usage.input_tokens


async def test_the_async_client_gathers_a_stream(server: Server) -> None:
    async with (openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client,
                client.responses.stream(model="chain", input="w") as stream):
        assert (await stream.get_final_response()).output_text == "xyz"


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"input": None}, "input"), ({"input": []}, "input"), ({"input": 5}, "input"), ({"input": [5]}, "input[0]"),
    ({"tools": [LOOK | {"name": "a b"}]}, "tools[0].name"), ({"moderation": {"model": "m"}}, "moderation"),
    ({"tools": [LOOK | {"parameters": {"type": "string"}}]}, "tools[0].parameters.type"),
    ({"input": [{}]}, "input[0].type"), ({"input": [{"type": "strange"}]}, "input[0].type"),
    ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
    ({"input": [{"role": "user"}]}, "input[0].content"),
    ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "input[0].content[0]"),
    ({"input": [{"role": "user", "content": [{"type": "strange"}]}]}, "input[0].content[0].type"),
    ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text"),
    ({"input": [{"type": "function_call", "call_id": "a", "name": "b"}]}, "input[0].arguments"),
    ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0].call_id"),
    ({"input": [{"type": "function_call_output", "call_id": "x"}]}, "input[0].output"),
    ({"input": [{"type": "function_call_output", "call_id": "x", "output": "y"}]}, "input[0].call_id"),
    ({"input": [{"type": "custom_tool_call_output", "call_id": "x", "output": "y"},
                {"type": "custom_tool_call", "call_id": "x", "name": "z", "input": ""}]}, "input[0].call_id"),
    ({"input": [{"type": "reasoning", "content": "x"}]}, "input[0].content"),
    ({"input": [{"role": "user", "content": "x"}] * 10_000}, "input"),
    ({"input": [{"type": "compaction_trigger"}, {"role": "user", "content": "x"}]}, "input[0]"),
    ({"input": [{"type": "compaction_trigger"}]}, "input"),
    ({"tools": [{"type": "mcp"}]}, "tools[0].type"), ({"tools": [{"type": "function"}]}, "tools[0].name"),
    ({"tools": [{}]}, "tools[0].type"),
    ({"tools": [{"type": "function", "function": {"name": 5}}]}, "tools[0].function"),
    ({"tool_choice": "required"}, "tool_choice"), ({"tool_choice": {"type": "function", "name": "f"}}, "tool_choice"),
    ({"tool_choice": {"type": "mcp"}}, "tool_choice.type"), ({"tool_choice": "often"}, "tool_choice"),
    ({"max_output_tokens": 0}, "max_output_tokens"), ({"max_output_tokens": 2**31}, "max_output_tokens"),
    ({"max_output_tokens": "many"}, "max_output_tokens"), ({"temperature": 3}, "temperature"),
    ({"top_logprobs": 21}, "top_logprobs"), ({"max_tool_calls": -1}, "max_tool_calls"), ({"n": 2}, "n"),
    ({"include": ["everything"]}, "include[0]"), ({"truncation": "some"}, "truncation"),
    ({"metadata": {"a": 5}}, "metadata"), ({"metadata": {"a": "x" * 513}}, "metadata"),
    ({"metadata": {str(n): "" for n in range(17)}}, "metadata"),
    ({"text": {"format": {"type": "json_schema"}}}, "text.format.name"),
    ({"text": {"format": {"type": "json_schema", "name": "a"}}}, "text.format.schema"),
    ({"text": {"format": {"type": "xml"}}}, "text.format.type"), ({"text": {"verbosity": "loud"}}, "text.verbosity"),
    ({"reasoning": {"effort": "huge"}}, "reasoning.effort"), ({"background": True, "store": False}, "background"),
    ({"conversation": 5}, "conversation"), ({"prompt": {"id": "p"}}, "prompt"),
    ({"previous_response_id": "resp_1"}, "previous_response_id"), ({"stream_options": {}}, "stream_options"),
    ({"service_tier": "gold"}, "service_tier"),
]


@pytest.mark.parametrize(("fields", "param"), WRONG, ids=lambda case: json.dumps(case)[:50])
def test_a_wrong_field_is_named(server: Server, fields: dict[str, Any], param: str) -> None:
    reply = server.post("/v1/responses", {"input": "x"} | fields)
    assert reply.status == 400, reply.body
    assert reply.error["param"].startswith(param) and reply.error["type"] == "invalid_request_error"


@pytest.mark.parametrize("body", [b'{"input": "x", "temperature": NaN}', b"{", b"[]",
                                  b'{"input": ' + b"[" * 5000 + b"]" * 5000 + b"}",
                                  b'{"input": "x", "tools": [{"type": "function", "name": "f", "parameters": '
                                  + b'{"a":' * 500 + b"1" + b"}" * 500 + b"}]}"])
def test_a_hostile_body_is_refused(server: Server, body: bytes) -> None:
    assert server.post("/v1/responses", body).status == 400


@pytest.mark.parametrize(("query", "param"), [("stream=maybe", "stream"), ("stream=true&starting_after=x",
                                                                          "starting_after"),
                                              ("starting_after=1", "starting_after")])
def test_a_wrong_query_is_named(server: Server, query: str, param: str) -> None:
    id = server.post("/v1/responses", {"input": "w"}).json["id"]
    reply = server.get(f"/v1/responses/{id}?{query}")
    assert (reply.status, reply.error["param"]) == (400, param)
    for wrong in ("limit=0", "limit=101", "order=up", "after=nobody"):
        reply = server.get(f"/v1/responses/{id}/input_items?{wrong}")
        assert (reply.status, reply.error["param"]) == (400, wrong.partition("=")[0])


PATCH: Any = {"type": "custom", "name": "patch", "description": "Patches.",
              "format": {"type": "grammar", "syntax": "lark", "definition": "start: /[^q]+/"}}
TEXT = 'say "hi" \\ \n☃ 😀'
PATCHING: tuple[Part, ...] = (CallStart(0, "call_p", "patch"), *(
    CallArguments(0, piece) for piece in json.dumps({"input": TEXT})))


def test_a_custom_tool_is_called_with_a_text() -> None:
    with asking(llm := speaking(PATCHING)) as (client, server):
        response = client.responses.create(model="chain", input="x", tools=[PATCH, LOOK])  # type: ignore[list-item]
        events = list(client.responses.create(model="chain", input="x", tools=[PATCH], stream=True))
        again = [item.model_dump() for item in response.output]
        client.responses.create(model="chain", tools=[PATCH], input=[
            {"role": "user", "content": "x"}, *again,  # type: ignore[list-item]
            {"type": "custom_tool_call_output", "call_id": "call_p", "output": "done"}])
        shown = server.get(f"/v1/responses/{response.id}?stream=true").events
    assert [(each.type, each.name, each.input) for each in response.output] == [  # type: ignore[union-attr]
        ("custom_tool_call", "patch", TEXT)]
    deltas = [each.delta for each in events if each.type == "response.custom_tool_call_input.delta"]
    assert len(deltas) > 9 and "".join(deltas) == TEXT
    assert [each.input for each in events if each.type == "response.custom_tool_call_input.done"] == [TEXT]
    assert next(each["input"] for each in shown if each["type"] == "response.custom_tool_call_input.done") == TEXT
    told = llm.turns[0].tools[0]["function"]  # type: ignore[attr-defined]
    assert PATCH["format"]["definition"] in told["description"] and told["parameters"]["required"] == ["input"]
    assert llm.turns[-1].messages[1:] == [  # type: ignore[attr-defined]
        {"role": "assistant", "content": "", "tool_calls": [{"id": "call_p", "type": "function", "function": {
            "name": "patch", "arguments": json.dumps({"input": TEXT}, ensure_ascii=False)}}]},
        {"role": "tool", "tool_call_id": "call_p", "content": "done"}]


@given(st.text(), st.booleans(), st.integers(1, 9))
def test_a_text_is_taken_out_of_arguments_however_they_are_cut(text: str, ascii: bool, size: int) -> None:
    source, found = json.dumps({"input": text}, ensure_ascii=ascii), Input()
    pieces = [found.feed(source[at:at + size]) for at in range(0, len(source), size)]
    assert "".join(pieces) + found.finish() == text


def test_arguments_of_another_shape_are_the_text_themselves() -> None:
    found = Input()
    assert found.feed('{"x": ') + found.feed("1}") + found.finish() == '{"x": 1}'


def test_a_custom_tool_with_a_pattern_is_forced_to_follow_it(server: Server) -> None:
    tool = {"type": "custom", "name": "f", "format": {"type": "grammar", "syntax": "regex", "definition": "b[cd]+|x"}}
    body = {"input": "x", "tools": [tool], "tool_choice": {"type": "custom", "name": "f"}, "max_output_tokens": 500}
    (item,) = server.post("/v1/responses", body).json["output"]
    assert item["type"] == "custom_tool_call" and re.fullmatch("b[cd]*|x", item["input"]), item


@pytest.mark.parametrize(("tool", "param"), [
    (PATCH | {"format": {"type": "grammar", "syntax": "lark", "definition": "start: ("}}, "tools[0].format.definition"),
    (PATCH | {"format": {"type": "grammar", "syntax": "regex"}}, "tools[0].format.definition"),
    (PATCH | {"format": {"type": "grammar", "syntax": "peg", "definition": "x"}}, "tools[0].format.syntax"),
    ({"type": "custom"}, "tools[0].name"), ({"type": "file_search"}, "tools[0].type"),
    ({"type": "mcp", "server_label": "a"}, "tools[0].type"), ({"type": "code_interpreter"}, "tools[0].type")])
def test_tools_that_cannot_be_had_are_named(server: Server, tool: dict[str, Any], param: str) -> None:
    reply = server.post("/v1/responses", {"input": "x", "tools": [tool]})
    assert (reply.status, reply.error["param"]) == (400, param)


@pytest.mark.parametrize("search", [{"external_web_access": False}, {"external_web_access": True}, {}])
def test_a_web_search_is_left_out_but_cannot_be_forced(server: Server, search: dict[str, Any]) -> None:
    tools = [{"type": "web_search"} | search, LOOK]
    forced = server.post("/v1/responses", {"input": "x", "tools": tools, "tool_choice": {"type": "web_search"}})
    assert (forced.status, forced.error["param"]) == (400, "tool_choice.type")
    assert [tool["type"] for tool in server.post("/v1/responses", {"input": "x", "tools": tools}).json["tools"]] == [
        "function"]


def test_a_response_may_be_given_a_form_as_the_other_routes_are(server: Server) -> None:
    body: dict[str, Any] = {"input": "w", "grammar": {"type": "regex", "value": "[Q]{3}"}}
    assert server.post("/v1/responses", body).json["output"][0]["content"][0]["text"] == "QQQ"
    both = server.post("/v1/responses", body | {"text": {"format": {"type": "json_object"}}})
    assert (both.status, both.error["param"]) == (400, "grammar.value")
