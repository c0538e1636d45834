"""Clients that vanish by the hundred while their requests wait, read their prompts or answer: all is free at once."""
from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from fakes import END, ByteTokenizer, ChainRunner, PlainTemplate, Server, hold, let_go, runner, serving, until

from zonda.engine.batch import Batch
from zonda.engine.engine import Engine
from zonda.options import EngineOptions
from zonda.sdk import AsyncLLM

LENGTH = 10_000
CLIENTS = 200
MOMENT = 0.5  # seconds
PATHS = ("/v1/completions", "/v1/chat/completions", "/v1/messages", "/v1/responses")


class SlowRunner(ChainRunner):
    """A step takes a moment, as one of a real model does; `decoding` counts the sequences of a step with one row."""

    decoding = reading = 0

    def run(self, batch: Batch) -> Any:
        time.sleep(0.002)
        rows = batch.starts[1:] - batch.starts[:-1]
        self.decoding, self.reading = int((rows == 1).sum()), int((rows > 1).sum())
        return super().run(batch)


@pytest.fixture
def server() -> Iterator[Server]:
    engine = Engine(SlowRunner(pages=8192, max_len=2 * LENGTH + 100), EngineOptions(max_seqs=16),
                    stop_ids=frozenset({END}), words=ByteTokenizer())
    llm = AsyncLLM.from_parts(engine, ByteTokenizer(), PlainTemplate(), name="slow")  # type: ignore[arg-type]
    with serving(llm, access_log=False) as server:
        yield server


def body(path: str, prompt: str, stream: bool) -> dict[str, Any]:
    said = [{"role": "user", "content": prompt}]
    fields: dict[str, Any] = {"model": "slow", "stream": stream, "max_tokens": LENGTH}
    match path:
        case "/v1/completions":
            return fields | {"prompt": prompt}
        case "/v1/responses":
            return {"input": prompt, "stream": stream, "max_output_tokens": LENGTH}
    return fields | {"messages": said}


def test_two_hundred_long_requests_leave_nothing_behind(server: Server) -> None:
    """A third has prompts of 10,000 tokens, the others have that many to generate; a part streams; most must wait."""
    slow: Any = runner(server.llm)  # type: ignore[arg-type]
    stats = server.llm.engine.stats  # type: ignore[union-attr]
    hold(server.llm)  # type: ignore[arg-type]
    socks = []
    for index in range(CLIENTS):
        prompt = (f"{index}-" if index % 3 else f"{index}-".ljust(LENGTH, "b")) + "A"
        path = PATHS[index // 2 % len(PATHS)]
        socks.append(server.open(path, body(path, prompt, stream=index % 2 == 0)))
    until(lambda: stats().running + stats().waiting == CLIENTS)
    let_go(server.llm)  # type: ignore[arg-type]
    until(lambda: slow.decoding and slow.reading and stats().waiting > CLIENTS // 2)
    time.sleep(MOMENT)
    for sock in socks:
        sock.close()
    steps = len(slow.steps)
    assert server.complete("x").json["choices"][0]["text"] == "yz"
    until(lambda: not server.service.calls and not server.service.flights)
    until(lambda: stats().running + stats().waiting == 0)
    assert (stats().pages_used, stats().finished["cancelled"]) == (0, CLIENTS)
    assert len(slow.steps) - steps < LENGTH  # what they had asked for is eight times as many


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("phase", ["queue", "prompt", "answer"])
def test_a_request_ends_within_one_step_in_every_phase(server: Server, path: str, stream: bool, phase: str) -> None:
    slow: Any = runner(server.llm)  # type: ignore[arg-type]
    stats = server.llm.engine.stats  # type: ignore[union-attr]
    gate = hold(server.llm)  # type: ignore[arg-type]
    first = server.open("/v1/completions", body("/v1/completions", "A", True) | {"n": 16}) if phase == "queue" else None
    if first:
        gate.release(2)
        until(lambda: stats().running == 16 and len(slow.steps) == 2)
    prompt = "b" * LENGTH + "A" if phase == "prompt" else "A"
    sock = server.open(path, body(path, prompt, stream))
    until(lambda: stats().running + stats().waiting == (17 if first else 1))
    if not first:
        gate.release(4)
        until(lambda: len(slow.steps) == 4)
    counts, before = (slow.reading, slow.decoding), len(slow.steps)
    assert counts == {"queue": (0, 16), "prompt": (1, 0), "answer": (0, 1)}[phase]
    sock.close()
    until(lambda: len(server.service.calls) == (1 if first else 0))
    gate.release()
    until(lambda: stats().finished["cancelled"] == 1)
    assert len(slow.steps) - before <= 1
    assert stats().pages_used == 0 if not first else stats().running == 16
    if first:
        first.close()
    let_go(server.llm)  # type: ignore[arg-type]
