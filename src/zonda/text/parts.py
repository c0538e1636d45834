"""What a model's answer is made of: text, reasoning, and tool calls, as they come."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct


class Text(Struct, frozen=True):
    """A piece of the answer itself."""

    text: str


class Thought(Struct, frozen=True):
    """A piece of the reasoning before it."""

    text: str


class CallStart(Struct, frozen=True):
    """A tool call begins; `index` counts the calls of one answer."""

    index: int
    id: str
    name: str


class CallArguments(Struct, frozen=True):
    """A piece of a call's arguments; the pieces of one call add up to a JSON object."""

    index: int
    json: str


Part = Text | Thought | CallStart | CallArguments


class Parser(Protocol):
    """Takes an answer apart while it is written. However the text is cut into calls, the parts add up to the same."""

    def feed(self, text: str) -> Sequence[Part]:
        """Take in more text; returns what is now sure."""

    def finish(self, *, cut: bool = False) -> Sequence[Part]:
        """What was kept back, when no more text comes; but no piece of a mark or a call if the answer was `cut`."""

    @property
    def thinking(self) -> bool:
        """Whether what comes next is reasoning, as far as is known."""
