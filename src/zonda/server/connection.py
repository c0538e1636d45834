"""Connections that keep their patience and their memory: slow and large headers are refused, in the usual envelope."""
from __future__ import annotations

import asyncio
import logging
import re
from typing import Any, ClassVar

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from zonda.errors import ZondaError
from zonda.options import ServerOptions
from zonda.server.errors import OPENAI, BadRequest, LargeHeaders

MAX_HEADERS = 100
MAX_AHEAD = 32
"""Requests that a client may send before the first is answered."""
MAX_BODY_AHEAD = 65536
"""Bytes of the body of such a request."""
MAX_FRAGMENTS = 16_384
"""Frames that a message over a WebSocket may come in."""
PIECE = 4096
"""Bytes of frames that are read in one go: frames may be tiny, and their thousands would hold up everything else."""
TOO_BIG = 1009  # the code with which a WebSocket is closed for a message that is too large
LINGER = 2.0  # seconds that is read on from a WebSocket that was closed for what came
_OFFER = re.compile(rb"\r\nupgrade:[ \t]*h2c[ \t]*(?=\r\n)", re.IGNORECASE)
"""An offer to go on in HTTP/2, as Java's clients make it. The parser would read no body after it."""
_silent = logging.getLogger("zonda.silent")  # uvicorn's own lines, to which a client could add a traceback a frame
_silent.disabled = True


class Drain:
    """Closes a connection whose client reads nothing of what waits for it: it would be kept in memory for ever."""

    def __init__(self, transport: asyncio.WriteTransport) -> None:
        self._transport = transport
        self._clock: asyncio.TimerHandle | None = None

    def watch(self, patience: float) -> None:
        """Look every so many seconds whether the client has read on, as long as something waits."""
        if self._clock is None:
            self._look(patience, None)

    def stop(self) -> None:
        """Look no more."""
        if self._clock:
            self._clock.cancel()

    def _look(self, patience: float, before: int | None) -> None:
        self._clock = None
        left = self._transport.get_write_buffer_size()
        if left and left == before:
            self._transport.abort()
        elif left:
            self._clock = asyncio.get_running_loop().call_later(patience, self._look, patience, left)


