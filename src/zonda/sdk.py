"""The Python interface: `LLM`, blocking, and `AsyncLLM`, for an event loop. Both speak text on top of one engine."""
from __future__ import annotations

import asyncio
import queue
import secrets
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast, overload

from zonda.completion import Completion, Gather, Reply
from zonda.errors import Closed, InvalidRequest, Overloaded, Unsupported
from zonda.formats import take_format
from zonda.generation import Generation, Inboxes
from zonda.options import EngineOptions, ModelOptions, reject_unknown, sampling_of, split
from zonda.text import manner
from zonda.tools import Tool, ToolRun, ToolTalk, schemas
from zonda.turns import (
    Answer,
    Collected,
    Conversing,
    Listener,
    Named,
    Prepared,
    Spoken,
    Turn,
    apart,
    fitting,
    fitting_text,
    offered,
    prepared,
)
from zonda.types import Chunk, Event, Grammar, Request, Sampling

if TYPE_CHECKING:
    from zonda.engine.engine import Engine
    from zonda.model import Progress
    from zonda.text.template import ChatTemplate
    from zonda.text.tokenizer import Tokenizer

Message = Mapping[str, Any]
Conversation = str | Sequence[Message]
"""One user message as text, or messages as OpenAI's chat API has them."""
Prompt = str | Sequence[int]
"""Text, or token ids."""
_NEUTRAL = Sampling()
_POLL = 1.0  # seconds between two looks at whether a silent engine still lives


