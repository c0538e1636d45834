"""How a server starts, and how it ends: by a signal, in order, with exit status 0."""
from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from apart import Process
from fakes import PATIENCE, hold, let_go, logged, model, serving, until

from zonda.errors import InvalidRequest, ZondaError
from zonda.options import ServerOptions
from zonda.server import create_app, serve

PROGRAM = """
import sys, threading, time
from fakes import hold, model
from zonda.options import ServerOptions
from zonda.server import serve

llm = model()
if sys.argv[1] == "slow":
    gate = hold(llm)
    steady = lambda: [gate.release() or time.sleep(0.02) for _ in range(10000)]
    threading.Thread(target=steady, daemon=True).start()
else:
    hold(llm)
serve(llm, ServerOptions(port=0, drain_timeout=float(sys.argv[2])))
print("ended")
"""
LOADING = """
import threading
from zonda.options import ServerOptions
from zonda.server import serve

def load(progress):
    print("loading", flush=True)
    threading.Event().wait()

serve(load, ServerOptions(port=0))
print("ended")
"""
CROWDED = """
import resource
from fakes import model
from zonda.options import ServerOptions
from zonda.server import serve

resource.setrlimit(resource.RLIMIT_NOFILE, (100, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
serve(model(), ServerOptions(port=0))
print("ended")
"""
TRYING = """
import sys
from fakes import model
from zonda.engine import trial
from zonda.options import ServerOptions
from zonda.server import serve

trial.__file__, trial.PATIENCE = sys.argv[1], 1e6
serve(model(), ServerOptions(port=0, drain_timeout=0))
print("ended")
"""


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts a server that is slow or stuck, and gives so many seconds to what runs when it is to end."""
    processes: list[Process] = []

    def start(how: str, *, drain: float) -> Process:
        processes.append(Process(tmp_path, PROGRAM, how, str(drain)))
        return processes[-1]

    yield start
    for each in processes:
        each.kill()


def asked(port: int, body: bytes) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
    sock.sendall(head + body)
    return sock


def stream(port: int, body: bytes) -> socket.socket:
    sock = asked(port, body)
    assert sock.recv(1 << 16).startswith(b"HTTP/1.1 200 OK")
    return sock


def rest(sock: socket.socket) -> bytes:
    seen = b""
    with sock:
        while part := sock.recv(1 << 16):
            seen += part
    return seen


def draining(port: int) -> bool:
    sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    sock.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    return b'"draining"' in rest(sock)


def test_a_signal_lets_running_requests_finish_and_the_exit_status_is_zero(started: Callable[..., Process]) -> None:
    process = started("slow", drain=PATIENCE)
    sock = stream(process.port, b'{"prompt": "a", "stream": true, "max_tokens": 20}')
    process.process.send_signal(signal.SIGTERM)
    seen = rest(sock)
    assert b"[DONE]" in seen and b'"finish_reason":"length"' in seen
    code, out, err = process.end()
    assert (code, out) == (0, "ended\n"), err
    assert "serving chain at http://127.0.0.1:" in err and "Traceback" not in err


def test_a_second_signal_ends_at_once_even_when_the_engine_hangs(started: Callable[..., Process]) -> None:
    process = started("stuck", drain=600)
    sock = stream(process.port, b'{"prompt": "A", "stream": true}')
    process.process.send_signal(signal.SIGTERM)
    until(lambda: draining(process.port))
    assert process.process.poll() is None
    process.process.send_signal(signal.SIGTERM)
    assert b'"code":"unavailable"' in rest(sock)
    code, out, err = process.end()
    assert (code, out) == (0, "ended\n"), err


def test_a_signal_ends_a_server_whose_model_still_loads() -> None:
    command = [sys.executable, "-c", LOADING]
    with subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == "loading\n"
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (0, "ended\n") and "Traceback" not in err, err


def test_who_is_still_sending_is_told_that_the_server_ends() -> None:
    with serving(model(), access_log=False) as server:
        slow = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)
        slow.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{")
        until(lambda: server.service.calls)
        server.listener.drain()
        said = rest(slow)
        assert said.startswith(b"HTTP/1.1 503 ") and b'"code":"unavailable"' in said
        server.thread.join(PATIENCE)
        assert not server.thread.is_alive()


def test_a_grammar_that_takes_long_does_not_keep_the_process(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    worker = f"input(); print('ready', flush=True); input(); open({str(begun)!r}, 'w'); input()"
    (tmp_path / "trial_worker.py").write_text(worker)
    process = Process(tmp_path, TRYING, str(tmp_path / "trial.py"))
    try:
        body = json.dumps({"prompt": "x", "grammar": {"type": "lark", "value": 'start: "a"'}}).encode()
        socks = [asked(process.port, body) for _ in range(3)]
        until(begun.exists)
        process.process.send_signal(signal.SIGTERM)
        assert [rest(sock)[:13] for sock in socks] == [b"HTTP/1.1 503 "] * 3
        code, out, err = process.end()
        assert (code, out) == (0, "ended\n") and "Traceback" not in err, err
    finally:
        process.kill()


def test_while_draining_new_requests_are_refused_and_health_says_so() -> None:
    with serving(model(), access_log=False) as server:
        gate = hold(server.llm)  # type: ignore[arg-type]
        replies: list[Any] = []
        running = threading.Thread(target=lambda: replies.append(server.chat("w", stream=True)))
        running.start()
        until(lambda: server.service.flights)
        server.listener.drain()
        assert (server.get("/health").status, server.get("/health").json["status"]) == (503, "draining")
        reply = server.chat("x")
        assert (reply.status, reply.error["code"]) == (503, "unavailable") and reply.headers["retry-after"]
        gate.release(100)
        running.join()
        assert replies[0].events[-1] == "[DONE]"
        server.thread.join(PATIENCE)
        assert not server.thread.is_alive()


def test_what_does_not_finish_in_time_is_told_and_cancelled() -> None:
    with serving(model(), drain_timeout=0.2, access_log=False) as server:
        gate = hold(server.llm)  # type: ignore[arg-type]
        replies: list[Any] = []
        asks = [lambda: server.chat("A", stream=True), lambda: server.chat("A"), lambda: server.complete(["A", "B"])]
        threads = [threading.Thread(target=lambda ask=ask: replies.append(ask())) for ask in asks]
        for thread in threads:
            thread.start()
        engine = server.llm.engine  # type: ignore[union-attr]
        until(lambda: engine.stats().running + engine.stats().waiting == 4)
        gate.release(3)
        until(lambda: any(each.streaming for each in server.service.flights))  # type: ignore[attr-defined]
        server.listener.drain()
        for thread in threads:
            thread.join()
        server.thread.join(PATIENCE)
        assert sorted(reply.status for reply in replies) == [200, 503, 503]
        streamed = next(reply for reply in replies if reply.status == 200)
        assert streamed.events[-1]["error"]["code"] == "unavailable"
        let_go(server.llm)  # type: ignore[arg-type]
        until(lambda: engine.stats().finished["cancelled"] == 4)


def test_a_model_is_loaded_beside_the_server() -> None:
    loaded = threading.Event()

    def load(progress: Any) -> Any:
        assert loaded.wait(PATIENCE)
        return model()

    with logged("zonda.server") as lines, serving(load, access_log=False) as server:
        assert server.get("/health").json == {"status": "loading", "models": {}}
        loaded.set()
        until(lambda: server.get("/health").status == 200)
        assert server.chat("x").json["model"] == "chain"
    assert f"serving chain at {server.url}/v1, documented at {server.url}/docs" in lines


def test_idle_connections_do_not_keep_others_out(tmp_path: Path) -> None:
    process = Process(tmp_path, CROWDED)
    try:
        with ExitStack() as idle:
            for _ in range(200):
                idle.enter_context(socket.create_connection(("127.0.0.1", process.port), timeout=PATIENCE))
            stream(process.port, b'{"prompt": "x", "stream": true}').close()
            process.process.send_signal(signal.SIGTERM)
            assert process.end()[:2] == (0, "ended\n")
    finally:
        process.kill()


def test_what_loading_raises_ends_the_server() -> None:
    def load(progress: Any) -> Any:
        raise ZondaError("no such model")

    with pytest.raises(ZondaError, match="no such model"):
        serve(load, ServerOptions(port=0))


def test_a_port_in_use_is_told_before_anything_is_loaded() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        with pytest.raises(InvalidRequest, match=r"cannot listen on 127\.0\.0\.1 port"):
            serve(lambda progress: pytest.fail("loaded"), ServerOptions(port=sock.getsockname()[1]))


@pytest.mark.parametrize(("options", "warned"), [
    ({"host": "0.0.0.0"}, True), ({"host": "0.0.0.0", "api_key": ("k",)}, False), ({"host": "127.0.0.1"}, False)])
def test_an_open_address_without_a_key_is_warned_about(options: dict[str, Any], warned: bool) -> None:
    def load(progress: Any) -> Any:
        raise ZondaError("enough")

    with logged("zonda.server") as lines, pytest.raises(ZondaError, match="enough"):
        serve(load, ServerOptions(port=0, **options))
    assert any("without an API key" in line for line in lines) is warned


def test_the_application_alone_speaks_asgi() -> None:
    llm = model()
    sent: list[dict[str, Any]] = []

    async def ask() -> None:
        messages = iter([{"type": "http.request", "body": b'{"prompt": "x"}', "more_body": False}])

        async def receive() -> Any:
            return next(messages, None) or await asyncio.Event().wait()

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": [], "root_path": ""}
        await create_app(llm)(scope, receive, send)  # type: ignore[arg-type]

    asyncio.run(ask())
    assert sent[0]["status"] == 200 and b'"text":"yz"' in sent[1]["body"]
    llm.engine.close()
