"""Bodies that nobody means well with: large, deep, broken, and numbers beyond everything. Each is refused at once, in
its family's envelope, with the field's name, and without what was sent."""
from __future__ import annotations

import json
import resource
import threading
from typing import Any

import pytest
from fakes import ByteTokenizer, PlainTemplate, Reply, Server

from zonda.server import completions, endpoint, tokenizing
from zonda.server.app import ENDPOINTS

POSTS = [each.path for each in ENDPOINTS if each.body]
GENERATING = {  # a request that is taken, by the route that takes it
    "/v1/chat/completions": {"messages": "x"}, "/v1/completions": {"prompt": "x"}, "/v1/responses": {"input": "x"},
    "/v1/messages": {"model": "chain", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}}
SMALL = {
    "/v1/responses/input_tokens": {"input": "x"}, "/v1/responses/compact": {"model": "chain", "input": "x"},
    "/v1/chat/completions/{id}": {"metadata": {}},
    "/v1/conversations": {}, "/v1/conversations/{id}": {"metadata": {}}, "/v1/conversations/{id}/items": {"items": []},
    "/v1/embeddings": {"input": "x"},
    "/v1/messages/count_tokens": {"model": "chain", "messages": [{"role": "user", "content": "x"}]},
    "/v1/rerank": {"query": "x", "documents": ["x"]}, "/rerank": {"query": "x", "documents": ["x"]},
    "/tokenize": {"prompt": "x"}, "/detokenize": {"tokens": [1]},
    **{f"/v1/models/{verb}": {"model_id": "chain"} for verb in ("load", "reload", "unload", "status")}}
NUMBERS = {
    "/v1/chat/completions": ("n", "max_tokens", "max_completion_tokens", "top_logprobs", "seed", "top_k", "top_p",
                             "temperature", "min_tokens", "presence_penalty", "repetition_penalty", "min_p"),
    "/v1/completions": ("n", "max_tokens", "logprobs", "best_of", "seed", "top_k", "temperature", "frequency_penalty"),
    "/v1/responses": ("n", "max_output_tokens", "top_logprobs", "max_tool_calls", "seed", "temperature", "top_p"),
    "/v1/messages": ("max_tokens", "temperature", "top_p", "top_k"),
    "/v1/embeddings": ("dimensions",), "/v1/rerank": ("top_n",), "/rerank": ("top_n",)}
HUGE = 10**30
NOT_JSON = [b"\xff\xfe", b'{"model": "\xff"}', b'{"model": "\\ud800"}', b"{", b"null", b"[]", b"[" * 100_000, b"",
            b'{"a":' * 100_000, b'{"model": NaN}', b'{"model": -Infinity}', b'{"model": 1e999}',
            b'{"prompt": [' + b"1e999," * 9 + b"1]}", b'{"model": ["' + b"x" * 100_000 + b'"]}']


def refused(reply: Reply, path: str, *fields: str, status: int = 400) -> None:
    """Check that a request was refused, with the name of one of these fields."""
    error = reply.json["error"]
    assert (reply.status, error["type"]) == (status, "invalid_request_error"), reply.body
    assert len(reply.body) < 1500
    if path.startswith("/v1/messages"):
        assert reply.json["type"] == "error" and reply.json["request_id"] and set(error) == {"type", "message"}
        assert not fields or any(f"`{field}`" in error["message"] for field in fields), reply.body
    else:
        assert not fields or reply.error["param"] in fields, reply.body


def test_every_route_is_tried() -> None:
    assert set(POSTS) == {*GENERATING, *SMALL}


@pytest.mark.parametrize("path", [path for path in POSTS if path != "/v1/conversations"])  # which takes any object
@pytest.mark.parametrize("body", NOT_JSON, ids=lambda body: repr(body[:16]))
def test_a_broken_body_is_the_clients_fault(server: Server, path: str, body: bytes) -> None:
    refused(server.post(path, body), path)


@pytest.mark.parametrize("path", [path for path in POSTS if "metadata" not in SMALL.get(path, {})
                                  and "conversations" not in path])
@pytest.mark.parametrize("value", ["NaN", "1e400", "-5", "[]", "{}"])
def test_a_model_that_is_no_name_is_named(server: Server, path: str, value: str) -> None:
    field = "model_id" if "models/" in path else "model"
    body = json.dumps((GENERATING | SMALL)[path] | {field: "?"}).replace('"?"', value)
    refused(server.post(path, body.encode()), path, field)


