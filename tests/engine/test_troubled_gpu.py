"""A device in trouble: no memory within a step, numbers that are none, requests given up, a failure for good."""
from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakerunner import PATIENCE, Collector, request
from tiny import DENSE, MIXTURE, Scattered, served, torch_runner

from tests.nearness import on_card
from zonda.engine.engine import Engine
from zonda.kernels.cuda.ops import CUDAOps
from zonda.kernels.ops import Attend
from zonda.kernels.torch.ops import TorchOps
from zonda.kernels.torch.step import Step
from zonda.options import EngineOptions
from zonda.types import Event, Request, Sampling
from zonda.weights.source import Weight

KINDS = pytest.mark.parametrize("kind", [TorchOps, pytest.param(CUDAOps, marks=on_card)])
PROMPTS = {f"r{i}": [1 + i] * (1 + 9 * i) for i in range(6)}
VOID = 99
"""A token whose row of the embeddings holds no numbers."""
LONG = DENSE | {"max_position_embeddings": 8192}


def failing(kind: type[TorchOps], error: Exception, most: int, times: int = 1 << 30) -> type[TorchOps]:
    """Operations that cannot compute more rows, and say so in the last layer; so often."""
    class Failing(kind):  # type: ignore[valid-type, misc]
        failed = 0

        def attend(self, qkv: torch.Tensor, layer: Attend, step: Step) -> torch.Tensor:
            if layer.index == 1 and step.rows > most and self.failed < times:
                self.failed += 1
                raise error
            return super().attend(qkv, layer, step)

    return Failing


@KINDS
@pytest.mark.parametrize("most", [1, 7, 40])
def test_a_step_without_memory_midway_is_tried_in_parts_and_changes_no_answer(
        kind: type[TorchOps], most: int, caplog: pytest.LogCaptureFixture) -> None:
    error = torch.OutOfMemoryError("CUDA out of memory")
    (found, _), (wanted, _) = (served(torch_runner(each), PROMPTS, 8) for each in (failing(kind, error, most), kind))
    assert "no memory for a step" in caplog.text
    assert [found.tokens(name) for name in PROMPTS] == [wanted.tokens(name) for name in PROMPTS]
    assert {found.finish(name) for name in PROMPTS} == {"length"}


@KINDS
def test_a_step_that_fails_ends_its_requests_and_no_later_one(kind: type[TorchOps]) -> None:
    wanted, _ = served(torch_runner(kind), {"later": [5, 9, 2]}, 6)
    runner = torch_runner(failing(kind, RuntimeError("CUDA error: invalid argument"), 0, times=1))
    collector, engine = Collector(), Engine(runner, EngineOptions(max_seqs=4))
    for name in ("first", "later"):
        engine.submit(request(name, [5, 9, 2], max_tokens=6), collector)
        collector.wait(name)
    assert engine.alive and engine.stats().pages_used == 0
    engine.close()
    assert collector.finish("first") == "error" and collector.tokens("later") == wanted.tokens("later")


@contextmanager
def room_for(more: int) -> Iterator[None]:
    """While it lasts, torch may take so many bytes more of the card than it has in use."""
    torch.cuda.empty_cache()
    whole = torch.cuda.get_device_properties().total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + more) / whole)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@on_card
def test_a_card_that_is_full_answers_in_smaller_steps(caplog: pytest.LogCaptureFixture) -> None:
    prompts = {f"r{i}": np.random.default_rng(i).integers(3, 90, 5000 + i).tolist() for i in range(2)}
    prompts["short"] = [4, 5, 6]
    runners = [torch_runner(CUDAOps, LONG, max_len=8192, kv_bytes=1 << 26, max_rows=8192) for _ in range(2)]
    for runner in runners:
        runner.compile()
        runner.warm(all=True)
    options = EngineOptions(max_seqs=8, max_num_batched_tokens=8192, prefix_cache=False)
    wanted = asked(Engine(runners[0], options), prompts)
    with room_for(12 << 20):
        found = asked(Engine(runners[1], options), prompts)
    assert "no memory for a step" in caplog.text
    assert [found.tokens(name) for name in prompts] == [wanted.tokens(name) for name in prompts]


def asked(engine: Engine, prompts: dict[str, list[int]], **sampling: Any) -> Collector:
    """What an engine answers, before it is closed."""
    collector = Collector()
    for name, prompt in prompts.items():
        engine.submit(request(name, prompt, **{"max_tokens": 6, **sampling}), collector)
    collector.wait(*prompts, timeout=300)
    assert engine.alive
    engine.close()
    return collector


class Void(Scattered):
    """A model that has no number for what one token means."""

    def read(self, name: str) -> Weight:
        weight = super().read(name)
        if name != "embed":
            return weight
        array = np.array(weight.array)
        array[VOID] = np.nan
        return type(weight)(array, weight.dtype)


@pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning")
@pytest.mark.parametrize("config", [DENSE, MIXTURE], ids=["dense", "mixture"])
@KINDS
def test_requests_whose_numbers_are_none_end_alone(kind: type[TorchOps], config: dict[str, Any]) -> None:
    """Tied embeddings would give every logit of that token as no number: here the head is another."""
    config = config | {"tie_word_embeddings": False}
    wanted, _ = served(torch_runner(kind, config), PROMPTS, 6)
    collector, engine = Collector(), Engine(torch_runner(kind, config, source=Void), EngineOptions(max_seqs=8))
    bad = {"greedy": {}, "hot": {"temperature": 1.0, "top_k": 5}, "hosted": {"repetition_penalty": 1.1}, "long": {}}
    for (name, prompt), (wrong, sampling) in zip(PROMPTS.items(), [*bad.items(), ("again", {}), ("last", {})]):
        engine.submit(request(wrong, [3, VOID, 8] * (20 if wrong == "long" else 1), **sampling), collector)
        engine.submit(request(name, prompt, max_tokens=6), collector)
    collector.wait(*PROMPTS, *bad, "again", "last", timeout=300)
    assert engine.alive
    engine.close()
    assert engine.stats().pages_used == 0
    for name in (*bad, "again", "last"):
        assert collector.finish(name) == "error" and "not finite" in str(collector.last(name).error)
    assert [collector.tokens(name) for name in PROMPTS] == [wanted.tokens(name) for name in PROMPTS]


@pytest.mark.parametrize(("kind", "config", "dtype", "length"), [
    (TorchOps, DENSE, torch.float32, 150), pytest.param(CUDAOps, DENSE, torch.float32, 150, marks=on_card),
    pytest.param(CUDAOps, LONG | {"head_dim": 128}, torch.bfloat16, 2500, marks=on_card)],
    ids=["plain torch", "kernels", "kernels, long"])
def test_pages_that_held_no_numbers_hurt_nobody_later(kind: type[TorchOps], config: dict[str, Any], dtype: torch.dtype,
                                                      length: int) -> None:
    """A request of no numbers has filled every page to its end; those after it take them, and fill less."""
    pages = -(-length // 64) + 1
    prompts = {"long": np.random.default_rng(1).integers(3, 90, length).tolist(), "short": [4] * 10}

    def answers(*before: int) -> list[list[int]]:
        runner = torch_runner(kind, config | {"tie_word_embeddings": False}, source=Void, dtype=dtype,
                              max_len=64 * pages, max_rows=4096, kv_bytes=1 << 25)
        runner.pages = pages
        collector = Collector()
        engine = Engine(runner, EngineOptions(max_seqs=4, max_num_batched_tokens=4096, prefix_cache=False))
        for name, prompt in {**({"void": [VOID, *before]} if before else {}), **prompts}.items():
            engine.submit(request(name, prompt, max_tokens=6), collector)
            collector.wait(name, timeout=300)
        engine.close()
        assert not before or collector.finish("void") == "error"
        return [collector.tokens(name) for name in prompts]

    assert answers(*[VOID] * (64 * pages - 2)) == answers()


def mixed(chance: random.Random, count: int) -> list[Request]:
    """Prompts of many lengths with common beginnings, some of which ask for two answers, some with heat."""
    stem = [chance.randrange(3, 90) for _ in range(150)]
    made = []
    for i in range(count):
        shared, own = chance.choice([0, 0, 64, 100]), chance.choice([1, 2, 17, 50])
        heat = {"temperature": 0.8, "seed": i, "top_k": 9} if i % 4 == 3 else {"temperature": 0.0}
        prompt = stem[:shared] + [chance.randrange(3, 90) for _ in range(own)]
        made.append(Request(f"r{i}", tuple(prompt), Sampling(max_tokens=chance.choice([5, 70, 120]), n=1 + i % 5 // 4,
                                                             **heat)))
    return made


@KINDS
def test_requests_in_company_in_little_memory_answer_as_if_alone_though_others_are_given_up(
        kind: type[TorchOps]) -> None:
    """Every third is cancelled, after none, one or two of its tokens, while steps are on their way."""
    requests = mixed(random.Random(5), 18)
    tight = torch_runner(kind)
    tight.pages = 6
    collector, engine = Collector(), Engine(tight, EngineOptions(max_seqs=6))

    def sink(events: Sequence[Event]) -> None:
        collector(events)
        for event in events:
            number = int(event.request[1:])
            if number % 3 == 0 and len(collector.tokens(event.request)) >= number % 9 // 3:
                engine.cancel(event.request)

    for each in requests:
        engine.submit(each, sink)
    engine.cancel(requests[0].id)
    collector.wait(*(each.id for each in requests), timeout=300)
    engine.drain(PATIENCE)
    stats = engine.stats()
    assert engine.alive and stats.pages_used == 0 and stats.preemptions > 0 and stats.finished["cancelled"] > 1
    engine.close()
    alone = Collector()
    other = Engine(torch_runner(kind), EngineOptions(max_seqs=6, prefix_cache=False))
    for each in requests:
        other.submit(each, alone)
        alone.wait(each.id, timeout=300)
    other.close()
    for each in requests:
        for index in range(each.sampling.n):
            found, wanted = (one.tokens(each.id, index) for one in (collector, alone))
            gone = collector.finish(each.id, index) == "cancelled"
            assert found == (wanted[:len(found)] if gone else wanted), each.id


@on_card
def test_a_card_that_fails_for_good_ends_the_engine_and_all_are_told() -> None:
    """In a process of its own, as nothing computes there any more."""
    ran = subprocess.run([sys.executable, Path(__file__).with_name("lost.py")], capture_output=True, text=True,
                         timeout=300)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == ["lost", "error", "error", "error"], ran.stderr