class Loaded:
    """A loaded model at the level of text: what `LLM` and `AsyncLLM` share."""

    def __init__(self, model: str | None = None, **options: Any) -> None:
        """Load a model. The options are those of the command line, with underscores: `max_seq_len=2048`."""
        progress = options.pop("progress", None)
        self._load(*split({"model": model, **options}, ModelOptions, EngineOptions), progress=progress)

    @classmethod
    def from_options(cls, model: ModelOptions, engine: EngineOptions, *, progress: Progress | None = None) -> Self:
        """Load a model as whole groups of options say; `progress` is told how far it is."""
        self = cls.__new__(cls)
        self._load(model, engine, progress=progress)
        return self

    def _load(self, model: ModelOptions, engine: EngineOptions, *, progress: Progress | None) -> None:
        from zonda.model import load_model

        manner.find({}, lambda mark: None, dialect=model.tool_dialect, style=model.reasoning)  # are there such names?
        parts = load_model(model, engine, progress=progress)
        self._adopt(parts.engine, parts.tokenizer, parts.template, parts.name, parts.defaults,
                    model.tool_dialect, model.reasoning)

    @classmethod
    def from_parts(cls, engine: Engine, tokenizer: Tokenizer, template: ChatTemplate | None = None, *,
                   name: str = "model", defaults: Mapping[str, Any] | None = None, tool_dialect: str | None = None,
                   reasoning: str | None = None) -> Self:
        """Put together from a running engine and its texts; the result owns the engine."""
        self = cls.__new__(cls)
        self._adopt(engine, tokenizer, template, name, defaults or {}, tool_dialect, reasoning)
        return self

    def _adopt(self, engine: Engine, tokenizer: Tokenizer, template: ChatTemplate | None, name: str,
               defaults: Mapping[str, Any], tool_dialect: str | None, reasoning: str | None) -> None:
        self.engine = engine
        self.tokenizer = tokenizer
        self.template = template
        self.name = name
        self.defaults = defaults
        self.manner = manner.find(template.sources if template else {}, tokenizer.id, dialect=tool_dialect,
                                  style=reasoning)
        """How the model marks reasoning and tool calls."""
        self.created = int(time.time())
        self._closer = weakref.finalize(self, engine.close)  # at the latest when the interpreter ends

    @property
    def capabilities(self) -> tuple[str, ...]:
        """What it can be asked for."""
        return ("completion", "chat") if self.template else ("completion",)

    def abandon(self) -> None:
        """Leave an engine behind that does not stop; the interpreter will end without it."""
        self._closer.detach()

    def tokenize(self, text: str, *, add_special: bool = True) -> list[int]:
        """Token ids of a text, with the tokens that the tokenizer adds around it unless `add_special` is off."""
        return self.tokenizer.encode(text, add_special=add_special)

    def detokenize(self, tokens: Sequence[int], *, skip_special: bool = True) -> str:
        """The text of token ids."""
        return self.tokenizer.decode(list(tokens), skip_special=skip_special)

    def render(self, messages: Conversation, *, tools: Sequence[Mapping[str, Any]] | None = None,
               add_generation_prompt: bool = True, **template_kwargs: Any) -> tuple[int, ...]:
        """The prompt, as token ids, that the chat template makes of a conversation."""
        text = self._rendered(messages, tools=tools, add_generation_prompt=add_generation_prompt, **template_kwargs)
        return tuple(self.tokenizer.encode_chat(text))

    def _rendered(self, messages: Conversation, **variables: Any) -> str:
        if self.template is None:
            raise Unsupported(f"{self.name} has no chat template", hint="pass `chat_template`, or complete plain text")
        spoken = [{"role": "user", "content": messages}] if isinstance(messages, str) else list(messages)
        if not spoken:
            raise InvalidRequest("`messages` is empty, expected at least one message", param="messages")
        return self.template.render(spoken, **variables)

    def count(self, turn: Turn) -> int:
        """The length of the prompt that a turn makes, in tokens."""
        prompt = self.render(turn.messages, tools=offered(turn) or None, **turn.variables)
        return len(prompt) + len(self.tokenize(turn.begun, add_special=False))

    def prepare(self, turn: Turn) -> Prepared:
        """The prompt of a turn, and what takes the answers apart; errors name `messages`, `tools` or `tool_choice`."""
        if isinstance(turn.messages, str) or not turn.messages:
            raise InvalidRequest("`messages` is empty, expected at least one message", param="messages")
        _check(turn.sampling)
        tools = offered(turn)
        text, limit = self._rendered(turn.messages, tools=tools or None, **turn.variables), self.engine.max_len
        with _about_messages():
            text = fitting_text(text, self.tokenizer, limit, turn.sampling)
            prompt = tuple(fitting(self.tokenizer.encode_chat(text), limit, turn.sampling))
        return prepared(turn, prompt, tools, self.manner, self.tokenizer)

    def _request(self, prompt: Prompt, sampling: Sampling, request_id: str | None = None, *, salt: str = "",
                 grammar: Grammar | None = None) -> Request:
        _check(sampling)
        ids = self.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
        if not isinstance(ids, Iterable) or isinstance(ids, bytes):
            raise InvalidRequest(f"the prompt is {type(ids).__name__}, expected text or token ids", param="prompt")
        return Request(request_id or secrets.token_hex(8), tuple(ids), sampling, salt, grammar)

    def _asked(self, turn: Prepared, request_id: str | None) -> Reply:
        """The reply to a prepared turn, not yet queued."""
        return self._reply(self._request(turn.prompt, turn.sampling, request_id, salt=turn.salt,
                                         grammar=turn.grammar), visible=turn.visible)

    def _reply(self, request: Request, *, visible: frozenset[int] = frozenset()) -> Reply:
        return Reply(request, self.tokenizer, lambda index: self.engine.cancel(request.id, index, "stop"),
                     visible=visible)


