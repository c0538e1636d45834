"""For `bench --http`: the HTTP server in this process, and its clients in another, over loopback."""
from __future__ import annotations

import json
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
    import uvicorn

    from zonda.sdk import AsyncLLM

_PATIENCE = 10.0  # seconds for the server to listen


@contextmanager
def loopback(llm: AsyncLLM) -> Iterator[Measure]:
    """Serve a model while within; what it yields measures a case of several streams."""
    with _listening(llm) as port:
        def measure(case: Case, start: int) -> float:
            vocab = llm.engine.vocab
            prompts = [prompt(start + 257 * i, case.prompt_len, vocab) for i in range(case.concurrency)]
            return _client({"port": port, "prompts": prompts, "gen_len": case.gen_len})

        yield measure


def _client(wanted: dict[str, object]) -> float:
    ran = subprocess.run([sys.executable, streams.__file__], input=json.dumps(wanted), capture_output=True, text=True)
    if ran.returncode:
        raise ZondaError(f"the streams failed: {ran.stderr.strip().splitlines()[-1]}")
    return float(ran.stdout)


@contextmanager
def _listening(llm: AsyncLLM) -> Iterator[int]:
    """The port of a server on a thread of its own."""
    import uvicorn

    from zonda.options import ServerOptions
    from zonda.server.app import create_app

    app = create_app(llm, ServerOptions(access_log=False))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False, lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield _port(server)
    finally:
        server.should_exit = True
        thread.join()


def _port(server: uvicorn.Server) -> int:
    end = time.monotonic() + _PATIENCE
    while not server.started:
        if time.monotonic() > end:
            raise ZondaError("the server on loopback did not start")
        time.sleep(0.01)
    return int(server.servers[0].sockets[0].getsockname()[1])
