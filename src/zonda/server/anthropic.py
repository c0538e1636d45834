"""`/v1/messages` and `/v1/messages/count_tokens`, as Anthropic's API has them."""
from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import TYPE_CHECKING

from msgspec import UNSET, Struct

from zonda.errors import Closed, Overloaded
from zonda.server import errors
from zonda.server.anthropic_input import form_of, sampling_of, thinks, turn_of
from zonda.server.anthropic_schema import (
    AnsweredMessage,
    AnthropicError,
    AnthropicErrorReply,
    CountRequest,
    Managed,
    MessageRequest,
    MessageUsage,
    Ping,
    StopReason,
    TokensCount,
    Unmanaged,
)
from zonda.server.anthropic_writer import Writer, usage_of
from zonda.server.call import Call
from zonda.server.errors import Crowded, Envelope
from zonda.server.formats import compiled
from zonda.server.sse import named, stream
from zonda.turns import Spoken
from zonda.types import Usage

if TYPE_CHECKING:
    from zonda.sdk import AsyncLLM

OVERLOADED = 529
PING = named(Ping())
_TYPES = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
          405: "invalid_request_error", 413: "request_too_large", 429: "rate_limit_error", 504: "timeout_error",
          503: "overloaded_error", OVERLOADED: "overloaded_error"}


def _status(error: Exception) -> int:
    overloaded = isinstance(error, Overloaded | Closed) and not isinstance(error, Crowded)
    return OVERLOADED if overloaded else errors.status_of(error)


def _body(error: Exception, id: str) -> AnthropicErrorReply:
    status = _status(error)
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    told = errors.told(error).error
    named = not told.param or told.param in told.message
    return AnthropicErrorReply(AnthropicError(kind, told.message if named else f"{told.param}: {told.message}"), id)


ENVELOPE = Envelope(_body, named, _status, id_header=b"request-id")
"""How these routes tell of errors."""


async def create(call: Call, body: MessageRequest) -> None:
    """Answer a conversation, whole or as a stream."""
    llm = await call.use(body.model)
    async with call.flight():
        asked = await call.beside(lambda: turn_of(body))
        turn = replace(asked, sampling=sampling_of(body), salt=call.salt(body.cache_salt))
        prepared = await call.beside(lambda: llm.prepare(turn))
        await compiled(call, llm, prepared.grammar, form_of(body)[0])
        message = AnsweredMessage(id=f"msg_{secrets.token_hex(12)}", model=call.model, content=[],
                                  context_management=UNSET if body.context_management is None else Managed(),
                                  usage=MessageUsage(input_tokens=len(prepared.prompt), output_tokens=0))
        writer = Writer(message, thinking=_shown(body))
        async with llm.converse(prepared, request_id=message.id) as conversing:
            events = _events(call, body, writer, conversing)
            if body.stream:
                await stream(call, _frames(writer, events), beat=PING, end=b"")
            else:
                async for _ in events:
                    pass
                await call.reply(writer.message)


async def count(call: Call, body: CountRequest) -> TokensCount:
    """Count the tokens of the prompt that a request would make."""
    llm: AsyncLLM = await call.use(body.model)
    turn = await call.beside(lambda: turn_of(body))
    length = await call.beside(lambda: llm.count(turn))
    return TokensCount(length, UNSET if body.context_management is None else Unmanaged(length))


def _shown(body: MessageRequest) -> str:
    if not thinks(body):
        return "hidden"
    return "omitted" if body.thinking and body.thinking.display == "omitted" else "shown"


async def _events(call: Call, body: MessageRequest, writer: Writer,
                  conversing: AsyncIterator[Spoken]) -> AsyncIterator[list[Struct]]:
    """What each step adds, and the end."""
    last: Spoken | None = None
    usage = Usage()
    async for spoken in conversing:
        last, usage = spoken, spoken.chunk.usage or usage
        if events := writer.feed(spoken.parts):
            yield events
    call.usage = usage
    stop = last.chunk.stop if last else None
    reason = _reason(last, usage, body.max_tokens)
    yield writer.finish(reason, stop, usage_of(usage, last.reasoning_tokens if last else 0))


def _reason(last: Spoken | None, usage: Usage, asked: int) -> StopReason:
    if last is None or last.ending is None:
        return "end_turn"
    if last.ending == "length":
        return "max_tokens" if usage.completion_tokens >= asked else "model_context_window_exceeded"
    if last.chunk.stop is not None:
        return "stop_sequence"
    return "tool_use" if last.ending == "tool_calls" else "end_turn"


async def _frames(writer: Writer, events: AsyncIterator[list[Struct]]) -> AsyncIterator[bytes]:
    yield named(*writer.begin())
    async for each in events:
        yield named(*each)
