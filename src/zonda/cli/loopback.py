"""For `bench --http`: the HTTP server in this process, and its clients in another, over loopback."""
from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from zonda.cli import streams
from zonda.cli.measure import Case, Measure, prompt
from zonda.errors import ZondaError

if TYPE_CHECKING:
    from zonda.sdk import AsyncLLM
    from zonda.server.listen import Listener

_PATIENCE = 60.0  # seconds for the server to listen


@contextmanager
def loopback(llm: AsyncLLM) -> Iterator[Measure]:
    """Serve a model while within; what it yields measures a case of several streams."""
    with listening(llm) as (port, _):
        def measure(case: Case, start: int) -> float:
            vocab = llm.engine.vocab
            prompts = [prompt(start + 257 * i, case.prompt_len, vocab) for i in range(case.concurrency)]
            return _client({"port": port, "prompts": prompts, "gen_len": case.gen_len})

        yield measure


def _client(wanted: dict[str, object]) -> float:
    ran = subprocess.run([sys.executable, streams.__file__], input=json.dumps(wanted), capture_output=True, text=True)
    if ran.returncode:
        said = ran.stderr.strip().splitlines() or [f"exit code {ran.returncode}"]
        raise ZondaError(f"the streams failed: {said[-1]}")
    return float(ran.stdout)


@contextmanager
def listening(llm: AsyncLLM) -> Iterator[tuple[int, threading.Thread]]:
    """The port of a server, and the thread that it runs on."""
    from zonda.options import ServerOptions
    from zonda.server.app import service
    from zonda.server.listen import Listener

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        server = Listener(service(llm, ServerOptions(access_log=False)), sock)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
        thread.start()
        try:
            _await(server)
            yield sock.getsockname()[1], thread
        finally:
            server.should_exit = True
            thread.join()


def _await(server: Listener) -> None:
    end = time.monotonic() + _PATIENCE
    while not server.started:
        if time.monotonic() > end:
            raise ZondaError("the server on loopback did not start")
        time.sleep(0.01)
