"""From the parts of an answer to output items, and to the events that tell of them."""
from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from msgspec import UNSET, structs

from zonda.server import responses_events as events
from zonda.server.custom_tools import Input, arguments
from zonda.server.responses_actions import (
    CALLS,
    ActionCall,
    ActionTool,
    LocalShellCall,
    PatchCall,
    ShellCall,
    action_of,
    arguments_of,
)
from zonda.server.responses_events import Event
from zonda.server.responses_schema import (
    Compaction,
    CustomCall,
    FunctionCall,
    Incomplete,
    InputDetails,
    Item,
    ItemStatus,
    Message,
    OutputDetails,
    OutputText,
    ReasoningItem,
    ReasoningText,
    Response,
    ResponseError,
    ResponseUsage,
    Status,
    SummaryText,
    Written,
)
from zonda.server.responses_tool_schema import CustomTool
from zonda.server.responses_tools import known, qualified
from zonda.server.schema import TokenLogprob
from zonda.text.parts import CallArguments, CallStart, Part, Text, Thought
from zonda.types import Usage

SEALED = "zonda1."
"""How reasoning begins that is handed out to be handed in again."""
_PREFIXES: dict[type, str] = {Message: "msg", ReasoningItem: "rs", FunctionCall: "fc", CustomCall: "ctc",
                              LocalShellCall: "lsh", ShellCall: "sh", PatchCall: "apc"}
_ENDS: dict[str, type[events.Lifecycle] | None] = {
    "completed": events.Completed, "incomplete": events.Ended, "failed": events.Failed, "cancelled": None}
"""What tells of the end; the API has no event of a cancelled response, whose stream just ends."""


def seal(thought: str) -> str:
    """Reasoning in a form that clients carry along without looking at it."""
    return SEALED + base64.b64encode(thought.encode()).decode("ascii")


def unseal(sealed: str) -> str:
    """The reasoning in what `seal` made, or nothing of what others made."""
    if not sealed.startswith(SEALED):
        return ""
    try:
        return base64.b64decode(sealed[len(SEALED):], validate=True).decode()
    except (binascii.Error, ValueError):
        return ""


def usage_of(usage: Usage, reasoning: int) -> ResponseUsage:
    """Token counts as the Responses API reports them."""
    return ResponseUsage(usage.prompt_tokens, InputDetails(usage.cached_tokens), usage.completion_tokens,
                         OutputDetails(reasoning), usage.prompt_tokens + usage.completion_tokens)