@pytest.mark.parametrize(("path", "field"), [(path, field) for path, fields in NUMBERS.items() for field in fields])
@pytest.mark.parametrize("number", ["-99.5", "1e400", "NaN", "-Infinity", "1" + "0" * 400, "-" + "9" * 30, '"9"'])
def test_a_number_beyond_everything_is_named(server: Server, path: str, field: str, number: str) -> None:
    body = (GENERATING | SMALL)[path] | {field: "?"} | ({"logprobs": True} if field == "top_logprobs" else {})
    refused(server.post(path, json.dumps(body).replace('"?"', number).encode()), path, field)


@pytest.mark.parametrize(("path", "field", "value"), [
    ("/v1/responses", "stop", ["a"] * 17), ("/v1/responses", "logit_bias", {"258": 1}),
    ("/v1/responses", "metadata", {str(each): "x" for each in range(17)}), ("/v1/responses", "include", ["x"]),
    ("/v1/responses", "tools", [{"type": "function", "name": "f"}] * 513), ("/v1/responses", "n", 2),
    ("/v1/messages", "stop_sequences", ["a"] * 17), ("/v1/messages", "system", 5), ("/v1/messages", "messages", []),
    ("/v1/messages", "tools", [{"name": "f", "input_schema": {}}] * 513), ("/v1/messages", "max_tokens", HUGE),
    ("/v1/messages/count_tokens", "tools", [{"name": "f", "input_schema": {}}] * 513),
    ("/v1/embeddings", "input", ["x"] * 1025), ("/v1/embeddings", "input", [[1]] * 1025),
    ("/v1/rerank", "documents", ["x"] * 1025), ("/rerank", "documents", ["x"] * 1025), ("/rerank", "query", None),
    ("/detokenize", "tokens", [258]), ("/detokenize", "tokens", [HUGE])], ids=lambda value: str(value)[:30])
def test_more_than_the_limit_is_named(server: Server, path: str, field: str, value: Any) -> None:
    refused(server.post(path, (GENERATING | SMALL)[path] | {field: value}), path, field, f"{field}[0]")


@pytest.mark.parametrize("path", POSTS)
def test_fifty_megabytes_are_too_many(server: Server, path: str) -> None:
    body = b'{"prompt": "' + b"x" * (50 << 20) + b'"}'
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for sent in (body, iter([body[:30 << 20], body[30 << 20:]])):  # with its length told, and without
        try:
            reply = server.post(path, sent)
        except (ConnectionResetError, BrokenPipeError):  # it is told before all has been sent
            continue
        assert reply.status == 413 and "larger than 32 MB" in reply.json["error"]["message"]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400 << 10  # kilobytes
    assert server.complete("x").status == 200


@pytest.mark.parametrize(("path", "field", "entry"), [
    ("/v1/chat/completions", "messages", {"role": "user", "content": "x"}),
    ("/tokenize", "messages", {"role": "user", "content": "x"}),
    ("/v1/messages", "messages", {"role": "user", "content": "x"}),
    ("/v1/messages/count_tokens", "messages", {"role": "user", "content": "x"}),
    ("/v1/responses", "input", {"role": "user", "content": "x"}),
    ("/v1/responses/input_tokens", "input", {"role": "user", "content": "x"}),
    ("/v1/conversations", "items", {"role": "user", "content": "x"}),
    ("/v1/completions", "prompt", "x"), ("/v1/embeddings", "input", "x"),
    ("/v1/rerank", "documents", "x"), ("/rerank", "documents", "x")])
def test_ten_thousand_entries_are_too_many(server: Server, path: str, field: str, entry: Any) -> None:
    body = (GENERATING | SMALL)[path] | {field: [entry] * 10_000}
    body.pop("prompt" if field == "messages" else "", None)
    refused(server.post(path, body), path, field)


BULKY = {"prompt": [[1] * 10] * 150_000, "tools": [{"a": [{"b": 1}] * 120_000}], "metadata": {"a": [1] * 1_100_000},
         "tokens": [1] * 1_100_000}


