"""Threads that work for several clients in turn, so that none waits for all that another has queued."""
from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
_STARTING = threading.Lock()


class RoundRobin:
    """Runs jobs on so many threads, one job of a client at a time; `stack` bytes a thread."""

    def __init__(self, name: str, threads: int, stack: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._stack = stack
        self._queued: dict[int, deque[Callable[[], None]]] = {}
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
        while taken := self._next():
            client, job = taken
            job()
            with self._lock:
                self._busy.remove(client)

    def _next(self) -> tuple[int, Callable[[], None]] | None:
        """The client whose turn it is, now the last in the row, and its job."""
        with self._lock:
            client = next((each for each in self._queued if each not in self._busy), None)
            if client is None:
                return None
            self._busy.add(client)
            jobs = self._queued.pop(client)
            job = jobs.popleft()
            if jobs:
                self._queued[client] = jobs
            return client, job


def _run(job: Callable[[], T], result: Future[T]) -> None:
    if result.set_running_or_notify_cancel():
        try:
            result.set_result(job())
        except BaseException as error:
            result.set_exception(error)
