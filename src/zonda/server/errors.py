"""What clients are told when something is wrong: OpenAI's error object, and the status that goes with it."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.exceptions import HTTPException

from zonda.errors import Closed, InvalidModel, Overloaded, ZondaError
from zonda.server.schema import ErrorObject, ErrorReply

Header = tuple[bytes, bytes]

MAX_MESSAGE = 1000
"""Characters of an error message that a client gets."""
DRAIN_RETRY = 5  # seconds after which a client may find another server, or this one restarted
_TYPES: Mapping[int, str] = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_ROUTING: Mapping[int, tuple[str, str]] = {
    404: ("not_found", "there is no such route (the routes are listed at /docs)"),
    405: ("method_not_allowed", "this route has other methods (the header `Allow` names them)")}


class Disconnected(Exception):
    """The client is gone; nobody is left to tell."""


class Unauthorized(ZondaError):
    """No API key, or a wrong one."""

    status = 401
    code = "invalid_api_key"


class Forbidden(ZondaError):
    """A web page that may not call, or a host name that is not ours."""

    status = 403
    code = "forbidden"


class Loading(ZondaError):
    """The model is not there yet; `retry_after` is in seconds."""

    status = 503
    code = "model_loading"

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message, hint=f"retry after {retry_after} s")
        self.retry_after = retry_after


class Stuck(Closed):
    """A step does not end, and its thread cannot be stopped, or a device has failed for good: the process has to end.
    """

    exit_code = 70

    def __init__(self, why: str) -> None:
        super().__init__(why, hint="the server ends, so that what supervises it can start it again")


class Overdue(ZondaError):
    """A request that has taken longer than a request may."""

    status = 504
    code = "timeout"


class NotFound(ZondaError):
    """Nothing of this id is here, or nothing that is the caller's."""

    status = 404
    code = "not_found"


class Slow(ZondaError):
    """A request whose body does not come."""

    status = 408
    code = "request_timeout"


class BadRequest(ZondaError):
    """What came is not HTTP."""

    status = 400
    code = "invalid_http"

    def __init__(self) -> None:
        super().__init__("the request is not valid HTTP")


class LargeHeaders(ZondaError):
    """More or larger headers than anyone needs."""

    status = 431
    code = "headers_too_large"

    def __init__(self, limit: int) -> None:
        super().__init__(f"the request's headers are too many or larger than {limit >> 10} KB",
                         hint="send fewer, or raise --max-header-kb")


class Crowded(Overloaded):
    """One API key has too many requests running."""

    code = "too_many_requests"


class Encoded(ZondaError):
    """A request body that is compressed."""

    status = 415
    code = "unsupported_encoding"

    def __init__(self) -> None:
        super().__init__("the body has a `Content-Encoding`", hint="send it as it is, uncompressed")


class TooLarge(ZondaError):
    """A request body over the limit."""

    status = 413
    code = "request_too_large"


def told(error: Exception) -> ErrorReply:
    """The error as clients may see it: no path, no traceback, nothing of an unforeseen failure but that it happened."""
    if isinstance(error, HTTPException):
        code, message = _ROUTING.get(error.status_code, (None, error.detail))
        return _reply(error.status_code, message, code=code)
    if not isinstance(error, ZondaError) or isinstance(error, InvalidModel):
        return _reply(500, "the server failed to answer this request", code="internal_error")
    message = f"{error.message} ({error.hint})" if error.hint else error.message
    return _reply(error.status, message, param=error.param, code=error.code)


def status_of(error: Exception) -> int:
    """The HTTP status of an error."""
    if isinstance(error, HTTPException):
        return error.status_code
    return error.status if isinstance(error, ZondaError) else 500


def headers_of(error: Exception) -> list[Header]:
    """The headers that an error's answer needs beside its type."""
    if isinstance(error, HTTPException):
        return [(name.lower().encode(), value.encode()) for name, value in (error.headers or {}).items()]
    if isinstance(error, Unauthorized):
        return [(b"www-authenticate", b"Bearer")]
    if isinstance(error, Overloaded | Closed | Loading):
        seconds = DRAIN_RETRY if isinstance(error, Closed) else error.retry_after
        return [(b"retry-after", str(seconds).encode())]
    return []


@dataclass(frozen=True, slots=True)
class Envelope:
    """How a family of routes tells of errors.

    `body` makes what is sent as JSON of an error and the request's id, `event` the last event of a stream of such a
    body, and `status` the HTTP status. `id_header` is one more header that answers have the request's id in.
    """

    body: Callable[[Exception, str], Any]
    event: Callable[[Any], bytes]
    status: Callable[[Exception], int] = status_of
    id_header: bytes | None = None


OPENAI = Envelope(lambda error, id: told(error), lambda body: b"data: " + msgspec.json.encode(body) + b"\n\n")
"""The envelope of all routes whose family has none of its own."""


def _reply(status: int, message: str, *, param: str | None = None, code: str | None = None) -> ErrorReply:
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return ErrorReply(ErrorObject(message[:MAX_MESSAGE], kind, param, code))
