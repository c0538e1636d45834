"""What a model takes of its device's memory: no more than it had at the start, and nothing when it is gone."""
from __future__ import annotations

import gc
import weakref

import pytest
import torch
from tiny import DEVICE, torch_runner

from tests.nearness import ON_CARD
from zonda.engine.engine import Engine
from zonda.kernels.cuda.ops import CUDAOps
from zonda.kernels.torch.ops import TorchOps
from zonda.options import EngineOptions

KIND = CUDAOps if ON_CARD else TorchOps
PROMPTS = {f"r{i}": [1 + i] * (3 + 11 * i) for i in range(6)}


def test_a_closed_engine_holds_nothing_of_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though nobody collects garbage, and somebody still holds the engine."""
    monkeypatch.setattr(gc, "collect", lambda *generation: 0)
    gc.disable()
    try:
        before = torch.cuda.memory_reserved(DEVICE) if ON_CARD else 0
        runner = torch_runner(KIND)
        if ON_CARD:
            runner.compile()
            runner.warm(all=True)
        parts = [weakref.ref(part) for part in (runner.ops, runner._decoder, runner.ops.caches[0][0])]
        engine = Engine(runner, EngineOptions(max_seqs=4))
        engine.close()
        assert not any(part() for part in parts)
        assert not ON_CARD or torch.cuda.memory_reserved(DEVICE) <= before + (4 << 20)
    finally:
        gc.enable()