@pytest.mark.parametrize(("path", "field"), [
    ("/v1/completions", "prompt"), ("/v1/chat/completions", "tools"), ("/v1/responses", "tools"),
    ("/v1/messages", "tools"), ("/v1/chat/completions", "metadata"), ("/detokenize", "tokens")])
def test_more_values_than_can_be_decoded_at_once_are_refused(server: Server, path: str, field: str) -> None:
    body = {"user": 'a\\" {[,', **(GENERATING | SMALL)[path], field: BULKY[field], "stream": False}
    reply = server.post(path, body)
    assert reply.status == 400 and f"`{field}` has too many values" in reply.json["error"]["message"]


@pytest.mark.parametrize(("path", "fields", "named"), [
    ("/tokenize", {"prompt": "x" * 5_000_000}, "prompt"), ("/tokenize", {"content": "x" * 5_000_000}, "content"),
    ("/detokenize", {"tokens": [65] * 200_000}, "tokens"), ("/v1/completions", {"prompt": "x" * 5_000_000}, "prompt"),
    ("/v1/completions", {"prompt": [65] * 200_000}, "prompt"),
    ("/v1/chat/completions", {"messages": "x" * 5_000_000}, "messages"),
    ("/v1/responses", {"input": "x" * 5_000_000}, "input"),
    ("/v1/messages", {"messages": [{"role": "user", "content": "x" * 5_000_000}]}, "")])
def test_texts_beyond_the_context_are_refused_before_they_are_encoded(
        server: Server, monkeypatch: pytest.MonkeyPatch, path: str, fields: dict[str, Any], named: str) -> None:
    monkeypatch.setattr(ByteTokenizer, "encode", lambda *given, **named: pytest.fail("it was encoded"))
    refused(server.post(path, GENERATING.get(path, {}) | fields), path, *([named] if named else []))


def test_a_long_text_may_be_cut_to_the_context(server: Server) -> None:
    for path, field in (("/v1/chat/completions", "messages"), ("/v1/completions", "prompt")):
        body = {field: "x" * 200_000, "truncate_sequence": True, "max_tokens": 1}
        reply = server.post(path, body).json
        assert reply["usage"]["prompt_tokens"] == 1999, reply


def test_a_long_text_may_have_as_many_commas_and_brackets_as_it_likes(server: Server) -> None:
    for text in (",{[" * 1_000_000, '\\",{[' * 200_000, ("\\" * ((1 << 20) - 1) + '"') * 3):
        assert server.post("/v1/chat/completions", {"messages": text}).error["param"] == "messages"  # of its length


@pytest.mark.parametrize(("path", "fields"), [
    ("/tokenize", {"prompt": "x" * 20_000}), ("/detokenize", {"tokens": [65] * 20_000}),
    ("/v1/completions", {"prompt": [65] * 20_000}), ("/v1/chat/completions", {"messages": "x" * 20_000}),
    ("/v1/responses", {"input": "x" * 20_000}), ("/v1/messages", {"system": "x" * 20_000})])
