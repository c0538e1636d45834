"""Bodies that nobody means well with: large, deep, broken, and numbers beyond everything."""
from __future__ import annotations

import json
from typing import Any

import pytest
from fakes import Server

POSTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/rerank", "/tokenize", "/detokenize",
         "/v1/models/load", "/v1/models/unload", "/v1/models/status")
NUMBERS = ("n", "max_tokens", "logprobs", "top_logprobs", "seed", "top_k", "temperature", "min_tokens")


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("body", [
    b"\xff\xfe", b'{"model": "\xff"}', b"{", b"null", b"[]", b"[" * 100_000, b'{"a":' * 100_000, b'{"model": NaN}',
    b'{"prompt": [' + b"1e999," * 9 + b"1]}", b'{"model": ["' + b"x" * 100_000 + b'"]}'],
    ids=lambda body: repr(body[:12]))
def test_a_broken_body_is_the_clients_fault(server: Server, path: str, body: bytes) -> None:
    reply = server.post(path, body)
    assert 400 <= reply.status < 500 and reply.error["type"] == "invalid_request_error"
    assert len(reply.body) < 1500


@pytest.mark.parametrize("path", POSTS[:2])
@pytest.mark.parametrize("field", NUMBERS)
@pytest.mark.parametrize("number", ["-99", "1e400", "NaN", "1" + "0" * 400, "-" + "9" * 30])
def test_a_number_beyond_everything_is_named(server: Server, path: str, field: str, number: str) -> None:
    if (path, field) == ("/v1/completions", "top_logprobs") or (field, number) in {("seed", "-99")}:
        return
    body = b'{"prompt": "x", "messages": "x", "logprobs": true, "%s": %s}' if path == POSTS[0] and field != "logprobs" \
        else b'{"prompt": "x", "messages": "x", "%s": %s}'
    reply = server.post(path, body % (field.encode(), number.encode()))
    assert reply.status == 400 and reply.error["param"] == field, reply.body


def test_fifty_megabytes_are_too_many(server: Server) -> None:
    body = b'{"prompt": "' + b"x" * (50 << 20) + b'"}'
    for path in ("/v1/completions", "/tokenize"):
        try:
            reply = server.post(path, body)
        except (ConnectionResetError, BrokenPipeError):  # it is told before all has been sent
            continue
        assert (reply.status, reply.error["code"]) == (413, "request_too_large")
    assert server.complete("x").status == 200


def test_ten_thousand_messages_are_too_many(server: Server) -> None:
    many: list[dict[str, Any]] = [{"role": "user", "content": "x"}] * 10_000
    for path in ("/v1/chat/completions", "/tokenize"):
        reply = server.post(path, {"messages": many})
        assert (reply.status, reply.error["param"]) == (400, "messages")


def test_deep_messages_are_refused_by_name(server: Server) -> None:
    deep: Any = "x"
    for _ in range(200):
        deep = {"a": deep}
    reply = server.post("/tokenize", json.loads(json.dumps({"messages": [{"role": "user", "content": deep}]})))
    assert (reply.status, reply.error["param"]) == (400, "messages")
