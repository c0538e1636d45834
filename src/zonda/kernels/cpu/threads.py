"""A team of threads that runs programs and loops of compiled kernels. Its members sleep between steps."""
from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable

import numpy as np

from zonda.kernels.cpu.frame import LINE
from zonda.kernels.cpu.library import Kernel, Library
from zonda.kernels.cpu.memory import address, lines

Compiled = Callable[..., None]
RESET = Kernel("reset", 3, "run:reset")
RUN = Kernel("run", 7, "run:run")


def function(library: Library, kernel: Kernel) -> Compiled:
    """A kernel that Python can call; the call releases the interpreter's lock."""
    return ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * kernel.words)(library.address(kernel))


def _give_up() -> int:
    """The address of sched_yield, or 0 where there is none."""
    try:
        return ctypes.cast(ctypes.CDLL(None).sched_yield, ctypes.c_void_p).value or 0
    except (AttributeError, OSError, TypeError):
        return 0


class Team:
    """`size` threads, the caller among them."""

    def __init__(self, library: Library, size: int) -> None:
        self.size = size
        self._reset, self._run = function(library, RESET), function(library, RUN)
        self._give_up = _give_up()
        self._epoch = 0
        self._work: tuple[int, ...] = ()
        self._closed = False
        self._gates = [threading.Lock() for _ in range(size - 1)]
        for gate in self._gates:
            gate.acquire()
        self._threads = [threading.Thread(target=self._member, args=(i + 1, gate), name=f"zonda-{i + 1}", daemon=True)
                         for i, gate in enumerate(self._gates)]
        for thread in self._threads:
            thread.start()

    def run(self, program: np.ndarray, sync: np.ndarray, frame: np.ndarray, fields: dict[int, int]) -> None:
        """Run a program once: int64 (instructions, 32), with its sync lines, after setting the frame's `fields`."""
        count = len(program)
        self._epoch = self._epoch % 0x7FFFFFFF + 1
        self._reset(count, address(sync), self._epoch)
        for field, value in fields.items():
            frame[field] = value
        self._work = (address(program), count, address(frame), address(sync), self._epoch)
        for gate in self._gates:
            if gate.locked():
                gate.release()
        self._join(0, self._work)

    def _join(self, thread: int, work: tuple[int, ...]) -> None:
        program, count, frame, sync, epoch = work
        self._run(program, count, frame, sync, thread, epoch, self._give_up)

    def _member(self, thread: int, gate: threading.Lock) -> None:
        while True:
            gate.acquire()
            if self._closed:
                return
            self._join(thread, self._work)

    def close(self) -> None:
        """End the threads; from then on none of them looks at a program's memory any more."""
        self._closed = True
        for gate, thread in zip(self._gates, self._threads):
            if gate.locked():
                gate.release()
            thread.join()


def sync_lines(count: int) -> np.ndarray:
    """Zeroed lines for `count` instructions, at a multiple of 64 bytes."""
    return lines((count + 1) * LINE).view(np.int64)
