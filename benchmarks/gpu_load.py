"""Load on an engine: prompts of random tokens, greedy answers of a given length, and what the GPU did meanwhile."""
from __future__ import annotations

import queue
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

PATIENCE = 120  # seconds without an event
ATTEMPTS = 6  # runs in which something was compiled, before measuring gives up
T = TypeVar("T")


@dataclass(frozen=True)
class Run:
    """Seconds from the first submission to the first token, to all first tokens, and to the end."""

    first: float
    firsts: float
    total: float


def engine(shape: str, dtype: str) -> Any:
    """A running engine over random weights, with every size of decode step captured."""
    from zonda.model import start_random
    from zonda.options import EngineOptions, ModelOptions

    return start_random(shape, dtype, ModelOptions(capture="all"),
                        EngineOptions(prefix_cache=False, max_seq_len=4096, max_seqs=256))


def drive(running: Any, count: int, prompt: int, generated: int) -> Run:
    """So many requests at once, until the last has ended."""
    from zonda.types import Request, Sampling

    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    random = np.random.default_rng()
    sampling = Sampling(temperature=0.0, max_tokens=generated, ignore_eos=True)
    prompts = [tuple(random.integers(0, running.vocab, prompt).tolist()) for _ in range(count)]
    began = time.perf_counter()
    for i, tokens in enumerate(prompts):
        running.submit(Request(f"{began}-{i}", tokens, sampling), inbox.put)
    firsts: dict[str, float] = {}
    ended = 0
    while ended < count:
        for event in inbox.get(timeout=PATIENCE):
            if event.error:
                raise event.error
            firsts.setdefault(event.request, time.perf_counter() - began)
            ended += event.finish is not None
    return Run(min(firsts.values()), max(firsts.values()), time.perf_counter() - began)


def compilations() -> list[str]:
    """A list that grows by a name whenever Triton makes a kernel ready that this process has not used yet."""
    from triton import knobs

    seen: list[str] = []
    knobs.runtime.jit_post_compile_hook = lambda **made: seen.append(made["fn"].name)
    return seen


def steady(run: Callable[[], T], compiled: list[str], times: int = 1) -> list[T]:
    """Results of `run` once nothing is compiled any more; its first is for warming up."""
    run()
    found: list[T] = []
    for _ in range(times + ATTEMPTS):
        before = len(compiled)
        result = run()
        if len(compiled) == before:
            found.append(result)
        if len(found) == times:
            return found
    raise RuntimeError(f"kernels are still compiled after {ATTEMPTS} runs, the last {compiled[-1]}")


def kernels(run: Callable[[], object]) -> list[tuple[str, float, float]]:
    """(name, start, end) in seconds of all that the GPU does in a run."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as found:
        run()
    return [(each.name, each.time_range.start / 1e6, each.time_range.end / 1e6) for each in found.events()
            if each.device_type == DeviceType.CUDA]
