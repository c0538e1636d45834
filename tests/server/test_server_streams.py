"""Clients that leave, wait, read slowly or come in crowds, over real sockets."""
from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from fakes import PATIENCE, Server, hold, let_go, model, runner, serving, until

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
ENDLESS: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": "A"}], "max_tokens": 1500},
    TEXT: {"prompt": "A", "max_tokens": 1500}}


@pytest.fixture
def alone() -> Iterator[Server]:
    """A server whose engine runs two sequences at once, and lets two wait."""
    with serving(model(max_seqs=2, max_queue=2), access_log=False) as server:
        yield server


def stats(server: Server) -> Any:
    return server.llm.engine.stats()  # type: ignore[union-attr]


def hang_up(sock: socket.socket, *, rudely: bool = False) -> None:
    """Close a connection, by a reset if rudely."""
    if rudely:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@pytest.mark.parametrize("path", [CHAT, TEXT])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("rudely", [True, False])
def test_a_running_request_ends_within_one_step_of_its_client(alone: Server, path: str, stream: bool,
                                                              rudely: bool) -> None:
    gate = hold(alone.llm)  # type: ignore[arg-type]
    sock = alone.open(path, ENDLESS[path] | {"stream": stream, "n": 2})
    gate.release(5)
    until(lambda: len(runner(alone.llm).steps) == 5 and stats(alone).running == 2)  # type: ignore[arg-type]
    hang_up(sock, rudely=rudely)
    until(lambda: not alone.service.calls)
    gate.release()
    until(lambda: stats(alone).finished["cancelled"] == 2)
    assert stats(alone).running == 0
    assert len(runner(alone.llm).steps) <= 6  # type: ignore[arg-type]


@pytest.mark.parametrize("stream", [True, False])
def test_a_waiting_request_leaves_the_queue_with_its_client(alone: Server, stream: bool) -> None:
    gate = hold(alone.llm)  # type: ignore[arg-type]
    first = alone.open(TEXT, ENDLESS[TEXT] | {"n": 2})
    gate.release(2)
    until(lambda: stats(alone).running == 2)
    second = alone.open(CHAT, ENDLESS[CHAT] | {"stream": stream})
    until(lambda: stats(alone).waiting == 1)
    hang_up(second)
    until(lambda: len(alone.service.calls) == 1)
    gate.release()
    until(lambda: stats(alone).waiting == 0)
    assert (stats(alone).running, stats(alone).finished["cancelled"]) == (2, 1)
    hang_up(first)


def test_prompts_of_one_request_leave_together(alone: Server) -> None:
    gate = hold(alone.llm)  # type: ignore[arg-type]
    sock = alone.open(TEXT, ENDLESS[TEXT] | {"prompt": ["A", "B", "C"], "stream": True})
    gate.release(2)
    until(lambda: (stats(alone).running, stats(alone).waiting) == (2, 1))
    hang_up(sock)
    until(lambda: not alone.service.calls)
    let_go(alone.llm)  # type: ignore[arg-type]
    until(lambda: stats(alone).running + stats(alone).waiting == 0)
    assert stats(alone).finished["cancelled"] == 3


def test_a_client_that_leaves_within_its_body_is_forgotten(alone: Server) -> None:
    sock = alone.connect()
    sock.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
    until(lambda: alone.service.calls)
    hang_up(sock)
    until(lambda: not alone.service.calls)
    assert alone.complete("x").status == 200


def test_a_full_queue_answers_429_and_when_to_come_back(alone: Server) -> None:
    hold(alone.llm)  # type: ignore[arg-type]
    socks = [alone.open(TEXT, ENDLESS[TEXT] | {"stream": True}) for _ in range(4)]
    until(lambda: stats(alone).running + stats(alone).waiting == 4)
    for stream in (True, False):
        reply = alone.complete("x", stream=stream)
        assert (reply.status, reply.error["type"], reply.error["code"]) == (429, "rate_limit_error", "queue_full")
        assert int(reply.headers["retry-after"]) >= 1
    for sock in socks:
        hang_up(sock)
    let_go(alone.llm)  # type: ignore[arg-type]
    until(lambda: stats(alone).running + stats(alone).waiting == 0)
    assert alone.complete("x").status == 200


def test_prompts_that_do_not_all_fit_into_the_queue_leave_none_behind(alone: Server) -> None:
    assert alone.complete(["A"] * 9, max_tokens=1500).status == 429
    until(lambda: stats(alone).running + stats(alone).waiting == 0)


def test_a_crowd_that_vanishes_does_not_hold_up_the_next() -> None:
    with serving(model(max_queue=1000), access_log=False) as server:
        socks = [server.open(CHAT, ENDLESS[CHAT] | {"stream": index % 2 == 0}) for index in range(200)]
        until(lambda: stats(server).running + stats(server).waiting > 100)
        for sock in socks:
            hang_up(sock)
        assert server.chat("x").json["choices"][0]["message"]["content"] == "yz"
        until(lambda: not server.service.calls and stats(server).running + stats(server).waiting == 0)


