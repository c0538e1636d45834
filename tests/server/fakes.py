"""A model of bytes that knows what follows each, served over real sockets."""
from __future__ import annotations

import http.client
import json
import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np

from zonda.engine.batch import Batch
from zonda.engine.engine import Engine
from zonda.options import EngineOptions, ServerOptions
from zonda.sdk import AsyncLLM
from zonda.server.app import Models, service
from zonda.server.listen import Listener
from zonda.server.service import Service

END, BEGIN = 256, 257
PATIENCE = 60  # seconds that anything may take on a busy machine
SPECIAL = {END: "<end>", BEGIN: "<begin>"}
WIND = "🌬"
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def _following() -> np.ndarray:
    """After a letter the next, after z the end; A to Z go round; `#` begins a long character, `@` a broken one."""
    table = np.full(258, ord("a"))
    for chain in (LETTERS.encode(), b"#" + WIND.encode(), b"@\xff"):
        table[list(chain)] = [*chain[1:], END]
    table[range(65, 91)] = [*range(66, 91), 65]
    return table


class ByteTokenizer:
    """One token a byte, and two special ones."""

    vocab_size = 258
    eos_ids = frozenset({END})
    special_ids = frozenset(SPECIAL)
    longest = max(map(len, SPECIAL.values()))
    vocabulary = SimpleNamespace(strip=False)

    def encode(self, text: str, *, add_special: bool = True) -> list[int]:
        return [BEGIN] * add_special + list(text.encode("utf-8", "surrogatepass"))

    def encode_chat(self, text: str) -> list[int]:
        return self.encode(text, add_special=False)

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        return b"".join(self.token_bytes(id) for id in ids if id < END or not skip_special).decode("utf-8", "replace")

    def token_bytes(self, id: int) -> bytes:
        return SPECIAL[id].encode() if id in SPECIAL else bytes([id])

    def id(self, token: str) -> int | None:
        return next((id for id, text in SPECIAL.items() if text == token), None)


class PlainTemplate:
    """Each message as `role:content`, and what else it was told; keeps what it was called with."""

    sources: Mapping[str, str] = {}

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def render(self, messages: Sequence[Mapping[str, Any]], *, tools: Any = None, add_generation_prompt: bool = True,
               **kwargs: Any) -> str:
        told = {} if add_generation_prompt else {"add_generation_prompt": False}
        self.calls.append({"messages": list(messages), "tools": tools, **kwargs, **told})
        return "".join(f"{each['role']}:{each['content']}" for each in messages)


class ChainRunner:
    """Draws what follows the last byte. With a `gate`, each step waits for a permit; with a `fault`, it raises it."""

    page_size = 16
    vocab = ByteTokenizer.vocab_size
    max_rows = 512

    def __init__(self, *, pages: int = 512, max_len: int = 2000) -> None:
        self.pages, self.max_len = pages, max_len
        self.following = _following()
        self.gate: threading.Semaphore | None = None
        self.fault: Exception | None = None
        self.steps: list[int] = []

    def run(self, batch: Batch) -> np.ndarray:
        if gate := self.gate:
            assert gate.acquire(timeout=PATIENCE)
        if self.fault:
            raise self.fault
        self.steps.append(len(batch.lengths))
        logits = np.zeros((len(batch.sample), self.vocab), np.float32)
        following = self.following[batch.tokens[batch.sample]]
        logits[np.arange(len(following)), following] = 30.0
        return logits

    def copy_page(self, source: int, target: int) -> None: ...

    def close(self) -> None: ...


def model(*, name: str = "chain", max_len: int = 2000, **options: Any) -> AsyncLLM:
    """A model that answers at once."""
    engine = Engine(ChainRunner(max_len=max_len), EngineOptions(**options), stop_ids=frozenset({END}),
                    words=ByteTokenizer())
    return AsyncLLM.from_parts(engine, ByteTokenizer(), PlainTemplate(), name=name)  # type: ignore[arg-type]


def runner(llm: AsyncLLM) -> ChainRunner:
    return llm.engine._runner  # type: ignore[return-value]


