"""Threads that work for several clients in turn, so that none waits for all that another has queued."""
from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
_STARTING = threading.Lock()


class Turns:
    """Runs jobs on so many threads, one job of a client at a time; `stack` bytes a thread."""

    def __init__(self, name: str, threads: int, stack: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._stack = stack
        self._queued: OrderedDict[int, deque[Callable[[], None]]] = OrderedDict()
        self._busy: set[int] = set()
        self._lock = threading.Lock()

    def submit(self, client: int, job: Callable[[], T]) -> Future[T]:
        """Queue a job behind those of the same client. It is left out if the result is cancelled before."""
        result: Future[T] = Future()
        with self._lock:
            self._queued.setdefault(client, deque()).append(lambda: _run(job, result))
        with _STARTING:
            usual = threading.stack_size(self._stack)
            try:
                self._pool.submit(self._work)  # may start a thread
            finally:
                threading.stack_size(usual)
        return result

    def close(self) -> None:
        """Take no more jobs; those that are queued still run."""
        self._pool.shutdown(wait=False)

    def _work(self) -> None:
        """Run jobs until those that are left are of clients that others work for, who then go on with them."""
        while (client := self._next()) is not None:
            with self._lock:
                job = self._queued[client].popleft()
                if not self._queued[client]:
                    del self._queued[client]
            job()
            with self._lock:
                self._busy.remove(client)

    def _next(self) -> int | None:
        """The client whose turn it is, now the last in the row."""
        with self._lock:
            client = next((each for each in self._queued if each not in self._busy), None)
            if client is not None:
                self._queued.move_to_end(client)
                self._busy.add(client)
            return client


def _run(job: Callable[[], T], result: Future[T]) -> None:
    if result.set_running_or_notify_cancel():
        try:
            result.set_result(job())
        except BaseException as error:
            result.set_exception(error)
