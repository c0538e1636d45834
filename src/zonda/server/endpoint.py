"""A route as data: what it takes, what it answers, and the function that does it."""
from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Receive, Scope, Send

from zonda.server.call import Call
from zonda.server.decode import decode, decode_query
from zonda.server.schema import ErrorReply

KEY = "zonda.call"
"""Where the ASGI scope holds the `Call`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One method of one path.

    `answer` is called with the `Call`, and with the decoded query and body if the route takes them; it returns the
    value to send as JSON, or None when it has answered itself. `events` is the type of a streamed answer's events;
    `also` what clients of Anthropic's API get instead of `reply`;
    `error` that of what is answered when something is wrong; `failures` has statuses that may answer something
    else.
    """

    method: str
    path: str
    answer: Callable[..., Awaitable[Any]]
    summary: str
    query: type | None = None
    body: type | None = None
    reply: type | None = None
    also: type | None = None
    events: Any = None
    error: type = ErrorReply
    failures: Mapping[int, type] = field(default_factory=dict)
    media: str = "application/json"
    quiet: bool = False
    """Left out of the access log and the metrics."""
    open: bool = False
    """Answered without an API key, and to pages and host names of any kind."""

    @property
    def pattern(self) -> str:
        """The path as documents and labels show it."""
        return self.path.replace(":path}", "}")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call: Call = scope[KEY]
        call.path, call.quiet = self.pattern, self.quiet
        arguments: list[Any] = [decode_query(scope["query_string"], self.query)] if self.query else []
        if kind := self.body:
            body = await call.read()
            arguments.append(await call.beside(lambda: decode(body, kind)))
        value = await self.answer(call, *arguments)
        if value is not None:
            await call.reply(value)


class Methods:
    """All methods of one path."""

    def __init__(self, endpoints: Mapping[str, Endpoint]) -> None:
        self._endpoints = endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        await self._endpoints[method](scope, receive, send)
