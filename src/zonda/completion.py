"""From the engine's events to text: chunks while a request runs, a completion when it is done. No IO."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from zonda.errors import ZondaError
from zonda.text.stream import Stream
from zonda.types import Chunk, Event, FinishReason, Logprob, Request, Usage

if TYPE_CHECKING:
    from zonda.text.tokenizer import Tokenizer


Ending = FinishReason | Literal["tool_calls"]
"""Why an answer ended; `tool_calls` where it ended by itself and calls were made."""


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call of an answer; `arguments` is the JSON that the model wrote, an object unless it was cut short."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Choice:
    """One finished sequence. `stop` is the stop string that ended it; `thought` is the reasoning before the text."""

    index: int
    text: str
    tokens: tuple[int, ...]
    finish_reason: Ending
    logprobs: tuple[Logprob, ...] = ()
    stop: str | None = None
    thought: str = ""
    calls: tuple[Call, ...] = ()
    read: Callable[[str], Any] | None = field(default=None, repr=False, compare=False)

    @property
    def parsed(self) -> Any:
        """The value that the text stands for, if a `schema` was asked for; raises if the answer was cut short."""
        if self.read is None:
            raise ZondaError("the answer stands for no value", hint="ask for one with `schema`")
        if self.finish_reason != "stop" or self.stop is not None:
            raise ZondaError(f"the answer is not whole: it ended by {self.stop or self.finish_reason!r}",
                             hint="raise max_tokens")
        return self.read(self.text)


@dataclass(frozen=True, slots=True)
class Completion:
    """The answer to one prompt: `sampling.n` choices. The short names are those of the first choice."""

    choices: tuple[Choice, ...]
    usage: Usage
    prompt_logprobs: tuple[Logprob | None, ...] | None = None
    reasoning_tokens: int = 0

    @property
    def text(self) -> str:
        return self.choices[0].text

    @property
    def tokens(self) -> tuple[int, ...]:
        return self.choices[0].tokens

    @property
    def finish_reason(self) -> Ending:
        return self.choices[0].finish_reason

    @property
    def thought(self) -> str:
        return self.choices[0].thought

    @property
    def calls(self) -> tuple[Call, ...]:
        return self.choices[0].calls

    @property
    def logprobs(self) -> tuple[Logprob, ...]:
        return self.choices[0].logprobs

    @property
    def parsed(self) -> Any:
        """The value that the first choice's text stands for, if a `schema` was asked for."""
        return self.choices[0].parsed

    def readable(self, read: Callable[[str], Any] | None) -> Completion:
        """The same with `parsed` values, if there is something that reads them."""
        return replace(self, choices=tuple(replace(each, read=read) for each in self.choices)) if read else self

    def best(self, n: int) -> Completion:
        """The `n` choices whose tokens were likeliest on average, the likeliest first; all need log-probabilities."""
        def likelihood(choice: Choice) -> float:
            return sum(each.logprob for each in choice.logprobs) / max(len(choice.logprobs), 1)

        found = sorted(self.choices, key=likelihood, reverse=True)[:n]
        return replace(self, choices=tuple(replace(each, index=index) for index, each in enumerate(found)))

    def __str__(self) -> str:
        return self.text


@dataclass(slots=True)
class _Piece:
    """One sequence on its way from tokens to text."""

    stream: Stream
    stopped: bool = False
    finished: bool = False


class Reply:
    """One request's way from events to chunks.

    `cancel` is called with the index of a sequence at its stop string; `visible` are special tokens to show as text.
    """

    def __init__(self, request: Request, tokenizer: Tokenizer, cancel: Callable[[int], None], *,
                 visible: frozenset[int] = frozenset()) -> None:
        self.request = request
        self.done = False
        self._cancel = cancel
        self._told = 0
        sampling, last = request.sampling, request.prompt[-1] if request.prompt else None
        self._pieces = [_Piece(Stream(tokenizer, sampling.stop, after=last, visible=visible,
                                     min_tokens=sampling.min_tokens))
                        for _ in range(sampling.n)]

    def feed(self, event: Event) -> Chunk | None:
        """The chunk that the event makes, None if nothing is to be told; raises the error that ended the sequence.

        Then the reply is not done: other sequences may still run, and are to be cancelled.
        """
        piece = self._pieces[event.index]
        if event.finish == "error":
            raise event.error or ZondaError("the engine failed without a message")
        if piece.stopped or piece.finished:
            return self._last(piece, event) if event.finish and not piece.finished else None
        return self._chunk(piece, event)

    def stop(self, index: int) -> None:
        """Let one sequence end where it is, as if a stop string had come."""
        piece = self._pieces[index]
        if not (piece.stopped or piece.finished):
            piece.stopped = True
            self._cancel(index)

    def _chunk(self, piece: _Piece, event: Event) -> Chunk:
        self._told += len(event.tokens)
        text = piece.stream.feed(_visible(event))
        piece.stopped = piece.stream.stopped is not None
        if piece.stopped and not event.finish:
            self._cancel(event.index)
        if event.finish and not piece.stopped:
            text += piece.stream.finish()
        finish: FinishReason | None = "stop" if event.finish and piece.stopped else event.finish
        if finish:
            self._note(piece)
        return Chunk(event.index, text, event.tokens, event.logprobs, finish, piece.stream.stopped if finish else None,
                     self._usage(event), event.prompt_logprobs)

    def _last(self, piece: _Piece, event: Event) -> Chunk:
        self._note(piece)
        return Chunk(event.index, "", finish="stop", stop=piece.stream.stopped, usage=self._usage(event))

    def _usage(self, event: Event) -> Usage | None:
        """The event's, without the tokens that came after stop strings before the engine heard of them."""
        return event.usage and replace(event.usage, completion_tokens=self._told)

    def _note(self, piece: _Piece) -> None:
        piece.finished = True
        self.done = all(each.finished for each in self._pieces)


def _visible(event: Event) -> tuple[int, ...]:
    """The tokens that become text: not the stop token that ended the sequence."""
    return event.tokens[:-1] if event.finish == "stop" else event.tokens


@dataclass(slots=True)
class _Gathered:
    texts: list[str] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    logprobs: list[Logprob] = field(default_factory=list)
    finish: FinishReason = "stop"
    stop: str | None = None


class Gather:
    """Adds chunks up to a `Completion`."""

    def __init__(self, n: int = 1) -> None:
        self._parts = [_Gathered() for _ in range(n)]
        self._usage = Usage()
        self._prompt: tuple[Logprob | None, ...] | None = None

    def add(self, chunk: Chunk) -> None:
        """Take in one more chunk."""
        part = self._parts[chunk.index]
        part.texts.append(chunk.text)
        part.tokens.extend(chunk.tokens)
        part.logprobs.extend(chunk.logprobs)
        part.finish, part.stop = chunk.finish or part.finish, chunk.stop or part.stop
        self._usage = chunk.usage or self._usage
        self._prompt = self._prompt or chunk.prompt_logprobs

    def completion(self) -> Completion:
        """All that came, as one value."""
        choices = (Choice(i, "".join(part.texts), tuple(part.tokens), part.finish, tuple(part.logprobs), part.stop)
                   for i, part in enumerate(self._parts))
        return Completion(tuple(choices), self._usage, self._prompt)