class Writer:
    """Writes one response: `response` is what it has come to, and each method returns the events of what it adds.

    `name` gives the id of the item of a kind at a place of the output. With `summarize` reasoning is told as its own
    summary too; with `sealing` items of reasoning carry it sealed.
    """

    def __init__(self, response: Response, name: Callable[[str, int], str], *, summarize: bool = False,
                 sealing: bool = False) -> None:
        self.response = response
        self.name = name
        self._summarize = summarize
        self._sealing = sealing
        self._count = 0
        self._item: Item | None = None
        self._pieces: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        self._waiting: list[TokenLogprob] = []
        self._known = known(response.tools)
        self._input = Input()

    @property
    def done(self) -> bool:
        return self.response.status in _ENDS

    def next(self) -> int:
        """The number of the next event."""
        self._count += 1
        return self._count - 1

    def begin(self) -> list[Event]:
        """The response exists."""
        if self.response.status == "queued":
            return [self._news(events.Created), self._news(events.Queued)]
        return [self._news(events.Created), self._news(events.InProgress)]

    def start(self) -> list[Event]:
        """A response that waited is now written."""
        if self.response.status != "queued":
            return []
        self.response = structs.replace(self.response, status="in_progress")
        return [self._news(events.InProgress)]

    def feed(self, parts: Iterable[Part], logprobs: Sequence[TokenLogprob] = ()) -> list[Event]:
        """The answer goes on with these parts, and with the log-probabilities of their tokens."""
        told: list[Event] = []
        self._waiting.extend(logprobs)
        for part in parts:
            match part:
                case Text(text) if text:
                    told += self._ensure(Message)
                    told.append(self._text(text))
                case Thought(text) if text:
                    told += self._ensure(ReasoningItem)
                    told += self._thought(text)
                case CallStart(_, id, name):
                    told += self._close("completed") + self._call(id, name)
                case CallArguments(_, json) if json:
                    told += self._arguments(json)
                case _:
                    pass
            if not isinstance(part, Text):
                self._waiting.clear()
        return told

    def finish(self, ending: str | None, usage: Usage, reasoning: int) -> list[Event]:
        """The answer has ended, for this reason."""
        if ending == "cancelled":
            return self.cancel(usage_of(usage, reasoning))
        cut = ending == "length"
        told = self._close("incomplete" if cut else "completed")
        if not self.response.output and not cut:
            told += self._open(Message, role="assistant", content=[]) + self._close("completed")
        changes: dict[str, Any] = {"incomplete_details": Incomplete("max_output_tokens")} if cut else {}
        return told + self._end("incomplete" if cut else "completed", usage=usage_of(usage, reasoning), **changes)

    def put(self, item: Item) -> list[Event]:
        """A whole item is added."""
        told = [*self._close("completed"), self._item_news(events.ItemAdded, item),
                self._item_news(events.ItemDone, item)]
        self.response = structs.replace(self.response, output=[*self.response.output, item])
        return told

    def fail(self, code: str, message: str) -> list[Event]:
        """The response ends with an error."""
        return self._close("incomplete") + self._end("failed", error=ResponseError(code, message))

    def cancel(self, usage: ResponseUsage | None = None) -> list[Event]:
        """The response ends since somebody wants it to."""
        return self._close("incomplete") + self._end("cancelled", usage=usage)

    def _end(self, status: Status, **changes: Any) -> list[Event]:
        ended = int(time.time()) if status == "completed" else None
        self.response = structs.replace(self.response, status=status, completed_at=ended, **changes)
        kind = _ENDS[status]
        return [self._news(kind)] if kind else []

    def _news(self, kind: type[events.Lifecycle]) -> Event:
        shown = structs.replace(self.response, output=list(self.response.output))
        return kind(sequence_number=self.next(), response=shown)

    def _place(self) -> dict[str, Any]:
        assert self._item
        return {"sequence_number": self.next(), "output_index": len(self.response.output), "item_id": self._item.id}

    def _ensure(self, kind: type[Message | ReasoningItem]) -> list[Event]:
        """The events that make an item of this kind the one that is written."""
        if isinstance(self._item, kind):
            return []
        told = self._close("completed")
        if kind is Message:
            return told + self._open(Message, role="assistant", content=[])
        return told + self._open(ReasoningItem)

    def _open(self, kind: type[Written], **fields: Any) -> list[Event]:
        prefix = _PREFIXES[kind]
        id = self.name(prefix, len(self.response.output))
        self._item = kind(id=id, status="in_progress", **fields)
        self._pieces, self._logprobs = [], []
        told: list[Event] = [self._item_news(events.ItemAdded, self._item)]
        if kind is Message:
            told.append(events.PartAdded(**self._place(), part=OutputText("")))
        elif kind is ReasoningItem:
            told.append(events.PartAdded(**self._place(), part=ReasoningText("")))
            if self._summarize:
                told.append(events.SummaryAdded(**self._place(), part=SummaryText("")))
        return told

    def _item_news(self, kind: type[events.ItemEvent], item: Item) -> Event:
        return kind(sequence_number=self.next(), output_index=len(self.response.output), item=item)

    def _text(self, text: str) -> Event:
        self._pieces.append(text)
        logprobs = self._waiting
        self._logprobs += logprobs
        self._waiting = []
        return events.TextDelta(**self._place(), delta=text, logprobs=logprobs)

    def _call(self, id: str, name: str) -> list[Event]:
        found = self._known.get(name)
        if found and isinstance(found.tool, ActionTool):
            kind = CALLS[found.tool.name]
            return self._open(kind, call_id=id, action=action_of(kind, ""))
        said = {"name": found.tool.name, "namespace": found.namespace or UNSET} if found else {"name": name}
        if not found or not isinstance(found.tool, CustomTool):
            return self._open(FunctionCall, call_id=id, arguments="", **said)
        self._input = Input()
        return self._open(CustomCall, call_id=id, input="", **said)

    def _arguments(self, json: str) -> list[Event]:
        if isinstance(self._item, ActionCall):
            self._pieces.append(json)
            return []
        custom = isinstance(self._item, CustomCall)
        piece = self._input.feed(json) if custom else json
        self._pieces.append(piece)
        kind = events.InputDelta if custom else events.ArgumentsDelta
        return [kind(**self._place(), delta=piece)] if piece else []

    def _thought(self, text: str) -> list[Event]:
        self._pieces.append(text)
        told: list[Event] = [events.ReasoningDelta(**self._place(), delta=text)]
        if self._summarize:
            told.append(events.SummaryDelta(**self._place(), delta=text))
        return told

    def _close(self, status: ItemStatus) -> list[Event]:
        """The events that end the item which is written, if there is one."""
        if self._item is None:
            return []
        whole = "".join(self._pieces)
        match self._item:
            case Message():
                told, item = self._close_text(self._item, whole)
            case ReasoningItem():
                told, item = self._close_thought(self._item, whole)
            case FunctionCall():
                told = [events.ArgumentsDone(**self._place(), name=self._item.name, arguments=whole)]
                item = structs.replace(self._item, arguments=whole)
            case ActionCall():
                told, item = [], structs.replace(self._item, action=action_of(type(self._item), whole))
            case CustomCall():
                whole += self._input.finish()
                told = [events.InputDone(**self._place(), input=whole)]
                item = structs.replace(self._item, input=whole)
            case _:
                raise AssertionError(self._item)
        item = structs.replace(item, status=status)
        told.append(self._item_news(events.ItemDone, item))
        self.response = structs.replace(self.response, output=[*self.response.output, item])
        self._item = None
        return told

    def _close_text(self, item: Message, whole: str) -> tuple[list[Event], Item]:
        part = OutputText(whole, logprobs=self._logprobs)
        told: list[Event] = [events.TextDone(**self._place(), text=whole, logprobs=self._logprobs),
                             events.PartDone(**self._place(), part=part)]
        return told, structs.replace(item, content=[part])

    def _close_thought(self, item: ReasoningItem, whole: str) -> tuple[list[Event], Item]:
        part = ReasoningText(whole)
        told: list[Event] = [events.ReasoningDone(**self._place(), text=whole),
                             events.PartDone(**self._place(), part=part)]
        summary = [SummaryText(whole)] if self._summarize else []
        if summary:
            told += [events.SummaryTextDone(**self._place(), text=whole),
                     events.SummaryDone(**self._place(), part=summary[0])]
        sealed = seal(whole) if self._sealing else None
        return told, structs.replace(item, content=[part], summary=summary, encrypted_content=sealed)


