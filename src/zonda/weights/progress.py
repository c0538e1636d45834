"""Progress bars of downloads, drawn by rich on standard error."""
from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TimeRemainingColumn, TransferSpeedColumn
from tqdm import tqdm

from zonda import terminal

TWIN = "Downloading bytes"
"""A bar of the hub's library that counts what came over the wire beside what reached the disk."""


def drawn() -> AbstractContextManager[Progress]:
    """A set of bars that count bytes."""
    return terminal.bars(BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())


@contextmanager
def bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """One bar; call what it yields with the bytes that have come."""
    with drawn() as progress:
        task = progress.add_task(title, total=total)
        yield lambda done: progress.update(task, completed=min(done, total))


@contextmanager
def bars() -> Iterator[type[tqdm]]:
    """A tqdm class whose bars rich draws, one below the other; those that count no bytes stay hidden."""
    with drawn() as progress:

        class Bar(tqdm):
            monitor_interval = 0

            def __init__(self, *args: Any, **options: Any) -> None:
                options.pop("name", None)
                self.task: TaskID | None = None
                super().__init__(*args, **{**options, "file": io.StringIO(), "disable": False})

            def display(self, msg: str | None = None, pos: int | None = None) -> bool:
                if self.unit == "B" and self.total and self.n and TWIN not in (self.desc or ""):
                    if self.task is None:
                        self.task = progress.add_task("Downloading", total=self.total)
                    progress.update(self.task, total=self.total, completed=self.n)
                return True

        Bar.set_lock(threading.RLock())
        yield Bar


class Silent(tqdm):
    """A tqdm bar that is never seen."""

    monitor_interval = 0

    def __init__(self, *args: Any, **options: Any) -> None:
        options.pop("name", None)
        super().__init__(*args, **{**options, "disable": True})


Silent.set_lock(threading.RLock())
