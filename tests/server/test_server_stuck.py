"""Engines that die and engines that hang: health tells, who waits is told, and somebody starts again."""
from __future__ import annotations

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from apart import Process
from fakes import PATIENCE, hold, let_go, model, runner, serving, until

from zonda.engine.engine import MAX_FAILURES
from zonda.errors import DeviceLost
from zonda.server.served import Model

PROGRAM = """
import threading
from fakes import hold, model
from zonda.cli.main import leave, tell
from zonda.errors import ZondaError
from zonda.options import ServerOptions
from zonda.server import serve

llm = model()
hold(llm)
threading.Thread(target=threading.Event().wait).start()  # another one that nothing ends
try:
    serve(llm, ServerOptions(port=0, stall_timeout=0.1, stall_exit=0.5))
except ZondaError as error:
    leave(tell(error))
"""


def test_an_engine_that_dies_under_a_request_is_loaded_again() -> None:
    gate, loads = threading.Event(), []

    def load(progress: Any) -> Any:
        assert not loads or gate.wait(PATIENCE)
        loads.append(model())
        return loads[-1]

    with serving([Model(name="one", load=load)], access_log=False) as server, ThreadPoolExecutor(1) as pool:
        until(lambda: server.get("/health").status == 200)
        steps = hold(loads[0])
        running = pool.submit(server.complete, "A", stream=True, n=MAX_FAILURES)
        until(lambda: server.service.flights)
        steps.release(3)
        until(lambda: len(runner(loads[0]).steps) == 3)
        loads[0].engine._failures = MAX_FAILURES - 1
        runner(loads[0]).fault = ValueError("/secret")
        steps.release()
        last = running.result(PATIENCE).events[-1]
        assert last["error"]["code"] == "unavailable" and "secret" not in str(last)
        until(lambda: not loads[0].engine.alive)
        health = server.get("/health")
        assert health.status == 503 and health.json["status"] in {"dead", "loading"}
        gate.set()
        until(lambda: server.get("/health").status == 200)
        assert server.complete("x").json["choices"][0]["text"] == "yz" and len(loads) == 2


def test_a_device_that_fails_ends_the_server_and_all_are_told() -> None:
    loads = []

    def load(progress: Any) -> Any:
        loads.append(model())
        return loads[-1]

    with serving([Model(name="one", load=load)], access_log=False) as server:
        until(lambda: server.get("/health").status == 200)
        runner(loads[0]).fault = DeviceLost("cuda:0 has failed")
        assert server.chat("A", stream=True).events[-1]["error"]["code"] == "unavailable"
        server.thread.join(PATIENCE)
        assert not server.thread.is_alive() and getattr(server.listener.error, "exit_code", 0) == 70
        assert len(loads) == 1


@pytest.mark.parametrize("unloading", [False, True])
def test_a_step_that_never_ends_ends_the_server_and_all_are_told(unloading: bool) -> None:
    llm = model()
    with serving([Model(name="one", load=lambda progress: llm)], drain_timeout=0.05, access_log=False) as server, \
            ThreadPoolExecutor(3) as pool:
        until(lambda: server.get("/health").status == 200)
        hold(llm)
        streamed, whole = (pool.submit(server.chat, "A", stream=stream) for stream in (True, False))
        until(lambda: llm.engine.stats().running and llm.engine.stats().running + llm.engine.stats().waiting == 2)
        if unloading:
            pool.submit(server.post, "/v1/models/unload", {"model_id": "one"})
            until(lambda: server.get("/health").json["models"] == {"one": "unloading"})
        else:
            llm.engine._moved -= 200
            assert server.get("/health").json["status"] == "stuck"
        llm.engine._moved -= 1000
        reply = whole.result(PATIENCE)
        assert (reply.status, reply.error["code"]) == (503, "unavailable")
        assert streamed.result(PATIENCE).events[-1]["error"]["code"] == "unavailable"
        server.thread.join(PATIENCE)
        assert not server.thread.is_alive() and getattr(server.listener.error, "exit_code", 0) == 70
        let_go(llm)


def test_a_long_step_that_ends_is_forgiven() -> None:
    with serving(model(), stall_timeout=0.05, stall_exit=30, access_log=False) as server, \
            ThreadPoolExecutor(1) as pool:
        hold(server.llm)  # type: ignore[arg-type]
        running = pool.submit(server.complete, "x")
        until(lambda: server.get("/health").status == 503)
        let_go(server.llm)  # type: ignore[arg-type]
        assert running.result(PATIENCE).status == 200 and server.get("/health").status == 200


def test_requests_that_keep_coming_do_not_hide_a_step_that_hangs() -> None:
    with serving(model(), stall_timeout=0.05, access_log=False) as server:
        hold(server.llm)  # type: ignore[arg-type]
        with server.open("/v1/completions", {"prompt": "A"}):
            until(lambda: server.get("/health").json["status"] == "stuck")
            with server.open("/v1/completions", {"prompt": "A"}):
                until(lambda: len(server.service.flights) == 2)
                assert server.get("/health").json["status"] == "stuck"
        let_go(server.llm)  # type: ignore[arg-type]


def test_the_process_ends_with_a_status_of_its_own_though_threads_hang(tmp_path: Path) -> None:
    process = Process(tmp_path, PROGRAM)
    try:
        assert b'"code":"unavailable"' in _asked(process.port)
        status, _, said = process.end()
    finally:
        process.kill()
    assert status == 70 and "has finished no step for" in said, said


def _asked(port: int) -> bytes:
    """What comes to a request that cannot be answered."""
    body = b'{"prompt": "A", "stream": true}'
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock:
        sock.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                     b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        seen = b""
        while part := sock.recv(65536):
            seen += part
    return seen
