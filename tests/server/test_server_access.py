"""Keys from files, limits for each key, encryption, and what is refused before a request is whole."""
from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import stat
import subprocess
import threading
import urllib.request
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fakes import Server, hold, let_go, logged, model, serving, until

from zonda.errors import InvalidRequest
from zonda.options import ServerOptions, make
from zonda.server import create_app, serve
from zonda.server.connection import MAX_AHEAD, MAX_BODY_AHEAD, Drain

CHAT = {"messages": [{"role": "user", "content": "A"}]}


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def receive(sock: socket.socket) -> bytes:
    """All that comes until the connection is closed, or reset because something was sent after that."""
    seen = b""
    with suppress(ConnectionResetError):
        while part := sock.recv(65536):
            seen += part
    return seen


def test_keys_come_from_a_file_without_its_comments(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("# ours\n\n  one \ntwo\n")
    with serving(model(), api_key=("three",), api_key_file=str(tmp_path / "keys"), access_log=False) as server:
        allowed = [server.get("/v1/models", **bearer(key)).status for key in ("one", "two", "three", "# ours", "four")]
    assert allowed == [200, 200, 200, 401, 401]


@pytest.mark.parametrize("text", [None, "", "# nothing\n"])
def test_a_file_without_keys_does_not_open_the_server(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "keys").write_text(text)
    llm = model()
    with pytest.raises(InvalidRequest, match="API key") as caught:
        create_app(llm, ServerOptions(api_key_file=str(tmp_path / "keys")))
    assert caught.value.param == "api_key_file"
    llm.engine.close()


def test_a_changed_key_file_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("first\nsecond\n")

    def valid(server: Server) -> list[bool]:
        return [server.get("/v1/models", **{"x-api-key": key}).status == 200 for key in ("first", "second", "third")]

    with serving(model(), api_key_file=str(file), access_log=False) as server:
        assert valid(server) == [True, True, False]
        file.write_text("second\nthird, more\nthird\n")
        assert valid(server) == [False, True, True]
        file.write_text("# none\n")
        assert valid(server) == [False, True, True]
        file.unlink()
        assert valid(server) == [False, True, True]
        file.write_text("first\n")
        assert valid(server) == [True, False, False]


def test_several_keys_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZONDA_API_KEY", "one, two,")
    assert make(ServerOptions, {}).api_key == ("one", "two")
    assert make(ServerOptions, {"api_key": ["a,b"]}).api_key == ("a,b",)


def test_one_key_cannot_take_all_places() -> None:
    with serving(model(), api_key=("one", "two"), max_per_key=2, access_log=False) as server:
        gate = hold(server.llm)  # type: ignore[arg-type]
        replies: list[Any] = []
        threads = [threading.Thread(target=lambda: replies.append(
            server.post("/v1/chat/completions", CHAT | {"max_tokens": 2}, **bearer("one")))) for _ in range(2)]
        for thread in threads:
            thread.start()
        until(lambda: len(server.service.flights) == 2)
        reply = server.post("/v1/chat/completions", CHAT, **bearer("one"))
        assert (reply.status, reply.error["code"]) == (429, "too_many_requests") and reply.headers["retry-after"]
        reply = server.post("/v1/messages", CHAT | {"model": "chain", "max_tokens": 2}, **bearer("one"))
        assert (reply.status, reply.json["error"]["type"]) == (429, "rate_limit_error")
        let_go(server.llm)  # type: ignore[arg-type]
        gate.release(100)
        assert server.post("/v1/chat/completions", CHAT | {"max_tokens": 2}, **bearer("two")).status == 200
        for thread in threads:
            thread.join()
        assert [each.status for each in replies] == [200, 200]


def test_what_a_key_has_running_in_the_background_counts_once_and_can_be_followed() -> None:
    with serving(llm := model(), api_key=("one", "two"), max_per_key=1, access_log=False) as server:
        hold(llm)
        body = {"input": "w", "background": True}
        running = server.post("/v1/responses", body, **bearer("one"))
        assert running.status == 200
        assert server.post("/v1/responses", body, **bearer("one")).error["code"] == "too_many_requests"
        assert server.post("/v1/responses", body, **bearer("two")).status == 200
        let_go(llm)
        told = server.get(f"/v1/responses/{running.json['id']}?stream=true", **bearer("one"))
        assert told.status == 200 and told.events[-2]["type"] == "response.completed"
        until(lambda: not server.service.flights)
        assert server.post("/v1/responses", body | {"stream": True}, **bearer("one")).status == 200


def test_prefixes_are_shared_within_a_key_and_a_salt_and_not_beyond() -> None:
    said = [{"role": "user", "content": "A" * 64}]
    bodies: dict[str, dict[str, Any]] = {
        "/v1/completions": {"prompt": "A" * 64, "max_tokens": 1},
        "/v1/chat/completions": {"messages": said, "max_tokens": 1, "chat_template_kwargs": {}},
        "/v1/messages": {"model": "chain", "messages": said, "max_tokens": 1},
        "/v1/responses": {"input": "A" * 64, "max_output_tokens": 16}}

    def cached(server: Server, key: str, path: str, **fields: Any) -> int:
        usage = server.post(path, bodies[path] | fields, **bearer(key)).json["usage"]
        details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
        return int(usage.get("cache_read_input_tokens") or details.get("cached_tokens", 0))

    for path in bodies:
        with serving(model(), api_key=("one", "two"), access_log=False) as server:
            assert not cached(server, "one", path) and cached(server, "one", path)
            assert not cached(server, "two", path) and cached(server, "two", path)
            assert not cached(server, "one", path, cache_salt="mine") and cached(server, "one", path, cache_salt="mine")
            assert not cached(server, "two", path, cache_salt="mine")


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_that_takes_too_long_ends_with_an_error_and_frees_everything(stream: bool) -> None:
    limit = 2.0 if stream else 0.3  # seconds; a stream must have begun by then
    with serving(model(), request_timeout=limit, access_log=False) as server:
        gate = hold(server.llm)  # type: ignore[arg-type]
        gate.release(2)
        reply = server.chat("A", stream=stream, n=2)
        error = reply.events[-1]["error"] if stream else reply.error
        assert error["code"] == "timeout" and f"{limit:g} s" in error["message"]
        assert reply.status == (200 if stream else 504)
        let_go(server.llm)  # type: ignore[arg-type]
        engine = server.llm.engine  # type: ignore[union-attr]
        until(lambda: engine.stats().running + engine.stats().waiting == 0)
        assert engine.stats().finished["length"] == 0 and not server.service.flights
        assert server.chat("x").status == 200


def test_a_server_speaks_tls(tmp_path: Path) -> None:
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem",
                    "-out", "cert.pem", "-days", "2", "-subj", "/CN=localhost",
                    "-addext", "subjectAltName=IP:127.0.0.1"],
                   cwd=tmp_path, check=True, capture_output=True)
    cert, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    with serving(model(), tls_cert=cert, tls_key=key, access_log=False) as server:
        assert server.listener.address == f"https://127.0.0.1:{server.port}"
        context = ssl.create_default_context(cafile=cert)
        with urllib.request.urlopen(f"{server.listener.address}/health", context=context) as answer:
            assert json.load(answer)["status"] == "ok"


