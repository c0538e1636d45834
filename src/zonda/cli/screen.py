"""How an answer appears, and what is counted of it."""
from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Protocol, Self, TextIO

import click

from zonda.types import Chunk, Usage


class Screen(Protocol):
    """Takes an answer piece by piece, within `with`, and the reasoning before it."""

    def write(self, text: str) -> None: ...

    def think(self, text: str) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None: ...


_HARMLESS = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"} | {ord("\r"): None, 127: 0x2421}
_HARMLESS |= dict.fromkeys(range(128, 160), 0xFFFD)


def harmless(text: str) -> str:
    """A text for a terminal: control characters, which could command it, as pictures of themselves."""
    return text.translate(_HARMLESS)


class Plain:
    """The text as it is, but harmless on a terminal, and a line's end after it; reasoning goes to standard error."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._begun = self._ended = False
        self._thinking = False

    def think(self, text: str) -> None:
        """Show more reasoning, dimmed on a terminal."""
        self._thinking = True
        click.echo(click.style(harmless(text), dim=True), nl=False, err=True)

    def write(self, text: str) -> None:
        """Show more text."""
        if text:
            self._thought_through()
            self._out.write(harmless(text) if self._out.isatty() else text)
            self._out.flush()
            self._begun, self._ended = True, text.endswith("\n")

    def _thought_through(self) -> None:
        if self._thinking:
            click.echo("\n", err=True)
            self._thinking = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._thought_through()
        if not self._ended and (self._begun or kind in (None, KeyboardInterrupt)):  # the terminal shows ^C
            self._out.write("\n")
        self._out.flush()


class Meter:
    """Counts an answer's tokens and their time, and keeps its text."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._first = 0.0
        self._last = 0.0
        self._tokens = 0
        self._usage = Usage()
        self._texts: list[str] = []
        self._raw: list[str] = []

    @property
    def text(self) -> str:
        """The answer so far."""
        return "".join(self._texts)

    def add(self, chunk: Chunk, text: str) -> None:
        """Count a chunk, which came now, and keep its text."""
        self._texts.append(text)
        self._raw.append(chunk.text)
        if chunk.tokens:
            self._last = time.perf_counter()
            self._first = self._first or self._last
            self._tokens += len(chunk.tokens)
        self._usage = chunk.usage or self._usage

    @property
    def record(self) -> dict[str, object]:
        """The answer with its reasoning, and what it took, for a log."""
        return {"answer": "".join(self._raw), "prompt_tokens": self._usage.prompt_tokens,
                "completion_tokens": self._tokens}

    def line(self) -> str:
        """The counts and speeds in one line."""
        wait = self._first - self._start if self._tokens else 0.0
        parts = [f"{self._tokens} tokens"]
        if self._tokens > 1 and self._last > self._first:
            parts.append(f"{(self._tokens - 1) / (self._last - self._first):.1f} tok/s")
        if self._usage.prompt_tokens:
            parts.append(f"prompt {self._usage.prompt_tokens} tokens")
        parts.append(f"first after {wait:.2f} s")
        return ", ".join(parts)
