"""Decode steps as captured graphs, one for each size of batch, so that a step costs the host one launch."""
from __future__ import annotations

import functools
import logging
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import torch

from zonda.engine.batch import Batch
from zonda.engine.runner import Drawing
from zonda.kernels.torch.step import Sizes, Step

if TYPE_CHECKING:
    from zonda.engine.torch_runner import TorchRunner

BUCKETS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512)
log = logging.getLogger("zonda.engine")
_NO_ITEMS = np.zeros((0, 4), np.int32)
_ONE = threading.Lock()
"""Held while a step is captured: torch takes one capture at a time in a process."""


def bucket(rows: int) -> int:
    """The smallest size that holds so many rows, 0 if there is none."""
    return next((size for size in BUCKETS if size >= rows), 0)


@functools.cache
def capture_stream(device: torch.device) -> torch.cuda.Stream:
    """Where a device's steps are captured. cuBLAS keeps memory for every stream, so all models there share it.

    torch's own stream for that is on the device where somebody captured first.
    """
    return torch.cuda.Stream(device)


class Graphs:
    """Captures sizes ahead, or a size when it first comes: that step runs by launches, the next ones by the graph.

    Steps of a size that cannot be captured run by launches.
    """

    def __init__(self, runner: TorchRunner) -> None:
        self.most = bucket(runner.max_seqs) or BUCKETS[-1]
        self._runner = runner
        self._pool = torch.cuda.graph_pool_handle()
        self._graphs: dict[tuple[int, bool], torch.cuda.CUDAGraph | None] = {}
        """None for what could not be captured."""
        sizes = [size for size in BUCKETS if size <= self.most]
        self._missing = [(size, greedy) for greedy in (False, True) for size in sizes]
        """What `capture_next` will take, from the end: the large before the small, which fit into their memory."""
        room = Sizes(self.most, self.most, self.most, 0).places["table"].start + runner.table_words
        self._buffer = torch.zeros(room, dtype=torch.int32, device=runner.device)

    def capture(self, *, all: bool) -> None:
        """Capture the greedy step of every size, and nothing ahead later; or of the largest and the smallest."""
        for size in sorted({size for size, _ in self._missing} if all else {self.most, BUCKETS[0]}, reverse=True):
            self._blank(size, True)
        if all:
            self._missing.clear()

    def capture_next(self) -> bool:
        """Capture one more step; False when there is none that was not, or if it could not be, which costs nobody.

        Raises `DeviceLost` when the device does nothing more.
        """
        while self._missing and self._missing[-1] in self._graphs:
            self._missing.pop()
        if not self._missing:
            return False
        try:
            captured = self._blank(*self._missing.pop())
        except Exception as error:
            self._runner.check()
            log.warning("no more steps are captured ahead: %s", error)
            captured = False
        if not captured:
            self._missing.clear()
        return bool(self._missing)

    def _blank(self, size: int, greedy: bool) -> bool:
        """Capture a step by one with rows of no sequence, and tell whether it could be."""
        self._buffer.zero_()
        sizes = Sizes(size, size, size, 0)
        self._buffer[sizes.places["singles"]] = -1
        self._step(self._runner.step(self._buffer, sizes, alone=True), (size, greedy))
        return self._graphs[size, greedy] is not None

    def _step(self, step: Step, key: tuple[int, bool]) -> None:
        """Run a step by launches, and capture it if that was not tried before."""
        runner, (size, greedy) = self._runner, key
        runner.draw(runner.forward(step), step, greedy=greedy)
        if key in self._graphs:
            return
        torch.cuda.current_stream().synchronize()
        self._graphs[key] = None
        try:
            self._graphs[key] = self._captured(step, greedy)
        except RuntimeError as error:
            log.warning("steps of %d rows run by launches, slower, as they could not be captured: %s", size, error)

    def _captured(self, step: Step, greedy: bool) -> torch.cuda.CUDAGraph:
        """The step as a graph; other threads may launch and allocate meanwhile."""
        runner, graph = self._runner, torch.cuda.CUDAGraph()
        try:
            # the outer stream is the thread's own: torch leaves a capture that fails without going back to it
            with _ONE, torch.cuda.stream(torch.cuda.current_stream()), torch.cuda.graph(
                    graph, pool=self._pool, stream=capture_stream(runner.device), capture_error_mode="thread_local"):
                runner.draw(runner.forward(step), step, greedy=greedy)
        except RuntimeError:
            # torch leaves the pool as one that is still recorded to; what comes later gets another, and another stream
            with suppress(RuntimeError, AssertionError):
                torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), self._pool)
            self._pool = torch.cuda.graph_pool_handle()
            capture_stream.cache_clear()
            raise
        return graph

    def run(self, batch: Batch, drawing: Drawing, size: int) -> None:
        """One decode step; the drawn tokens lie in the runner's `last`."""
        runner, sizes = self._runner, Sizes(size, size, size, 0)
        host = runner.fill(batch, drawing, sizes, _NO_ITEMS)
        self._buffer[:len(host)].copy_(host, non_blocking=True)
        key = size, drawing.greedy
        graph = self._graphs.get(key)
        if graph:
            graph.replay()
            return
        self._step(runner.step(self._buffer, sizes, alone=True), key)
