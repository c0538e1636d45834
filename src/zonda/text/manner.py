"""How a model writes its answers: what is text in them, what reasoning, and what a tool call."""
from __future__ import annotations

from collections.abc import Sequence

from zonda.text.parts import Part, Text


class Plain:
    """The parser of answers that are text alone."""

    thinking = False

    def feed(self, text: str) -> Sequence[Part]:
        return (Text(text),) if text else ()

    def finish(self) -> Sequence[Part]:
        return ()
