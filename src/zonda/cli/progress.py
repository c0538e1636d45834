"""Progress on standard error: a bar on a terminal, else one line a stage. Stages that end at once stay unseen."""
from __future__ import annotations

import sys
import threading
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Self

from zonda.terminal import bars

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_DELAY = 0.3  # seconds before a stage is shown


class Bars:
    """Called with a stage's name, what is done of it and its total (0 when unknown); one stage follows another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stage = ""
        self._state = (0, 0)
        self._timer: threading.Timer | None = None
        self._bars: Progress | None = None
        self._task: TaskID | None = None
        self._told: set[str] = set()
        self._drawn = ExitStack()

    def __call__(self, stage: str, done: int = 0, total: int = 0) -> None:
        with self._lock:
            if stage != self._stage:
                self._begin(stage)
            self._state = (done, total)
            if self._bars is not None and self._task is not None:
                self._bars.update(self._task, completed=done, total=total or None)

    def _begin(self, stage: str) -> None:
        self._end()
        self._stage = stage
        self._timer = threading.Timer(_DELAY, self._show, args=(stage,))
        self._timer.daemon = True
        self._timer.start()

    def _show(self, stage: str) -> None:
        with self._lock:
            if stage != self._stage:
                return
            if not sys.stderr.isatty():
                self._tell(stage)
                return
            self._bars = self._drawn.enter_context(_bars())
            done, total = self._state
            self._task = self._bars.add_task(stage, completed=done, total=total or None)

    def _tell(self, stage: str) -> None:
        if stage not in self._told:
            self._told.add(stage)
            print(f"{stage} ...", file=sys.stderr, flush=True)

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._drawn.close()
        self._timer = self._bars = self._task = None
        self._stage = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        with self._lock:
            self._end()


def _bars() -> AbstractContextManager[Progress]:
    from rich.progress import BarColumn, TaskProgressColumn, TimeElapsedColumn

    return bars(BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
