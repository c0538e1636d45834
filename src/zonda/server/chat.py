"""`/v1/chat/completions`."""
from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET

from zonda.completion import Call as ModelCall
from zonda.completion import Choice, Completion
from zonda.errors import InvalidRequest
from zonda.server import conversation
from zonda.server.call import Call
from zonda.server.chat_schema import (
    AssistantMessage,
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChatRequest,
    ChunkChoice,
    CustomDelta,
    CustomInput,
    CustomToolCall,
    Delta,
    Ending,
    Function,
    FunctionDelta,
    ToolCall,
    ToolCallDelta,
)
from zonda.server.custom_tools import Input, customs, text
from zonda.server.formats import compiled, wanted_form
from zonda.server.reports import FINGERPRINT, finish_of, timings, usage_report
from zonda.server.sampling import check_stream, sampling_of
from zonda.server.schema import ChatLogprobs
from zonda.server.sse import frame, padded, stream
from zonda.server.stored_chats import keep
from zonda.server.tokens import chat_logprobs, visible
from zonda.text.parts import CallArguments, CallStart, Part, Text, Thought
from zonda.turns import Collected, Spoken
from zonda.types import Logprob, Sampling, Usage

if TYPE_CHECKING:
    from zonda.sdk import AsyncLLM

_encoder = msgspec.json.Encoder()


async def create(call: Call, body: ChatRequest) -> None:
    """Answer a conversation, whole or as a stream."""
    llm = await call.use(body.model)
    field, form = wanted_form(body)
    sampling = _sampling(body, llm)
    turn = replace(await call.beside(lambda: conversation.turn(body, sampling, form)), salt=call.salt(body.cache_salt))
    async with call.flight():
        prepared = await call.beside(lambda: llm.prepare(turn))
        await compiled(call, llm, prepared.grammar, field)
        for grammar in customs(body.tools or ()).values():
            await compiled(call, llm, grammar, "tools")
        reply = Reply(f"chatcmpl-{secrets.token_hex(12)}", int(time.time()), call, llm, body)
        async with llm.converse(prepared, request_id=reply.id) as speech:
            if body.stream:
                await stream(call, reply.frames(speech))
            else:
                said = await speech.completion()
                completion = await call.beside(lambda: reply.whole(said), large=bool(body.logprobs))
                keep(call, body, completion)
                await call.reply(completion)


def _sampling(body: ChatRequest, llm: AsyncLLM) -> Sampling:
    check_stream(body)
    wanted = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    if body.top_logprobs and not body.logprobs:
        raise InvalidRequest("`top_logprobs` needs `logprobs` true", param="top_logprobs")
    return sampling_of(body, max_tokens=wanted, logprobs=(body.top_logprobs or 0) if body.logprobs else None)


def _function(call: ModelCall) -> Function:
    return Function(name=call.name, arguments=call.arguments)


