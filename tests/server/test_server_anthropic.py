"""Anthropic's Messages API, driven by the official client: one model says scripted parts, another counts letters."""
from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anthropic
import pytest
from fakes import Server, hold, let_go, model, serving, until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from script import PARTS, speaking

from zonda.errors import Closed
from zonda.text.parts import CallArguments, CallStart, Part, Text, Thought

LOOK: Any = {"name": "look", "description": "Looks.", "input_schema": {"type": "object", "properties": {}}}
BEGUN: Any = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": [{"type": "text", "text": "wx"}]}]
GO: Any = {"name": "go", "input_schema": {"type": "object"}}


def client_of(server: Server, key: str = "none") -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=server.url, api_key=key, max_retries=0)


@contextmanager
def asking(llm: Any, **options: Any) -> Iterator[tuple[anthropic.Anthropic, Server]]:
    with serving(llm, access_log=False, **options) as server, client_of(server) as client:
        yield client, server


@pytest.fixture
def client(server: Server) -> Iterator[anthropic.Anthropic]:
    with client_of(server) as client:
        yield client


def asked(content: Any = "x", **fields: Any) -> Any:
    return {"model": "chain", "max_tokens": 50, "messages": [{"role": "user", "content": content}]} | fields


def test_an_answer_has_thinking_text_and_tool_uses_as_blocks() -> None:
    with asking(speaking()) as (client, _):
        message = client.messages.create(**asked(tools=[LOOK, GO], thinking={"type": "adaptive"}))
    assert [each.type for each in message.content] == ["thinking", "text", "tool_use", "tool_use"]
    thought, text, look, go = message.content
    assert (thought.thinking, text.text) == ("Let me see.", "Hello") and thought.signature  # type: ignore[union-attr]
    assert (look.id, look.name, look.input, go.input) == ("toolu_a", "look", {"x": 1}, {})  # type: ignore[union-attr]
    assert text.citations == []  # type: ignore[union-attr]
    assert (message.stop_reason, message.stop_sequence) == ("tool_use", None)
    assert (message.usage.input_tokens, message.usage.cache_read_input_tokens) == (7, 4)
    assert message.usage.output_tokens_details and message.usage.output_tokens_details.thinking_tokens == 2


def test_events_come_in_order_and_by_name() -> None:
    with asking(speaking(PARTS[:7])) as (_, server):
        reply = server.post("/v1/messages", asked(thinking={"type": "enabled", "budget_tokens": 1024}, stream=True))
    assert [each["type"] for each in reply.events] == [
        "message_start", "ping", "content_block_start", "content_block_delta", "content_block_delta",
        "content_block_delta", "content_block_stop", "content_block_start", "content_block_delta",
        "content_block_delta", "content_block_stop", "content_block_start", "content_block_delta",
        "content_block_delta", "content_block_stop", "message_delta", "message_stop"]
    assert [each["delta"]["type"] for each in reply.events if each["type"] == "content_block_delta"] == [
        "thinking_delta", "thinking_delta", "signature_delta", "text_delta", "text_delta", "input_json_delta",
        "input_json_delta"]
    assert reply.body.count(b"event: ") == len(reply.events)


words = st.text(min_size=1, max_size=5)
blocks = st.lists(st.one_of(words.map(Text), words.map(Thought), words), max_size=6)


def numbered(blocks: list[Any], cut: int) -> list[Part]:
    """The blocks as parts; words are calls, their arguments cut in two."""
    parts: list[Part] = []
    for block in blocks:
        if not isinstance(block, str):
            parts.append(block)
            continue
        index, arguments = sum(isinstance(each, CallStart) for each in parts), json.dumps({"v": block})
        parts += [CallStart(index, f"call_{index}", "f"), CallArguments(index, arguments[:cut]),
                  CallArguments(index, arguments[cut:])]
    return parts


