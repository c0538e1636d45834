"""What a model takes of its device's memory: as much as planned, no more with time, and nothing when it is gone."""
from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from tiny import DENSE, DEVICE, torch_runner, traffic

from tests.nearness import ON_CARD, on_card
from zonda.engine.engine import Engine
from zonda.engine.torch_runner import TorchRunner
from zonda.kernels.cuda.ops import CUDAOps
from zonda.kernels.torch.ops import TorchOps
from zonda.model import size, start
from zonda.models import build
from zonda.options import EngineOptions, ModelOptions
from zonda.weights.random import RandomSource

KIND = CUDAOps if ON_CARD else TorchOps
ROOM = 256 << 20
"""Bytes of what libraries keep beside weights and cache."""
LARGE = DENSE | {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 4, "num_attention_heads": 8,
                 "num_key_value_heads": 8, "vocab_size": 32768, "max_position_embeddings": 4096}


def loaded() -> TorchRunner:
    runner = torch_runner(KIND)
    if ON_CARD:
        runner.compile()
        runner.warm(all=True)
    return runner


def test_a_closed_engine_holds_nothing_of_its_device() -> None:
    """Though nobody collects garbage, and somebody still holds the engine. What libraries keep comes with the first."""
    Engine(loaded(), EngineOptions(max_seqs=4)).close()
    before = torch.cuda.memory_reserved(DEVICE) if ON_CARD else 0
    gc.disable()
    try:
        runner = loaded()
        parts = [weakref.ref(part) for part in (runner.ops, runner._decoder, runner.ops.caches[0][0])]
        engine = Engine(runner, EngineOptions(max_seqs=4))
        engine.close()
        assert not engine.alive and not any(part() for part in parts)
        assert not ON_CARD or torch.cuda.memory_reserved(DEVICE) <= before + (4 << 20)
    finally:
        gc.enable()


@on_card
def test_traffic_takes_no_more_memory_with_time() -> None:
    runner = loaded()
    while runner.idle():
        pass
    engine = Engine(runner, EngineOptions(max_seqs=8))
    held = []
    for turn in range(4):
        traffic(engine, turn)
        held.append((torch.cuda.memory_allocated(DEVICE), len(runner._graphs._graphs),  # type: ignore[union-attr]
                     len(runner.ops._attention._described)))  # type: ignore[attr-defined]
    engine.close()
    assert held[1] == held[2] == held[3]


@on_card
@pytest.mark.parametrize(("dtype", "options"), [("bf16", {}), ("bf16", {"compute_dtype": "f32"}), ("q4_k", {}),
                                                ("bf16", {"kv_dtype": "fp8"}), ("fp8", {})])
def test_a_card_holds_what_was_planned(dtype: str, options: dict[str, str]) -> None:
    made = ModelOptions(device="cuda:0", **options)  # type: ignore[arg-type]
    wanted = EngineOptions(kv_memory_mb=64, max_seqs=4, max_num_batched_tokens=64)
    source = RandomSource(LARGE, dtype, repeated=True)
    source.shape_of(build(source)[1])
    gc.collect()
    torch.cuda.empty_cache()
    before, planned = torch.cuda.memory_allocated(0), size(source, made, wanted)
    engine = start(source, made, wanted)
    runner: Any = engine._runner
    page = 2 * runner.page_size * 8 * 128 * 4 * runner.ops.cache_dtype.itemsize  # of keys and values, 4 layers
    taken = torch.cuda.memory_allocated(0) - before
    engine.close()
    assert runner.max_len == planned.cache.max_len and 0 < runner.pages * page <= planned.cache.kv_bytes
    assert planned.cache.position_bytes * runner.page_size == page
    numbers = 4 * (4 * 1024 * 1024 + 3 * 4096 * 1024) + 32768 * 1024
    assert taken <= (64 << 20) + numbers * (4 if options.get("compute_dtype") == "f32" else 2) + ROOM
