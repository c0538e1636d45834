"""Responses over a WebSocket: by the official client, by plain frames, and against whoever means ill."""
from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import openai
import pytest
from fakes import PATIENCE, Server, hold, let_go, logged, model, runner, serving, until
from script import speaking
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from zonda.server.connection import MAX_FRAGMENTS, PIECE
from zonda.server.responses_socket import MAX_LANES, MAX_WAITING
from zonda.text.parts import Text

HANDSHAKE = (b"GET /v1/responses HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
             b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nX: %s\r\n\r\n")
Event = dict[str, Any]
ENDS = {"response.completed", "response.incomplete", "response.failed", "error"}


@contextmanager
def connected(server: Server, path: str = "/v1/responses", **headers: str) -> Iterator[ClientConnection]:
    with connect(f"ws://127.0.0.1:{server.port}{path}", additional_headers=headers, proxy=None, ping_interval=None,
                 open_timeout=PATIENCE, close_timeout=PATIENCE) as ws:
        yield ws


def told(ws: ClientConnection) -> Event:
    return json.loads(ws.recv(timeout=PATIENCE))


def rest(ws: ClientConnection) -> list[Event]:
    """The events up to the end of a response."""
    events = [told(ws)]
    while events[-1]["type"] not in ENDS:
        events.append(told(ws))
    return events


def send(ws: ClientConnection, **fields: Any) -> None:
    ws.send(json.dumps({"type": "response.create", **fields}))


def ask(ws: ClientConnection, **fields: Any) -> list[Event]:
    send(ws, **fields)
    return rest(ws)


def text(events: list[Event]) -> str:
    return "".join(each["delta"] for each in events if each["type"] == "response.output_text.delta")


def id_of(events: list[Event]) -> str:
    return events[-1]["response"]["id"]


def closed(ws: ClientConnection) -> tuple[int, str]:
    with pytest.raises(ConnectionClosed) as caught:
        while True:
            ws.recv(timeout=PATIENCE)
    assert caught.value.rcvd
    return caught.value.rcvd.code, caught.value.rcvd.reason


def bare(events: list[Event]) -> list[Event]:
    """Events without what differs from one response to the next."""
    return [{name: value for name, value in each.items() if name not in ("item_id", "response", "item")}
            for each in events]


@pytest.mark.filterwarnings("ignore:connect")  # the client's own use of its library
def test_the_official_client_gets_responses_one_after_another() -> None:
    with (serving(speaking(), access_log=False) as server,
          openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as client,
          client.responses.connect() as connection):
        for _ in range(2):
            connection.response.create(model="chain", input="x")
            for event in connection:
                if event.type == "response.completed":
                    break
            assert event.response.output[1].content[0].text == "Hello"


def test_frames_are_the_events_of_a_stream(server: Server) -> None:
    streamed = server.post("/v1/responses", {"input": "w", "stream": True}).events[:-1]
    with connected(server) as ws:
        assert bare(ask(ws, input="w")) == bare(streamed)


def test_the_path_may_leave_out_the_version(server: Server) -> None:
    with connected(server, "/responses") as ws:
        assert text(ask(ws, input="x")) == "yz"


def test_a_response_that_is_not_stored_can_be_continued_on_its_connection_alone(server: Server) -> None:
    with connected(server) as ws:
        first = id_of(ask(ws, input="x", store=False))
        events = ask(ws, input="w", store=False, previous_response_id=first)
        assert text(events) == "xyz" and events[-1]["response"]["previous_response_id"] == first
        counted = ask(ws, input="w", store=False)[-1]["response"]["usage"]["input_tokens"]
        assert events[-1]["response"]["usage"]["input_tokens"] > counted
        last = id_of(events)
        assert server.get(f"/v1/responses/{last}").status == 404
        with connected(server) as other:
            assert ask(other, input="w", previous_response_id=last)[0]["error"]["code"] == "previous_response_not_found"
    until(lambda: not len(server.service.carried))


def test_a_stored_response_can_be_continued_anywhere(server: Server) -> None:
    with connected(server) as ws:
        first = id_of(ask(ws, input="x"))
    assert server.get(f"/v1/responses/{first}").json["status"] == "completed"
    with connected(server) as ws:
        assert text(ask(ws, input="w", previous_response_id=first)) == "xyz"


def test_after_a_failed_continuation_the_response_is_forgotten(server: Server) -> None:
    with connected(server) as ws:
        first = id_of(ask(ws, input="x", store=False))
        wrong = ask(ws, input="w", store=False, previous_response_id=first, temperature=-1)
        assert (wrong[0]["status"], wrong[0]["error"]["param"]) == (400, "temperature")
        again = ask(ws, input="w", store=False, previous_response_id=first)
        assert again[0]["error"]["code"] == "previous_response_not_found"


def test_the_output_of_an_unknown_call_fails_and_forgets_too(server: Server) -> None:
    with connected(server) as ws:
        first = id_of(ask(ws, input="x", store=False))
        result = {"type": "function_call_output", "call_id": "none", "output": "x"}
        wrong = ask(ws, store=False, previous_response_id=first, input=[result])
        assert (wrong[0]["status"], wrong[0]["error"]["param"]) == (400, "input[0].call_id")
        again = ask(ws, input="w", store=False, previous_response_id=first)
        assert again[0]["error"]["code"] == "previous_response_not_found"


def test_only_the_last_response_of_a_lane_is_kept(server: Server) -> None:
    with connected(server) as ws:
        first, other = id_of(ask(ws, input="x", store=False)), id_of(ask(ws, input="x", store=False, stream_id="b"))
        assert text(ask(ws, input="w", store=False, previous_response_id=other)) == "xyz"
        assert ask(ws, input="w", previous_response_id=first)[0]["error"]["code"] == "previous_response_not_found"
        assert text(ask(ws, input="w", store=False, previous_response_id=other)) == "xyz"


def test_events_name_their_lane_also_when_something_is_wrong(server: Server) -> None:
    with connected(server) as ws:
        assert {each["stream_id"] for each in ask(ws, input="x", stream_id="agent.1")} == {"agent.1"}
        wrong = ask(ws, input="x", stream_id="agent.1", top_p=7)
        assert (wrong[0]["stream_id"], wrong[0]["error"]["param"]) == ("agent.1", "top_p")
        assert "stream_id" not in ask(ws, input="x")[0]
        assert ask(ws, input="x", stream_id='a"b')[0]["error"]["param"] == "stream_id"


def test_lanes_are_limited(server: Server) -> None:
    with connected(server) as ws:
        ends = [ask(ws, input="z", store=False, stream_id=f"lane{number}")[-1] for number in range(MAX_LANES + 2)]
        assert [each["type"] for each in ends[:MAX_LANES]] == ["response.completed"] * MAX_LANES
        assert ends[-1]["error"]["code"] == "websocket_stream_limit_reached"


def test_a_prompt_is_prepared_without_an_answer() -> None:
    with serving(model(), access_log=False) as server, connected(server) as ws:
        events = ask(ws, input="x" * 100, store=False, generate=False)
        assert [each["type"] for each in events] == ["response.created", "response.in_progress", "response.completed"]
        response = events[-1]["response"]
        assert response["output"] == [] and response["usage"]["output_tokens"] == 0
        events = ask(ws, input="w", store=False, previous_response_id=response["id"])
        assert text(events) == "xyz" and events[-1]["response"]["usage"]["input_tokens_details"]["cached_tokens"] > 60


def test_what_is_wrong_with_a_message_is_told_and_the_connection_goes_on(server: Server) -> None:
    cases: list[tuple[Any, str | None, str]] = [
        ("{", None, "invalid_json"), ("[]", None, "invalid_value"), ('"x"', None, "invalid_value"),
        ("{}", "type", "missing_required_parameter"), ({"type": "response.steer"}, "type", "invalid_value"),
        ({"type": "response.create"}, "input", "missing_required_parameter"),
        ({"type": "response.create", "input": "x", "background": True}, "background", "unsupported"),
        ({"type": "response.create", "input": "x", "model": "other"}, "model", "model_not_found"),
        ({"type": "response.create", "input": "x", "tools": [{"type": "mcp"}]}, "tools[0].type", "unsupported"),
        ({"type": "response.create", "input": "x", "previous_response_id": 3}, "previous_response_id", "invalid_value"),
        (b"\xff", None, "invalid_json"), (b"", None, "invalid_json")]
    with connected(server) as ws:
        for message, param, code in cases:
            ws.send(json.dumps(message) if isinstance(message, dict) else message)
            event = told(ws)
            assert (event["type"], event["error"]["code"]) == ("error", code), (message, event)
            assert event["error"]["param"] == param or param == "tools[0].type", (message, event)
            assert 400 <= event["status"] < 500 and event["error"]["type"] == "invalid_request_error"
        assert text(ask(ws, input="x", stream=True)) == "yz"


def test_an_answer_that_breaks_off_fails_and_the_next_is_written() -> None:
    with serving(speaking([Text("He"), ValueError("broken")]), access_log=False) as server, connected(server) as ws:
        for _ in range(2):
            events = ask(ws, input="x")
            assert (text(events), events[-1]["type"]) == ("He", "response.failed")
            assert events[-1]["response"]["error"]["code"] == "server_error"


def test_messages_wait_for_their_turn() -> None:
    with serving(model(), access_log=False) as server, connected(server) as ws:
        hold(server.llm)  # type: ignore[arg-type]
        for letter in "wxy":
            send(ws, input=letter)
        until(lambda: server.service.flights)
        time.sleep(0.05)
        assert len(server.service.flights) == 1
        let_go(server.llm)  # type: ignore[arg-type]
        assert [text(rest(ws)) for _ in "wxy"] == ["xyz", "yz", "z"]


def test_too_many_waiting_messages_end_the_connection_and_what_it_runs() -> None:
    with serving(model(), access_log=False) as server, connected(server) as ws:
        hold(server.llm)  # type: ignore[arg-type]
        send(ws, input="A")
        until(lambda: server.llm.engine.stats().running)  # type: ignore[union-attr]
        for _ in range(MAX_WAITING + 1):
            send(ws, input="A")
        events = rest(ws)
        assert (events[-1]["status"], events[-1]["error"]["code"]) == (429, "queue_full")
        assert closed(ws)[0] == 1008
        until(lambda: not server.service.flights)
        let_go(server.llm)  # type: ignore[arg-type]
        until(lambda: server.llm.engine.stats().finished["cancelled"] == 1)  # type: ignore[union-attr]


def test_a_message_may_be_as_large_as_a_body() -> None:
    with serving(model(), access_log=False, max_body_mb=1) as server:
        with connected(server) as ws:
            assert ask(ws, input="x" * 1_000_000)[0]["error"]["code"] == "context_length_exceeded"
            with suppress(ConnectionClosed):  # if the server is faster
                send(ws, input="x" * 1_100_000)
            assert closed(ws)[0] == 1009
        with connected(server) as ws:
            with suppress(ConnectionClosed):  # before its last part
                ws.send([b'{"type": "response.create", "input": "', b"x" * 600_000, b"x" * 600_000, b'"}'])
            assert closed(ws)[0] == 1009


def test_leaving_cancels_what_runs() -> None:
    with serving(model(), access_log=False) as server:
        gate = hold(server.llm)  # type: ignore[arg-type]
        with connected(server) as ws:
            send(ws, input="A")
            gate.release(3)
            until(lambda: len(runner(server.llm).steps) >= 3)  # type: ignore[arg-type]
        until(lambda: not server.service.flights and not server.service.connections)
        let_go(server.llm)  # type: ignore[arg-type]
        until(lambda: server.llm.engine.stats().finished["cancelled"] == 1)  # type: ignore[union-attr]
        until(lambda: len(server.service.carried) == 0 and not server.service.calls)


def test_vanishing_without_a_word_cancels_what_runs() -> None:
    with serving(model(), access_log=False) as server:
        hold(server.llm)  # type: ignore[arg-type]
        with connected(server) as ws:
            send(ws, input="A")
            until(lambda: server.service.flights)
            ws.socket.shutdown(socket.SHUT_RDWR)
            until(lambda: not server.service.flights and not server.service.connections)
        let_go(server.llm)  # type: ignore[arg-type]


def test_who_answers_no_ping_is_cut_off() -> None:
    with serving(model(), access_log=False, keep_alive=0.05, receive_timeout=1) as server, server.connect() as sock:
        sock.sendall(HANDSHAKE % b"x")
        seen = b""
        while part := sock.recv(1 << 16):
            seen += part
        assert seen.startswith(b"HTTP/1.1 101 ")
        until(lambda: not server.service.connections)


def test_an_idle_connection_is_closed(server: Server) -> None:
    with serving(model(), access_log=False, socket_idle=2) as server, connected(server) as ws:
        assert text(ask(ws, input="x")) == "yz"
        assert closed(ws)[0] == 1001


def test_an_old_connection_is_told_so_when_its_response_has_ended() -> None:
    with serving(model(), access_log=False) as server, connected(server) as ws:
        hold(server.llm)  # type: ignore[arg-type]
        send(ws, input="x")
        until(lambda: server.service.flights)
        (connection,) = server.service.connections
        connection._end = time.monotonic()  # type: ignore[attr-defined]
        let_go(server.llm)  # type: ignore[arg-type]
        assert text(rest(ws)) == "yz"
        event = told(ws)
        assert (event["status"], event["error"]["code"]) == (400, "websocket_connection_limit_reached")
        assert closed(ws)[0] == 1001


def test_a_key_is_asked_for_at_the_handshake() -> None:
    with serving(model(), access_log=False, api_key=("k", "l"), max_per_key=1) as server:
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            with pytest.raises(InvalidStatus) as caught, connected(server, **headers):
                pass
            assert caught.value.response.status_code == 401
            assert json.loads(caught.value.response.body)["error"]["code"] == "invalid_api_key"
        with (connected(server, Authorization="Bearer k") as ws, connected(server, Authorization="Bearer k") as second,
              connected(server, Authorization="Bearer l") as other):
            kept = id_of(ask(ws, input="x"))
            assert ask(other, input="x", previous_response_id=kept)[0]["error"]["code"] == "previous_response_not_found"
            hold(server.llm)  # type: ignore[arg-type]
            send(ws, input="x")
            until(lambda: server.llm.engine.stats().running)  # type: ignore[union-attr]
            assert ask(second, input="x")[0]["status"] == 429
            let_go(server.llm)  # type: ignore[arg-type]
            assert text(rest(ws)) == "yz" and text(ask(second, input="x")) == "yz"


@pytest.mark.parametrize(("path", "headers", "status"), [
    ("/v1/responses", {"Origin": "https://elsewhere.example"}, 403), ("/v1/chat/completions", {}, 404),
    ("/v1/responses/resp_1", {}, 404), ("/", {}, 404)])
def test_what_may_not_connect_is_answered_over_http(server: Server, path: str, headers: dict[str, str],
                                                    status: int) -> None:
    with pytest.raises(InvalidStatus) as caught, connected(server, path, **headers):
        pass
    assert caught.value.response.status_code == status and b'"error"' in (caught.value.response.body or b"")


def test_handshakes_that_are_none_do_no_harm(server: Server) -> None:
    heads = [b"POST /v1/responses HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
             b"GET /v1/responses HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
             b"GET /v1/responses HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
             b"Sec-WebSocket-Version: 8\r\nSec-WebSocket-Key: x\r\n\r\n",
             HANDSHAKE % (b"x" * 20_000)]
    for head in heads:
        with server.connect() as sock:
            sock.sendall(head)
            assert sock.recv(1 << 16)[:10] == b"HTTP/1.1 4"
    assert server.get("/health").status == 200 and server.get("/v1/responses").status == 405


@pytest.mark.parametrize(("frame", "code"), [
    (b"\x81\x82\0\0\0\0\xff\xff", 1007), (b"\x81\x02xx", 1002), (b"\xf1\x80\0\0\0\0", 1002),
    (b"\x89\xfe\x01\x00" + bytes(260), 1002), (b"\x81\xff" + b"\x7f" * 8, 1009), (b"\x80\x80\0\0\0\0", 1002)])
def test_frames_that_are_none_end_the_connection_with_a_reason(server: Server, frame: bytes, code: int) -> None:
    with logged("") as lines, server.connect() as sock:
        sock.sendall(HANDSHAKE % b"x")
        assert sock.recv(1 << 16).startswith(b"HTTP/1.1 101")
        sock.sendall(frame)
        assert sock.recv(4)[2:] == code.to_bytes(2, "big")
    assert not [line for line in lines if "Traceback" in line or "Invalid" in line]


def test_a_server_that_ends_finishes_what_it_writes_and_sends_idle_clients_away() -> None:
    with serving(model(), access_log=False) as server, connected(server) as busy, connected(server) as idle:
        assert text(ask(idle, input="x")) == "yz"
        until(lambda: not server.service.flights)
        hold(server.llm)  # type: ignore[arg-type]
        send(busy, input="x")
        until(lambda: server.llm.engine.stats().running)  # type: ignore[union-attr]
        server.listener.drain()
        assert closed(idle) == (1012, "the server is shutting down")
        with pytest.raises(InvalidStatus) as caught, connected(server):
            pass
        assert caught.value.response.status_code == 503
        let_go(server.llm)  # type: ignore[arg-type]
        assert text(rest(busy)) == "yz"
        assert closed(busy)[0] == 1012
        server.thread.join(PATIENCE)
        assert not server.thread.is_alive()


def test_what_does_not_end_in_time_is_told_before_the_close() -> None:
    with serving(model(), access_log=False, drain_timeout=0.2) as server, connected(server) as ws:
        hold(server.llm)  # type: ignore[arg-type]
        send(ws, input="A")
        until(lambda: server.service.flights)
        server.listener.drain()
        event = rest(ws)[-1]
        assert (event["type"], event["response"]["error"]["code"]) == ("response.failed", "server_error")
        assert "shut down" in event["response"]["error"]["message"]
        assert closed(ws)[0] == 1012
        let_go(server.llm)  # type: ignore[arg-type]


def test_each_response_is_logged_and_counted() -> None:
    with logged("zonda.access") as lines, serving(model(), access_log=True) as server:
        with connected(server, **{"X-Request-Id": "mine"}) as ws:
            ask(ws, input="x")
            ask(ws, input="x", top_p=7)
            assert ws.response and ws.response.headers["x-request-id"] == "mine"
        until(lambda: len(lines) == 2)
        assert "method=WS path=/v1/responses status=200" in lines[0] and "id=mine-1" in lines[0]
        assert "status=400" in lines[1] and "error=invalid_value" in lines[1]
        metrics = server.get("/metrics").body.decode()
        assert 'http_requests_total{method="WS",model="chain",path="/v1/responses",status="200"} 1.0' in metrics


def test_connections_beside_each_other_get_their_own_answers() -> None:
    with serving(model(), access_log=False) as server:
        found: dict[str, str] = {}

        def talk(letter: str) -> None:
            with connected(server) as ws:
                found[letter] = "".join(text(ask(ws, input=letter)) for _ in range(5))

        threads = [threading.Thread(target=talk, args=(letter,)) for letter in "stuvwx"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == {letter: "stuvwxyz"["stuvwxyz".index(letter) + 1:] * 5 for letter in "stuvwx"}


@contextmanager
def opened(server: Server) -> Iterator[socket.socket]:
    """A connection that frames of one's own can be sent over."""
    with server.connect() as sock:
        sock.sendall(HANDSHAKE % b"x")
        assert sock.recv(4096).startswith(b"HTTP/1.1 101 ")
        yield sock


def test_tiny_frames_are_read_a_few_at_a_time(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands in one go would hold up everybody else."""
    sizes: list[int] = []
    whole = WebSocketsSansIOProtocol.data_received
    monkeypatch.setattr(WebSocketsSansIOProtocol, "data_received",
                        lambda self, data: sizes.append(len(data)) or whole(self, data))
    with opened(server) as sock:
        sizes.clear()
        sent = b"\x8a\x80AAAA" * 20_000 + b"\x89\x81AAAAA"
        sock.sendall(sent)
        assert sock.recv(4096) == b"\x8a\x01\0"
    assert sum(sizes) == len(sent) and max(sizes) <= PIECE


def test_a_message_may_not_come_in_too_many_pieces(server: Server) -> None:
    with opened(server) as sock:
        sock.sendall(b"\x01\x80AAAA" + b"\x00\x80AAAA" * MAX_FRAGMENTS)
        assert b"\x03\xf1a message in too many pieces" in sock.recv(4096)


def test_who_reads_no_pongs_is_cut_off() -> None:
    with serving(model(), receive_timeout=0.5, access_log=False) as server:
        server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        with opened(server) as sock, pytest.raises(OSError):
            for _ in range(10_000):
                sock.sendall((b"\x89\xfdAAAA" + b"A" * 125) * 1000)
        until(lambda: not server.service.connections and not server.listener.server_state.connections)
