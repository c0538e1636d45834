"""An answer as Markdown that takes shape on a terminal."""
from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich import markdown
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.segment import Segment
from rich.text import Text

from zonda.cli.screen import harmless

_FENCE = re.compile(r"[ \t]*(`{3,}(?=[^`]*$)|~{3,})(.*)", re.DOTALL)


class Markdown:
    """Finished blocks are printed for good; the last one is drawn anew as it grows."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, transient=True, refresh_per_second=12, vertical_overflow="crop")
        self._rest = ""
        self._thought = ""
        self._begun = False

    def think(self, text: str) -> None:
        """Show more reasoning, dimmed, line by line."""
        with whole():
            done, line, self._thought = (self._thought + harmless(text)).rpartition("\n")
            if line:
                self._print_thought(done)
            self._live.update(Text(self._thought, style="dim"))

    def _print_thought(self, text: str) -> None:
        self._console.print(Text(text, style="dim"))
        self._begun = True

    def _thought_through(self) -> None:
        if self._thought.strip():
            self._print_thought(self._thought)
        self._thought = ""

    def write(self, text: str) -> None:
        """Show more text."""
        with whole():
            if text:
                self._thought_through()
            elif not self._rest:
                return
            for line in harmless(text).splitlines(keepends=True):  # so that each block is drawn by itself
                done, self._rest = finished_blocks(self._rest + line)
                self._print(done)
            self._live.update(Block(self._rest, apart=self._begun, grows=True))

    def _print(self, text: str) -> None:
        if text.strip():
            self._console.print(Block(text, apart=self._begun), end="")
            self._begun = True

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        with whole():
            self._live.update("")
            self._live.stop()
            self._thought_through()
            self._print(self._rest)


class Block:
    """Some Markdown without empty lines at its ends, but one before it where it stands `apart` from what is above.

    Of one that `grows`, the end that fits the terminal.
    """

    def __init__(self, text: str, *, apart: bool, grows: bool = False) -> None:
        self._text = text
        self._apart = apart
        self._grows = grows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        height = options.size.height
        text = _end_of_code(self._text, height) if self._grows else self._text
        lines = _trimmed(console.render_lines(_Document(text), options, pad=False))
        if self._apart and lines:
            lines.insert(0, [])
        for line in lines[1 - height:] if self._grows else lines:
            yield from line
            yield Segment.line()


class _Heading(markdown.Heading):
    """A heading at the left, of whatever level."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.text


class _Document(markdown.Markdown):
    """Markdown that shows where links lead, as not every terminal can follow them."""

    elements = markdown.Markdown.elements | {"heading_open": _Heading}

    def __init__(self, text: str) -> None:
        super().__init__(text, hyperlinks=False)


def _trimmed(lines: list[list[Segment]]) -> list[list[Segment]]:
    """Lines without the empty ones at both ends; the coloured margin of code is not empty."""
    full = [index for index, line in enumerate(lines)
            if any(each.text.strip() or (each.style and each.style.bgcolor) for each in line)]
    return lines[full[0]:full[-1] + 1] if full else []


def _end_of_code(text: str, height: int) -> str:
    """No more of a long block of code than can be seen of it: to draw it all at each token would take ever longer."""
    lines = text.splitlines()
    return "\n".join([lines[0], *lines[-height:]]) if len(lines) > height and _FENCE.match(lines[0]) else text


def finished_blocks(text: str) -> tuple[str, str]:
    """What of a Markdown text will not change: to its last blank line outside code, or to the code; and the rest."""
    cut, fence, position = 0, "", 0
    for line in text.splitlines(keepends=True):
        mark, after = found.groups() if (found := _FENCE.match(line)) else ("", "")
        if not fence and mark:
            fence = mark
            cut = cut if line[0].isspace() else position
        elif fence and mark.startswith(fence) and not after.strip():
            fence = ""
        position += len(line)
        if not fence and line.endswith("\n") and not line.strip():
            cut = position
    return text[:cut], text[cut:]


@contextmanager
def whole() -> Iterator[None]:
    """Let Ctrl-C wait until the block has ended: half a drawing would stay on the terminal."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: asked.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if asked:
        raise KeyboardInterrupt
