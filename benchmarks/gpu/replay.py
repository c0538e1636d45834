"""Times of work on a GPU, launched from a graph, and how to show them beside the ceilings."""
from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import torch

MEMORY, BF16, FP8 = 3.0e12, 776e12, 1552e12  # bytes and operations a second that the card reaches, of FP8 twice bf16's
Found = list[tuple[str, float, float]]


def seconds(work: Sequence[Callable[[], object]], *, turns: int = 1, repeats: int = 5) -> float:
    """Of one of `work`, all of which are launched in turn from one graph."""
    for each in work:
        each()
    torch.cuda.synchronize()
    graph = captured(work, turns)
    return statistics.median(replayed(graph) for _ in range(repeats)) / (1e3 * turns * len(work))


def captured(work: Sequence[Callable[[], object]], turns: int = 1) -> torch.cuda.CUDAGraph:
    """All of `work` in turn, so many times; each was launched before."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(turns):
            for each in work:
                each()
    return graph


def replayed(graph: torch.cuda.CUDAGraph) -> float:
    """Milliseconds of a replay that follows one."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    graph.replay()
    start.record()
    graph.replay()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def show(found: Found) -> None:
    """One line each."""
    for name, micros, share in found:
        print(f"{name:70} {micros:9.1f} us {share:.2f}")
