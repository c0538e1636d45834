"""A device that runs out of memory within a step: the engine tries less at a time, and at worst one request ends."""
from __future__ import annotations

import threading
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from fakerunner import PATIENCE, AheadRunner, Collector, FakeRunner, request

from zonda.engine.batch import Batch
from zonda.engine.engine import Engine
from zonda.engine.torch_runner import TorchRunner, on_device
from zonda.errors import DeviceLost, OutOfMemory
from zonda.options import EngineOptions

KINDS = pytest.mark.parametrize("kind", [FakeRunner, AheadRunner])
PROMPTS = {f"r{i}": [1 + i] * (3 + 7 * i) for i in range(6)}


def served(runner: FakeRunner, prompts: dict[str, list[int]]) -> Collector:
    collector, engine = Collector(), Engine(runner, EngineOptions(max_seqs=6))
    for name, prompt in prompts.items():
        engine.submit(request(name, prompt, max_tokens=8), collector)
    collector.wait(*prompts)
    assert engine.alive
    engine.close()
    return collector


@KINDS
@pytest.mark.parametrize("most", [1, 5, 30])
def test_a_step_that_is_too_large_is_tried_in_parts_and_changes_no_answer(kind: type[FakeRunner], most: int) -> None:
    refused = 0

    def hook(batch: Batch) -> None:
        nonlocal refused
        if batch.rows > most:
            refused += 1
            raise OutOfMemory("no memory")

    wanted, found = served(kind(), PROMPTS), served(kind(hook=hook), PROMPTS)
    assert refused
    assert [found.tokens(name) for name in PROMPTS] == [wanted.tokens(name) for name in PROMPTS]
    assert {found.finish(name) for name in PROMPTS} == {"length"}


@KINDS
def test_of_requests_that_run_together_only_the_one_without_memory_ends(kind: type[FakeRunner]) -> None:
    wanted = served(kind(), PROMPTS)
    heavy = next(token for token in range(10, 50) if all(token not in wanted.tokens(name) for name in PROMPTS))

    def hook(batch: Batch) -> None:
        if (batch.tokens == heavy).any():
            raise OutOfMemory("no memory")

    found = served(kind(hook=hook), PROMPTS | {"heavy": [heavy] * 9})
    assert found.finish("heavy") == "error" and isinstance(found.last("heavy").error, OutOfMemory)
    assert [found.tokens(name) for name in PROMPTS] == [wanted.tokens(name) for name in PROMPTS]


def test_after_a_pause_steps_are_as_large_as_before() -> None:
    rows: list[int] = []
    short = threading.Event()
    short.set()

    def hook(batch: Batch) -> None:
        if short.is_set() and batch.rows > 4:
            raise OutOfMemory("no memory")
        rows.append(batch.rows)

    collector, engine = Collector(), Engine(FakeRunner(hook=hook), EngineOptions(prefix_cache=False))
    for name in ("first", "second"):
        engine.submit(request(name, [1] * 40, max_tokens=1), collector)
        collector.wait(name)
        short.clear()
    engine.close()
    assert max(rows[:-1]) <= 4 and rows[-1] == 40


@pytest.mark.parametrize("error", [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
    RuntimeError("CUDA error: out of memory"), RuntimeError("Triton Error [CUDA]: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")])
def test_whoever_says_that_there_is_no_memory_it_is_an_error_of_ours(
        error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device is done with the step by then, as the next one writes where this one reads."""
    done: list[str] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: done.append("freed"))

    class Full(TorchRunner):
        def __init__(self) -> None:
            self.device = torch.device("cpu")

        def check(self) -> None:
            done.append("waited")

        @on_device
        def run(self, batch: Batch) -> np.ndarray:
            raise error

    with pytest.raises(OutOfMemory, match="no memory left for this step"):
        Full().run(None)  # type: ignore[arg-type]
    assert done == ["waited", "freed"]


@pytest.mark.parametrize("for_good", [False, True])
def test_a_device_that_does_nothing_more_is_told_from_a_step_that_failed(
        for_good: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stream:
        def synchronize(self) -> None:
            if for_good:
                raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream())
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())

    class Broken(TorchRunner):
        def __init__(self) -> None:
            self.device = torch.device("cuda:0")

        @on_device
        def run(self, batch: Batch) -> np.ndarray:
            raise RuntimeError("an illegal memory access was encountered")

    with pytest.raises(DeviceLost if for_good else RuntimeError, match="illegal memory access"):
        Broken().run(None)  # type: ignore[arg-type]
    Broken().close()


@KINDS
def test_an_engine_ends_with_its_device_and_all_are_told(kind: type[FakeRunner]) -> None:
    def hook(batch: Batch) -> None:
        raise DeviceLost("cuda:0 has failed")

    collector, engine = Collector(), Engine(kind(hook=hook), EngineOptions())
    for name, prompt in PROMPTS.items():
        engine.submit(request(name, prompt, max_tokens=8), collector)
    collector.wait(*PROMPTS)
    engine._thread.join(PATIENCE)
    assert engine.lost and not engine.alive and {collector.finish(name) for name in PROMPTS} == {"error"}
