"""A runner whose logits depend on the tokens that it reads through the page table: wrong pages, wrong tokens."""
from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from zonda.engine.batch import Batch
from zonda.engine.runner import Drawing
from zonda.kernels import sample
from zonda.types import Event, Request, Sampling

PATIENCE = 60  # seconds that anything may take on a busy machine
_POWERS = np.arange(1, 1 << 16, dtype=np.int64) * 2654435761 % 1000003
_SPREAD = np.arange(1 << 16) * 97 & 0xFFF


class FakeRunner:
    """Keeps the tokens of each page's positions as its cache, and hashes the whole visible context of a sampled row."""

    def __init__(self, *, pages: int = 64, page_size: int = 4, vocab: int = 50, max_len: int = 200, max_rows: int = 512,
                 hook: Callable[[Batch], None] | None = None) -> None:
        self.pages, self.page_size, self.vocab, self.max_len, self.max_rows = pages, page_size, vocab, max_len, max_rows
        self.cache = np.full((pages, page_size), -1, np.int64)
        self.steps = 0
        self.rows = 0
        self.closed = False
        self.hook = hook
        self.gate: threading.Semaphore | None = None
        self._noise = np.random.default_rng(0).permutation(1 << 12).astype(np.float32) / np.float32(512)

    def run(self, batch: Batch) -> np.ndarray:
        if self.gate:
            assert self.gate.acquire(timeout=PATIENCE)
        if self.hook:
            self.hook(batch)
        self.steps += 1
        self.rows += batch.rows
        assert 0 < batch.rows <= self.max_rows
        owners = np.repeat(np.arange(len(batch.lengths)), np.diff(batch.starts))
        pages = batch.page_table[owners, batch.positions // self.page_size]
        self.cache[pages, batch.positions % self.page_size] = batch.tokens
        return np.stack([self._logits(batch, row, owners[row]) for row in batch.sample]) if len(batch.sample) else \
            np.zeros((0, self.vocab), np.float32)

    def _logits(self, batch: Batch, row: int, owner: int) -> np.ndarray:
        count = batch.positions[row] + 1
        table = batch.page_table[owner, :-(-count // self.page_size)]
        return logits(self.cache[table].ravel()[:count], self.vocab, self._noise)

    def copy_page(self, source: int, target: int) -> None:
        assert source != target
        self.cache[target] = self.cache[source]

    def close(self) -> None:
        self.closed = True


def logits(context: np.ndarray, vocab: int, noise: np.ndarray) -> np.ndarray:
    """Different for every context, even in another order."""
    assert context.min() >= 0, "a position was read that nothing had been written to"
    digest = int((context + 1) @ _POWERS[:len(context)]) * 0x9E3779B1 >> 7
    return noise[(digest & 0xFFF) ^ _SPREAD[:vocab]]


class AheadRunner(FakeRunner):
    """One that draws by itself, and looks at the tokens of its last step only when the next one needs them."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.launched = 0
        self.chores = 0
        """Calls of `idle` that are still answered by True."""
        self.idled = threading.Event()
        self._last = np.zeros(0, np.int32)

    def launch(self, batch: Batch, drawing: Drawing) -> Callable[[], np.ndarray]:
        self.launched += 1
        unknown = batch.tokens < 0
        batch.tokens[unknown] = self._last[-1 - batch.tokens[unknown]]
        rows = self.run(batch)
        tokens = np.array([_drawn(row, drawing, i) for i, row in enumerate(rows)], np.int32)
        self._last = tokens
        return lambda: tokens

    def idle(self) -> bool:
        self.chores -= 1
        self.idled.set()
        return self.chores > 0


def _drawn(row: np.ndarray, drawing: Drawing, i: int) -> int:
    if not drawing.temperature[i]:
        return int(row.argmax())
    floats, ints = np.zeros(sample.FLOATS, np.float32), np.zeros(sample.INTS, np.int64)
    floats[[sample.TEMPERATURE, sample.TOP_P, sample.MIN_P]] = (drawing.temperature[i], drawing.top_p[i],
                                                                drawing.min_p[i])
    floats[sample.TYPICAL_P], ints[sample.TOP_K] = 1, drawing.top_k[i]
    ids, p = sample.kept(row, floats, ints, 1.0)
    at = np.searchsorted(np.cumsum(p), sample.uniform(int(drawing.key[i]), 2 * int(drawing.number[i])) * p.sum(),
                         side="right")
    return int(ids[min(at, len(ids) - 1)])


class Collector:
    """A sink that keeps everything, and lets a test wait for the end of requests."""

    def __init__(self) -> None:
        self.calls: list[Sequence[Event]] = []
        self.events: dict[str, list[Event]] = {}
        self._ended = threading.Condition()
        self._done: set[str] = set()
        self._watched = False

    def __call__(self, events: Sequence[Event]) -> None:
        with self._ended:
            self.calls.append(events)
            for event in events:
                self.events.setdefault(event.request, []).append(event)
                if event.usage:
                    self._done.add(event.request)
            if self._watched or any(event.usage for event in events):
                self._ended.notify_all()

    def wait(self, *ids: str, timeout: float = PATIENCE) -> None:
        with self._ended:
            assert self._ended.wait_for(lambda: self._done.issuperset(ids), timeout), set(ids) - self._done

    def wait_tokens(self, id: str, count: int) -> None:
        with self._ended:
            self._watched = True
            assert self._ended.wait_for(lambda: len(self.tokens(id)) >= count, PATIENCE)

    def tokens(self, id: str, index: int = 0) -> list[int]:
        return [token for event in self.events.get(id, ()) if event.index == index for token in event.tokens]

    def finish(self, id: str, index: int = 0) -> str | None:
        return next((event.finish for event in self.events.get(id, ()) if event.index == index and event.finish), None)

    def last(self, id: str) -> Event:
        return self.events[id][-1]


def request(id: str, prompt: Sequence[int] = (1, 2, 3), *, salt: str = "", **sampling: object) -> Request:
    values = {"temperature": 0.0, "max_tokens": 5, **sampling}
    return Request(id, tuple(prompt), Sampling(**values), salt)  # type: ignore[arg-type]
