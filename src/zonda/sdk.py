"""The Python interface: `LLM`, blocking, and `AsyncLLM`, for an event loop. Both speak text on top of one engine."""
from __future__ import annotations

import asyncio
import queue
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from zonda.completion import Completion, Gather, Reply
from zonda.effort import asked
from zonda.errors import Closed, InvalidRequest, Overloaded
from zonda.formats import take_format
from zonda.generation import Generation, Inboxes, Total
from zonda.loaded import Conversation, Loaded, Message, Prompt, about_messages, as_messages
from zonda.options import reject_unknown, sampling_of
from zonda.tools import Tool, ToolRun, ToolTalk, schemas
from zonda.turns import Collected, Heard, Named, Prepared, Spoken, Turn
from zonda.types import Chunk, Event, Grammar, Request, Sampling

T = TypeVar("T")
_NEUTRAL = Sampling()
_TOGETHER = 256  # answers to one call that an event loop has queued at a time
_POLL = 1.0  # seconds between two looks at whether a silent engine still lives


class LLM(Loaded):
    """A language model in this process; every call blocks until its answer is there. Use it as a context manager."""

    @overload
    def chat(self, messages: list[str] | list[list[Message]], **options: Any) -> list[Completion]: ...

    @overload
    def chat(self, messages: Conversation, **options: Any) -> Completion: ...

    def chat(self, messages: Any, **options: Any) -> Any:
        """Answer a conversation; a list of conversations is answered in one batch, in order.

        Options: `tools` (functions, or in OpenAI's shape), `tool_choice`, `parallel_tool_calls`, `thinking` (true or
        false), `reasoning_effort` (`low`, `high`, ...), `thinking_budget` (the most tokens that may be reasoning),
        `template_kwargs` (variables that the chat template reads), and any field of `Sampling`, or a whole one as
        `sampling`. What the answer must look like is said by one of `schema` (a JSON schema, a pydantic model or a
        type; the value is then `parsed`), `regex`, `choices` and `grammar`.
        """
        many, form = _several(messages), take_format(options)
        turns = _turns(messages if many else [messages], options, form.grammar)
        ready = [self.prepare(turn) for turn in turns]
        replies = [self._asked(each, None) for each in ready]
        heard = {reply: Heard(each, reply.stop) for reply, each in zip(replies, ready)}
        answers = [answer.readable(form.read) for answer in self._run(heard)]
        return answers if many else answers[0]

    def run_tools(self, messages: Conversation, tools: Sequence[Tool | Callable[..., Any]], *, max_rounds: int = 8,
                  **options: Any) -> ToolRun:
        """Answer a conversation, calling the functions that the model asks for, for at most so many rounds."""
        talk = ToolTalk(as_messages(messages), tools, max_rounds)
        while talk.open:
            answer = self.chat(talk.messages, tools=talk.tools, **options)
            talk.add(answer, [talk.result(call) for call in answer.calls])
        return talk.run

    @overload
    def complete(self, prompt: list[str] | list[list[int]], **options: Any) -> list[Completion]: ...

    @overload
    def complete(self, prompt: Prompt, **options: Any) -> Completion: ...

    def complete(self, prompt: Any, **options: Any) -> Any:
        """Continue a text, or token ids, as it stands; a list of them is continued in one batch, in order."""
        many = _several(prompt)
        form, sampling = take_format(options), _sampling(options)
        requests = [self._request(each, sampling, grammar=form.grammar) for each in (prompt if many else [prompt])]
        gathered = {self._reply(each): Gather(sampling.n) for each in requests}
        answers = [answer.readable(form.read) for answer in self._run(gathered)]
        return answers if many else answers[0]

    def stream(self, messages: Conversation, **options: Any) -> Iterator[Chunk]:
        """Answer a conversation piece by piece, calls left out; leaving the iterator stops the answer."""
        (turn,) = _turns([messages], options, take_format(options).grammar)
        for spoken in self.converse(turn):
            yield spoken.said

    def generate(self, prompt: Prompt, sampling: Sampling = _NEUTRAL, *, grammar: Grammar | None = None,
                 request_id: str | None = None) -> Iterator[Chunk]:
        """Continue a prompt piece by piece; leaving the iterator stops it."""
        return self._chunks(self._reply(self._request(prompt, sampling, request_id, grammar=grammar)))

    def converse(self, turn: Turn | Prepared, *, request_id: str | None = None) -> Iterator[Spoken]:
        """Answer a turn piece by piece: text, reasoning and tool calls; leaving the iterator stops it."""
        ready = self.prepare(turn) if isinstance(turn, Turn) else turn
        reply = self._asked(ready, request_id)
        with closing(self._chunks(reply)) as chunks:
            yield from map(ready.listener(reply.stop).hear, chunks)

    def _chunks(self, reply: Reply) -> Generator[Chunk, None, None]:
        request = reply.request
        inbox: queue.SimpleQueue[Sequence[Event]] = queue.SimpleQueue()
        self.engine.submit(request, inbox.put)
        try:
            while not reply.done:
                for event in self._receive(inbox):
                    chunk = reply.feed(event)
                    if chunk is not None:
                        yield chunk
        finally:
            if not reply.done:
                self.engine.cancel(request.id)

    def _run(self, results: Mapping[Reply, Total[Chunk]]) -> list[Completion]:
        """All requests at once, as far as the engine's queue lets them in."""
        inbox: queue.SimpleQueue[Sequence[Event]] = queue.SimpleQueue()
        waiting, open_replies = deque(results), dict[str, Reply]()
        try:
            while waiting or open_replies:
                self._admit(waiting, open_replies, inbox.put)
                self._collect(self._receive(inbox), open_replies, results)
        finally:
            for name in open_replies:
                self.engine.cancel(name)
        return [each.completion() for each in results.values()]

    def _admit(self, waiting: deque[Reply], replies: dict[str, Reply],
               sink: Callable[[Sequence[Event]], None]) -> None:
        while waiting:
            try:
                self.engine.submit(waiting[0].request, sink)
            except Overloaded:
                if not replies:
                    raise
                return
            reply = waiting.popleft()
            replies[reply.request.id] = reply

    def _collect(self, events: Sequence[Event], replies: dict[str, Reply],
                 results: Mapping[Reply, Total[Chunk]]) -> None:
        for event in events:
            reply = replies[event.request]
            chunk = reply.feed(event)
            if chunk is not None:
                results[reply].add(chunk)
            if reply.done:
                del replies[event.request]

    def _receive(self, inbox: queue.SimpleQueue[Sequence[Event]]) -> Sequence[Event]:
        while True:
            try:
                return inbox.get(timeout=_POLL)
            except queue.Empty:
                if not self.engine.alive:
                    raise Closed("the engine has stopped") from None

    def close(self) -> None:
        """Stop the engine and free its memory."""
        self.engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()


