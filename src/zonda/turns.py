"""A turn of a conversation at the level of text, whatever protocol it came by: text, reasoning and tool calls."""
from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self

from zonda.errors import ContextExceeded
from zonda.text.parts import CallArguments, CallStart, Parser, Part, Text, Thought
from zonda.types import Chunk, FinishReason, Grammar, Logprob, Sampling, Usage

Ending = FinishReason | Literal["tool_calls"]
"""Why an answer ended; `tool_calls` where it ended by itself and calls were made."""


@dataclass(frozen=True, slots=True)
class Named:
    """The choice of one tool, which must be called."""

    name: str


ToolChoice = Literal["auto", "none", "required"] | Named


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What a client asks for: messages and function tools in the shape of OpenAI's chat, and how to answer them.

    `allowed` narrows the tools that may be called to those of these names; empty allows all. `parallel` says whether
    there may be more calls than one. `format` is the form of the answer's text. `variables` go to the chat template.
    """

    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] = ()
    choice: ToolChoice = "auto"
    allowed: tuple[str, ...] = ()
    parallel: bool = True
    format: Grammar | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)
    sampling: Sampling = field(default_factory=Sampling)
    salt: str = ""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A turn that is ready to be answered: its prompt, and what takes the answers to it apart.

    `visible` are the special tokens that belong to the text which the parsers read.
    """

    prompt: tuple[int, ...]
    sampling: Sampling
    parsers: tuple[Parser, ...]
    visible: frozenset[int] = frozenset()
    grammar: Grammar | None = None
    salt: str = ""


@dataclass(frozen=True, slots=True)
class Spoken:
    """What one chunk adds to answer `index`. The last one of an answer has an `ending`.

    `reasoning_tokens` counts the tokens of reasoning so far, over all answers.
    """

    index: int
    parts: tuple[Part, ...]
    chunk: Chunk
    ending: Ending | None = None
    reasoning_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call of an answer; `arguments` is the JSON that the model wrote, an object unless it was cut short."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class AnswerChoice:
    """One finished answer. `stop` is the stop string that ended it."""

    index: int
    text: str
    thought: str
    calls: tuple[Call, ...]
    finish_reason: Ending
    logprobs: tuple[Logprob, ...] = ()
    stop: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """All answers to one turn: `sampling.n` choices."""

    choices: tuple[AnswerChoice, ...]
    usage: Usage
    reasoning_tokens: int = 0


class Chunks(Protocol):
    """A running request's chunks."""

    async def __anext__(self) -> Chunk: ...

    def cancel(self) -> None: ...


class Listener:
    """Takes a request's chunks apart, each sequence by its own parser."""

    def __init__(self, parsers: Sequence[Parser]) -> None:
        self._parsers = parsers
        self._called: set[int] = set()
        self._reasoning = 0

    def hear(self, chunk: Chunk) -> Spoken:
        """The parts that a chunk adds."""
        parser = self._parsers[chunk.index]
        before = parser.thinking
        parts = list(parser.feed(chunk.text)) if chunk.text else []
        if before or parser.thinking:
            self._reasoning += len(chunk.tokens)
        if chunk.finish:
            parts += parser.finish()
        if any(isinstance(part, CallStart) for part in parts):
            self._called.add(chunk.index)
        called = chunk.finish == "stop" and chunk.stop is None and chunk.index in self._called
        return Spoken(chunk.index, tuple(parts), chunk, "tool_calls" if called else chunk.finish,
                      self._reasoning)


class Conversing(AsyncIterator[Spoken]):
    """The answers to a turn as they come. Closing it, or dropping it, stops them."""

    def __init__(self, chunks: Chunks, prepared: Prepared) -> None:
        self._chunks = chunks
        self._n = prepared.sampling.n
        self._listener = Listener(prepared.parsers)

    async def __anext__(self) -> Spoken:
        return self._listener.hear(await self._chunks.__anext__())

    async def answer(self) -> Answer:
        """All that is to come, as one value."""
        result = Collected(self._n)
        async for spoken in self:
            result.add(spoken)
        return result.answer()

    def cancel(self) -> None:
        """Stop the answers that are still being made."""
        self._chunks.cancel()

    async def aclose(self) -> None:
        """Stop the answers that are still being made."""
        self.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.cancel()


@dataclass(slots=True)
class _Collected:
    texts: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    calls: list[tuple[CallStart, list[str]]] = field(default_factory=list)
    logprobs: list[Logprob] = field(default_factory=list)
    ending: Ending = "stop"
    stop: str | None = None

    def add(self, part: Part) -> None:
        match part:
            case Text(text):
                self.texts.append(text)
            case Thought(text):
                self.thoughts.append(text)
            case CallStart():
                self.calls.append((part, []))
            case CallArguments(index, json):
                self.calls[index][1].append(json)

    def choice(self, index: int) -> AnswerChoice:
        calls = tuple(Call(start.id, start.name, "".join(pieces)) for start, pieces in self.calls)
        return AnswerChoice(index, "".join(self.texts), "".join(self.thoughts), calls, self.ending,
                            tuple(self.logprobs), self.stop)


class Collected:
    """Adds up what is spoken to an `Answer`."""

    def __init__(self, n: int = 1) -> None:
        self._choices = [_Collected() for _ in range(n)]
        self._usage = Usage()
        self._reasoning = 0

    def add(self, spoken: Spoken) -> None:
        """Take in one more piece."""
        choice, chunk = self._choices[spoken.index], spoken.chunk
        for part in spoken.parts:
            choice.add(part)
        choice.logprobs.extend(chunk.logprobs)
        choice.ending, choice.stop = spoken.ending or choice.ending, chunk.stop or choice.stop
        self._usage = chunk.usage or self._usage
        self._reasoning = spoken.reasoning_tokens

    def answer(self) -> Answer:
        """All that came, as one value."""
        choices = tuple(each.choice(index) for index, each in enumerate(self._choices))
        return Answer(choices, self._usage, self._reasoning)


def fitting(prompt: Sequence[int], limit: int, sampling: Sampling) -> Sequence[int]:
    """The end of the prompt that the engine may look at; a prompt of millions of tokens must not keep it busy."""
    if len(prompt) < limit:
        return prompt
    if sampling.truncate_sequence:
        return prompt[-limit:]
    raise ContextExceeded(f"the prompt has {len(prompt)} tokens, and the context of {limit} tokens must hold one more",
                          hint=f"shorten the prompt to {limit - 1} tokens, or set truncate_sequence", param="prompt")
