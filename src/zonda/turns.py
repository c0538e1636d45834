"""A turn of a conversation at the level of text, whatever protocol it came by: text, reasoning and tool calls."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from msgspec import Struct, structs

from zonda.completion import Call, Choice, Completion, Ending, Gather
from zonda.errors import InvalidRequest
from zonda.text.first_call import FirstCall
from zonda.text.parts import CallArguments, CallStart, Parser, Part, Text, Thought
from zonda.types import Budget, Chunk, Grammar, Sampling


@dataclass(frozen=True, slots=True)
class Named:
    """The choice of one tool, which must be called."""

    name: str


ToolChoice = Literal["auto", "none", "required"] | Named


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What a client asks for: messages and function tools in the shape of OpenAI's chat, and how to answer them.

    `patterns` are expressions that all texts among a tool's arguments must match, by its name.
    `allowed` narrows the tools that may be called to those of these names; empty allows all. `parallel` says whether
    there may be more calls than one. `format` is the form of the answer's text. `variables` go to the chat template;
    `thinking_budget` among them also limits how many tokens are reasoning. `begun` is the beginning of the answer's
    text, after which the model goes on.
    """

    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] = ()
    choice: ToolChoice = "auto"
    allowed: tuple[str, ...] = ()
    parallel: bool = True
    patterns: Mapping[str, str] = field(default_factory=dict)
    format: Grammar | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)
    sampling: Sampling = field(default_factory=Sampling)
    salt: str = ""
    begun: str = ""


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
    parallel: bool = True
    budget: Budget | None = None

    def listener(self, stop: Callable[[int], None]) -> Listener:
        """What takes the answers' chunks apart; see `Listener`."""
        return Listener(self.parsers, parallel=self.parallel, stop=stop)


class Spoken(Struct, frozen=True):
    """What one chunk adds to answer `index`. The last one of an answer has an `ending`.

    `reasoning_tokens` counts the tokens of reasoning so far, over all answers.
    """

    index: int
    parts: tuple[Part, ...]
    chunk: Chunk
    ending: Ending | None = None
    reasoning_tokens: int = 0

    @property
    def said(self) -> Chunk:
        """The chunk with reasoning told apart from its text, and calls left out."""
        text, thought = ("".join(part.text for part in self.parts if isinstance(part, kind))
                         for kind in (Text, Thought))
        return structs.replace(self.chunk, text=text, thought=thought)


class Listener:
    """Takes a request's chunks apart, each sequence by its own parser.

    Without `parallel` an answer is over with its first call, and `stop` is called with its index.
    """

    def __init__(self, parsers: Sequence[Parser], *, parallel: bool = True,
                 stop: Callable[[int], None] = lambda index: None) -> None:
        self._parsers = parsers
        self._firsts = None if parallel else [FirstCall() for _ in parsers]
        self._stop = stop
        self._called: set[int] = set()
        self._reasoning = 0

    def hear(self, chunk: Chunk) -> Spoken:
        """The parts that a chunk adds."""
        parser = self._parsers[chunk.index]
        before = parser.thinking
        parts = parser.feed(chunk.text) if chunk.text else ()
        if before or parser.thinking:
            self._reasoning += len(chunk.tokens)
        if chunk.finish:
            parts = (*parts, *parser.finish(cut=chunk.finish == "length"))
        if self._firsts:
            parts = self._alone(self._firsts[chunk.index], chunk, parts)
        for part in parts:
            if isinstance(part, CallStart):
                self._called.add(chunk.index)
        return Spoken(chunk.index, tuple(parts), chunk, self._ending(chunk), self._reasoning)

    def _alone(self, first: FirstCall, chunk: Chunk, parts: Sequence[Part]) -> Sequence[Part]:
        """The parts up to the end of the first call."""
        taken = [part for part in parts if first.takes(part)]
        if first.over and not chunk.finish:
            self._stop(chunk.index)
        return taken

    def _ending(self, chunk: Chunk) -> Ending | None:
        called = chunk.finish == "stop" and chunk.stop is None and chunk.index in self._called
        return "tool_calls" if called else chunk.finish


@dataclass(slots=True)
class _Said:
    texts: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    calls: list[tuple[CallStart, list[str]]] = field(default_factory=list)
    ending: Ending = "stop"

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

    def told(self, choice: Choice) -> Choice:
        calls = tuple(Call(start.id, start.name, "".join(pieces)) for start, pieces in self.calls)
        return replace(choice, text="".join(self.texts), thought="".join(self.thoughts), calls=calls,
                       finish_reason=self.ending)


class Collected:
    """Adds what is spoken up to a completion, with reasoning and calls told apart from its texts."""

    def __init__(self, n: int = 1) -> None:
        self._chunks = Gather(n)
        self._said = [_Said() for _ in range(n)]
        self._reasoning = 0

    def add(self, spoken: Spoken) -> None:
        """Take in one more piece."""
        said = self._said[spoken.index]
        for part in spoken.parts:
            said.add(part)
        said.ending = spoken.ending or said.ending
        self._chunks.add(spoken.chunk)
        self._reasoning = spoken.reasoning_tokens

    def completion(self) -> Completion:
        """All that came, as one value."""
        whole = self._chunks.completion()
        choices = tuple(said.told(choice) for said, choice in zip(self._said, whole.choices))
        return replace(whole, choices=choices, reasoning_tokens=self._reasoning)


class Heard:
    """Adds the chunks of a turn up to a completion, as `Gather` those of a bare prompt."""

    def __init__(self, prepared: Prepared, stop: Callable[[int], None]) -> None:
        self._listener = prepared.listener(stop)
        self._collected = Collected(prepared.sampling.n)

    def add(self, chunk: Chunk) -> None:
        """Take in one more chunk."""
        self._collected.add(self._listener.hear(chunk))

    def completion(self) -> Completion:
        """All that came, as one value."""
        return self._collected.completion()


def taken_off(messages: list[dict[str, Any]], *, thinks: bool = False) -> str:
    """The text of the last message, which is taken off the others: it begins the answer."""
    last = messages.pop() if messages and messages[-1]["role"] == "assistant" else {}
    if not last or thinks or "tool_calls" in last:
        raise InvalidRequest("the last of `messages` cannot begin the answer", param="messages",
                             hint="expected a text of the assistant alone, without thinking or tool calls")
    content = last["content"] or ""
    return content if isinstance(content, str) else "".join(part["text"] for part in content)
