"""Whole tiny models of every architecture: torch and the GPU's kernels against the numpy reference."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers

from tests.models.families import FAMILIES, SIZES
from tests.models.steps import SCHEDULES, batch, page_table, run
from tests.nearness import DEVICE, LIMITS, ON_CARD, near, on_card
from zonda.engine.runner import Runner
from zonda.engine.torch_runner import TorchRunner
from zonda.kernels.cuda.ops import CUDAOps
from zonda.kernels.reference import ReferenceOps, ReferenceRunner
from zonda.kernels.torch.ops import TorchOps
from zonda.models import build
from zonda.weights.formats import Dense
from zonda.weights.load import load
from zonda.weights.random import RandomSource
from zonda.weights.source import Weight

TEXT = [name for name, family in FAMILIES.items() if family.config != "Gemma3Config"]


class Scattered(RandomSource):
    """Weights that differ from each other, norms and biases too."""

    def read(self, name: str) -> Weight:
        random = np.random.default_rng(list(name.encode()))
        shape = self._shapes[name]
        if len(shape) == 1:
            return Dense.of((1 + 0.3 * random.standard_normal(shape)).astype(np.float32))
        return Dense.of((random.standard_normal(shape) / shape[-1] ** 0.5).astype(np.float32))


def source_of(name: str, max_len: int | None) -> tuple[Any, Any, RandomSource]:
    family = FAMILIES[name]
    config = getattr(transformers, family.config)(**{**SIZES, **family.options}).to_dict()
    source = Scattered({**config, "architectures": [family.model]}, "f32")
    config, decoder = build(source, max_len=max_len)
    source.shape_of(decoder)
    return config, decoder, source


def runner(name: str, kind: type[TorchOps], dtype: torch.dtype) -> Runner:
    config, decoder, source = source_of(name, FAMILIES[name].max_len)
    return TorchRunner(decoder, source, kind(DEVICE, dtype), max_len=config.max_len, kv_bytes=1 << 22, max_rows=256,
                       max_seqs=4)


def reference(name: str) -> Runner:
    config, decoder, source = source_of(name, FAMILIES[name].max_len)
    load(decoder, source, ReferenceOps(pages=32, page_size=8))
    return ReferenceRunner(decoder, max_len=config.max_len)


def compare(name: str, schedule: str, kind: type[TorchOps], dtype: torch.dtype, limit: float) -> None:
    longest = min(24, FAMILIES[name].max_len or 24)
    sequences = [np.random.default_rng(length).integers(3, 80, length).astype(np.int32) for length in (11, longest)]
    found, wanted = (np.concatenate(run(each, sequences, schedule))
                     for each in (runner(name, kind, dtype), reference(name)))
    near(torch.from_numpy(found), torch.from_numpy(wanted), limit)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", TEXT)
def test_plain_torch_gives_the_logits_of_the_reference(name: str, schedule: str) -> None:
    compare(name, schedule, TorchOps, torch.float32, LIMITS[torch.float32])


@pytest.mark.parametrize("schedule", SCHEDULES if ON_CARD else ["chunks"])
@pytest.mark.parametrize("name", TEXT if ON_CARD else ["llama-bias", "qwen3_moe", "gemma3-linear"])  # others take long
def test_kernels_give_the_logits_of_the_reference(name: str, schedule: str) -> None:
    compare(name, schedule, CUDAOps, torch.float32, LIMITS[torch.float32])


@pytest.mark.parametrize("kind", [TorchOps, CUDAOps])
@pytest.mark.parametrize("name", ["llama", "qwen3_moe"])
def test_a_step_may_sample_nothing_or_a_few_rows(name: str, kind: type[TorchOps]) -> None:
    found, wanted = (in_two_steps(each) for each in (runner(name, kind, torch.float32), reference(name)))
    near(torch.from_numpy(found), torch.from_numpy(wanted), LIMITS[torch.float32])


def in_two_steps(runner: Runner) -> np.ndarray:
    """Logits of three rows of a second step; the first gives none."""
    tokens = [np.random.default_rng(7).integers(3, 80, 24).astype(np.int32)]
    pages = page_table(runner, [24])
    first, second = batch(tokens, pages, [0], [14], [0]), batch(tokens, pages, [14], [10], [0])
    first.sample, second.sample = np.zeros(0, np.int32), np.array([1, 6, 9], np.int32)
    assert runner.run(first).shape == (0, runner.vocab)
    return runner.run(second).copy()


@on_card
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", [name for name in TEXT if "moe" not in name])  # experts are chosen by close calls
def test_sixteen_bits_stay_near_the_reference(name: str, schedule: str) -> None:
    compare(name, schedule, CUDAOps, torch.bfloat16, 3e-2)
