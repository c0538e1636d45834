"""One HTTP request on its way: what came, what was answered, and how it ends early."""
from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

import msgspec
from starlette.types import Message, Receive, Scope, Send

from zonda.server import errors
from zonda.server.errors import OPENAI, Disconnected, Encoded, Envelope, Header, Overdue, Slow, TooLarge
from zonda.types import Usage

if TYPE_CHECKING:
    from zonda.sdk import AsyncLLM
    from zonda.server.registry import Lease
    from zonda.server.service import Service

T = TypeVar("T")
JSON = b"application/json"
INLINE = 16_384
"""Bytes of a request that is decoded, and its prompt made, at once; for larger ones that is done beside the event loop.
"""
SLOWEST = 500
"""Bytes of a body that must come each second, after a while; a client that sends less holds a place for nothing."""
GONE = 499
"""What the log calls the status of a request whose client left."""
_REQUEST_ID = re.compile(rb"[!-~]{1,128}")
_encoder = msgspec.json.Encoder()


class Call:
    """One HTTP request and its answer. `path` is the route's pattern, for labels."""

    def __init__(self, service: Service, scope: Scope, receive: Receive, send: Send, *,
                 envelope: Envelope = OPENAI) -> None:
        self.service = service
        self.scope = scope
        self.envelope = envelope
        """How errors are told to this client."""
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.id = _request_id(self.headers.get(b"x-request-id"))
        self.owner = b""
        """What tells this client's stored things from others', where clients have keys."""
        self.connection = b""
        """The same of what is kept for the connection alone, on those that outlast a request."""
        self.began = time.perf_counter()
        self.path = "<unmatched>"
        self.model = "none"
        self.lease: Lease | None = None
        """The model that the request uses."""
        self.client = 0
        """The number of the API key that came with the request, from 1 on; 0 for none."""
        self.counted = True
        """Whether it is one of the requests that a key may have running; not if it only tells of one that runs."""
        self.quiet = False
        self.size = 0
        self.recalled = 0
        """The bytes that what the request goes on from takes."""
        self.status = 0
        self.code: str | None = None
        """The code of the error that was answered."""
        self.usage: Usage | None = None
        self.streaming = False
        self.complete = False
        self.written = 0.0
        """When the last piece of the body went out, in the loop's time."""
        self.asked = b""
        """The body that came, if bodies are logged; as `answered`, the one that went."""
        self.answered = bytearray()
        self._receive = receive
        self._send = send
        self._task: asyncio.Task[Any] | None = None
        self._stopped: Exception | None = None

    @property
    def method(self) -> str:
        return str(self.scope["method"])

    @property
    def seconds(self) -> float:
        """The time since the request came."""
        return time.perf_counter() - self.began

    async def use(self, name: str | None) -> AsyncLLM:
        """The model that the request names, at the request's disposal until the call ends."""
        self.lease = self.service.at_hand(name)
        if self.lease is None:
            async with self.flight():
                self.lease = await self.service.lease(name)
        self.model = self.lease.name
        return self.lease.llm

    def salt(self, given: str | None) -> str:
        """What keeps the request's cached prefixes apart from those of other API keys, and of other salts."""
        return f"{self.client or ''}\0{given}" if given else str(self.client or "")

    def release(self) -> None:
        """Give the model back."""
        if self.lease:
            self.lease.release()

    async def read(self) -> bytes:
        """The whole body; raises `Encoded`, or `TooLarge` before more than the limit has come."""
        if self.headers.get(b"content-encoding", b"identity").lower() not in (b"identity", b""):
            raise Encoded
        limit = self.service.options.max_body_mb << 20
        declared = self.headers.get(b"content-length", b"")
        if declared.isdigit() and int(declared[:20]) > limit:
            raise _too_large(limit)
        parts, more = [], True
        began = time.perf_counter()
        with self._stoppable():
            while more:
                message = await self._next(began + self.size / SLOWEST - time.perf_counter())
                if message["type"] == "http.disconnect":
                    raise Disconnected
                parts.append(message.get("body", b""))
                self.size += len(parts[-1])
                if self.size > limit:
                    raise _too_large(limit)
                more = message.get("more_body", False)
        body = b"".join(parts)
        self.asked = body[:self.service.kept]
        return body

    async def beside(self, work: Callable[[], T], *, large: bool = False) -> T:
        """Decode the request, or make its prompt or answer: at once if that is small, else beside the event loop."""
        large = large or self.size + self.recalled > INLINE
        return await asyncio.to_thread(work) if large else work()

    async def _next(self, ahead: float) -> Message:
        """What comes next of the body, which is so many seconds ahead of the slowest that is waited for."""
        limit = self.service.options.receive_timeout
        try:
            async with asyncio.timeout(min(limit, limit + ahead)):
                return await self._receive()
        except TimeoutError:
            raise Slow(f"nothing of the body came for {limit:g} s, or less than {SLOWEST} bytes a second") from None

    async def start(self, status: int, headers: list[Header]) -> None:
        """Send the status and the headers."""
        self.status = status
        names = (b"x-request-id", self.envelope.id_header) if self.service.options.request_id_header else ()
        tagged = [*headers, *((name, self.id.encode("ascii")) for name in names if name)]
        await self._send({"type": "http.response.start", "status": status, "headers": tagged})

    async def write(self, body: bytes) -> None:
        """Send a piece of the body; waits while the client is slow to read."""
        self.written = asyncio.get_running_loop().time()
        self._keep(body)
        await self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def finish(self, body: bytes = b"") -> None:
        """Send the last piece of the body."""
        self.complete = True
        self._keep(body)
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    def _keep(self, body: bytes) -> None:
        if len(self.answered) < self.service.kept:
            self.answered += body[:self.service.kept - len(self.answered)]

    async def reply(self, value: Any, *, status: int = 200, headers: list[Header] | None = None) -> None:
        """Answer with a value as JSON."""
        await self.reply_bytes(_encoder.encode(value), JSON, status=status, headers=headers)

    async def reply_bytes(self, body: bytes, media: bytes, *, status: int = 200,
                          headers: list[Header] | None = None) -> None:
        """Answer with bytes of a media type."""
        length = str(len(body)).encode()
        await self.start(status, [(b"content-type", media), (b"content-length", length), *(headers or [])])
        await self.finish(body)

    async def fail(self, error: Exception) -> None:
        """Answer with an error: as an object, or as the last event of a stream that has begun."""
        self.code = errors.told(error).error.code
        body = self.envelope.body(error, self.id)
        if not self.status:
            await self.reply(body, status=self.envelope.status(error), headers=errors.headers_of(error))
        elif self.streaming and not self.complete:
            await self.finish(self.envelope.event(body))

    @asynccontextmanager
    async def flight(self) -> AsyncIterator[None]:
        """While inside, the client's leaving, the time limit or `stop` ends the work: what is awaited is cancelled."""
        self.service.admit(self)
        limit = self.service.options.request_timeout
        clock = asyncio.get_running_loop().call_later(limit - self.seconds, self._expire) if limit else None
        watch = asyncio.create_task(self._watch())
        self.service.flights.add(self)
        try:
            with self._stoppable():
                yield
        finally:
            watch.cancel()
            if clock:
                clock.cancel()
            self.service.flights.discard(self)

    @contextmanager
    def _stoppable(self) -> Iterator[None]:
        """While inside, `stop` cancels what is awaited, and its error is raised instead."""
        task = self._task = asyncio.current_task()
        try:
            yield
        except asyncio.CancelledError:
            if self._stopped is None or task is None:
                raise
            task.uncancel()
            raise self._stopped from None
        finally:
            self._task = None

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.stop(Disconnected())

    def _expire(self) -> None:
        limit = self.service.options.request_timeout
        self.stop(Overdue(f"the answer was not complete within {limit:g} s",
                          hint="ask for fewer tokens, or raise --request-timeout"))

    def stop(self, why: Exception) -> None:
        """End the flight, or the reading of the body, with this error."""
        if self._task and not self._stopped and not self.complete:
            self._stopped = why
            self._task.cancel()


def _request_id(given: bytes | None) -> str:
    """The client's own id if it is short and plain, else a new one."""
    return given.decode("ascii") if given and _REQUEST_ID.fullmatch(given) else uuid4().hex


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the request body is larger than {limit >> 20} MB", hint="send less, or raise --max-body-mb")
