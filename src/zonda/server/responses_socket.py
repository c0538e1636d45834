"""`/v1/responses` over a WebSocket: each message asks for a response, and they are written one after another."""
from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct, structs
from starlette.types import Message, Receive, Scope, Send

from zonda.errors import Closed, InvalidRequest, Overloaded, Unsupported, ZondaError
from zonda.server import errors, responses
from zonda.server.call import Call
from zonda.server.decode import decode
from zonda.server.endpoint import KEY
from zonda.server.errors import Envelope
from zonda.server.front import attend
from zonda.server.responses_events import Event, SocketError, hidden
from zonda.server.responses_run import Writing
from zonda.server.responses_schema import ResponseRequest
from zonda.server.responses_store import Kept
from zonda.server.schema import Identifier
from zonda.server.sse import stream

PATH = "/v1/responses"
MAX_WAITING = 16
"""Messages that may wait while another is answered; all together they may be as large as one."""
MAX_LANES = 32
"""Lanes of a connection whose last responses are kept for it."""
Lane = Annotated[str, Meta(min_length=1, max_length=256, pattern="^[A-Za-z0-9_.-]+$")]


class Create(Struct):
    """What a message says beside the fields of a request. All events of its response name its lane."""

    type: Literal["response.create"]
    stream_id: Lane | None = None
    generate: bool | None = None
    previous_response_id: Identifier | None = None


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a connection is closed, and what its client is told before."""

    code: int
    reason: str
    error: ZondaError | None = None


GONE = Ending(1005, "the client has left")
LEAVING = Ending(1012, "the server is shutting down")
IDLE = Ending(1001, "nothing was asked for too long")
AGED = Ending(1001, "the connection is too old", InvalidRequest(
    "this connection has reached its greatest age", hint="open another", code="websocket_connection_limit_reached"))
CROWDED = Ending(1008, "too much is waiting", Overloaded(
    f"more than {MAX_WAITING} messages, or too large ones, wait for their answers"))


class Opened:
    """The route: an ASGI application that takes what may connect."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call: Call = scope[KEY]
        call.path = PATH
        if call.service.draining:
            raise Closed("the server is shutting down")
        await receive()  # that somebody wants to connect
        named = [(b"x-request-id", call.id.encode("ascii"))] if call.service.options.request_id_header else []
        await send({"type": "websocket.accept", "headers": named})
        call.status, call.quiet = 101, True  # what counts are the responses
        await Connection(call, receive, send).serve()


class Connection:
    """One WebSocket. The last response of each of its lanes is kept for it, whether or not it is stored."""

    def __init__(self, opened: Call, receive: Receive, send: Send) -> None:
        self.opened = opened
        self.service = opened.service
        self.own = secrets.token_bytes(16)
        """What is kept for this connection is kept under this name."""
        self.gone = asyncio.Event()
        self.send = send
        self._receive = receive
        self._end = time.monotonic() + self.service.options.socket_age
        self._messages: asyncio.Queue[bytes] = asyncio.Queue()
        self._bytes = 0
        self._over: Ending | None = None
        self._last: dict[str | None, str] = {}
        self._count = 0

    async def serve(self) -> None:
        """Answer until the connection ends."""
        self.service.connections.add(self)
        reading = asyncio.create_task(self._read())
        try:
            while isinstance(message := await self._next(), bytes):
                self._count += 1
                await Turn(self, message, self._count).run()
            await self._close(message)
        finally:
            reading.cancel()
            self.service.connections.discard(self)
            for id in self._last.values():
                self.service.carried.drop(id)

    def leave(self) -> None:
        """Close when the response that is being written has ended."""
        self._stop(LEAVING)

    def keep(self, lane: str | None, kept: Kept) -> None:
        """Let the client go on from this response, instead of the one before in the lane."""
        self.service.carried.drop(self._last.pop(lane, ""))
        if not kept.response.store:
            kept.owner = self.own
            self.service.carried.put(kept)
            self._last[lane] = kept.id

    def forget(self, id: str) -> None:
        """Let the client go on no more from this response, unless it is stored."""
        if self.service.carried.peek(id, self.own):
            self.service.carried.drop(id)

    def check_lane(self, lane: str | None) -> None:
        """Refuse one lane more than there may be."""
        if lane not in self._last and len(self._last) > MAX_LANES:
            raise InvalidRequest(f"this connection has {MAX_LANES} lanes", hint="open another, or use one of them",
                                 param="stream_id", code="websocket_stream_limit_reached")

    async def _read(self) -> None:
        """Take messages as they come, so that it is noticed when the client leaves."""
        limit = self.service.options.max_body_mb << 20
        while (message := await self._receive())["type"] == "websocket.receive":
            text = message.get("text")
            body = message["bytes"] if text is None else text.encode()
            if self._messages.qsize() >= MAX_WAITING or self._bytes + len(body) > limit:
                self._stop(CROWDED)
                break
            self._bytes += len(body)
            self._messages.put_nowait(body)
        self._stop(GONE)
        self.gone.set()

    def _stop(self, why: Ending) -> None:
        self._over = self._over or why
        self._messages.put_nowait(b"")

    async def _next(self) -> bytes | Ending:
        left = self._end - time.monotonic()
        if self._over or left <= 0:
            return self._over or AGED
        try:
            async with asyncio.timeout(min(left, self.service.options.socket_idle)):
                message = await self._messages.get()
        except TimeoutError:
            return AGED if time.monotonic() >= self._end else IDLE
        self._bytes -= len(message)
        return self._over or message

    async def _close(self, why: Ending) -> None:
        if why is GONE:
            return
        with suppress(OSError):
            if why.error:
                await self.send({"type": "websocket.send", "text": _encoded(_told(why.error)).decode()})
            await self.send({"type": "websocket.close", "code": why.code, "reason": why.reason})


