"""How an answer appears: as it comes, or as markdown that takes shape on a terminal."""
from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TextIO

import click

from zonda.types import Chunk, Usage

if TYPE_CHECKING:
    from rich.console import Console, RenderableType


class Screen(Protocol):
    """Takes an answer piece by piece, within `with`, and the reasoning before it."""

    def write(self, text: str) -> None: ...

    def think(self, text: str) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None: ...


class Plain:
    """The text as it is, and a line's end after it; reasoning goes to standard error."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._begun = self._ended = False
        self._thinking = False

    def think(self, text: str) -> None:
        """Show more reasoning, dimmed on a terminal."""
        self._thinking = True
        click.echo(click.style(text, dim=True), nl=False, err=True)

    def write(self, text: str) -> None:
        """Show more text."""
        if text:
            if self._thinking:
                click.echo("\n", err=True)
                self._thinking = False
            self._out.write(text)
            self._out.flush()
            self._begun, self._ended = True, text.endswith("\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if not self._ended and (self._begun or kind is None):
            self._out.write("\n")
        self._out.flush()


class Markdown:
    """Finished blocks are printed for good; the last one is drawn anew as it grows."""

    def __init__(self, console: Console) -> None:
        from rich.live import Live

        self._console = console
        self._live = Live(console=console, transient=True, refresh_per_second=12, vertical_overflow="ellipsis")
        self._rest = ""
        self._thought = ""

    def think(self, text: str) -> None:
        """Show more reasoning, dimmed, line by line."""
        done, line, self._thought = (self._thought + text).rpartition("\n")
        if line:
            self._console.print(self._dimmed(done))
        self._live.update(self._dimmed(self._thought))

    def _dimmed(self, text: str) -> RenderableType:
        from rich.text import Text

        return Text(text, style="dim")

    def _thought_through(self) -> None:
        if self._thought:
            self._console.print(self._dimmed(f"{self._thought}\n"))
            self._thought = ""

    def write(self, text: str) -> None:
        """Show more text."""
        if text:
            self._thought_through()
        elif not self._rest:
            return
        done, self._rest = finished_blocks(self._rest + text)
        if done.strip():
            self._console.print(self._drawn(done))
        self._live.update(self._drawn(self._rest))

    def _drawn(self, text: str) -> RenderableType:
        from rich.markdown import Markdown as Drawn

        return Drawn(text)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._live.update("")
        self._live.stop()
        self._thought_through()
        if self._rest.strip():
            self._console.print(self._drawn(self._rest))


def finished_blocks(text: str) -> tuple[str, str]:
    """Cut markdown after its last blank line outside a code fence: what will not change, and the rest."""
    cut, fence, position = 0, "", 0
    for line in text.splitlines(keepends=True):
        position += len(line)
        mark = line.strip()[:3]
        if mark in {"```", "~~~"} and fence in {"", mark}:
            fence = "" if fence else mark
        elif not fence and line.endswith("\n") and not line.strip():
            cut = position
    return text[:cut], text[cut:]


class Meter:
    """Counts an answer's tokens and their time, and keeps its text."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._first = 0.0
        self._last = 0.0
        self._tokens = 0
        self._usage = Usage()
        self._texts: list[str] = []

    @property
    def text(self) -> str:
        """The answer so far."""
        return "".join(self._texts)

    def add(self, chunk: Chunk, text: str) -> None:
        """Count a chunk, which came now, and keep its text."""
        self._texts.append(text)
        if chunk.tokens:
            self._last = time.perf_counter()
            self._first = self._first or self._last
            self._tokens += len(chunk.tokens)
        self._usage = chunk.usage or self._usage

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