def test_a_silent_stream_is_kept_open_by_comments() -> None:
    with serving(model(), keep_alive=0.05, access_log=False) as server:
        gate = hold(server.llm)  # type: ignore[arg-type]
        with server.open(CHAT, ENDLESS[CHAT] | {"stream": True, "max_tokens": 2}) as sock, sock.makefile("rb") as lines:
            seen = b""
            while seen.count(b": keep-alive\n\n") < 2:
                seen += lines.readline()
            assert b"200 OK" in seen and b"data:" not in seen
            gate.release(10)
            while b"[DONE]" not in seen:
                seen += lines.readline()
        once = (b'"content":"B"', b'"content":"C"', b'"finish_reason":"length"')
        assert [seen.count(each) for each in once] == [1, 1, 1]


def test_a_client_that_reads_slowly_gets_everything() -> None:
    with serving(model(max_len=2000), access_log=False) as server:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        sock.settimeout(PATIENCE)
        sock.connect(("127.0.0.1", server.port))
        body = json.dumps(ENDLESS[CHAT] | {"stream": True, "n": 2, "logprobs": True, "top_logprobs": 20,
                                         "max_tokens": 800}).encode()
        sock.sendall(b"POST %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"
                     % (CHAT.encode(), len(body), body))
        until(lambda: stats(server).finished["length"] == 2)
        assert server.complete("x").status == 200
        received = 0
        with sock, sock.makefile("rb") as lines:
            for line in lines:
                received += line.count(b'"content":"')
                if b"[DONE]" in line:
                    break
        assert received == 2 * 800 + 2


def test_a_failed_step_ends_a_stream_with_an_error_event(alone: Server) -> None:
    gate = hold(alone.llm)  # type: ignore[arg-type]
    with alone.open(CHAT, ENDLESS[CHAT] | {"stream": True}) as sock, sock.makefile("rb") as lines:
        gate.release(3)
        until(lambda: len(runner(alone.llm).steps) == 3)  # type: ignore[arg-type]
        runner(alone.llm).fault = ValueError("/secret/path")  # type: ignore[arg-type]
        gate.release()
        seen = b""
        while not seen.endswith(b"\r\n0\r\n\r\n"):
            seen += lines.readline()
    runner(alone.llm).fault = None  # type: ignore[arg-type]
    let_go(alone.llm)  # type: ignore[arg-type]
    last = next(line for line in reversed(seen.splitlines()) if line.startswith(b"data: "))
    assert json.loads(last[6:])["error"]["type"] == "server_error"
    assert b"secret" not in seen and b"[DONE]" not in seen
    assert alone.complete("x").status == 200


def test_a_failed_step_is_an_error_for_who_waits_for_the_whole(alone: Server) -> None:
    runner(alone.llm).fault = ValueError("/secret/path")  # type: ignore[arg-type]
    for reply in (alone.chat("x"), alone.complete(["x", "y"])):
        assert (reply.status, reply.error["type"]) == (500, "server_error") and b"secret" not in reply.body
    runner(alone.llm).fault = None  # type: ignore[arg-type]


def test_a_dead_engine_fails_what_runs_and_refuses_the_rest(alone: Server) -> None:
    gate = hold(alone.llm)  # type: ignore[arg-type]
    replies: list[Any] = []
    waiting = threading.Thread(target=lambda: replies.append(alone.chat("A", stream=True)))
    waiting.start()
    gate.release(3)
    until(lambda: len(runner(alone.llm).steps) == 3)  # type: ignore[arg-type]
    closing = threading.Thread(target=alone.llm.engine.close)  # type: ignore[union-attr]
    closing.start()
    until(lambda: alone.llm.engine._closing)  # type: ignore[union-attr]
    gate.release(100)
    closing.join()
    waiting.join()
    assert replies[0].events[-1]["error"]["code"] == "unavailable"
    reply = alone.chat("x")
    assert (reply.status, reply.error["code"]) == (503, "unavailable") and reply.headers["retry-after"]
    assert alone.get("/health").status == 503 and alone.get("/health").json["status"] == "dead"


def test_many_streams_at_once_are_each_whole() -> None:
    with serving(model(max_seqs=64), access_log=False) as server:
        results: list[str] = [""] * 64

        def ask(place: int) -> None:
            events = server.chat(chr(97 + place % 26), stream=True).events
            results[place] = "".join(choice["delta"].get("content", "") for event in events[:-1]
                                     for choice in event["choices"])

        threads = [threading.Thread(target=ask, args=(place,)) for place in range(64)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        letters = "abcdefghijklmnopqrstuvwxyz"
        assert results == [letters[place % 26 + 1:] for place in range(64)]


def test_one_connection_serves_request_after_request(server: Server) -> None:
    body = json.dumps({"prompt": "x"}).encode()
    one = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    with server.connect() as sock:
        sock.sendall(one * 3)
        seen = b""
        while seen.count(b'"text":"yz"') < 3:
            seen += sock.recv(65536)
    assert seen.count(b"HTTP/1.1 200 OK") == 3