class Turn:
    """One message and its answer, as a request that has come and an answer that goes out in frames."""

    def __init__(self, connection: Connection, body: bytes, number: int) -> None:
        self._connection = connection
        self._body: bytes | None = body
        self._said = Create("response.create")
        self._kept: Kept | None = None
        opened = connection.opened
        scope = {**opened.scope, "method": "WS", "headers": []}
        self._call = Call(connection.service, scope, self._receive, self._send, envelope=ENVELOPE)
        self._call.path, self._call.id = PATH, f"{opened.id}-{number}"
        self._call.owner, self._call.client, self._call.connection = opened.owner, opened.client, connection.own

    async def run(self) -> None:
        """Answer; what is wrong with the message is told, and the connection goes on."""
        await attend(self._call, self._answer())
        if self._kept and self._kept.response.status in ("completed", "incomplete"):
            self._connection.keep(self._said.stream_id, self._kept)
        elif self._said.previous_response_id:
            self._connection.forget(self._said.previous_response_id)

    async def _answer(self) -> None:
        call = self._call
        body = await call.read()
        self._said = await call.beside(lambda: decode(body, Create))
        request = await call.beside(lambda: decode(body, ResponseRequest))
        if request.background:
            raise Unsupported("`background` is not supported over a WebSocket", param="background")
        self._connection.check_lane(self._said.stream_id)
        request.stream = True
        await responses.respond(call, request, self._tell, rehearse=self._said.generate is False)

    async def _tell(self, call: Call, kept: Kept, writing: Writing) -> None:
        self._kept = kept
        responses.tell_failure(call, kept, writing, _lines)
        await stream(call, self._frames(kept, writing), beat=b"", end=b"")

    async def _frames(self, kept: Kept, writing: Writing) -> AsyncIterator[bytes]:
        async for events in responses.events_of(self._call, kept, writing):
            yield _lines(map(hidden, events) if writing.hides else events)

    async def _receive(self) -> Message:
        body, self._body = self._body, None
        if body is not None:
            return {"type": "http.request", "body": body}
        await self._connection.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        lane = b',"stream_id":"%s"}' % self._said.stream_id.encode() if self._said.stream_id else b"}"
        for line in message.get("body", b"").splitlines():
            with suppress(OSError):  # that the client has left is noticed where messages are read
                await self._connection.send({"type": "websocket.send", "text": (line[:-1] + lane).decode()})


def _told(error: Exception) -> SocketError:
    told = errors.told(error).error
    return SocketError(errors.status_of(error), structs.replace(told, code=told.code or told.type))


def _lines(events: Iterable[Event]) -> bytes:
    return b"\n".join(map(_encoded, events))


_encoded = msgspec.json.Encoder().encode
ENVELOPE = Envelope(lambda error, id: _told(error), _encoded)
"""How errors are told in frames."""