def test_a_certificate_that_cannot_be_used_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("nonsense")
    llm = model()
    for options in ({"tls_cert": str(tmp_path / "cert.pem")}, {"tls_cert": str(tmp_path / "none")}, {"tls_key": "x"}):
        with pytest.raises(InvalidRequest) as caught:
            serve(llm, ServerOptions(port=0, **options))
        assert caught.value.param == "tls_cert"
    llm.engine.close()


@pytest.mark.parametrize("head", [
    b"X-Long: " + b"a" * 70_000 + b"\r\n", b"".join(b"X-%d: a\r\n" % number for number in range(200)),
    b"X-Endless: " + b"a" * 70_000])
def test_headers_that_are_too_large_are_refused(server: Server, head: bytes) -> None:
    with server.connect() as sock:
        sock.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + head + b"\r\n")
        seen = receive(sock)
    assert seen.startswith(b"HTTP/1.1 431 ")
    assert json.loads(seen.partition(b"\r\n\r\n")[2])["error"]["code"] == "headers_too_large"
    assert server.get("/health").status == 200


def test_what_is_no_http_gets_the_envelope(server: Server) -> None:
    with server.connect() as sock:
        sock.sendall(b"\x16\x03\x01 nonsense\r\n\r\n")
        seen = receive(sock)
    assert seen.startswith(b"HTTP/1.1 400 ")
    assert json.loads(seen.partition(b"\r\n\r\n")[2])["error"]["code"] == "invalid_http"


@pytest.mark.parametrize("sent", [b"", b"GET /health HTT", b"GET /health HTTP/1.1\r\nHost: loc"])
def test_a_head_that_does_not_come_is_not_waited_for(sent: bytes) -> None:
    with serving(model(), receive_timeout=0.1, access_log=False) as server, server.connect() as sock:
        with suppress(OSError):
            sock.sendall(sent)
        assert receive(sock) == b""


def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    with serving(model(), receive_timeout=1, access_log=False) as server, server.connect() as sock:
        sock.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                     b"Content-Length: 9\r\n\r\n{")
        seen = receive(sock)
        assert seen.startswith(b"HTTP/1.1 408 ") and b'"request_timeout"' in seen


