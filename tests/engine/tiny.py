"""Tiny random models on the torch runner: on the GPU where there is one, else through Triton's interpreter."""
from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from fakerunner import Collector, request

import tests.interpreted  # noqa: F401
from zonda.engine.engine import Engine
from zonda.engine.runner import Runner
from zonda.engine.stats import Stats
from zonda.engine.torch_runner import TorchRunner
from zonda.kernels.reference import ReferenceOps, ReferenceRunner
from zonda.kernels.torch.ops import TorchOps
from zonda.models import build
from zonda.options import EngineOptions
from zonda.types import Budget
from zonda.weights.load import load
from zonda.weights.random import RandomSource
from zonda.weights.source import Weight

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DENSE = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 96,
         "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 160,
         "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": True}
MIXTURE = DENSE | {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "num_experts": 4,
                   "num_experts_per_tok": 2, "moe_intermediate_size": 64, "head_dim": 16}


class Scattered(RandomSource):
    """Matrices that differ from each other."""

    def read(self, name: str) -> Weight:
        weight = super().read(name)
        shift = sum(map(ord, name))
        return type(weight)(np.roll(weight.array, shift), weight.dtype) if weight.array.ndim > 1 else weight


def model(dtype: str, config: dict[str, Any] = DENSE, kind: type[RandomSource] = Scattered) -> tuple[Any, RandomSource]:
    source = kind(config, dtype)
    decoder = build(source)[1]
    source.shape_of(decoder)
    return decoder, source


def torch_runner(kind: type[TorchOps], config: dict[str, Any] = DENSE, *, source: type[RandomSource] = Scattered,
                 device: torch.device = DEVICE, dtype: torch.dtype = torch.float32, **options: Any) -> TorchRunner:
    sizes = {"max_len": 256, "kv_bytes": 1 << 22, "max_rows": 128, "max_seqs": 8} | options
    return TorchRunner(*model("f32", config, source), kind(device, dtype), **sizes)


def reference(config: dict[str, Any] = DENSE) -> ReferenceRunner:
    decoder, source = model("f32", config)
    load(decoder, source, ReferenceOps(pages=80, page_size=16))
    return ReferenceRunner(decoder, max_len=256, max_rows=128)


class Numbered:
    """Tokens are numbers."""

    special_ids = frozenset[int]()

    def token_bytes(self, id: int, /) -> bytes:
        return str(id).encode()

    def encode(self, text: str, /, *, add_special: bool = True) -> list[int]:
        return [int(text)]


def answers(runner: Runner) -> list[list[int]]:
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


def served(runner: Runner, prompts: dict[str, list[int]], most: int) -> tuple[Collector, Stats]:
    collector, engine = Collector(), Engine(runner, EngineOptions(max_seqs=8, prefix_cache=False))
    for name, prompt in prompts.items():
        engine.submit(request(name, prompt, max_tokens=most), collector)
    collector.wait(*prompts, timeout=300)
    stats = engine.stats()
    engine.close()
    return collector, stats


def traffic(engine: Engine, turn: int = 0) -> None:
    """Requests of many lengths, greedy, drawn and drawn by the host, of which some are given up."""
    collector = Collector()
    names = [f"{turn}-{i}" for i in range(24)]
    for i, name in enumerate(names):
        heat: dict[str, Any] = [{}, {"temperature": 0.8}, {"logprobs": 3}][i % 3]
        engine.submit(request(name, [1 + i] * (1 + 29 * i % 230), max_tokens=12, **heat), collector)
        if i % 5 == 4:
            engine.cancel(name)
    collector.wait(*names, timeout=300)
