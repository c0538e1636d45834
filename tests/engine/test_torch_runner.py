"""The torch runner against the numpy reference, on a tiny random model, by itself and under the engine."""
from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fakerunner import Collector, request
from tiny import answers, model, reference, served, torch_runner

import zonda.engine.torch_runner
from tests.nearness import on_card
from zonda.engine.engine import Engine
from zonda.engine.torch_runner import TorchRunner
from zonda.kernels.cuda.ops import CUDAOps
from zonda.kernels.torch.ops import TorchOps
from zonda.options import EngineOptions
from zonda.types import Event


@pytest.mark.parametrize("kind", [TorchOps, CUDAOps])
def test_answers_equal_those_of_the_reference(kind) -> None:
    runner = torch_runner(kind)
    assert answers(runner) == answers(reference())


def test_a_seeded_request_draws_the_same_alone_and_in_company() -> None:
    found = []
    for others in (0, 3):
        collector = Collector()
        engine = Engine(torch_runner(CUDAOps), EngineOptions(max_seqs=4))
        for i in range(others):
            engine.submit(request(f"o{i}", [i + 1, 2], max_tokens=3, temperature=1.0), collector)
        engine.submit(request("seeded", [4, 5, 6], max_tokens=6, temperature=0.9, top_k=20, seed=11), collector)
        collector.wait("seeded", timeout=300)
        engine.close()
        found.append(collector.tokens("seeded"))
    assert found[0] == found[1]


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The devices that threads choose: which, whether without gradients, and the thread."""
    found: list[str] = []

    class Chosen:
        def __init__(self, device: torch.device) -> None:
            self.device = device

        def __enter__(self) -> None:
            found.append(f"{self.device} {torch.is_inference_mode_enabled()} {threading.current_thread().name}")

        def __exit__(self, *error: object) -> None: ...

    monkeypatch.setattr(torch.cuda, "device", Chosen)
    return found


def test_all_that_threads_call_computes_on_the_runners_device(devices: list[str]) -> None:
    """A thread begins with the first device, whatever the thread that loaded the model has chosen."""
    runner = torch_runner(TorchOps)
    devices.clear()
    runner.device = torch.device("cuda:1")
    thread = threading.Thread(target=runner.copy_page, args=(0, 1), name="another")
    thread.start()
    thread.join()
    assert devices == ["cuda:1 True another"]
    assert all(hasattr(getattr(TorchRunner, name), "__wrapped__")
               for name in ("compile", "warm", "idle", "run", "launch", "copy_page"))


def test_weights_are_loaded_on_the_runners_device(devices: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What passes through pinned memory is waited for on the stream of the device that takes it."""
    class Loading(Exception): ...

    def load(*given: object, **named: object) -> None:
        raise Loading

    monkeypatch.setattr(zonda.engine.torch_runner, "load", load)
    ops: Any = SimpleNamespace(device=torch.device("cuda:1"))
    with pytest.raises(Loading):
        TorchRunner(*model("f32"), ops, max_len=256, kv_bytes=1 << 20, max_rows=8, max_seqs=2)
    assert devices == [f"cuda:1 True {threading.current_thread().name}"]


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_a_second_card_computes_while_a_thread_has_chosen_the_first() -> None:
    torch.cuda.set_device(0)
    before = torch.cuda.memory_allocated(0)
    runner = torch_runner(CUDAOps, device=torch.device("cuda:1"))
    runner.compile()
    runner.warm(all=True)
    assert answers(runner) == answers(reference())
    assert torch.cuda.memory_allocated(0) <= before and torch.cuda.current_device() == 0


@pytest.mark.parametrize("case", ["dense", "packed", "float8", "mixture", "windows", "biases"])
def test_no_request_calls_for_a_kernel_that_was_not_rehearsed(case) -> None:
    script = Path(__file__).parent / "rehearsed.py"
    ran = subprocess.run([sys.executable, script, case], capture_output=True, text=True, timeout=300,
                         env=os.environ | {"TRITON_INTERPRET": "0"})
    assert ran.returncode == 0, ran.stderr
    summary, *unknown = ran.stdout.strip().splitlines()
    assert not unknown and " 0 " not in f" {summary}", ran.stdout


@pytest.mark.parametrize("kind", [TorchOps, pytest.param(CUDAOps, marks=on_card)])
def test_a_cache_that_runs_full_preempts_and_changes_no_answer(kind: type[TorchOps]) -> None:
    prompts = {f"r{i}": [1 + i] * (50 + i) for i in range(6)}
    tight = torch_runner(kind)
    tight.pages = 5
    (found, stats), (wanted, easy) = (served(runner, prompts, 30) for runner in (tight, torch_runner(kind)))
    assert stats.preemptions > 0 == easy.preemptions
    assert [found.tokens(name) for name in prompts] == [wanted.tokens(name) for name in prompts]


@pytest.mark.parametrize("kind", [TorchOps, pytest.param(CUDAOps, marks=on_card)])
def test_a_cancelled_request_gives_its_pages_back(kind: type[TorchOps]) -> None:
    collector, engine = Collector(), Engine(torch_runner(kind), EngineOptions(max_seqs=8, prefix_cache=False))

    def sink(events: Sequence[Event]) -> None:
        collector(events)
        engine.cancel("long")

    engine.submit(request("long", [1] * 100, max_tokens=150), sink)
    collector.wait("long", timeout=300)
    engine.close()
    assert collector.finish("long") == "cancelled" and engine.stats().pages_used == 0
