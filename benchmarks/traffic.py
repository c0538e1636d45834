"""Concurrent streaming completions against an OpenAI-compatible server, with a client that costs little."""
from __future__ import annotations

import json
import selectors
import socket
import subprocess
import time
import urllib.request
from collections.abc import Sequence
from contextlib import contextmanager

PAUSE = 0.005  # seconds between two looks at what has come


@contextmanager
def server(command: Sequence[object], port: int, *, patience: float = 120):
    """Runs a server until the block ends; enters the block once `/health` answers 200."""
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + patience
        while not _healthy(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server did not start: {' '.join(map(str, command))}")
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait()


def _healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


def free_port() -> int:
    """A port of the loopback address that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def throughput(port: int, model: str, prompts: Sequence[list[int]], length: int) -> float:
    """Generated tokens a second over all prompts at once, from the first request to the last answer's end."""
    bodies = [completion(model, prompt, length) for prompt in prompts]
    requests = [request(port, "/v1/completions", body) for body in bodies]
    start = time.perf_counter()
    tokens = sum(map(completion_tokens, answers(port, requests)))
    return tokens / (time.perf_counter() - start)


def completion(model: str, prompt: list[int], length: int) -> bytes:
    """The body of a request for exactly `length` tokens, the likeliest ones."""
    return json.dumps({
        "model": model, "prompt": prompt, "max_tokens": length, "temperature": 0, "ignore_eos": True,
        "stream": True, "stream_options": {"include_usage": True},
    }).encode()


def request(port: int, path: str, body: bytes) -> bytes:
    """A whole POST request, after whose answer the server closes."""
    return (f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
            f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n").encode() + body


def answers(port: int, requests: Sequence[bytes]) -> list[bytes]:
    """The answers to requests that are sent together. Several events are read at once: it costs the server less."""
    pieces: list[list[bytes]] = [[] for _ in requests]
    with selectors.DefaultSelector() as streams:
        for each, answer in zip(requests, pieces):
            stream = socket.create_connection(("127.0.0.1", port))
            stream.sendall(each)
            streams.register(stream, selectors.EVENT_READ, answer)
        while streams.get_map():
            for key, _ in streams.select():
                _read(streams, key)
            time.sleep(PAUSE)
    return [b"".join(answer) for answer in pieces]


def _read(streams: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
    if piece := key.fileobj.recv(1 << 16):
        key.data.append(piece)
    else:
        streams.unregister(key.fileobj)
        key.fileobj.close()


def completion_tokens(answer: bytes) -> int:
    """The count of generated tokens in the usage that a stream of events ends with."""
    for line in reversed(answer.splitlines()):
        if line.startswith(b"data: {") and (usage := json.loads(line[6:]).get("usage")):
            return usage["completion_tokens"]
    raise RuntimeError(f"no usage in the answer: {answer[:300]!r}")