class Connection(HttpToolsProtocol):
    """uvicorn's connection with limits on what comes beside a request's body, or before the last request is answered,
    and on an answer that nobody reads."""

    max_head: ClassVar[int]
    patience: ClassVar[float]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = True
        self._beside = self._body = 0
        self._too_large = False
        self._clock: asyncio.TimerHandle | None = None
        self._drain: Drain
        self._running: RequestResponseCycle | None = None
        """The request that is answered, or was answered last; `cycle` is the last one that came."""

    @property
    def _busy(self) -> bool:
        return self._running is not None and not self._running.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._drain = Drain(transport)
        self._wind()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        self._drain.stop()
        self.pipeline.clear()
        if self._running and self._busy:
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._beside += len(data)
        if self._in_head:
            self._wind()
            data = _declined(data)
        super().data_received(data)
        if self._beside > self.max_head + self._body and not self.transport.is_closing():  # headers, trailers, chunks
            self._too_large = True
            self.send_400_response("")

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._stop()
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > self.max_head or len(self.headers) > MAX_HEADERS:
            self._too_large = True
            raise ValueError("headers")
        if sum(name == b"host" for name, _ in self.headers) > 1:
            raise ValueError("hosts")
        super().on_headers_complete()
        if self.pipeline:
            self.flow.resume_reading()  # so that it is noticed when the client leaves
        if len(self.pipeline) > MAX_AHEAD:
            raise ValueError("requests")

    def on_body(self, body: bytes) -> None:
        self._beside -= len(body)
        self._body += len(body)
        super().on_body(body)
        if self.pipeline and len(self.cycle.body) > MAX_BODY_AHEAD:
            raise ValueError("body")

    def on_message_complete(self) -> None:
        self._in_head, self._beside, self._body = True, 0, 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the rest of a body that was answered before it had come, and the next request, but not for ever."""
        super().on_response_complete()
        self._drain.watch(self.patience)
        if not self._in_head:
            self._wind()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._drain.watch(self.patience)

    def send_400_response(self, msg: str) -> None:
        """Answer what cannot be read; close at once if what was said before is still to be answered, or half is."""
        if self.pipeline or (self._busy and self._running and self._running.response_started):
            self.transport.abort()
        else:
            refuse(self.transport, LargeHeaders(self.max_head) if self._too_large else BadRequest())

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _should_upgrade(self) -> bool:
        return super()._should_upgrade() and self.parser.get_method() == b"GET" and not self._busy

    def _wind(self) -> None:
        if self._clock is None:
            self._clock = self.loop.call_later(self.patience, self.transport.close)

    def _stop(self) -> None:
        if self._clock:
            self._clock.cancel()
            self._clock = None


class Socket(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket, which tells clients whose frames it does not take why it ends, and nobody else.

    It reads a little at a time, and nothing while the client reads none of its answers.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.logger = _silent
        self._rest = bytearray()
        self._turn: asyncio.Handle | None = None
        self._drain: Drain

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._drain = Drain(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._drain.stop()
        self._rest.clear()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        assert self.ping_timeout is not None
        self._drain.watch(self.ping_timeout)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._take_turn()

    def data_received(self, data: bytes) -> None:
        self._rest += data
        if self._turn is None:
            self._read_on()

    def _take_turn(self) -> None:
        if self._turn is None:
            self._turn = self.loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        """Read a piece, and the next one when others have had their turn."""
        self._turn = None
        if self._rest and self.writable.is_set():
            piece = bytes(self._rest[:PIECE])
            del self._rest[:PIECE]
            super().data_received(piece)
            if self.conn.handshake_exc and not self.close_sent:  # which uvicorn leaves unanswered
                self.close_sent = True
                refuse(self.transport, BadRequest())
        if self.transport.is_closing():
            return
        if self._rest or not self.writable.is_set():
            self.transport.pause_reading()
            if self.writable.is_set():
                self._take_turn()
        elif not self.read_paused:
            self.transport.resume_reading()

    def handle_cont(self, event: Any) -> None:
        if self.close_sent:
            return
        if len(self.frames) < MAX_FRAGMENTS:
            super().handle_cont(event)
            return
        self.conn.fail(TOO_BIG, "a message in too many pieces")
        self.handle_parser_exception()

    def handle_parser_exception(self) -> None:
        """Close, but read on for a while: to close on unread data resets the connection, and the client learns nothing.
        """
        if self.close_sent:
            return
        self.close_sent = True
        closing = self.conn.close_sent
        assert closing
        self.queue.put_nowait({"type": "websocket.disconnect", "code": closing.code, "reason": closing.reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_timer = self.loop.call_later(LINGER, self.transport.close)
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()


def refuse(transport: asyncio.WriteTransport, error: ZondaError) -> None:
    """Answer what is no HTTP, or too much of it, and close."""
    body = msgspec.json.encode(OPENAI.body(error, ""))
    transport.write(b"".join([
        STATUS_LINE[error.status], b"content-type: application/json\r\nconnection: close\r\n",
        b"content-length: %d\r\n\r\n" % len(body), body]))
    transport.close()


def connection(options: ServerOptions) -> type[Connection]:
    """The class of connections with the limits of these options."""
    return type("Connection", (Connection,), {"max_head": options.max_header_kb << 10,
                                              "patience": options.receive_timeout})


def _declined(data: bytes) -> bytes:
    """What came without an offer of HTTP/2 among the headers that it begins with."""
    if b"h2c" not in data:
        return data
    head, end, rest = data.partition(b"\r\n\r\n")
    return _OFFER.sub(b"", head + end, count=1) + rest
