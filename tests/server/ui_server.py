"""A server whose answers are written beforehand."""
from __future__ import annotations

import asyncio
import dataclasses
import json
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from fakes import Server

from zonda.options import ServerOptions
from zonda.server.app import Models
from zonda.server.call import Call
from zonda.server.service import Service
from zonda.server.sse import stream

Piece = str | dict[str, Any] | float | threading.Event | Exception
TIMINGS = {"queue_ms": 1.0, "prompt_n": 20, "cache_n": 5, "prompt_ms": 41.0, "prompt_per_second": 400.0,
           "predicted_n": 64, "predicted_ms": 500.0, "predicted_per_second": 128.04}


class Scripted(Server):
    """Answers each chat request with the next script, or the last one again.

    A piece of a script is text, a delta, seconds to wait, an event to wait for, or an error.
    """

    def __init__(self, options: ServerOptions) -> None:
        self.cards: list[dict[str, Any]] = [{"id": "zonda/breeze-1b", "object": "model", "max_model_len": 8192}]
        self.scripts: list[Sequence[Piece]] = [["Hello."]]
        self.asked: list[dict[str, Any]] = []
        super().__init__({}, options)

    def assemble(self, models: Models, options: ServerOptions, default: str | None) -> Service:
        answers = {"POST /v1/chat/completions": self._chat, "GET /v1/models": self._models}
        made = super().assemble(models, options, default)
        made.endpoints = [dataclasses.replace(each, answer=answers[name], body=None, query=None) if name in answers
                          else each for each in made.endpoints for name in [f"{each.method} {each.path}"]]
        return made

    async def _models(self, call: Call) -> dict[str, Any]:
        return {"object": "list", "data": self.cards}

    async def _chat(self, call: Call) -> None:
        self.asked.append(json.loads(await call.read()))
        script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        if isinstance(script[0], Exception):
            raise script[0]
        async with call.flight():
            await stream(call, self._frames(script))

    async def _frames(self, script: Sequence[Piece]) -> AsyncIterator[bytes]:
        for piece in script:
            if isinstance(piece, threading.Event):
                while not piece.is_set():
                    await asyncio.sleep(0.01)
            elif isinstance(piece, float):
                await asyncio.sleep(piece)
            elif isinstance(piece, Exception):
                raise piece
            else:
                yield _frame({"delta": {"content": piece} if isinstance(piece, str) else piece})
        yield _frame({"delta": {}, "finish_reason": "stop"}, timings=TIMINGS)


def _frame(choice: dict[str, Any], **fields: Any) -> bytes:
    chunk = {"object": "chat.completion.chunk", "model": "zonda/breeze-1b",
             "choices": [{"index": 0, **choice}], **fields}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


@contextmanager
def scripted(**options: Any) -> Iterator[Scripted]:
    """Such a server for the time of the block."""
    server = Scripted(ServerOptions(access_log=False, **options))
    try:
        yield server
    finally:
        server.stop()