@dataclass(frozen=True)
class Reply:
    """The answer to one chat request, in either form."""

    id: str
    created: int
    call: Call
    llm: AsyncLLM
    body: ChatRequest

    def whole(self, answer: Completion) -> ChatCompletion:
        """The answer in one piece."""
        self.call.usage = answer.usage
        return ChatCompletion(
            id=self.id, created=self.created, model=self.call.model, system_fingerprint=FINGERPRINT,
            choices=[self._choice(each) for each in answer.choices],
            usage=usage_report(answer.usage, answer.reasoning_tokens), timings=timings(answer.usage))

    def _choice(self, choice: Choice) -> ChatChoice:
        message = AssistantMessage(content=choice.text or (None if choice.calls else ""))
        if choice.thought and not self._hides:
            message.reasoning_content = message.reasoning = choice.thought
        if choice.calls and self._old:
            message.function_call = _function(choice.calls[0])
        elif choice.calls:
            message.tool_calls = [self._tool_call(call) for call in choice.calls]
        logprobs = self._logprobs(visible(choice.logprobs, choice.finish_reason, choice.stop))
        return ChatChoice(index=choice.index, message=message, finish_reason=self._ending(choice.finish_reason),
                          logprobs=logprobs)

    def _tool_call(self, call: ModelCall) -> ToolCall | CustomToolCall:
        if call.name in self._customs:
            return CustomToolCall(id=call.id, custom=CustomInput(name=call.name, input=text(call.arguments)))
        return ToolCall(id=call.id, function=_function(call))

    @property
    def _hides(self) -> bool:
        """Whether reasoning is left out of the answer."""
        return bool(self.body.reasoning and self.body.reasoning.exclude)

    @cached_property
    def _customs(self) -> Collection[str]:
        """The names of custom tools."""
        return customs(self.body.tools or ())

    @cached_property
    def _inputs(self) -> dict[tuple[int, int], Input]:
        """The texts of calls of custom tools on their way, by answer and call."""
        return {}

    async def frames(self, speech: AsyncIterator[Spoken]) -> AsyncIterator[bytes]:
        """The answer as events: for each choice its role, its pieces and, with an empty delta, its end."""
        fresh = set(range(self.body.n or 1))
        usage, reasoning = Usage(), 0
        collected = Collected(len(fresh)) if self.body.store else None
        async for spoken in speech:
            if collected:
                collected.add(spoken)
            usage, reasoning = spoken.chunk.usage or usage, spoken.reasoning_tokens
            events = b"".join(self._events(spoken, opening=spoken.index in fresh))
            if events:
                fresh.discard(spoken.index)
                yield events
        self.call.usage = usage
        if collected:
            keep(self.call, self.body, self.whole(collected.completion()))
        if self.body.reported.include_usage:
            message = self._chunk([])
            message.usage = usage_report(usage, reasoning)
            yield frame(message)

    def _events(self, spoken: Spoken, *, opening: bool) -> Iterator[bytes]:
        logprobs = self._logprobs(visible(spoken.chunk.logprobs, spoken.ending, spoken.chunk.stop))
        deltas = [delta for part in spoken.parts if (delta := self._delta(spoken.index, part))]
        if logprobs and not deltas:
            deltas = [Delta(content="")]
        if opening and (deltas or spoken.ending):
            called = bool(spoken.parts) and isinstance(spoken.parts[0], CallStart)
            yield self._frame(spoken.index, Delta(role="assistant", content=None if called else ""))
        for delta in deltas:
            yield self._frame(spoken.index, delta, logprobs)
            logprobs = None
        if spoken.ending:
            yield from (self._frame(spoken.index, delta) for delta in self._rests(spoken.index))
            yield self._end(spoken)

    def _rests(self, answer: int) -> Iterator[Delta]:
        """What else belongs to the texts of an answer's calls of custom tools."""
        for (each, index), taken in self._inputs.items():
            if each == answer and (piece := taken.finish()):
                yield self._call(ToolCallDelta(index=index, custom=CustomDelta(input=piece)))

    def _delta(self, answer: int, part: Part) -> Delta | None:
        match part:
            case Text(text):
                return Delta(content=text)
            case Thought(text):
                return None if self._hides else Delta(reasoning_content=text, reasoning=text)
            case CallStart(index, id, name) if name in self._customs:
                self._inputs[answer, index] = Input()
                custom = CustomDelta(name=name, input="")
                return self._call(ToolCallDelta(index=index, id=id, type="custom", custom=custom))
            case CallArguments(index, json) if taken := self._inputs.get((answer, index)):
                piece = taken.feed(json)
                return self._call(ToolCallDelta(index=index, custom=CustomDelta(input=piece))) if piece else None
            case CallStart(index, id, name):
                function = FunctionDelta(name=name, arguments="")
                return self._call(ToolCallDelta(index=index, id=id, type="function", function=function))
            case CallArguments(index, json):
                return self._call(ToolCallDelta(index=index, function=FunctionDelta(arguments=json)))

    def _call(self, delta: ToolCallDelta) -> Delta:
        return Delta(function_call=delta.function) if self._old else Delta(tool_calls=[delta])

    def _frame(self, index: int, delta: Delta, logprobs: ChatLogprobs | None = None) -> bytes:
        choice = ChunkChoice(index=index, delta=delta, logprobs=logprobs)
        if self.body.reported.include_obfuscation:
            return frame(padded(self._chunk([choice])))
        before, after = self._around
        return before + _encoder.encode(choice) + after

    @cached_property
    def _around(self) -> tuple[bytes, bytes]:
        """What comes before and after the one choice of a frame, the same in all of them."""
        before, mark, after = frame(self._chunk([])).partition(b'"choices":[')
        return before + mark, after

    def _end(self, spoken: Spoken) -> bytes:
        choice = ChunkChoice(index=spoken.index, delta=Delta(), finish_reason=self._ending(spoken.ending))
        message = self._chunk([choice])
        if spoken.chunk.usage:
            message.timings = timings(spoken.chunk.usage)
        return frame(message)

    def _ending(self, reason: str | None) -> Ending | None:
        if reason == "tool_calls":
            return "function_call" if self._old else "tool_calls"
        return finish_of(reason)

    @property
    def _old(self) -> bool:
        """Whether calls are told under their old name."""
        return self.body.functions is not None

    def _chunk(self, choices: list[ChunkChoice]) -> ChatChunk:
        return ChatChunk(id=self.id, created=self.created, model=self.call.model, system_fingerprint=FINGERPRINT,
                         choices=choices, usage=None if self.body.reported.include_usage else UNSET)

    def _logprobs(self, logprobs: Sequence[Logprob]) -> ChatLogprobs | None:
        return chat_logprobs(self.llm.tokenizer, logprobs) if self.body.logprobs and logprobs else None
