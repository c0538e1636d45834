"""A model that says what a test wants said, in the parts that the test wants."""
from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from fakes import model

from zonda.completion import Ending
from zonda.sdk import AsyncLLM
from zonda.text.parts import CallArguments, CallStart, Part, Text, Thought
from zonda.turns import Spoken, Turn
from zonda.types import Chunk, Usage

PARTS: tuple[Part, ...] = (Thought("Let me "), Thought("see."), Text("Hel"), Text("lo"), CallStart(0, "call_a", "look"),
                           CallArguments(0, '{"x"'), CallArguments(0, ": 1}"), CallStart(1, "call_b", "go"),
                           CallArguments(1, "{}"))
USAGE = Usage(prompt_tokens=11, completion_tokens=7, cached_tokens=4)


class Speech:
    """The scripted answer to one turn; with a `gate` each piece waits; an exception among the parts is raised."""

    def __init__(self, parts: Sequence[Part | Exception], ending: Ending, stop: str | None,
                 gate: asyncio.Event | None) -> None:
        self.parts, self.ending, self.stop, self.gate = list(parts), ending, stop, gate
        self.cancelled = False
        self.ended = False

    def __aiter__(self) -> Speech:
        return self

    async def __anext__(self) -> Spoken:
        if self.ended or self.cancelled:
            raise StopAsyncIteration
        if self.gate:
            await self.gate.wait()
        if self.parts:
            part = self.parts.pop(0)
            if isinstance(part, Exception):
                raise part
            return Spoken(0, (part,), Chunk(0, ""), None, 2)
        self.ended = True
        finish: Any = "stop" if self.ending == "tool_calls" else self.ending
        return Spoken(0, (), Chunk(0, "", finish=finish, stop=self.stop, usage=USAGE), self.ending, 2)

    def cancel(self) -> None:
        self.cancelled = True

    async def __aenter__(self) -> Speech:
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.cancel()


def speaking(parts: Sequence[Part | Exception] = PARTS, ending: Ending = "tool_calls", *, stop: str | None = None,
             held: bool = False, **options: Any) -> AsyncLLM:
    """A model with one answer to everything; `speeches` has what it has said, `turns` what it was asked."""
    llm: Any = model(**options)
    llm.speeches, llm.turns = [], []
    prepare = llm.prepare

    def remember(turn: Turn) -> Any:
        llm.turns.append(turn)
        return prepare(turn)

    def converse(turn: Any, *, request_id: str | None = None) -> Speech:
        llm.speeches.append(Speech(parts, ending, stop, asyncio.Event() if held else None))
        return llm.speeches[-1]  # type: ignore[no-any-return]

    llm.prepare, llm.converse = remember, converse
    return llm  # type: ignore[no-any-return]
