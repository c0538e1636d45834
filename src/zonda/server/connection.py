"""Connections that keep their patience and their memory: slow and large headers are refused, in the usual envelope."""
from __future__ import annotations

import asyncio
import logging
from typing import Any, ClassVar

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from zonda.errors import ZondaError
from zonda.options import ServerOptions
from zonda.server.errors import OPENAI, BadRequest, LargeHeaders

MAX_HEADERS = 100
LINGER = 2.0  # seconds that is read on from a WebSocket that was closed for what came
_silent = logging.getLogger("zonda.silent")  # uvicorn's own lines, to which a client could add a traceback a frame
_silent.disabled = True


class Connection(HttpToolsProtocol):
    """uvicorn's connection with limits on what comes before a request's body, and on an answer that nobody reads."""

    max_head: ClassVar[int]
    patience: ClassVar[float]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = True
        self._head = 0
        self._too_large = False
        self._clock: asyncio.TimerHandle | None = None
        self._reading: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wind()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        self._forget_reading()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head += len(data)
            self._wind()
        super().data_received(data)
        if self._in_head and self._head > self.max_head and not self.transport.is_closing():
            self._too_large = True
            self.send_400_response("")

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._stop()
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > self.max_head or len(self.headers) > MAX_HEADERS:
            self._too_large = True
            raise ValueError("headers")
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_head, self._head = True, 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the rest of a body that was answered before it had come, and the next request, but not for ever."""
        super().on_response_complete()
        if not self._in_head:
            self._wind()

    def pause_writing(self) -> None:
        """Watch how the client reads on: who does not keeps an answer, and what it waits for, in memory."""
        super().pause_writing()
        self._look(None)

    def resume_writing(self) -> None:
        self._forget_reading()
        super().resume_writing()

    def _look(self, before: int | None) -> None:
        """Close if nothing has been read since there were so many bytes left; else look again after a while."""
        left = self.transport.get_write_buffer_size()
        if left == before:
            self.transport.abort()
        else:
            self._reading = self.loop.call_later(self.patience, self._look, left)

    def _forget_reading(self) -> None:
        if self._reading:
            self._reading.cancel()
            self._reading = None

    def send_400_response(self, msg: str) -> None:
        """Answer what cannot be read."""
        refuse(self.transport, LargeHeaders(self.max_head) if self._too_large else BadRequest())

    def _should_upgrade(self) -> bool:
        return super()._should_upgrade() and self.parser.get_method() == b"GET"

    def _wind(self) -> None:
        if self._clock is None:
            self._clock = self.loop.call_later(self.patience, self.transport.close)

    def _stop(self) -> None:
        if self._clock:
            self._clock.cancel()
            self._clock = None


class Socket(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket, which tells clients whose frames it does not take why it ends, and nobody else."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.logger = _silent

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.handshake_exc and not self.close_sent:  # which uvicorn leaves unanswered
            self.close_sent = True
            refuse(self.transport, BadRequest())

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
