"""Every exception that a user of Zonda can meet: what was wrong, what was expected, what to do."""
from __future__ import annotations

from typing import Self


class ZondaError(Exception):
    """Base of all errors that carry a message for the user.

    `hint` says what to do about it; `status` is the HTTP status that the server answers with; `code` and `param`
    fill the fields of an OpenAI error object; `exit_code` is that of a command which ends by it.
    """

    exit_code = 1
    status = 500
    code: str | None = None

    def __init__(self, message: str, *, hint: str | None = None, param: str | None = None,
                 code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.param = param
        self.code = code or type(self).code

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message


class InvalidRequest(ZondaError):
    """A request's field is malformed or out of range; `param` names it."""

    status = 400
    code = "invalid_value"


class ContextExceeded(InvalidRequest):
    """The prompt does not fit the model's context."""

    code = "context_length_exceeded"

    @classmethod
    def by(cls, tokens: int, limit: int) -> Self:
        """The error of a prompt of so many tokens."""
        return cls.of(f"{tokens} tokens > {limit - 1} maximum", limit)

    @classmethod
    def of(cls, length: str, limit: int) -> Self:
        """The error of a prompt of this length, in the vendors' words, by which clients know when to shorten it."""
        return cls(f"the prompt is too long: {length}; this model's maximum context length is {limit} tokens",
                   hint="shorten the prompt, or set truncate_sequence", param="prompt")


class ModelNotFound(ZondaError):
    """No such model file, repository or alias."""

    status = 404
    code = "model_not_found"


class InvalidModel(ZondaError):
    """A checkpoint is damaged, hostile or inconsistent; the message names the file and the field."""


class Unsupported(ZondaError):
    """A valid model, format or option that Zonda does not run."""

    status = 400
    code = "unsupported"


class OutOfMemory(ZondaError):
    """The weights or the cache do not fit; the message gives the arithmetic."""


class DeviceLost(ZondaError):
    """A device has failed for good: only another process can use it again."""


class Overloaded(ZondaError):
    """The queue is full; `retry_after` is in seconds."""

    status = 429
    code = "queue_full"

    def __init__(self, message: str, *, retry_after: int = 1) -> None:
        super().__init__(message, hint=f"retry after {retry_after} s")
        self.retry_after = retry_after


class Closed(ZondaError):
    """The engine has stopped or is draining."""

    status = 503
    code = "unavailable"