class LLM(Loaded):
    """A language model in this process; every call blocks until its answer is there. Use it as a context manager."""

    @overload
    def chat(self, messages: list[str] | list[list[Message]], **options: Any) -> list[Completion]: ...

    @overload
    def chat(self, messages: Conversation, **options: Any) -> Completion: ...

    def chat(self, messages: Any, **options: Any) -> Any:
        """Answer a conversation; a list of conversations is answered in one batch, in order.

        Options: `tools` (functions, or in OpenAI's shape), `tool_choice`, `parallel_tool_calls`, `template_kwargs`, and
        any field of `Sampling`, or a whole one as `sampling`. What the answer must look like is said by one of `schema`
        (a JSON schema, a pydantic model or a type; the value is then `parsed`), `regex`, `choices` and `grammar`.
        """
        many, form = _several(messages), take_format(options)
        turns = _turns(messages if many else [messages], options, form.grammar)
        ready = [self.prepare(turn) for turn in turns]
        replies = [self._asked(each, None) for each in ready]
        answers = [apart(answer, each).readable(form.read) for answer, each in zip(self._run(replies), ready)]
        return answers if many else answers[0]

    def run_tools(self, messages: Conversation, tools: Sequence[Tool | Callable[..., Any]], *, max_rounds: int = 8,
                  **options: Any) -> ToolRun:
        """Answer a conversation, calling the functions that the model asks for, for at most so many rounds."""
        talk = ToolTalk(_spoken(messages), tools, max_rounds)
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
        answers = [answer.readable(form.read) for answer in self._run([self._reply(each) for each in requests])]
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
        listener = Listener(ready.parsers, parallel=ready.parallel, stop=reply.stop)
        with closing(self._chunks(reply)) as chunks:
            yield from map(listener.hear, chunks)

    def answer(self, turn: Turn | Prepared) -> Answer:
        """The whole answer to a turn."""
        result = Collected(turn.sampling.n)
        for spoken in self.converse(turn):
            result.add(spoken)
        return result.answer()

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

    def _run(self, replies: Sequence[Reply]) -> list[Completion]:
        """All requests at once, as far as the engine's queue lets them in."""
        inbox: queue.SimpleQueue[Sequence[Event]] = queue.SimpleQueue()
        waiting, open_replies = deque(replies), dict[str, Reply]()
        results = {reply.request.id: Gather(reply.request.sampling.n) for reply in replies}
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

    def _collect(self, events: Sequence[Event], replies: dict[str, Reply], results: Mapping[str, Gather]) -> None:
        for event in events:
            reply = replies[event.request]
            chunk = reply.feed(event)
            if chunk is not None:
                results[event.request].add(chunk)
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

    async def chat(self, messages: Conversation, **options: Any) -> Completion:
        """Answer a conversation. Options as for `LLM.chat`."""
        form = take_format(options)
        (turn,) = _turns([messages], options, form.grammar)
        ready = self.prepare(turn)
        await self.compile(ready.grammar)
        return apart(await self._queue(self._asked(ready, None)).completion(), ready).readable(form.read)

    async def run_tools(self, messages: Conversation, tools: Sequence[Tool | Callable[..., Any]], *,
                        max_rounds: int = 8, **options: Any) -> ToolRun:
        """As `LLM.run_tools`; the functions run in threads."""
        talk = ToolTalk(_spoken(messages), tools, max_rounds)
        while talk.open:
            answer = await self.chat(talk.messages, tools=talk.tools, **options)
            talk.add(answer, await asyncio.gather(*(asyncio.to_thread(talk.result, call) for call in answer.calls)))
        return talk.run

    async def complete(self, prompt: Prompt, **options: Any) -> Completion:
        """Continue a text, or token ids, as it stands."""
        form = take_format(options)
        await self.compile(form.grammar)
        answer = await self.generate(prompt, _sampling(options), grammar=form.grammar).completion()
        return answer.readable(form.read)

    async def compile(self, grammar: Grammar | None) -> None:
        """Compile a grammar without holding up the event loop; a request that brings it then finds it done."""
        if grammar is not None:
            await asyncio.to_thread(self.engine.grammars.compile, grammar)

    def stream(self, messages: Conversation, **options: Any) -> Generation:
        """As `LLM.stream`. What the answer must look like is compiled now, unless `compile` has done so before."""
        (turn,) = _turns([messages], options, take_format(options).grammar)
        ready = self.prepare(turn)
        reply = self._asked(ready, None)
        listener = Listener(ready.parsers, parallel=ready.parallel, stop=reply.stop)
        return self._queue(reply, lambda chunk: listener.hear(chunk).said)

    def generate(self, prompt: Prompt, sampling: Sampling = _NEUTRAL, *, grammar: Grammar | None = None,
                 request_id: str | None = None, salt: str = "") -> Generation:
        """Continue a prompt piece by piece. The request is checked and queued now; leaving the iterator cancels it."""
        return self._queue(self._reply(self._request(prompt, sampling, request_id, salt=salt, grammar=grammar)))

    def converse(self, turn: Turn | Prepared, *, request_id: str | None = None) -> Conversing:
        """Answer a turn piece by piece: text, reasoning and tool calls. The request is checked and queued now."""
        ready = self.prepare(turn) if isinstance(turn, Turn) else turn
        with _about_messages():
            return Conversing(self._queue(self._asked(ready, request_id)), ready)

    def _queue(self, reply: Reply, hear: Callable[[Chunk], Chunk] = lambda chunk: chunk) -> Generation:
        loop = asyncio.get_running_loop()
        inboxes = self._inboxes.get(loop) or self._inboxes.setdefault(loop, Inboxes(loop, self.engine))
        return Generation(reply, inboxes, hear)

    async def aclose(self) -> None:
        """Stop the engine and free its memory."""
        await asyncio.to_thread(self.engine.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:
        await self.aclose()


@contextmanager
def _about_messages() -> Iterator[None]:
    """Say of errors about the prompt that they are about the messages, of which it was made."""
    try:
        yield
    except InvalidRequest as error:
        if error.param == "prompt":
            error.param = "messages"
        raise


def _check(sampling: Sampling) -> None:
    """Refuse what the engine would, before anything is made for each of the answers."""
    from zonda.engine.intake import check

    check(sampling)


def _several(value: Any) -> bool:
    """Whether a list holds prompts or conversations, and not one prompt's tokens or one conversation's messages."""
    return isinstance(value, list | tuple) and bool(value) and isinstance(value[0], str | list | tuple)


def _spoken(messages: Conversation) -> list[dict[str, Any]]:
    if isinstance(messages, str):
        return [{"role": "user", "content": messages}]
    if not isinstance(messages, Sequence) or not all(isinstance(each, Mapping) for each in messages):
        raise InvalidRequest("`messages` is neither a text nor a list of messages", param="messages",
                             hint='a message looks like {"role": "user", "content": "..."}')
    return [dict(each) for each in cast(Sequence[Message], messages)]


def _turns(conversations: Sequence[Conversation], options: dict[str, Any], form: Grammar | None) -> list[Turn]:
    """The turns that the options of `chat` describe."""
    choice = options.pop("tool_choice", "auto")
    if not isinstance(choice, str):
        raise InvalidRequest(f"`tool_choice` is {type(choice).__name__}, expected a text", param="tool_choice",
                             hint="give auto, none, required, or the name of a tool")
    fields = {"tools": schemas(options.pop("tools", None)), "parallel": options.pop("parallel_tool_calls", True),
              "choice": choice if choice in ("auto", "none", "required") else Named(choice),
              "variables": options.pop("template_kwargs", {}), "format": form}
    sampling = _sampling(options)
    return [Turn(messages=_spoken(each), sampling=sampling, **fields) for each in conversations]


def _sampling(options: Mapping[str, Any]) -> Sampling:
    """The sampling that keyword options describe."""
    fields = {name: value for name, value in options.items() if name != "sampling"}
    reject_unknown(fields, Sampling.__dataclass_fields__, where="sampling option")
    whole = options.get("sampling")
    if whole is not None and not isinstance(whole, Sampling):
        raise InvalidRequest(f"`sampling` is {type(whole).__name__}, expected a Sampling", param="sampling")
    return sampling_of(fields, base=whole or _NEUTRAL)