class Mute(Writer):
    """Writes a response without an answer: the prompt is computed, for later responses to go on from."""

    def feed(self, parts: Iterable[Part], logprobs: Sequence[TokenLogprob] = ()) -> list[Event]:
        """The answer is not told."""
        return []

    def finish(self, ending: str | None, usage: Usage, reasoning: int) -> list[Event]:
        """The prompt is computed."""
        return self._end("completed", usage=usage_of(replace(usage, completion_tokens=0), 0))


def retell(response: Response, name: Callable[[str, int], str]) -> list[Event]:
    """The events of a finished response, as if it had been written at once."""
    begun = structs.replace(response, status="in_progress", output=[], usage=None, error=None, completed_at=None,
                            incomplete_details=None)
    summarize = any(isinstance(each, ReasoningItem) and each.summary for each in response.output)
    writer = Writer(begun, name, summarize=summarize)
    told = writer.begin()
    for item in response.output:
        told += writer.put(item) if isinstance(item, Compaction) else writer.feed(_parts(item))
    told += writer._close("incomplete" if response.status == "incomplete" else "completed")
    kind = _ENDS[response.status]
    return [*told, kind(sequence_number=writer.next(), response=response)] if kind else told


def _parts(item: Item) -> list[Part]:
    match item:
        case Message(content=content):
            return [Text(part.text) for part in content if isinstance(part, OutputText)]
        case ReasoningItem(content=content):
            return [Thought(part.text) for part in content]
        case FunctionCall():
            return [CallStart(0, item.call_id, _full(item)), CallArguments(0, item.arguments)]
        case ActionCall():
            arguments_ = arguments_of(type(item), item.action)
            return [CallStart(0, item.call_id, item.tool.name), CallArguments(0, arguments_)]
        case CustomCall():
            return [CallStart(0, item.call_id, _full(item)), CallArguments(0, arguments(item.input))]
        case _:
            return []


def _full(item: FunctionCall | CustomCall) -> str:
    return qualified(item.name, item.namespace or None)
