"""Collects the parts of an answer: joins pieces, and leaves out white space around tool calls."""
from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence

from zonda.text.parts import CallArguments, CallStart, Part, Text, Thought


def call_id() -> str:
    """A new name for a tool call."""
    return f"call_{secrets.token_hex(12)}"


class Writer:
    """What is known of an answer and not yet told.

    White space at the end of what was told last is kept back: around reasoning and calls it is left out.
    """

    def __init__(self) -> None:
        self.thinking = False
        self.calls = 0
        self._parts: list[Part] = []
        self._pieces: list[str] = []
        self._kind: Callable[[str], Part] = Text
        self._space: list[str] = []
        self._trim = False
        self._spoken = False

    def think(self) -> None:
        """What comes is reasoning."""
        self.thinking = True
        self._turn(Thought)

    def speak(self) -> None:
        """What comes is the answer."""
        self.thinking = False
        self._turn(Text)

    def _turn(self, kind: type[Text] | type[Thought]) -> None:
        self._flush()
        self._space.clear()
        self._kind, self._trim = kind, True

    def thought(self, text: str) -> None:
        """Add to the reasoning."""
        self._write(text)

    def text(self, text: str) -> None:
        """Add to the answer."""
        if self._kind is not Text:
            self._flush()
            self._kind, self._trim = Text, not self._spoken
        self._spoken = self._spoken or bool(text.strip())
        self._write(text)

    def _write(self, text: str) -> None:
        if self._trim:
            text = text.lstrip()
            self._trim = not text
        bare = text.rstrip()
        if bare:
            self._pieces += [*self._space, bare]
            self._space.clear()
        if len(bare) < len(text):
            self._space.append(text[len(bare):])

    def trim(self) -> None:
        """Leave out the white space that came last."""
        self._space.clear()

    def start(self, name: str, id: str | None = None) -> None:
        """A call begins, now that its tool is known."""
        self._flush()
        self._space.clear()
        self._parts.append(CallStart(self.calls, id or call_id(), name))
        self.calls += 1
        index = self.calls - 1
        self._kind = lambda json: CallArguments(index, json)

    def arguments(self, json: str) -> None:
        """Add to the arguments of the call that began last."""
        self._pieces.append(json)

    def taken(self) -> Sequence[Part]:
        """What was added since the last time."""
        self._flush()
        parts, self._parts = self._parts, []
        return parts

    def close(self) -> None:
        """Nothing more comes."""
        if self._kind is Text and not self.calls:
            self._pieces += self._space
        self._space.clear()

    def _flush(self) -> None:
        piece = "".join(self._pieces)
        self._pieces.clear()
        if piece:
            self._parts.append(self._kind(piece))
