"""Backends to run models on, and checkpoints made once a session."""
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import convert, expected, make, sequences
from families import FAMILIES

from zonda.engine.cpu_runner import CPURunner
from zonda.engine.runner import Runner
from zonda.environment import cache_folder
from zonda.kernels.reference import ReferenceOps, ReferenceRunner
from zonda.models import build
from zonda.weights.gguf import GGUFSource
from zonda.weights.load import load
from zonda.weights.safetensors import SafetensorsSource
from zonda.weights.source import Source


@pytest.fixture(scope="session", autouse=True)
def one_torch_thread() -> None:
    """Tiny matrices gain nothing from more, and threads that spin for them take the cores from everything else."""
    torch.set_num_threads(1)


def reference(source: Source, max_len: int | None) -> Runner:
    config, decoder = build(source, max_len=max_len)
    load(decoder, source, ReferenceOps(pages=32, page_size=8))
    return ReferenceRunner(decoder, max_len=config.max_len)


def cpu(source: Source, max_len: int | None) -> Runner:
    config, decoder = build(source, max_len=max_len)
    return CPURunner(decoder, source, max_len=config.max_len, kv_bytes=32 << 20, cache_folder=cache_folder(),
                     max_rows=256, threads=1, half_cache=False)


@dataclass(frozen=True)
class Backend:
    """How to make a runner, and how far its logits may be from transformers'.

    `tolerance` is for weights in float32; `packed_tolerance` is for packed ones, relative to the largest logit.
    """

    runner_for: Callable[[Source, int | None], Runner]
    tolerance: float = 1e-4
    packed_tolerance: float = 1e-4


BACKENDS = {
    "reference": Backend(reference),
    "cpu": Backend(cpu, packed_tolerance=3e-2),
}


@pytest.fixture(scope="session", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    return BACKENDS[request.param]


@dataclass(frozen=True)
class Checkpoint:
    """A family's files, some sequences, and the logits of every position."""

    folder: Path
    gguf: Path | None
    sequences: list[np.ndarray]
    logits: list[np.ndarray]

    def source(self, format: str) -> Source:
        return SafetensorsSource(self.folder) if format == "safetensors" else GGUFSource(self.gguf)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Checkpoint]:
    """Makes a family's checkpoint when first asked for it."""

    @cache
    def made(name: str) -> Checkpoint:
        family, folder = FAMILIES[name], tmp_path_factory.mktemp(name)
        model: Any = make(family)
        model.save_pretrained(folder)
        rows = sequences(family)
        path = convert(folder, family, model.config) if family.gguf else None
        return Checkpoint(folder, path, rows, [expected(model, row) for row in rows])

    return made
