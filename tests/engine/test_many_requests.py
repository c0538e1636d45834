"""Thousands of random requests against a runner that computes wrong tokens from wrong pages."""
from __future__ import annotations

import os
import random
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest
from fakerunner import AheadRunner, Collector, FakeRunner, logits

from zonda.engine.batch import Batch
from zonda.engine.budget import Spending
from zonda.engine.engine import Engine
from zonda.engine.intake import Intake
from zonda.kernels import sample
from zonda.options import EngineOptions
from zonda.types import Budget, Request, Sampling

REQUESTS = int(os.environ.get("ZONDA_TEST_REQUESTS", "10000"))
STOPS = frozenset({7, 8, 9})
WORLDS = {
    "tiny memory": ({"pages": 14, "page_size": 4, "max_len": 48}, {"max_seqs": 6, "max_num_batched_tokens": 16}),
    "one sequence": ({"pages": 20, "page_size": 4, "max_len": 48}, {"max_seqs": 1, "max_num_batched_tokens": 12}),
    "large pages": ({"pages": 9, "page_size": 16, "max_len": 64}, {"max_seqs": 8, "max_num_batched_tokens": 64}),
    "single tokens": ({"pages": 40, "page_size": 1, "max_len": 30}, {"max_seqs": 5, "max_num_batched_tokens": 13}),
    "no prefix cache": ({"pages": 20, "page_size": 4, "max_len": 48},
                        {"max_seqs": 8, "max_num_batched_tokens": 32, "prefix_cache": False}),
    "much memory": ({"pages": 300, "page_size": 4, "max_len": 64}, {"max_seqs": 32, "max_num_batched_tokens": 256}),
}


class Letters:
    """Tokens are letters."""

    special_ids = frozenset[int]()

    def token_bytes(self, id: int, /) -> bytes:
        return bytes([97 + id])

    def encode(self, text: str, /, *, add_special: bool = True) -> list[int]:
        return [each - 97 for each in text.encode()]


@dataclass
class World:
    """Submits and cancels from within the runner, so that a run depends on its seed alone; checks every step."""

    runner: FakeRunner
    engine: Engine
    requests: list[Request]
    chance: random.Random
    collector: Collector = field(default_factory=Collector)
    cancelled: set[str] = field(default_factory=set)
    started: list[str] = field(default_factory=list)
    problems: list[BaseException] = field(default_factory=list)
    submitted: int = 0

    def act(self, batch: Batch) -> None:
        try:
            check(self.engine, batch)
            self._note_starts()
            while self.submitted < len(self.requests) and len(self.engine._groups) < 12:
                self.submit()
                if self.chance.random() < 0.3:
                    break
            if self.chance.random() < 0.1:
                self.cancel()
        except BaseException as error:
            self.problems.append(error)
            raise

    def submit(self) -> None:
        request = self.requests[self.submitted]
        self.submitted += 1
        self.engine.submit(request, self.collector)

    def cancel(self) -> None:
        id = self.chance.choice(list(self.engine._groups))
        self.cancelled.add(id)
        self.engine.cancel(id, self.chance.choice([None, 0, 1]))

    def _note_starts(self) -> None:
        for seq in self.engine._scheduler.running:
            if seq.group.id not in self.started:
                self.started.append(seq.group.id)


