"""A model that says what it is told to say."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from fakes import ByteTokenizer, ChainRunner, PlainTemplate

from zonda.completion import Reply
from zonda.engine.engine import Engine
from zonda.generation import Generation, Total
from zonda.options import EngineOptions
from zonda.sdk import AsyncLLM
from zonda.types import Chunk, FinishReason, Logprob, Request, Usage


class Said(Generation[Any]):
    """Chunks of scripted texts, one for each choice, three characters at a time."""

    def __init__(self, texts: list[str], finish: FinishReason, request: Request, hear: Callable[[Chunk], Any],
                 total: Total[Any]) -> None:
        self.cancelled = False
        self._hear, self._total = hear, total
        self._chunks = self._made(texts, finish, request)

    def _made(self, texts: list[str], finish: FinishReason, request: Request) -> Iterator[Chunk]:
        usage = Usage(len(request.prompt), sum(map(len, texts)), 2, 0.1, 0.2, 0.3)
        for index, text in enumerate(texts):
            for at in range(0, len(text), 3):
                piece = text[at:at + 3]
                letters = piece if request.sampling.logprobs is not None else ""
                logprobs = tuple(Logprob(ord(letter), -0.5) for letter in letters)
                yield Chunk(index, piece, tuple(range(len(piece))), logprobs)
            yield Chunk(index, "", finish=finish, usage=usage if index == len(texts) - 1 else None)

    async def __anext__(self) -> Any:
        for chunk in self._chunks:
            return self._hear(chunk)
        raise StopAsyncIteration

    def cancel(self) -> None:
        self.cancelled = True


class ScriptedLLM(AsyncLLM):
    """Says `script`, or the texts of it for several choices; `requests` are those that came."""

    def says(self, *script: str, finish: FinishReason = "stop") -> None:
        self.script, self.finish = list(script), finish

    def _queue(self, reply: Reply, hear: Callable[[Chunk], Any], total: Total[Any]) -> Said:
        self.requests = [*getattr(self, "requests", []), reply.request]
        texts = self.script * reply.request.sampling.n if len(self.script) == 1 else self.script
        return Said(texts, self.finish, reply.request, hear, total)


def scripted(*, dialect: str = "hermes", reasoning: str = "think") -> ScriptedLLM:
    """A model of one manner."""
    engine = Engine(ChainRunner(), EngineOptions(), stop_ids=frozenset({256}), words=ByteTokenizer())
    return ScriptedLLM.from_parts(engine, ByteTokenizer(), PlainTemplate(), name="scripted",  # type: ignore[arg-type]
                                  tool_dialect=dialect, reasoning=reasoning)
