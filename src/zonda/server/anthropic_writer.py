"""From the parts of an answer to a message's blocks, and to the events that tell of them."""
from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Struct

from zonda.server.anthropic_schema import (
    AddedJson,
    AddedSignature,
    AddedText,
    AddedThinking,
    AnsweredMessage,
    BlockDelta,
    BlockStart,
    BlockStop,
    ContentBlock,
    Ending,
    EndUsage,
    MessageDelta,
    MessageStart,
    MessageStop,
    MessageUsage,
    Ping,
    StopReason,
    TextBlock,
    ThinkingBlock,
    ThinkingCount,
    ToolUseBlock,
)
from zonda.server.responses_writer import seal
from zonda.text.parts import CallArguments, CallStart, Part, Text, Thought
from zonda.types import Usage


def usage_of(usage: Usage, thinking: int) -> MessageUsage:
    """Token counts as the Messages API reports them."""
    return MessageUsage(input_tokens=usage.prompt_tokens - usage.cached_tokens, output_tokens=usage.completion_tokens,
                        cache_read_input_tokens=usage.cached_tokens, output_tokens_details=ThinkingCount(thinking))


class Writer:
    """Writes one message; each method returns the events of what it adds.

    With `thinking` "shown" what the model thought is a block, with "omitted" a block that carries it sealed alone,
    with "hidden" nothing.
    """

    def __init__(self, message: AnsweredMessage, *, thinking: str = "shown") -> None:
        self.message = message
        self._thinking = thinking
        self._block: ContentBlock | None = None
        self._pieces: list[str] = []

    def begin(self) -> list[Struct]:
        """The message begins."""
        return [MessageStart(self.message), Ping()]

    def feed(self, parts: Iterable[Part]) -> list[Struct]:
        """The answer goes on with these parts."""
        told: list[Struct] = []
        for part in parts:
            match part:
                case Text(text) if text:
                    told += self._ensure(TextBlock("")) + self._add(text, AddedText(text))
                case Thought(text) if text and self._thinking != "hidden":
                    told += self._ensure(ThinkingBlock("", ""))
                    told += self._add(text, AddedThinking(text) if self._thinking == "shown" else None)
                case CallStart(_, id, name):
                    told += self._close() + self._open(ToolUseBlock(_id(id), name, {}))
                case CallArguments(_, json) if json:
                    told += self._add(json, AddedJson(json))
        return told

    def finish(self, reason: StopReason, stop: str | None, usage: MessageUsage) -> list[Struct]:
        """The answer has ended."""
        told = self._close()
        self.message = msgspec.structs.replace(self.message, stop_reason=reason, stop_sequence=stop, usage=usage)
        counts = msgspec.convert(usage, EndUsage, from_attributes=True)
        return [*told, MessageDelta(Ending(reason, stop), counts, self.message.context_management), MessageStop()]

    @property
    def _index(self) -> int:
        return len(self.message.content)

    def _ensure(self, fresh: ContentBlock) -> list[Struct]:
        """The events that make a block of this kind the one that is written."""
        return [] if isinstance(self._block, type(fresh)) else self._close() + self._open(fresh)

    def _open(self, block: ContentBlock) -> list[Struct]:
        self._block, self._pieces = block, []
        return [BlockStart(self._index, block)]

    def _add(self, piece: str, delta: AddedText | AddedThinking | AddedJson | None) -> list[Struct]:
        self._pieces.append(piece)
        return [BlockDelta(self._index, delta)] if delta else []

    def _close(self) -> list[Struct]:
        """The events that end the block which is written, if there is one."""
        if self._block is None:
            return []
        whole, told = "".join(self._pieces), list[Struct]()
        block: ContentBlock
        match self._block:
            case TextBlock():
                block = TextBlock(whole)
            case ThinkingBlock():
                shown = self._thinking == "shown"
                block = ThinkingBlock(whole, _signed(whole)) if shown else ThinkingBlock("", seal(whole))
                told.append(BlockDelta(self._index, AddedSignature(block.signature)))
            case ToolUseBlock(id, name):
                block = ToolUseBlock(id, name, _object(whole))
        told.append(BlockStop(self._index))
        self.message = msgspec.structs.replace(self.message, content=[*self.message.content, block])
        self._block = None
        return told


def _id(id: str) -> str:
    """The id of a call as Anthropic's begin, unless it has a form that the model's own template wants."""
    return f"toolu_{id.removeprefix('call_')}" if id.startswith("call_") else id


def _signed(thought: str) -> str:
    """What stands for a signature, which nobody asks for here."""
    return hashlib.sha256(thought.encode()).hexdigest()


def _object(text: str) -> dict[str, Any]:
    """A tool's input; what was cut short has none."""
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
