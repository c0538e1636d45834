"""Drawing on a terminal: nothing else may be written meanwhile, neither keys that are typed nor lines of a log."""
from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    import logging

    from rich.progress import Progress, ProgressColumn

NARROW = 60
"""Columns below which bars are no more than names and percents."""


def keys(*, echo: bool = True) -> Callable[[], None]:
    """Remember how the terminal treats keys, and return what puts that back.

    Without `echo` they are not shown from now on, and kept one by one, Enter and Ctrl-D among them, for who reads them
    next. Does nothing where there is no terminal, or another job has it.
    """
    try:
        import termios

        file = sys.stdin.fileno()
        if os.tcgetpgrp(file) != os.getpgrp():
            return lambda: None
        before = termios.tcgetattr(file)
    except (ImportError, AttributeError, OSError, ValueError):  # another system, or no terminal, or no input at all
        return lambda: None

    def put(taken: int, shown: int) -> None:
        with suppress(OSError, termios.error):
            if os.tcgetpgrp(file) == os.getpgrp():
                termios.tcsetattr(file, termios.TCSANOW, [taken, *before[1:3], shown, *before[4:]])

    if not echo:
        put(before[0] & ~termios.ICRNL, before[3] & ~(termios.ECHO | termios.ICANON))
    return lambda: put(before[0], before[3])


def abandon() -> None:
    """Take back a line that is being drawn, and show the cursor, where what draws cannot."""
    with suppress(OSError):
        if os.isatty(2):
            os.write(2, b"\r\x1b[2K\x1b[?25h")


@contextmanager
def unechoed() -> Iterator[None]:
    """Let keys that are typed meanwhile wait for the next prompt: shown, they would shift what is drawn."""
    put_back = keys(echo=False)
    try:
        yield
    finally:
        put_back()


@contextmanager
def bars(*columns: ProgressColumn) -> Iterator[Progress]:
    """Bars on standard error, which vanish at the end; `columns` follow their names if the terminal is wide enough."""
    from rich.console import Console
    from rich.progress import Progress, TaskProgressColumn, TextColumn
    from rich.table import Column

    console = Console(stderr=True)
    narrow = console.width < NARROW
    name = TextColumn("{task.description}", table_column=Column(no_wrap=True, ratio=1 if narrow else None))
    percent = TaskProgressColumn(table_column=Column(no_wrap=True, min_width=4))
    shown = Progress(name, *((percent,) if narrow else columns), console=console, transient=True, expand=narrow)
    with unechoed(), shown:
        yield shown


def lines() -> logging.Handler:
    """What writes logged lines on standard error as it is now: where a bar is drawn, above it."""
    import logging

    class Lines(logging.StreamHandler[TextIO]):
        def __init__(self) -> None:
            logging.Handler.__init__(self)

        @property
        def stream(self) -> TextIO:  # type: ignore[override]
            return sys.stderr

    return Lines()