@pytest.fixture(scope="module")
def scripted() -> Iterator[tuple[list[Part], anthropic.Anthropic]]:
    script: list[Part] = []
    with asking(speaking(script)) as (client, _):
        yield script, client


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(blocks, st.integers(0, 9), st.sampled_from(["summarized", "omitted"]))
def test_what_a_client_gathers_from_a_stream_is_the_unstreamed_answer(scripted: Any, blocks: list[Any], cut: int,
                                                                       display: str) -> None:
    script, client = scripted
    script[:] = numbered(blocks, cut)
    fields = asked(thinking={"type": "adaptive", "display": display})
    whole = client.messages.create(**fields).model_dump(exclude={"id"})
    with client.messages.stream(**fields) as stream:
        gathered = stream.get_final_message().model_dump(exclude={"id"})
    for block in gathered["content"]:
        block.pop("parsed_output", None)
    assert gathered == whole


def test_thinking_that_was_not_asked_for_is_not_shown() -> None:
    with asking(speaking()) as (client, _):
        assert client.messages.create(**asked()).content[0].type == "text"


@pytest.mark.parametrize("system", [
    "x-anthropic-billing-header: cc=1;\nBe kind.",
    [{"type": "text", "text": "x-anthropic-billing-header: cc=1;\nBe kind."}],
    [{"type": "text", "text": "x-anthropic-billing-header: cc=1;"}, {"type": "text", "text": "Be kind."}]],
    ids=["text", "line", "block"])
def test_a_line_that_changes_with_every_request_does_not_reach_the_model(system: Any) -> None:
    llm: Any = speaking()
    with asking(llm) as (client, _):
        client.messages.create(**asked(system=system))
    assert llm.turns[0].messages[0] == {"role": "system", "content": "Be kind."}