def hold(llm: AsyncLLM) -> threading.Semaphore:
    """Let every step wait until the semaphore is released."""
    gate = runner(llm).gate = threading.Semaphore(0)
    return gate


def let_go(llm: AsyncLLM) -> None:
    """Undo `hold`."""
    if gate := getattr(runner(llm), "gate", None):
        runner(llm).gate = None
        gate.release(1000)


def until(condition: Callable[[], Any]) -> None:
    """Wait for something that must happen soon; time in which this process was stopped does not count."""
    for _ in range(500 * PATIENCE):
        if condition():
            return
        time.sleep(0.002)
    raise AssertionError("it did not happen")


class Server:
    """A server in a thread, with a small client."""

    def __init__(self, models: Models, options: ServerOptions, *, default: str | None = None) -> None:
        self.socket = socket.socket()
        self.socket.bind((options.host, 0))
        self.port = self.socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.service = self.assemble(models, options, default)
        self.llm = next(iter(self.llms.values()), None)
        self.listener = Listener(self.service, self.socket)
        self.thread = threading.Thread(target=lambda: self.listener.run(sockets=[self.socket]), daemon=True)
        self.thread.start()
        until(lambda: self.listener.started)

    def assemble(self, models: Models, options: ServerOptions, default: str | None) -> Service:
        return service(models, options, default=default)

    @property
    def llms(self) -> dict[str, AsyncLLM]:
        """The models that are loaded now."""
        return self.service.registry.loaded()

    def call(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Reply:
        """One request on a connection of its own."""
        data = json.dumps(body).encode() if isinstance(body, dict | list) else body
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, path, data, dict(headers or {}))
            response = connection.getresponse()
            return Reply(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Reply:
        return self.call("GET", path, headers=headers)

    def post(self, path: str, body: Any, **headers: str) -> Reply:
        return self.call("POST", path, body, headers)

    def chat(self, content: Any, **fields: Any) -> Reply:
        return self.post("/v1/chat/completions", {"messages": [{"role": "user", "content": content}], **fields})

    def complete(self, prompt: Any, **fields: Any) -> Reply:
        return self.post("/v1/completions", {"prompt": prompt, **fields})

    def connect(self) -> socket.socket:
        """A connection of one's own."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)

    def open(self, path: str, body: Any) -> socket.socket:
        """Send a request and leave the connection to the caller."""
        data = json.dumps(body).encode()
        sock = self.connect()
        sock.sendall(b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s"
                     % (path.encode(), len(data), data))
        return sock

    def stop(self) -> None:
        """End; the thread needs a moment more, for which nobody waits."""
        for llm in self.llms.values():
            let_go(llm)
        self.listener.force_exit = self.listener.should_exit = True
        for llm in self.llms.values():
            llm.engine.close()


_NAMED = re.compile(r'^event: (.+)\n(?=data: {"type":"\1")')


class Reply:
    """What a server answered."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        found = self.json["error"]
        assert set(found) == {"message", "type", "param", "code"} and isinstance(found["message"], str)
        return found  # type: ignore[no-any-return]

    @property
    def events(self) -> list[Any]:
        """The events of a stream, with the frames checked."""
        assert self.headers["content-type"] == "text/event-stream; charset=utf-8"
        frames = [_NAMED.sub("", frame) for frame in self.body.decode().split("\n\n")]
        assert frames.pop() == "" and all(frame.startswith(("data: ", ": ")) for frame in frames)
        data = [frame[6:] for frame in frames if frame.startswith("data: ")]
        return [each if each == "[DONE]" else json.loads(each) for each in data]


@contextmanager
def serving(models: Models, *, default: str | None = None, access_log: bool = False,
            **options: Any) -> Iterator[Server]:
    """A server for the time of the block; its last lines may be logged after that."""
    server = Server(models, ServerOptions(access_log=access_log, **options), default=default)
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def logged(name: str) -> Iterator[list[str]]:
    """The lines that a logger gets."""
    lines: list[str] = []
    collector = logging.Handler()
    collector.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(collector)
    try:
        yield lines
    finally:
        logger.removeHandler(collector)
        logger.setLevel(level)
