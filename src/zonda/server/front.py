"""The outermost layer: ids, entry checks, errors, the access log and the metrics of every request."""
from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Mapping

import msgspec
from starlette.routing import Router, get_route_path
from starlette.types import Message, Receive, Scope, Send

from zonda.errors import InvalidModel, ZondaError
from zonda.payloads import append
from zonda.server.call import GONE, Call
from zonda.server.endpoint import KEY
from zonda.server.errors import OPENAI, Disconnected, Envelope, HTTPException
from zonda.server.guard import Guard
from zonda.server.service import MAX_LOGGED, Service

log = logging.getLogger("zonda.server")
access = logging.getLogger("zonda.access")

PAGES = "/ui/"
"""Where the pages for people begin, if there are any; browsers that ask for / are sent there."""
MAX_PATH = 200
"""Characters of an unknown path that the log shows."""


class Front:
    """The ASGI application: everything that concerns all routes alike, around the router."""

    def __init__(self, service: Service, router: Router, *, envelopes: Mapping[str, Envelope],
                 spoken: Mapping[bytes, Envelope]) -> None:
        """`envelopes` has the beginnings of the paths whose errors are not told in OpenAI's way, and `spoken` headers
        by which clients say that they speak another."""
        self.service = service
        self._router = router
        self._guard = Guard(service.options, service.endpoints)
        self._envelopes = envelopes
        self._spoken = spoken
        self._has_pages = any(each.path.startswith(PAGES) for each in service.endpoints)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("app", self)  # so that the router raises what it cannot answer
        answering = send
        if scope["type"] == "websocket":
            scope["method"], answering = "GET", _refusal(send)
        envelope = self._envelope(scope)
        call = scope[KEY] = Call(self.service, scope, receive, answering, envelope=envelope)
        try:
            await attend(call, self._answer(call, receive, send))
        finally:
            del scope[KEY]  # the call holds the scope

    def _envelope(self, scope: Scope) -> Envelope:
        path = get_route_path(scope)
        for beginning, envelope in self._envelopes.items():
            if path == beginning or path.startswith(f"{beginning}/"):
                return envelope
        return next((self._spoken[name] for name, _ in scope["headers"] if name in self._spoken), OPENAI)

    async def _answer(self, call: Call, receive: Receive, send: Send) -> None:
        path = get_route_path(call.scope)
        if path == "/" and self._has_pages and _is_browser(call):
            await call.reply_bytes(b"", b"text/html", status=307, headers=[(b"location", PAGES.encode())])
            return
        self._guard.check(call, path)
        await self._router(call.scope, receive, send)


async def attend(call: Call, answer: Awaitable[None]) -> None:
    """Let a call be answered: what goes wrong is told, and its end is counted and logged."""
    call.service.calls.add(call)
    try:
        await answer
    except Disconnected:
        call.status = GONE
    except asyncio.CancelledError:
        call.status = call.status or GONE
        raise
    except Exception as error:
        _report(call, error)
        await call.fail(error)
    finally:
        call.service.calls.discard(call)
        call.release()
        _note(call)


def _refusal(send: Send) -> Send:
    """What sends an answer over HTTP to a WebSocket's handshake."""
    async def sending(message: Message) -> None:
        await send({**message, "type": f"websocket.{message['type']}"})
    return sending


def _note(call: Call) -> None:
    options = call.service.options
    if not call.quiet:
        call.service.metrics.observe(call)
    if options.log and call.asked:
        call.service.beside.submit(_record, options.log, _facts(call) | _bodies(call, sys.maxsize))
    if options.access_log and (options.access_log_health or not call.quiet):
        access.info("%s", _json(call) if options.access_log_format == "json" else _text(call))


def _record(path: str, facts: Mapping[str, object]) -> None:
    try:
        append(path, facts)
    except ZondaError as error:
        log.error("%s", error)


def _is_browser(call: Call) -> bool:
    return call.method in {"GET", "HEAD"} and b"text/html" in call.headers.get(b"accept", b"")


def _report(call: Call, error: Exception) -> None:
    """Log what the client is not told."""
    if not isinstance(error, ZondaError | HTTPException):
        log.exception("request %s failed", call.id)
    elif isinstance(error, InvalidModel):
        log.error("request %s failed: %s", call.id, error)


def _facts(call: Call) -> dict[str, object]:
    client = call.scope.get("client") or ("-", 0)
    path = call.scope.get("raw_path", b"").decode("latin-1")[:MAX_PATH]
    facts: dict[str, object] = {"client": client[0], "method": call.method, "path": path, "status": call.status,
                                "model": call.model, "ms": round(call.seconds * 1000, 3)}
    if call.usage:
        facts |= {"prompt_tokens": call.usage.prompt_tokens, "completion_tokens": call.usage.completion_tokens}
    if call.code:
        facts["error"] = call.code
    return facts | {"id": call.id} | (_bodies(call, MAX_LOGGED) if call.service.options.log_prompts else {})


def _bodies(call: Call, most: int) -> dict[str, object]:
    bodies = {"request": call.asked, "answer": bytes(call.answered)}
    return {name: body[:most].decode("utf-8", "replace") for name, body in bodies.items()}


def _json(call: Call) -> str:
    return msgspec.json.encode(_facts(call)).decode()


def _text(call: Call) -> str:
    facts = {name: msgspec.json.encode(value).decode() if name in {"request", "answer"} else value
             for name, value in _facts(call).items()}
    return " ".join(f"{name}={value}" for name, value in facts.items())
