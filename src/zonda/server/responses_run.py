"""Writing a response: the answer's pieces become events, before the client's eyes or in the background."""
from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from zonda.errors import ZondaError
from zonda.server import errors
from zonda.server.registry import Lease
from zonda.server.responses_events import Event
from zonda.server.responses_store import Kept
from zonda.server.responses_writer import Writer
from zonda.server.schema import TokenLogprob
from zonda.server.service import Service
from zonda.turns import Spoken
from zonda.types import Chunk, Usage

if TYPE_CHECKING:
    from zonda.generation import Generation

log = logging.getLogger("zonda.server")


@dataclass(slots=True)
class Writing:
    """A response that is being written from an answer; `spell` gives the log-probabilities that the client wants.

    With `hides` the lengths of its pieces are hidden.
    """

    writer: Writer
    conversing: Generation[Spoken]
    spell: Callable[[Chunk], Sequence[TokenLogprob]]
    hides: bool = False
    usage: Usage = field(default_factory=Usage)

    async def events(self) -> AsyncIterator[list[Event]]:
        """What each step adds, and the end; raises what the engine raises."""
        reasoning, ending = 0, None
        async for spoken in self.conversing:
            chunk = spoken.chunk
            self.usage, ending = chunk.usage or self.usage, spoken.ending or ending
            reasoning = spoken.reasoning_tokens
            events = self.writer.start() + self.writer.feed(spoken.parts, self.spell(chunk))
            if events:
                yield events
        yield self.writer.start() + self.writer.finish(ending, self.usage, reasoning)

    def fail(self, error: Exception) -> list[Event]:
        """The end of a response whose answer failed, if it has not ended yet."""
        if self.writer.done:
            return []
        told = errors.told(error).error
        return self.writer.fail("rate_limit_exceeded" if told.type == "rate_limit_error" else "server_error",
                                told.message)


class Run:
    """A response that is written whether or not a client listens."""

    counted = True

    def __init__(self, service: Service, kept: Kept, writing: Writing, lease: Lease | None, client: int) -> None:
        self.lease = lease
        self.client = client
        self._service = service
        self._kept = kept
        self._writing = writing
        kept.log, kept.run = [], self
        kept.publish(kept.response, writing.writer.begin())
        service.responses.put(kept)
        service.flights.add(self)
        self._task = asyncio.create_task(self._work())
        self._task.add_done_callback(self._end)

    def stop(self, why: Exception | None = None) -> None:
        """End it: cancelled, or failed for a reason."""
        writing = self._writing
        if writing.writer.done:
            return
        events = writing.fail(why) if why else writing.writer.cancel()
        writing.conversing.cancel()
        self._kept.publish(writing.writer.response, events)
        self._service.remember(self._kept)
        self._task.cancel()

    async def _work(self) -> None:
        writing = self._writing
        try:
            async for events in writing.events():
                self._kept.publish(writing.writer.response, events)
        except Exception as error:
            if not isinstance(error, ZondaError):
                log.error("response %s failed", writing.writer.response.id, exc_info=error)
            self._kept.publish(writing.writer.response, writing.fail(error))

    def _end(self, task: asyncio.Task[None]) -> None:
        self._writing.conversing.cancel()
        self._service.flights.discard(self)
        if self.lease:
            self.lease.release()
        self._kept.end()
        self._service.remember(self._kept)
        self._service.responses.settle(self._kept)
