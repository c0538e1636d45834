"""`/v1/chat/completions`."""
from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec import UNSET

from zonda.completion import Choice, Completion
from zonda.errors import InvalidRequest
from zonda.server import conversation
from zonda.server.answers import answers
from zonda.server.call import Call
from zonda.server.reports import FINGERPRINT, finish_of, timings, usage_report
from zonda.server.sampling import check_length, check_stream, sampling_of
from zonda.server.schema import (
    AssistantMessage,
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChatLogprobs,
    ChatRequest,
    ChunkChoice,
    Delta,
)
from zonda.server.sse import frame, stream
from zonda.server.tokens import chat_logprobs, visible
from zonda.types import Chunk, Logprob, Sampling, Usage

if TYPE_CHECKING:
    from zonda.sdk import AsyncLLM, Generation

INLINE = 16_384
"""Bytes of a request whose template is rendered at once; larger ones are rendered beside the event loop."""


async def create(call: Call, body: ChatRequest) -> None:
    """Answer a conversation, whole or as a stream."""
    llm = await call.use(body.model)
    sampling = _sampling(body, llm)
    async with call.flight():
        prompt = await _prompt(call, llm, body)
        answer = Answer(f"chatcmpl-{secrets.token_hex(12)}", int(time.time()), call, llm, body)
        with answers(llm, [prompt], sampling, name=answer.id, field="messages") as (generation,):
            if body.stream:
                await stream(call, answer.frames(generation))
            else:
                await call.reply(answer.whole(await generation.completion()))


def _sampling(body: ChatRequest, llm: AsyncLLM) -> Sampling:
    check_stream(body)
    conversation.check_format(body)
    field = "max_completion_tokens" if body.max_completion_tokens is not None else "max_tokens"
    wanted = getattr(body, field)
    check_length(wanted, field, llm.engine.max_len)
    if body.top_logprobs is not None and not body.logprobs:
        raise InvalidRequest("`top_logprobs` needs `logprobs` true", param="top_logprobs")
    return sampling_of(body, max_tokens=wanted, logprobs=(body.top_logprobs or 0) if body.logprobs else None)


async def _prompt(call: Call, llm: AsyncLLM, body: ChatRequest) -> Sequence[int]:
    if call.size <= INLINE:
        return conversation.render(llm, body)
    return await asyncio.to_thread(conversation.render, llm, body)


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one chat request, in either form."""

    id: str
    created: int
    call: Call
    llm: AsyncLLM
    body: ChatRequest

    def whole(self, completion: Completion) -> ChatCompletion:
        """The answer in one piece."""
        self.call.usage = completion.usage
        return ChatCompletion(
            id=self.id, created=self.created, model=self.call.model, system_fingerprint=FINGERPRINT,
            choices=[self._choice(each) for each in completion.choices],
            usage=usage_report(completion.usage), timings=timings(completion.usage))

    def _choice(self, choice: Choice) -> ChatChoice:
        return ChatChoice(index=choice.index, message=AssistantMessage(content=choice.text),
                          finish_reason=finish_of(choice.finish_reason),
                          logprobs=self._logprobs(visible(choice.logprobs, choice.finish_reason, choice.stop)))

    async def frames(self, generation: Generation) -> AsyncIterator[bytes]:
        """The answer as events: for each choice its role, its pieces and, with an empty delta, its end."""
        fresh = set(range(self.body.n or 1))
        usage = Usage()
        async for chunk in generation:
            usage = chunk.usage or usage
            events = self._events(chunk, opening=chunk.index in fresh)
            fresh.discard(chunk.index)
            if events:
                yield events
        self.call.usage = usage
        if self._counts:
            yield frame(self._chunk([], usage))

    def _events(self, chunk: Chunk, *, opening: bool) -> bytes:
        frames = b""
        if opening:
            frames = self._frame(chunk.index, Delta(role="assistant", content=""))
        logprobs = self._logprobs(visible(chunk.logprobs, chunk.finish, chunk.stop))
        if chunk.text or logprobs:
            frames += self._frame(chunk.index, Delta(content=chunk.text), logprobs)
        return frames + self._end(chunk) if chunk.finish else frames

    def _frame(self, index: int, delta: Delta, logprobs: ChatLogprobs | None = None) -> bytes:
        return frame(self._chunk([ChunkChoice(index=index, delta=delta, logprobs=logprobs)]))

    def _end(self, chunk: Chunk) -> bytes:
        message = self._chunk([ChunkChoice(index=chunk.index, delta=Delta(), finish_reason=finish_of(chunk.finish))])
        if chunk.usage:
            message.timings = timings(chunk.usage)
        return frame(message)

    @property
    def _counts(self) -> bool:
        return bool(self.body.stream_options and self.body.stream_options.include_usage)

    def _chunk(self, choices: list[ChunkChoice], usage: Usage | None = None) -> ChatChunk:
        counts = usage_report(usage) if usage else None
        return ChatChunk(id=self.id, created=self.created, model=self.call.model, system_fingerprint=FINGERPRINT,
                         choices=choices, usage=counts if self._counts else UNSET)

    def _logprobs(self, logprobs: Sequence[Logprob]) -> ChatLogprobs | None:
        return chat_logprobs(self.llm.tokenizer, logprobs) if self.body.logprobs and logprobs else None