class AsyncLLM(Loaded):
    """A language model in this process, for asyncio: many streams at once, each cancelled by leaving its iterator."""

    _inboxes: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Inboxes]

    @classmethod
    async def load(cls, model: str | None = None, **options: Any) -> Self:
        """Load a model without holding up the event loop."""
        return await asyncio.to_thread(cls, model, **options)

    def _adopt(self, *parts: Any) -> None:
        super()._adopt(*parts)
        self._inboxes = weakref.WeakKeyDictionary()

    @overload
    async def chat(self, messages: list[str] | list[list[Message]], **options: Any) -> list[Completion]: ...

    @overload
    async def chat(self, messages: Conversation, **options: Any) -> Completion: ...

    async def chat(self, messages: Any, **options: Any) -> Any:
        """Answer a conversation, or a list of them together, in order. Options as for `LLM.chat`."""
        many, form = _several(messages), take_format(options)
        ready = [self.prepare(turn) for turn in _turns(messages if many else [messages], options, form.grammar)]
        found = await _together(lambda each: self.converse(each).completion(), ready)
        answers = [answer.readable(form.read) for answer in found]
        return answers if many else answers[0]

    async def run_tools(self, messages: Conversation, tools: Sequence[Tool | Callable[..., Any]], *,
                        max_rounds: int = 8, **options: Any) -> ToolRun:
        """As `LLM.run_tools`; coroutine functions are awaited, others run in threads, and those of one answer together.
        """
        talk = ToolTalk(as_messages(messages), tools, max_rounds, awaits=True)
        while talk.open:
            answer = await self.chat(talk.messages, tools=talk.tools, **options)
            talk.add(answer, await asyncio.gather(*map(talk.aresult, answer.calls)))
        return talk.run

    @overload
    async def complete(self, prompt: list[str] | list[list[int]], **options: Any) -> list[Completion]: ...

    @overload
    async def complete(self, prompt: Prompt, **options: Any) -> Completion: ...

    async def complete(self, prompt: Any, **options: Any) -> Any:
        """Continue a text, or token ids, as it stands; a list of them together, in order."""
        many = _several(prompt)
        form, sampling = take_format(options), _sampling(options)
        asked = [self._request(each, sampling, grammar=form.grammar) for each in (prompt if many else [prompt])]
        found = await _together(lambda each: self._generation(each).completion(), asked)
        answers = [answer.readable(form.read) for answer in found]
        return answers if many else answers[0]

    async def compile(self, grammar: Grammar | None, client: int = 0) -> None:
        """Compile a grammar beside the event loop, in turn for clients; a request that brings it then finds it done."""
        if grammar is not None:
            await asyncio.wrap_future(self.engine.grammars.begin(grammar, client))

    def stream(self, messages: Conversation, **options: Any) -> Generation[Chunk]:
        """As `LLM.stream`. What the answer must look like is compiled beside the event loop, before its first chunk."""
        (turn,) = _turns([messages], options, take_format(options).grammar)
        ready = self.prepare(turn)
        reply = self._asked(ready, None)
        listener = ready.listener(reply.stop)
        return self._queue(reply, lambda chunk: listener.hear(chunk).said, Gather(ready.sampling.n))

    def generate(self, prompt: Prompt, sampling: Sampling = _NEUTRAL, *, grammar: Grammar | None = None,
                 request_id: str | None = None, salt: str = "") -> Generation[Chunk]:
        """Continue a prompt piece by piece. The request is checked and queued now, or, with a grammar that is not yet
        compiled, before its first chunk; leaving the iterator cancels it."""
        return self._generation(self._request(prompt, sampling, request_id, salt=salt, grammar=grammar))

    def converse(self, turn: Turn | Prepared, *, request_id: str | None = None) -> Generation[Spoken]:
        """Answer a turn piece by piece: text, reasoning and tool calls. The request is checked and queued now."""
        ready = self.prepare(turn) if isinstance(turn, Turn) else turn
        with about_messages():
            reply = self._asked(ready, request_id)
            return self._queue(reply, ready.listener(reply.stop).hear, Collected(ready.sampling.n))

    def _generation(self, request: Request) -> Generation[Chunk]:
        return self._queue(self._reply(request), lambda chunk: chunk, Gather(request.sampling.n))

    def _queue(self, reply: Reply, hear: Callable[[Chunk], T], total: Total[T]) -> Generation[T]:
        loop = asyncio.get_running_loop()
        inboxes = self._inboxes.get(loop) or self._inboxes.setdefault(loop, Inboxes(loop, self.engine))
        return Generation(reply, inboxes, hear, total)

    async def aclose(self) -> None:
        """Stop the engine and free its memory."""
        await asyncio.to_thread(self.engine.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:
        await self.aclose()


async def _together(answer: Callable[[T], Awaitable[Completion]], asked: Sequence[T]) -> list[Completion]:
    """The answers to all, of which not too many are queued at a time; if one fails, the others are stopped."""
    if len(asked) == 1:
        return [await answer(asked[0])]
    room = asyncio.Semaphore(_TOGETHER)

    async def answered(each: T) -> Completion:
        async with room:
            return await answer(each)

    tasks = [asyncio.create_task(answered(each)) for each in asked]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def _several(value: Any) -> bool:
    """Whether a list holds prompts or conversations, and not one prompt's tokens or one conversation's messages."""
    return isinstance(value, list | tuple) and bool(value) and isinstance(value[0], str | list | tuple)


def _turns(conversations: Sequence[Conversation], options: dict[str, Any], form: Grammar | None) -> list[Turn]:
    """The turns that the options of `chat` describe."""
    choice = options.pop("tool_choice", "auto")
    if not isinstance(choice, str):
        raise InvalidRequest(f"`tool_choice` is {type(choice).__name__}, expected a text", param="tool_choice",
                             hint="give auto, none, required, or the name of a tool")
    fields = {"tools": schemas(options.pop("tools", None)), "parallel": options.pop("parallel_tool_calls", True),
              "choice": choice if choice in ("auto", "none", "required") else Named(choice),
              "variables": _variables(options), "format": form}
    sampling = _sampling(options)
    if sampling.max_tokens == 0:
        raise InvalidRequest("`max_tokens` is 0", hint="an answer has at least 1 token", param="max_tokens")
    return [Turn(messages=as_messages(each), sampling=sampling, **fields) for each in conversations]


def _variables(options: dict[str, Any]) -> Mapping[str, Any]:
    """What the chat template is told beside messages and tools."""
    given = options.pop("template_kwargs", None) or {}
    wanted = asked(options.pop("thinking", None), options.pop("reasoning_effort", None),
                   options.pop("thinking_budget", None))
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise InvalidRequest("`template_kwargs` is no mapping of names to values", param="template_kwargs")
    if taken := given.keys() & {"self", "messages", "tools"}:
        raise InvalidRequest(f"`template_kwargs` cannot set {min(taken)!r}", param="template_kwargs")
    return {**given, **wanted}


def _sampling(options: Mapping[str, Any]) -> Sampling:
    """The sampling that keyword options describe."""
    fields = {name: value for name, value in options.items() if name != "sampling"}
    reject_unknown(fields, Sampling.__dataclass_fields__, where="sampling option")
    whole = options.get("sampling")
    if whole is not None and not isinstance(whole, Sampling):
        raise InvalidRequest(f"`sampling` is {type(whole).__name__}, expected a Sampling", param="sampling")
    return sampling_of(fields, base=whole or _NEUTRAL)
