"""Prints whether an engine knows that its card has failed for good, and how its requests ended.

To be run in a process of its own, as nothing computes on the card in this one any more.
"""
from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from fakerunner import PATIENCE, Collector, request
from tiny import DEVICE, torch_runner

from zonda.engine.engine import Engine
from zonda.kernels.cuda.ops import CUDAOps
from zonda.options import EngineOptions


class Breaking(CUDAOps):
    """After some steps, one reads beyond a tensor's end, which the device asserts."""

    steps = 0

    def embed(self, *given: Any, **options: Any) -> Any:
        self.steps += 1
        if self.steps == 5:
            torch.zeros(1, device=DEVICE)[torch.full((1,), 1 << 20, device=DEVICE)].add_(1)
        return super().embed(*given, **options)


def main() -> None:
    engine, collector = Engine(torch_runner(Breaking, graphs=False), EngineOptions(max_seqs=4)), Collector()
    names = ("one", "two", "three")
    for name in names:
        engine.submit(request(name, [5, 9, 2], max_tokens=100), collector)
    collector.wait(*names, timeout=200)
    engine._thread.join(PATIENCE)
    print("lost" if engine.lost else "not lost", *(collector.finish(name) for name in names), flush=True)
    os._exit(0)  # torch would give memory back to a card that takes nothing


if __name__ == "__main__":
    main()
