"""One request's chunks in an event loop, and how the engine's events come there."""
from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

from zonda.completion import Completion, Reply
from zonda.errors import InvalidRequest
from zonda.types import Chunk, Event, Request

if TYPE_CHECKING:
    from zonda.engine.engine import Engine

T = TypeVar("T")
P = TypeVar("P", contravariant=True)


class Total(Protocol[P]):
    """Adds pieces up to a completion."""

    def add(self, piece: P, /) -> None:
        """Take in one more piece."""

    def completion(self) -> Completion:
        """All that came, as one value."""


class Inbox:
    """Events on their way to the one task that waits for them."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._waiting: asyncio.Future[None] | None = None

    def put(self, event: Event) -> None:
        """Leave an event."""
        self._events.append(event)
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def get(self) -> Event:
        """The next event."""
        while not self._events:
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
        return self._events.popleft()


class Inboxes:
    """Carries the engine's events into one event loop: one wake-up a step, whatever the number of streams."""

    def __init__(self, loop: asyncio.AbstractEventLoop, engine: Engine) -> None:
        self._loop = weakref.ref(loop)
        self._engine = engine
        self._open: dict[str, Inbox] = {}
        self._sink = self._receive  # one object, so that the engine sees one sink

    def submit(self, request: Request) -> Inbox:
        """Queue a request; its events come out of the result."""
        if request.id in self._open:
            raise InvalidRequest(f"request id {request.id!r} is in use", param="request_id")
        inbox = self._open[request.id] = Inbox()
        try:
            self._engine.submit(request, self._sink)
        except BaseException:
            del self._open[request.id]
            raise
        return inbox

    def may_submit(self, request: Request) -> bool:
        """Whether queueing a request holds up nobody: it has no grammar that must be compiled first."""
        return request.grammar is None or self._engine.grammars.knows(request.grammar)

    async def compile(self, request: Request) -> None:
        """Compile a request's grammar on another thread."""
        if request.grammar is not None:
            grammars = self._engine.grammars
            with grammars.about(request.grammar):
                await asyncio.wrap_future(grammars.begin(request.grammar))

    def close(self, request: str, *, cancel: bool) -> None:
        """Forget a request, and stop it if it still runs."""
        if self._open.pop(request, None) is not None and cancel:
            self._engine.cancel(request)

    def _receive(self, events: Sequence[Event]) -> None:
        loop = self._loop()
        try:
            if loop is None:
                raise RuntimeError
            loop.call_soon_threadsafe(self._deliver, events)
        except RuntimeError:  # the loop is gone, and with it all who listen
            for event in events:
                self._engine.cancel(event.request)

    def _deliver(self, events: Sequence[Event]) -> None:
        for event in events:
            if inbox := self._open.get(event.request):
                inbox.put(event)


class Generation(AsyncIterator[T]):
    """What `hear` makes of the chunks of one request; `total` adds it up.

    Closing it, dropping it or cancelling the task that waits for it stops the request. A request whose grammar is not
    compiled yet is queued when the first chunk is waited for, after the grammar has been compiled on another thread.
    """

    def __init__(self, reply: Reply, inboxes: Inboxes, hear: Callable[[Chunk], T], total: Total[T]) -> None:
        self._reply = reply
        self._hear = hear
        self._total = total
        self._inboxes = inboxes
        self._closed = True
        self._events = inboxes.submit(reply.request) if inboxes.may_submit(reply.request) else None
        self._closed = False

    async def __anext__(self) -> T:
        while not (self._closed or self._reply.done):
            try:
                if self._events is None:
                    await self._inboxes.compile(self._reply.request)
                    self._events = None if self._closed else self._inboxes.submit(self._reply.request)
                    continue
                chunk = self._reply.feed(await self._events.get())
            except BaseException:
                self.cancel()
                raise
            if chunk is not None:
                return self._hear(chunk)
        self.cancel()
        raise StopAsyncIteration

    async def completion(self) -> Completion:
        """All that is to come, as one value."""
        async for piece in self:
            self._total.add(piece)
        return self._total.completion()

    def cancel(self) -> None:
        """Stop the request if it still runs."""
        if not self._closed:
            self._closed = True
            self._inboxes.close(self._reply.request.id, cancel=not self._reply.done)

    async def aclose(self) -> None:
        """Stop the request if it still runs."""
        self.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:
        self.cancel()

    def __del__(self) -> None:
        self.cancel()
