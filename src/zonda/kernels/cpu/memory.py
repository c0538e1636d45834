"""Memory for weights, caches and activations: anonymous, touched on first use; for weights, in huge pages."""
from __future__ import annotations

import contextlib
import mmap

import numpy as np

from zonda.kernels.cpu.frame import LINE, ROWS, aligned

_CHUNK = 64 << 20


class Arena:
    """Hands out zeroed bytes that live as long as the arena or any array cut from it.

    `huge` pages are read faster, and suit what is used whole: of a page touched anywhere, all is taken from the system.
    """

    def __init__(self, *, huge: bool = False) -> None:
        self._huge = huge
        self._chunk = np.empty(0, np.uint8)
        self._used = 0

    def take(self, size: int) -> np.ndarray:
        """`size` zeroed bytes, uint8, at a multiple of 64 bytes."""
        size = aligned(size)
        if self._used + size > len(self._chunk):
            self._chunk, self._used = _map(max(size, _CHUNK), huge=self._huge), 0
        start, self._used = self._used, self._used + size
        return self._chunk[start:self._used]


class Pool:
    """Reusable memory for buffers, by size."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._free: dict[int, list[np.ndarray]] = {}

    def take(self, size: int) -> np.ndarray:
        free = self._free.get(size)
        return free.pop() if free else self._arena.take(size)

    def give(self, memory: np.ndarray) -> None:
        self._free.setdefault(memory.nbytes, []).append(memory)


class Buffer:
    """Memory of a recorded array: (rows, cols) float32, or blocks of activations. `rows` is the frame's word that
    counts them; `fast`, blocks that hold the fast rows, which are then not among the others; `exact` and `wide`, how
    blocks are rounded."""

    def __init__(self, pool: Pool, size: int, cols: int, rows: int = ROWS) -> None:
        self.memory = pool.take(aligned(size))
        self.cols = cols
        self.rows = rows
        self.fast: Buffer | None = None
        self.exact = True
        self.wide = 0
        self._pool = pool

    @property
    def at(self) -> int:
        return address(self.memory)

    def __del__(self) -> None:
        self._pool.give(self.memory)


def _map(size: int, *, huge: bool) -> np.ndarray:
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
    memory = mmap.mmap(-1, size, **private)  # what could be shared would not get huge pages
    if huge and hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):
            memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.uint8)


def lines(size: int) -> np.ndarray:
    """`size` zeroed bytes, uint8, that begin with a cache line."""
    raw = np.zeros(size + LINE, np.uint8)
    start = -address(raw) % LINE
    return raw[start:start + size]


def address(array: np.ndarray) -> int:
    return int(array.ctypes.data)
