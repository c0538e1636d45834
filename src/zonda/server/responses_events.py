"""The events of a streamed response, in the Responses API's words."""
from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType

from zonda.server.responses_schema import Item, OutputText, ReasoningText, Response, SummaryText
from zonda.server.schema import ErrorObject, TokenLogprob
from zonda.server.sse import padded


class Event(Struct, tag_field="type", kw_only=True):
    """News of a response; `sequence_number` counts them from 0."""

    sequence_number: int


class Lifecycle(Event, kw_only=True):
    """The response as it now is."""

    response: Response


class ItemEvent(Event, kw_only=True):
    """News of an item."""

    output_index: int
    item: Item


class Placed(Event, kw_only=True):
    """News inside an item."""

    item_id: str
    output_index: int


class PartEvent(Placed, kw_only=True):
    """News of a part of an item's content."""

    content_index: int = 0
    part: OutputText | ReasoningText


class SummaryPartEvent(Placed, kw_only=True):
    """News of a part of a summary."""

    summary_index: int = 0
    part: SummaryText


class Added(Placed, kw_only=True):
    """More of something; `obfuscation` hides its length."""

    delta: str
    obfuscation: str | UnsetType = UNSET


class Created(Lifecycle, tag="response.created", kw_only=True):
    """The response begins."""


class Queued(Lifecycle, tag="response.queued", kw_only=True):
    """It waits for its turn."""


class InProgress(Lifecycle, tag="response.in_progress", kw_only=True):
    """It is being written."""


class Completed(Lifecycle, tag="response.completed", kw_only=True):
    """It has ended by itself."""


class Ended(Lifecycle, tag="response.incomplete", kw_only=True):
    """It was cut short."""


class Failed(Lifecycle, tag="response.failed", kw_only=True):
    """It ended with an error."""


class ItemAdded(ItemEvent, tag="response.output_item.added", kw_only=True):
    """An item begins."""


class ItemDone(ItemEvent, tag="response.output_item.done", kw_only=True):
    """An item is complete."""


class PartAdded(PartEvent, tag="response.content_part.added", kw_only=True):
    """A part of the content begins."""


class PartDone(PartEvent, tag="response.content_part.done", kw_only=True):
    """A part of the content is complete."""


class TextDelta(Added, tag="response.output_text.delta", kw_only=True):
    """More text."""

    content_index: int = 0
    logprobs: list[TokenLogprob] = []


class TextDone(Placed, tag="response.output_text.done", kw_only=True):
    """The whole text."""

    content_index: int = 0
    text: str
    logprobs: list[TokenLogprob] = []


class ReasoningDelta(Added, tag="response.reasoning_text.delta", kw_only=True):
    """More reasoning."""

    content_index: int = 0


class ReasoningDone(Placed, tag="response.reasoning_text.done", kw_only=True):
    """The whole reasoning."""

    content_index: int = 0
    text: str


class SummaryAdded(SummaryPartEvent, tag="response.reasoning_summary_part.added", kw_only=True):
    """A summary begins."""


class SummaryDelta(Added, tag="response.reasoning_summary_text.delta", kw_only=True):
    """More of a summary."""

    summary_index: int = 0


class SummaryTextDone(Placed, tag="response.reasoning_summary_text.done", kw_only=True):
    """The whole summary."""

    summary_index: int = 0
    text: str


class SummaryDone(SummaryPartEvent, tag="response.reasoning_summary_part.done", kw_only=True):
    """A summary is complete."""


class ArgumentsDelta(Added, tag="response.function_call_arguments.delta", kw_only=True):
    """More of a call's arguments."""


class ArgumentsDone(Placed, tag="response.function_call_arguments.done", kw_only=True):
    """A call's whole arguments."""

    name: str
    arguments: str


class InputDelta(Added, tag="response.custom_tool_call_input.delta", kw_only=True):
    """More of a custom tool's input."""


class InputDone(Placed, tag="response.custom_tool_call_input.done", kw_only=True):
    """A custom tool's whole input."""

    input: str


class ErrorEvent(Event, tag="error", kw_only=True):
    """What went wrong where the response itself cannot tell."""

    code: str | None
    message: str
    param: str | None


class SocketError(Struct, tag="error", tag_field="type"):
    """What went wrong, over a WebSocket."""

    status: int
    error: ErrorObject


ResponseEvent = (
    Created | Queued | InProgress | Completed | Ended | Failed | ItemAdded | ItemDone | PartAdded | PartDone
    | TextDelta | TextDone | ReasoningDelta | ReasoningDone | SummaryAdded | SummaryDelta | SummaryTextDone
    | SummaryDone | ArgumentsDelta | ArgumentsDone | InputDelta | InputDone | ErrorEvent)


def hidden(event: Event) -> Event:
    """The event with the length of its piece hidden."""
    return padded(event) if isinstance(event, Added) else event