def test_large_bodies_are_worked_on_beside_the_event_loop(server: Server, monkeypatch: pytest.MonkeyPatch, path: str,
                                                          fields: dict[str, Any]) -> None:
    seen: list[tuple[str, threading.Thread]] = []

    def watch(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def work(*given: Any, **named: Any) -> Any:
            seen.append((name, threading.current_thread()))
            return real(*given, **named)
        monkeypatch.setattr(owner, name, work)

    for owner, name in ((endpoint, "decode"), (ByteTokenizer, "encode"), (ByteTokenizer, "decode"),
                        (PlainTemplate, "render"), (completions, "check_ids"), (tokenizing, "check_ids")):
        watch(owner, name)
    server.post(path, GENERATING.get(path, {}) | fields)
    assert len(seen) > 1 and server.thread not in (thread for _, thread in seen)


@pytest.mark.parametrize(("path", "fields"), [("/v1/completions", {"logprobs": 20, "echo": True}),
                                             ("/v1/chat/completions", {"logprobs": True, "top_logprobs": 20})])
def test_log_probabilities_are_spelled_beside_the_event_loop(server: Server, monkeypatch: pytest.MonkeyPatch, path: str,
                                                             fields: dict[str, Any]) -> None:
    """Twenty alternatives for each of thousands of tokens take hundreds of milliseconds."""
    threads: list[threading.Thread] = []
    real = ByteTokenizer.token_bytes
    monkeypatch.setattr(ByteTokenizer, "token_bytes", lambda *given: (
        threads.append(threading.current_thread()) or real(*given)))
    assert server.post(path, GENERATING[path] | fields).status == 200
    assert threads.count(server.thread) < 20 < len(threads)  # each token is, as it comes


@pytest.mark.parametrize("by", ["conversation", "previous_response_id", "item_reference"])
def test_what_a_request_goes_on_from_counts_as_its_own(server: Server, monkeypatch: pytest.MonkeyPatch, by: str
                                                       ) -> None:
    """A few bytes may stand for megabytes, which take as long to render as if they had come."""
    long = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x" * 20_000}
    items = [{"type": "message", "role": "user", "content": "w"}, long]
    if by == "conversation":
        fields = {by: server.post("/v1/conversations", {"items": items}).json["id"]}
    else:
        id = server.post("/v1/responses", {"input": items}).json["id"]
        fields = {by: id}
    if by == "item_reference":
        item = server.get(f"/v1/responses/{id}/input_items?order=asc").json["data"][0]["id"]
        fields = {"input": [{"type": by, "id": item}, {"role": "user", "content": "w"}]}
    threads: list[threading.Thread] = []
    render = PlainTemplate.render
    monkeypatch.setattr(PlainTemplate, "render", lambda *given, **named: (
        threads.append(threading.current_thread()) or render(*given, **named)))
    assert server.post("/v1/responses", {"input": "w"} | fields).status == 200
    assert threads and server.thread not in threads


DEEP = json.loads('{"a":' * 200 + "1" + "}" * 200)
TALK = [{"role": "user", "content": "x"}]


@pytest.mark.parametrize(("path", "fields", "named"), [
    ("/v1/chat/completions", {"tools": [{"type": "function", "function": {"name": "f", "parameters": DEEP}}]}, "tools"),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": DEEP}]}, "messages[0].content"),
    ("/v1/chat/completions", {"messages": [{"role": "assistant", "tool_calls": [DEEP]}]}, "messages[0].tool_calls"),
    ("/v1/responses", {"tools": [{"type": "function", "name": "f", "parameters": DEEP}]}, "tools[0].parameters"),
    ("/v1/responses", {"text": {"format": {"type": "json_schema", "name": "a", "schema": DEEP}}}, "text.format.schema"),
    ("/v1/responses", {"input": [DEEP]}, "input[0].type"),
    ("/v1/messages", {"tools": [{"name": "f", "input_schema": DEEP}]}, "tools[0].input_schema"),
    ("/v1/messages", {"messages": [{"role": "user", "content": [
        {"type": "tool_result", "tool_use_id": "a", "content": DEEP}]}]}, "messages[0].content[0].content.type"),
    ("/v1/messages", {"messages": [{"role": "assistant", "content": [
        {"type": "tool_use", "id": "a", "name": "f", "input": DEEP}]}, *TALK]}, "messages[0].content[0].input"),
    ("/v1/messages", {"output_config": {"format": {"type": "json_schema", "schema": DEEP}}},
     "output_config.format.schema"),
    ("/v1/messages/count_tokens", {"tools": [{"name": "f", "input_schema": DEEP}]}, "tools[0].input_schema"),
    ("/tokenize", {"prompt": None, "messages": [{"role": "user", "content": DEEP}]}, "messages[0].content"),
], ids=str)
def test_deep_values_are_refused_by_name(server: Server, path: str, fields: dict[str, Any], named: str) -> None:
    refused(server.post(path, (GENERATING | SMALL)[path] | fields), path, named)


@pytest.mark.parametrize("block", [
    '{"type": "tool_result", "tool_use_id": "a", "content": [?]}', '{"type": "search_result", "content": [?]}',
    '{"type": "document", "source": {"type": "content", "content": [?]}}'])
@pytest.mark.parametrize("depth", [3, 300, 400, 5000])
def test_blocks_in_blocks_are_refused(server: Server, block: str, depth: int) -> None:
    before, after = block.split("?")
    content = before * depth + '{"type": "text", "text": "x"}' + after * depth
    body = json.dumps(GENERATING["/v1/messages"] | {"messages": [{"role": "user", "content": ["?"]}]})
    refused(server.post("/v1/messages", body.replace('"?"', content).encode()), "/v1/messages")
