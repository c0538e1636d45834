"""A route as data: what it takes, what it answers, and the function that does it."""
from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Receive, Scope, Send

from zonda.server.call import Call
from zonda.server.decode import decode

KEY = "zonda.call"
"""Where the ASGI scope holds the `Call`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One method of one path.

    `answer` is called with the `Call`, and with the decoded body if the route takes one; it returns the value to send
    as JSON, or None when it has answered itself. `events` is the type of a streamed answer's events; `failures` has the
    statuses whose answer is not the usual error object.
    """

    method: str
    path: str
    answer: Callable[..., Awaitable[Any]]
    summary: str
    body: type | None = None
    reply: type | None = None
    events: type | None = None
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
        arguments: list[Any] = [decode(await call.read(), self.body)] if self.body else []
        value = await self.answer(call, *arguments)
        if value is not None:
            await call.reply(value)