@pytest.mark.parametrize("display", ["summarized", "omitted"])
def test_a_tool_round_trip_reaches_the_model_as_a_chat(display: str) -> None:
    llm: Any = speaking()
    with asking(llm) as (client, _):
        fields = asked(system=[{"type": "text", "text": "x-anthropic-billing-header: 1"},
                               {"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}],
                       tools=[LOOK, GO], thinking={"type": "adaptive", "display": display})
        message = client.messages.create(**fields)
        results = [{"type": "tool_result", "tool_use_id": "toolu_a", "content": "42"},
                   {"type": "tool_result", "tool_use_id": "toolu_b", "is_error": True,
                    "content": [{"type": "text", "text": "no"}]},
                   {"type": "text", "text": "And now?"}]
        fields["messages"] += [{"role": "assistant", "content": message.content}, {"role": "user", "content": results}]
        client.messages.create(**fields)
    first, second = llm.turns
    assert first.messages == [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "x"}]
    assert first.tools[0] == {"type": "function", "function": {
        "name": "look", "description": "Looks.", "parameters": LOOK["input_schema"]}}
    assert first.variables == {"enable_thinking": True}
    assert second.messages[2:] == [
        {"role": "assistant", "content": "Hello", "reasoning_content": "Let me see.", "tool_calls": [
            {"id": "toolu_a", "type": "function", "function": {"name": "look", "arguments": '{"x":1}'}},
            {"id": "toolu_b", "type": "function", "function": {"name": "go", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "toolu_a", "content": "42"},
        {"role": "tool", "tool_call_id": "toolu_b", "content": "Error: no"}, {"role": "user", "content": "And now?"}]


@pytest.mark.parametrize(("fields", "told"), [
    ({}, {"enable_thinking": False}), ({"enable_thinking": True}, {"enable_thinking": True}),
    ({"reasoning_effort": "low"}, {"enable_thinking": True, "reasoning_effort": "low"}),
    ({"chat_template_kwargs": {"date_string": "x"}}, {"enable_thinking": False, "date_string": "x"}),
    ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, {"enable_thinking": True, "thinking_budget": 2000}),
    ({"thinking_budget": 9, "enable_thinking": True}, {"enable_thinking": True, "thinking_budget": 9}),
    ({"thinking": {"type": "disabled"}, "enable_thinking": True}, {"enable_thinking": False})])
def test_thinking_is_asked_for_by_the_fields_of_other_routes_too(fields: dict[str, Any], told: dict[str, Any]) -> None:
    llm: Any = speaking()
    with asking(llm) as (client, _):
        answer = client.messages.create(**asked(extra_body=fields))
    assert llm.turns[0].variables == told
    assert ("thinking" in [each.type for each in answer.content]) == told["enable_thinking"]


def test_the_choice_of_tools_and_the_form_of_the_answer_reach_the_turn() -> None:
    llm: Any = speaking()
    schema = {"type": "object", "properties": {}}
    with asking(llm) as (client, _):
        for choice in ({"type": "any", "disable_parallel_tool_use": True}, {"type": "tool", "name": "look"},
                       {"type": "none"}):
            client.messages.create(**asked(tools=[LOOK, GO], tool_choice=choice, stop_sequences=["."], output_config={
                "effort": "high", "format": {"type": "json_schema", "schema": schema}},
                extra_body={"top_k": 5, "temperature": 0.5, "top_p": 0.9}))
    any_, tool, none = llm.turns
    assert (any_.choice, any_.parallel, tool.choice.name, tool.parallel, none.choice) == (
        "required", False, "look", True, "none")
    assert json.loads(none.format.source) == schema and none.variables["reasoning_effort"] == "high"
    sampling = none.sampling
    assert (sampling.top_k, sampling.temperature, sampling.top_p, sampling.stop, sampling.max_tokens) == (
        5, 0.5, 0.9, (".",), 50)


def test_why_an_answer_ended_is_told(client: anthropic.Anthropic) -> None:
    ended = client.messages.create(**asked("w"))
    cut = client.messages.create(**asked("A", max_tokens=3))
    stopped = client.messages.create(**asked("A", stop_sequences=["E"]))
    full = client.messages.create(**asked("A", max_tokens=5000))
    assert (ended.stop_reason, ended.content[0].text) == ("end_turn", "xyz")  # type: ignore[union-attr]
    assert (cut.stop_reason, cut.content[0].text) == ("max_tokens", "BCD")  # type: ignore[union-attr]
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "E")
    assert full.stop_reason == "model_context_window_exceeded"


def test_an_answer_that_is_begun_goes_on(client: anthropic.Anthropic) -> None:
    message = client.messages.create(**asked() | {"messages": BEGUN, "tools": [LOOK]})
    assert message.content[0].text == "yz"  # type: ignore[union-attr]
    counted = client.messages.count_tokens(model="chain", messages=BEGUN, tools=[LOOK])
    assert counted.input_tokens == message.usage.input_tokens + message.usage.cache_read_input_tokens


def test_a_prompt_is_counted_as_it_is_read(client: anthropic.Anthropic) -> None:
    fields = asked("hello", system="be kind", tools=[LOOK])
    message = client.messages.create(**fields)
    del fields["max_tokens"]
    counted = client.messages.count_tokens(**fields).input_tokens
    assert counted == message.usage.input_tokens + (message.usage.cache_read_input_tokens or 0)


async def test_the_async_client_reads_a_stream(server: Server) -> None:
    async with (anthropic.AsyncAnthropic(base_url=server.url, api_key="none", max_retries=0) as client,
                client.messages.stream(**asked("w")) as stream):
        assert "".join([each async for each in stream.text_stream]) == "xyz"


def test_leaving_a_stream_cancels_the_answer() -> None:
    with asking(model()) as (client, server):
        hold(server.llm).release(3)  # type: ignore[arg-type]
        stream = client.messages.create(**asked("A", max_tokens=1900), stream=True)
        next(iter(stream))
        stream.close()
        until(lambda: not server.service.flights)
        let_go(server.llm)  # type: ignore[arg-type]
        until(lambda: server.llm.engine.stats().finished["cancelled"] == 1)  # type: ignore[union-attr]


def test_errors_have_anthropics_form(client: anthropic.Anthropic, server: Server) -> None:
    with pytest.raises(anthropic.NotFoundError) as caught:
        client.messages.create(**asked(model="other"))
    body: Any = caught.value.body
    assert (body["type"], body["error"]["type"]) == ("error", "not_found_error")
    assert body["request_id"] == caught.value.request_id
    assert server.get("/v1/messages").json["error"]["type"] == "invalid_request_error"
    assert server.post("/v1/messages/nothing", {}).json["error"]["type"] == "not_found_error"
    reply = server.post("/v1/messages", asked("w"))
    assert reply.headers["request-id"] == reply.headers["x-request-id"]


def test_a_key_may_come_in_either_header() -> None:
    with serving(model(), api_key=("good",), access_log=False) as server:
        with client_of(server, "bad") as client, pytest.raises(anthropic.AuthenticationError) as caught:
            client.messages.create(**asked("w"))
        assert caught.value.body["error"]["type"] == "authentication_error"  # type: ignore[index, call-overload]
        for headers in ({"x-api-key": "good"}, {"authorization": "Bearer good"}):
            assert server.post("/v1/messages", asked("w"), **headers).status == 200


def test_a_full_queue_is_overload_and_a_large_body_is_too_large() -> None:
    with asking(model(max_seqs=1, max_queue=1), max_body_mb=1) as (client, server):
        hold(server.llm)  # type: ignore[arg-type]
        socks = [server.open("/v1/messages", asked("A")) for _ in range(2)]
        stats = server.llm.engine.stats  # type: ignore[union-attr]
        until(lambda: stats().running + stats().waiting == 2)
        with pytest.raises(anthropic.APIStatusError) as caught:
            client.messages.create(**asked("A"))
        assert caught.value.status_code == 529 and caught.value.response.headers["retry-after"]
        assert caught.value.body["error"]["type"] == "overloaded_error"  # type: ignore[index, call-overload]
        let_go(server.llm)  # type: ignore[arg-type]
        for sock in socks:
            sock.close()
        reply = server.post("/v1/messages", asked("x" * (1 << 20)))
        assert (reply.status, reply.json["error"]["type"]) == (413, "request_too_large")


def test_a_failure_ends_a_stream_with_an_error_event() -> None:
    for error, kind in ((RuntimeError("/secret"), "api_error"), (Closed("draining"), "overloaded_error")):
        with asking(speaking([Text("Hel"), error])) as (client, _):
            stream = client.messages.create(**asked(), stream=True)
            with pytest.raises(anthropic.APIStatusError) as caught:
                list(stream)
        assert caught.value.body["error"]["type"] == kind  # type: ignore[index, call-overload]
        assert "secret" not in str(caught.value)


def test_a_silent_stream_is_pinged() -> None:
    with asking(model(), keep_alive=0.02) as (_, server):
        hold(server.llm)  # type: ignore[arg-type]
        sock = server.open("/v1/messages", asked("w", stream=True))
        found = b""
        while found.count(b"event: ping") < 3:
            found += sock.recv(1000)
        let_go(server.llm)  # type: ignore[arg-type]
        sock.close()


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"messages": []}, "messages"), ({"messages": None}, "messages"), ({"max_tokens": None}, "max_tokens"),
    ({"max_tokens": -1}, "max_tokens"), ({"max_tokens": 10**9}, "max_tokens"), ({"max_tokens": 1.5}, "max_tokens"),
    ({"model": None}, "model"), ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": "x"}] * 10_000}, "messages"),
    ({"messages": BEGUN, "thinking": {"type": "adaptive"}}, "messages"),
    ({"messages": BEGUN, "output_config": {"format": {"type": "json_schema", "schema": {}}}}, "messages"),
    ({"messages": BEGUN, "tools": [LOOK], "tool_choice": {"type": "any"}}, "messages"),
    ({"messages": [{"role": "assistant", "content": "y"}]}, "messages"),
    ({"messages": [BEGUN[0], {"role": "assistant", "content": [
        {"type": "tool_use", "id": "a", "name": "look", "input": {}}]}]}, "messages"),
    ({"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "x"}}]}]},
     "messages[0].content[0]"),
    ({"messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "base64", "data": "x"}}]}]},
     "messages[0].content[0]"),
    ({"messages": [{"role": "user", "content": [{"type": "strange"}]}]}, "messages[0].content[0].type"),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
    ({"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]}, "messages[0].content[0].tool_use_id"),
    ({"messages": [{"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "b", "input": 5}]}]},
     "messages[0].content[0].input"),
    ({"system": 5}, "system"), ({"system": [{"type": "image"}]}, "system[0]"),
    ({"tools": [{"type": "web_search_20250305", "name": "w"}]}, "tools[0].type"),
    ({"tools": [{"type": "bash_new", "name": "w"}]}, "tools[0].type"), ({"container": {"skills": []}}, "container"),
    ({"tools": [{"name": "w"}]}, "tools[0].input_schema"), ({"tools": [{}]}, "tools[0].name"),
    ({"tools": [LOOK | {"name": "a b"}]}, "tools[0].name"), ({"tools": [LOOK, LOOK]}, "tools[1].name"),
    ({"tools": [LOOK | {"input_schema": {"type": "string"}}]}, "tools[0].input_schema.type"),
    ({"thread": {"type": "create"}}, "thread"), ({"compaction": {"type": "summarize"}}, "compaction"),
    ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
    ({"tool_choice": {"type": "tool"}}, "tool_choice.name"), ({"tool_choice": {"type": "any"}}, "tool_choice"),
    ({"tool_choice": {"type": "some"}}, "tool_choice.type"),
    ({"tool_choice": {"type": "tool", "name": "f"}}, "tool_choice"),
    ({"thinking": {"type": "enabled", "budget_tokens": 1}}, "thinking.budget_tokens"),
    ({"thinking": {"type": "deep"}}, "thinking.type"), ({"temperature": 2}, "temperature"), ({"top_p": -1}, "top_p"),
    ({"top_k": -1}, "top_k"), ({"stop_sequences": [""]}, "stop_sequences[0]"), ({"stop_sequences": ["x"] * 17},
                                                                               "stop_sequences"),
    ({"output_config": {"format": {"type": "xml"}}}, "output_config.format.type"),
    ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
    ({"mcp_servers": [{}]}, "mcp_servers"), ({"service_tier": "gold"}, "service_tier"),
]


@pytest.mark.parametrize(("fields", "name"), WRONG, ids=lambda case: json.dumps(case)[:50])
def test_a_wrong_field_is_named(server: Server, fields: dict[str, Any], name: str) -> None:
    reply = server.post("/v1/messages", asked() | fields)
    assert (reply.status, reply.json["error"]["type"]) == (400, "invalid_request_error"), reply.body
    assert name in reply.json["error"]["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"model": "chain", "max_tokens": NaN}', b'{"messages": "\xff"}',
                                  b'{"messages": ' + b"[" * 5000 + b"]" * 5000 + b"}"])
def test_a_hostile_body_is_refused(server: Server, body: bytes) -> None:
    for path in ("/v1/messages", "/v1/messages/count_tokens"):
        assert server.post(path, body).status == 400


def test_tools_that_anthropic_has_named_need_no_schema() -> None:
    named = [{"type": "bash_20250124", "name": "bash"}, {"type": "memory_20250818", "name": "memory"},
             {"type": "text_editor_20250728", "name": "str_replace_based_edit_tool"}]
    with asking(llm := speaking()) as (client, _):
        client.beta.messages.create(**asked(tools=named), betas=["context-management-2025-06-27"])
    told = {tool["function"]["name"]: tool["function"] for tool in llm.turns[0].tools}  # type: ignore[attr-defined]
    assert set(told) == {tool["name"] for tool in named} and all(each["description"] for each in told.values())
    assert "restart" in told["bash"]["parameters"]["properties"]
    assert "rename" in told["memory"]["parameters"]["properties"]["command"]["enum"]


def test_the_context_is_managed_by_leaving_it_as_it_is(server: Server) -> None:
    with client_of(server) as client:
        fields = asked("w", context_management={"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
                       betas=["context-management-2025-06-27"])
        message = client.beta.messages.create(**fields)
        with client.beta.messages.stream(**fields) as stream:
            streamed = stream.get_final_message()
        del fields["max_tokens"]
        counted = client.beta.messages.count_tokens(**fields)
    for each in (message, streamed):
        assert each.context_management and each.context_management.applied_edits == []
    assert counted.context_management and counted.context_management.original_input_tokens == counted.input_tokens
    assert "context_management" not in server.post("/v1/messages", asked("w")).json


def test_a_history_may_have_summaries_documents_and_references_as_text() -> None:
    content = [{"type": "document", "title": "T", "context": "C", "source": {"type": "text", "data": "D"}},
               {"type": "compaction", "content": "S"},
               {"type": "tool_result", "tool_use_id": "a", "content": [
                   {"type": "tool_reference", "tool_name": "look"}]}]
    with asking(llm := speaking()) as (_, server):
        assert server.post("/v1/messages", asked(content)).status == 200
    texts, result = llm.turns[0].messages  # type: ignore[attr-defined]
    assert [part["text"] for part in texts["content"]] == ["T\nC\nD", "S"] and result["content"] == "look"


def test_models_are_described_in_the_clients_words(client: anthropic.Anthropic) -> None:
    (found,) = client.models.list()
    assert (found.id, found.type, found.max_input_tokens) == ("chain", "model", 2000)
    assert client.models.retrieve("chain") == found and found.created_at.year >= 2024


def test_models_are_listed_a_page_at_a_time() -> None:
    names = [f"m{number}" for number in range(5)]
    with serving({name: model(name=name) for name in names}, access_log=False) as server, client_of(server) as client:
        first = client.models.list(limit=2)
        assert [each.id for each in first.data] == names[:2] and first.has_more
        assert [each.id for each in first] == names
        before = client.models.list(limit=2, before_id="m4")
        assert [each.id for each in before.data] == ["m2", "m3"] and before.has_more
        assert (before.first_id, before.last_id) == ("m2", "m3")
        assert not client.models.list(limit=2, after_id="m2").has_more
        wrong: Any
        for wrong in ({"limit": 0}, {"after_id": "x"}, {"before_id": "x"}):
            with pytest.raises(anthropic.BadRequestError, match=next(iter(wrong))) as caught:
                client.models.list(**wrong)
            assert caught.value.body["type"] == "error" and caught.value.request_id  # type: ignore[index]
        assert [each["id"] for each in server.get("/v1/models").json["data"]] == names


def test_messages_take_the_sampling_fields_and_forms_of_the_other_routes(server: Server,
                                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    prepare = server.llm.prepare  # type: ignore[union-attr]
    monkeypatch.setattr(server.llm, "prepare", lambda turn: seen.append(turn) or prepare(turn))
    fields = asked("w", min_p=0.1, seed=7, logit_bias={"97": 5}, dry_multiplier=0.5, ignore_eos=False)
    assert server.post("/v1/messages", fields).status == 200
    assert (seen[0].sampling.min_p, seen[0].sampling.seed, seen[0].sampling.dry_multiplier) == (0.1, 7, 0.5)
    assert seen[0].sampling.logit_bias == {97: 5}
    forced = server.post("/v1/messages", asked("w", grammar={"type": "regex", "value": "[Q]{3}"})).json
    assert forced["content"][0]["text"] == "QQQ"
    both = asked(grammar={"type": "regex", "value": "a"}, output_format={"type": "json_schema", "schema": {}})
    for body, named in ((both, "`grammar.value`"), (asked(n=2), "`n`"),
                        (asked(grammar={"type": "regex", "value": "("}), "grammar.value: ")):
        refused = server.post("/v1/messages", body)
        assert refused.status == 400 and named in refused.json["error"]["message"]
