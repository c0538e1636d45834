"""The torch runner against the numpy reference, on a tiny random model, by itself and under the engine."""
from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fakerunner import Collector, request

import tests.interpreted  # noqa: F401
from zonda.engine.engine import Engine
from zonda.engine.graphs import Graphs
from zonda.engine.stats import Stats
from zonda.engine.torch_runner import TorchRunner
from zonda.kernels.cuda.ops import CUDAOps
from zonda.kernels.reference import ReferenceOps, ReferenceRunner
from zonda.kernels.torch.ops import TorchOps
from zonda.models import build
from zonda.options import EngineOptions
from zonda.types import Budget, Event
from zonda.weights.load import load
from zonda.weights.random import RandomSource

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 96,
          "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 160,
          "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": True}


class Scattered(RandomSource):
    """Matrices that differ from each other."""

    def read(self, name):
        weight = super().read(name)
        shift = sum(map(ord, name))
        return type(weight)(np.roll(weight.array, shift), weight.dtype) if weight.array.ndim > 1 else weight


def model(dtype: str):
    source = Scattered(CONFIG, dtype)
    decoder = build(source)[1]
    source.shape_of(decoder)
    return decoder, source


def torch_runner(kind) -> TorchRunner:
    decoder, source = model("f32")
    return TorchRunner(decoder, source, kind(DEVICE, torch.float32), max_len=256, kv_bytes=1 << 22, max_rows=128,
                       max_seqs=8)


def reference() -> ReferenceRunner:
    decoder, source = model("f32")
    load(decoder, source, ReferenceOps(pages=80, page_size=16))
    return ReferenceRunner(decoder, max_len=256, max_rows=128)


class Numbered:
    """Tokens are numbers."""

    special_ids = frozenset[int]()

    def token_bytes(self, id: int, /) -> bytes:
        return str(id).encode()

    def encode(self, text: str, /, *, add_special: bool = True) -> list[int]:
        return [int(text)]


def answers(runner) -> list[list[int]]:
    """The last of them reasons on a budget: two tokens, then three that end it."""
    prompts = [[5, 9, 2], list(range(1, 60)), [7] * 20, [3]]
    if DEVICE.type == "cpu":
        prompts = prompts[:3]
    collector = Collector()
    engine = Engine(runner, EngineOptions(max_seqs=4), words=Numbered())
    for i, prompt in enumerate(prompts):
        budget = Budget(5, "", ("no",), ((11, 12, 13),)) if i == len(prompts) - 1 else None
        engine.submit(replace(request(f"r{i}", prompt, max_tokens=6), budget=budget), collector)
    collector.wait(*(f"r{i}" for i in range(len(prompts))), timeout=300)
    engine.close()
    assert collector.tokens(f"r{len(prompts) - 1}")[2:5] == [11, 12, 13]
    return [collector.tokens(f"r{i}") for i in range(len(prompts))]


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


def test_all_that_threads_call_computes_on_the_runners_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread begins with the first device, whatever the thread that loaded the model has chosen."""
    chosen: list[str] = []

    class Chosen:
        def __init__(self, device: torch.device) -> None:
            self.device = device

        def __enter__(self) -> None:
            chosen.append(f"{self.device} {torch.is_inference_mode_enabled()} {threading.current_thread().name}")

        def __exit__(self, *error: object) -> None: ...

    runner = torch_runner(TorchOps)
    runner.device = torch.device("cuda:1")
    monkeypatch.setattr(torch.cuda, "device", Chosen)
    thread = threading.Thread(target=runner.copy_page, args=(0, 1), name="another")
    thread.start()
    thread.join()
    assert chosen == ["cuda:1 True another"]
    assert all(hasattr(getattr(TorchRunner, name), "__wrapped__")
               for name in ("compile", "warm", "idle", "run", "launch", "copy_page"))


@pytest.mark.parametrize("case", ["dense", "packed", "float8", "mixture"])
def test_no_request_calls_for_a_kernel_that_was_not_rehearsed(case) -> None:
    script = Path(__file__).parent / "rehearsed.py"
    ran = subprocess.run([sys.executable, script, case], capture_output=True, text=True, timeout=300,
                         env=os.environ | {"TRITON_INTERPRET": "0"})
    assert ran.returncode == 0, ran.stderr
    summary, *unknown = ran.stdout.strip().splitlines()
    assert not unknown and " 0 " not in f" {summary}", ran.stdout


@pytest.mark.skipif(DEVICE.type != "cuda", reason="graphs need a GPU")
def test_steps_captured_ahead_give_the_same_answers() -> None:
    runner = torch_runner(CUDAOps)
    runner.compile()
    runner.warm(all=False)
    while runner.idle():
        pass
    assert answers(runner) == answers(reference())


def test_steps_that_cannot_be_captured_run_by_launches(monkeypatch: pytest.MonkeyPatch,
                                                       caplog: pytest.LogCaptureFixture) -> None:
    class Refused:
        def __init__(self, *given: object, **named: object) -> None: ...

        def __enter__(self) -> None:
            raise RuntimeError("operation not permitted when stream is capturing")

        def __exit__(self, *error: object) -> None: ...

    for name, fake in {"graph_pool_handle": lambda: None, "synchronize": lambda device: None, "CUDAGraph": Refused,
                       "graph": Refused}.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    runner = torch_runner(TorchOps)
    graphs = runner._graphs = Graphs(runner, 4)
    graphs.capture(all=False)
    assert not graphs.capture_next() and "not permitted" in caplog.text
    assert answers(runner) == answers(reference())
    assert len(graphs._graphs) > 2 and not any(graphs._graphs.values())


def served(runner: TorchRunner, prompts: dict[str, list[int]], most: int) -> tuple[Collector, Stats]:
    collector, engine = Collector(), Engine(runner, EngineOptions(max_seqs=8, prefix_cache=False))
    for name, prompt in prompts.items():
        engine.submit(request(name, prompt, max_tokens=most), collector)
    collector.wait(*prompts, timeout=300)
    stats = engine.stats()
    engine.close()
    return collector, stats


def test_a_cache_that_runs_full_preempts_and_changes_no_answer() -> None:
    prompts = {f"r{i}": [1 + i] * (50 + i) for i in range(6)}
    tight = torch_runner(TorchOps)
    tight.pages = 5
    (found, stats), (wanted, easy) = (served(runner, prompts, 30) for runner in (tight, torch_runner(TorchOps)))
    assert stats.preemptions > 0 == easy.preemptions
    assert [found.tokens(name) for name in prompts] == [wanted.tokens(name) for name in prompts]


def test_a_cancelled_request_gives_its_pages_back() -> None:
    collector, engine = Collector(), Engine(torch_runner(TorchOps), EngineOptions(max_seqs=8, prefix_cache=False))

    def sink(events: Sequence[Event]) -> None:
        collector(events)
        engine.cancel("long")

    engine.submit(request("long", [1] * 100, max_tokens=150), sink)
    collector.wait("long", timeout=300)
    engine.close()
    assert collector.finish("long") == "cancelled" and engine.stats().pages_used == 0