def check(engine: Engine, batch: Batch) -> None:
    """What must hold whenever a step runs."""
    pages, running = engine._pages, engine._scheduler.running
    held = Counter(page for seq in running for page in seq.pages)
    assert all(held[page] == pages.references[page] for page in range(pages.count))
    assert sorted([*pages._free, *pages._idle, *held]) == list(range(pages.count))
    assert sorted([*engine._slots.free, *(seq.slot for seq in running)]) == list(range(engine._capacity))
    assert all(seq.slot < 0 and not seq.pages and not seq.computed for seq in engine._scheduler.waiting)
    assert len(batch.tokens) <= engine._scheduler.budget
    starts, positions, tables = batch.starts.tolist(), batch.positions.tolist(), batch.page_table.tolist()
    for i, length in enumerate(batch.lengths.tolist()):
        mine = positions[starts[i]:starts[i + 1]]
        assert mine == list(range(length - len(mine), length)), "positions are not contiguous"
        written = tables[i][mine[0] // pages.size:mine[-1] // pages.size + 1]
        assert all(pages.references[page] == 1 for page in written), "a shared page is written"
    assert len(starts) > sum(seq.known - seq.computed == 1 for seq in running), "a decoding sequence was left out"


def make_requests(chance: random.Random, count: int, max_len: int, vocab: int) -> list[Request]:
    stems = [[chance.randrange(vocab) for _ in range(max_len)] for _ in range(4)]
    made = []
    for i in range(count):
        length = chance.choice([1, 3, chance.randrange(1, max_len), chance.randrange(1, max_len // 2)])
        shared = chance.randrange(length + 1) if chance.random() < 0.7 else 0
        prompt = chance.choice(stems)[:shared] + [chance.randrange(vocab) for _ in range(length - shared)]
        heat: dict = {"temperature": 0.8, "seed": chance.randrange(5), "top_k": 9} if chance.random() < 0.1 else \
            {"temperature": 0.0}
        n = chance.choice([1] * 9 + [2, 3, 9])
        sampling = Sampling(max_tokens=chance.choice([0, 1, 2, 4, 4, 9, None]), n=n, **heat)
        closing = tuple(chance.randrange(10, vocab) for _ in range(chance.randrange(7)))
        budget = Budget(chance.randrange(9), chance.choice(["", "a", "bc"]), ("d", "ef"), (closing,))
        made.append(Request(f"r{i}", tuple(prompt[:max_len - 1]), sampling, salt=chance.choice(["", "", "a"]),
                            budget=budget if chance.random() < 0.3 else None))
    return made


class Alone:
    """What a request gives when nothing else is there: no pages, no batch."""

    def __init__(self, runner: FakeRunner) -> None:
        self.runner = runner
        self.intake = Intake(vocab=runner.vocab, max_len=runner.max_len, stop_ids=STOPS, defaults={}, seed=0,
                             words=Letters())
        self._best: dict[bytes, int] = {}

    def answer(self, request: Request, index: int) -> tuple[list[int], str]:
        seq = self.intake.accept(request, lambda events: None).sequences[index]
        context, forced = list(request.prompt), list[int]()
        spending = Spending(request.budget, Letters().token_bytes) if request.budget else None
        while len(context) < seq.limit:
            context.append(forced.pop(0) if forced else self._next(np.array(context), seq))
            if context[-1] in STOPS:
                return context[seq.known:], "stop"
            if spending:
                spending.advance(context[-1])
                forced = forced or list(spending.closing() if spending.spent else ())
        return context[seq.known:], "length"

    def _next(self, context: np.ndarray, seq) -> int:
        if seq.params.plain:
            name = context.tobytes()
            if name not in self._best:
                self._best[name] = int(logits(context, self.runner.vocab, self.runner._noise).argmax())
            return self._best[name]
        x = logits(context, self.runner.vocab, self.runner._noise)
        number = 2 * (len(context) - seq.known)
        ids, p = sample.kept(x, seq.params.floats, seq.params.ints, 1.0)
        at = np.searchsorted(np.cumsum(p), sample.uniform(seq.key, number) * p.sum(), side="right")
        return int(ids[min(at, len(ids) - 1)])


def run(world: str, count: int, seed: int, kind: type[FakeRunner]) -> World:
    shape, options = WORLDS[world]
    chance = random.Random(seed)
    runner = kind(vocab=24, **shape)
    engine = Engine(runner, EngineOptions(**options), stop_ids=STOPS, words=Letters())
    it = World(runner, engine, make_requests(chance, count, runner.max_len, runner.vocab), chance)
    runner.hook = it.act
    it.submit()
    while it.submitted < count and not it.problems:
        it.collector.wait(*(r.id for r in it.requests[:it.submitted]))
        if it.submitted < count and not it.engine._groups:
            it.submit()
    it.collector.wait(*(r.id for r in it.requests))
    return it


@pytest.mark.parametrize("kind", [FakeRunner, AheadRunner])
@pytest.mark.parametrize("world", WORLDS)
def test_random_requests_answer_as_if_alone_and_every_step_keeps_the_books(world: str, kind: type[FakeRunner]) -> None:
    it = run(world, REQUESTS // len(WORLDS) + 1, seed=len(world), kind=kind)
    it.engine.drain(5)
    assert not it.problems
    assert it.engine.stats().pages_used == 0
    assert len(it.engine._slots.free) == it.engine._capacity
    it.engine.close()
    alone = Alone(it.runner)
    for request in it.requests:
        for index in range(request.sampling.n):
            tokens, finish = alone.answer(request, index)
            got, ended = it.collector.tokens(request.id, index), it.collector.finish(request.id, index)
            if request.id in it.cancelled and ended == "cancelled":
                assert got == tokens[:len(got)]
            else:
                assert (got, ended) == (tokens, finish)
    order = [int(id[1:]) for id in it.started]
    assert order == sorted(order), "requests started in another order than they came"