def test_a_body_that_comes_by_the_byte_is_not_waited_for() -> None:
    with serving(model(), receive_timeout=0.5, access_log=False) as server, server.connect() as sock:
        sock.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                     b"Content-Length: 9000\r\n\r\n")
        sock.settimeout(0.02)
        seen = b""
        while not seen:
            with suppress(TimeoutError):
                seen = sock.recv(65536)
            with suppress(OSError):
                sock.sendall(b" ")
    assert seen.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("beside", [b"5;" + b"a" * 70_000, b"1\r\n{\r\n0\r\nX: " + b"a" * 70_000,
                                    b"1\r\n{\r\n0\r\n" + b"X: a\r\n" * 12_000, b"1;abcdefghi\r\n \r\n" * 12_000])
def test_what_comes_beside_a_body_is_limited(server: Server, beside: bytes) -> None:
    with server.connect() as sock:
        with suppress(OSError):
            sock.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
            sock.sendall(beside)
        assert receive(sock).startswith(b"HTTP/1.1 431 ")


def test_a_body_in_small_chunks_with_trailers_is_read(server: Server) -> None:
    body = b'{"prompt": "x"' + b" " * 100_000 + b"}"
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(body[at:at + 5]), body[at:at + 5]) for at in range(0, len(body), 5))
    with server.connect() as sock:
        sock.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                     b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\nX-Sum: 1\r\n\r\n")
        assert b'"text":"yz"' in receive(sock)


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("offer", [b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n", b"upgrade:h2c \r\n"])
def test_the_body_is_read_of_a_request_that_offers_http_2(server: Server, offer: bytes, apart: bool) -> None:
    body = b'{"prompt": "x", "user": "\\r\\nUpgrade: h2c\\r\\n"}'
    head = (b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\n" + offer +
            b"Content-Length: %d\r\n\r\n" % len(body))
    with server.connect() as sock:
        for _ in range(2):  # the connection goes on
            for piece in (head, body) if apart else (head + body,):
                sock.sendall(piece)
            seen = b""
            while b'"text":"yz"' not in seen:
                seen += (piece := sock.recv(65536))
                assert piece, seen


def test_a_request_for_two_hosts_is_none(server: Server) -> None:
    with server.connect() as sock:
        sock.sendall(b"GET /version HTTP/1.1\r\nHost: elsewhere.example\r\nHost: localhost\r\n\r\n")
        assert receive(sock).startswith(b"HTTP/1.1 400 ")


GET = b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n"
UPGRADE = (b"GET /v1/responses HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
           b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
LARGE = b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999\r\n\r\n"


@pytest.mark.parametrize("ahead", [GET, GET[:20], LARGE + b" " * MAX_BODY_AHEAD, UPGRADE, GET * MAX_AHEAD])
@pytest.mark.parametrize("stream", [False, True])
def test_who_leaves_with_more_requests_sent_ahead_is_noticed(ahead: bytes, stream: bool) -> None:
    with serving(llm := model(), access_log=False) as server:
        hold(llm)
        sock = server.open("/v1/completions", {"prompt": "A", "max_tokens": 99, "stream": stream})
        until(lambda: server.service.flights)
        sock.sendall(ahead)
        sock.close()
        until(lambda: not server.service.flights and not server.service.calls)


@pytest.mark.parametrize("ahead", [GET * (MAX_AHEAD + 1), LARGE + b" " * MAX_BODY_AHEAD * 2, b"\0" + GET])
def test_too_much_sent_ahead_closes_the_connection(ahead: bytes) -> None:
    with serving(llm := model(), access_log=False) as server:
        gate = hold(llm)
        with server.open("/v1/completions", {"prompt": "A", "max_tokens": 99, "stream": True}) as sock:
            gate.release(2)
            assert sock.recv(99).startswith(b"HTTP/1.1 200 ")
            sock.sendall(ahead)
            assert b"HTTP/1.1" not in receive(sock)
        until(lambda: not server.service.flights and not server.service.calls)


def test_requests_that_are_sent_ahead_are_answered_in_their_order() -> None:
    with serving(llm := model(), access_log=False) as server:
        hold(llm)
        with server.open("/v1/completions", {"prompt": "w"}) as sock:
            until(lambda: server.service.flights)
            sock.sendall(GET + UPGRADE)
            let_go(llm)
            seen = b""
            while b"405 Method" not in seen:
                seen += sock.recv(65536)
        assert [part[:3] for part in seen.split(b"HTTP/1.1 ")[1:]] == [b"200", b"200", b"405"]
        assert seen.index(b'"xyz"') < seen.index(b'"version"')


@pytest.mark.parametrize("later", [b"", b" "])
def test_a_connection_whose_body_stays_away_is_closed(later: bytes) -> None:
    cases = [("/v1/completions", 9, b"408"), ("/v1/completions", 1 << 40, b"413"), ("/nothing", 9, b"404")]
    with serving(model(), receive_timeout=1, access_log=False) as server, ExitStack() as stack:
        socks = [stack.enter_context(server.connect()) for _ in cases]
        for sock, (path, length, _) in zip(socks, cases):
            sock.sendall(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{{".encode())
        for sock, (_, _, status) in zip(socks, cases):
            seen = sock.recv(65536)
            with suppress(OSError):
                sock.sendall(later)
            assert (seen + receive(sock)).startswith(b"HTTP/1.1 " + status)


def test_a_connection_whose_refused_body_comes_goes_on() -> None:
    with serving(model(), access_log=False) as server, server.connect() as sock:
        sock.sendall(b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{")
        assert sock.recv(65536).startswith(b"HTTP/1.1 404 ")
        sock.sendall(b"}GET /version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert receive(sock).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("stream", [True, False])
def test_who_reads_nothing_of_a_large_answer_is_left(stream: bool) -> None:
    """Else it would be kept for ever, and so would the model."""
    with serving(model(), access_log=False) as server, socket.socket() as sock:
        server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", server.port))
        gate = hold(server.llm)  # type: ignore[arg-type]
        body = json.dumps(CHAT | {"stream": stream, "logprobs": True, "top_logprobs": 20}).encode()
        sock.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body))
        sock.sendall(body)
        until(lambda: server.service.flights)
        server.listener.config.http_protocol_class.patience = 0.05  # type: ignore[union-attr]
        gate.release(10_000)
        until(lambda: not server.service.calls and not server.listener.server_state.connections)
        let_go(server.llm)  # type: ignore[arg-type]
        until(lambda: server.llm.engine.stats().running == 0)  # type: ignore[union-attr]


def test_a_small_answer_that_nobody_reads_is_not_kept() -> None:
    with serving(model(), access_log=False) as server, socket.socket() as sock:
        server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", server.port))
        until(lambda: server.listener.server_state.connections)
        server.listener.config.http_protocol_class.patience = 0.05  # type: ignore[union-attr]
        sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 6)
        until(lambda: not server.listener.server_state.connections)
        assert len(receive(sock)) < 6 * len(server.service.metrics.text())


def test_who_reads_slowly_is_waited_for() -> None:
    left, ended = [90, 50, 50], []
    transport: Any = SimpleNamespace(get_write_buffer_size=lambda: left.pop(0), abort=lambda: ended.append(len(left)))

    async def watch() -> None:
        Drain(transport).watch(0)
        while left:
            await asyncio.sleep(0)

    asyncio.run(watch())
    assert ended == [0]


def test_what_was_said_is_logged_only_when_asked_for() -> None:
    with logged("zonda.access") as lines:
        for fields in ({}, {"log_prompts": True}, {"log_prompts": True, "access_log_format": "json"}):
            count = len(lines)
            with serving(model(), access_log=True, **fields) as server:
                server.chat("secretw\n", stream=True)
                until(lambda count=count: len(lines) > count)
    assert "secretw" not in lines[0]
    assert json.loads(json.loads(lines[2])["request"])["messages"][0]["content"] == "secretw\n"
    assert "request=" in lines[1] and "secretw" in lines[1] and "\n" not in lines[1] and "[DONE]" in lines[1]


def test_payloads_are_logged_in_full_to_a_file_of_the_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "payloads.jsonl"
    with serving(model(), log=str(path)) as server:
        assert path.read_bytes() == b""
        server.get("/v1/models")
        server.chat("w" * 70_000)
        server.chat("w", stream=True)
        until(lambda: path.read_bytes().count(b"\n") == 2)
    long, streamed = (json.loads(line) for line in path.read_text().splitlines())
    assert json.loads(long["request"])["messages"][0]["content"] == "w" * 70_000
    assert long["status"] == 400 and json.loads(long["answer"])["error"]["code"] == long["error"]
    assert streamed["answer"].endswith("data: [DONE]\n\n") and streamed["time"] and streamed["model"] == "chain"
    assert os.name == "nt" or stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_log_that_cannot_be_written_is_told_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="cannot be written: Is a directory"):
        serve(lambda progress: pytest.fail("loaded"), ServerOptions(port=0, log=str(tmp_path)))


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_a_compressed_body_is_refused_as_such(server: Server, path: str) -> None:
    for encoding in ("gzip", "br"):
        reply = server.post(path, {}, **{"content-encoding": encoding})
        assert reply.status == 415 and reply.json["error"]["type"] == "invalid_request_error"
        assert "Content-Encoding" in reply.json["error"]["message"]
    assert server.post(path, {}, **{"content-encoding": "identity"}).status == 400
