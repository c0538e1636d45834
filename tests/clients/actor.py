"""A server whose model says what fits what it was asked: calls of tools, answers in the form asked for, errors."""
from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "server"))

from fakes import ByteTokenizer, ChainRunner, PlainTemplate, serving
from scripted import Said, ScriptedLLM

from zonda.completion import Reply
from zonda.engine.engine import Engine
from zonda.errors import Overloaded, ZondaError
from zonda.generation import Total
from zonda.options import EngineOptions
from zonda.turns import Prepared, Turn
from zonda.types import Chunk

KEY = "sk-good"
WEATHER = "weather"
OBJECT = '{"city":"Paris","degrees":21}'
COUNT = " ".join(map(str, range(2000)))


def line(turn: Turn) -> str:
    """What the model says: it asks for the weather once, and then tells it in the form that is wanted."""
    last = turn.messages[-1]
    text = _text(last["content"])
    if "count" in text:
        return COUNT
    offered = [] if turn.choice == "none" else [tool["function"]["name"] for tool in turn.tools]
    told = last["role"] == "tool"
    if WEATHER in offered and not told:
        calls = _call(WEATHER, '{"city": "Paris"}')
        return ("<think>\nHm.\n</think>\n\n" if "think" in text else "") + calls * (2 if "twice" in text else 1)
    forms = [name for name in offered if name != WEATHER]
    if forms and turn.format is None:
        return _call(forms[0], OBJECT)
    if turn.format:
        return OBJECT
    if told:
        return f"It is {text}."
    return "<think>\nHm.\n</think>\n\nHello." if "think" in text else "Hello."


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(part["text"] for part in content)
    return content or ""


def _call(name: str, arguments: str) -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>\n'


class Slowly(Said):
    """A long answer that takes its time."""

    async def __anext__(self) -> Any:
        await asyncio.sleep(0.01)
        return await super().__anext__()


class Failing(Slowly):
    """One that fails on the way."""

    count = 0

    async def __anext__(self) -> Any:
        self.count += 1
        if self.count > 5:
            raise ZondaError("the engine failed")
        return await super().__anext__()


class Actor(ScriptedLLM):
    """Knows by the prompt what to say."""

    def _adopt(self, *parts: Any) -> None:
        super()._adopt(*parts)
        self.lines: dict[tuple[int, ...], str] = {}

    def prepare(self, turn: Turn) -> Prepared:
        ready = super().prepare(turn)
        self.lines[ready.prompt] = line(turn)
        return ready

    def _queue(self, reply: Reply, hear: Callable[[Chunk], Any], total: Total[Any]) -> Said:
        asked = self.tokenizer.decode(reply.request.prompt)
        if "busy" in asked:
            raise Overloaded("the queue is full", retry_after=7)
        said = self.lines.get(reply.request.prompt, "Hello.")
        kind = Said if said != COUNT else Failing if "fails" in asked else Slowly
        return kind([said] * reply.request.sampling.n, "stop", reply.request, hear, total)


@contextmanager
def acting() -> Iterator[str]:
    """The address of such a server."""
    engine = Engine(ChainRunner(), EngineOptions(), stop_ids=frozenset({256}), words=ByteTokenizer())
    llm: Any = Actor.from_parts(engine, ByteTokenizer(), PlainTemplate(), name="scripted",  # type: ignore[arg-type]
                                tool_dialect="hermes", reasoning="think")
    with serving(llm, api_key=(KEY,), access_log=False) as server:
        yield server.url


if __name__ == "__main__":
    with acting() as url:
        print(url, flush=True)
        threading.Event().wait()
