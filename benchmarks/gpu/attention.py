"""Attention of single rows on a GPU, over ways to cut it: microseconds a layer, and the share of copy speed."""
from __future__ import annotations

import itertools

import numpy as np
import torch

from zonda.kernels.cuda.attention import Attention, Cut
from zonda.kernels.ops import Attend, Heads, Rotary
from zonda.kernels.torch.ops import PAGE
from zonda.kernels.torch.step import Sizes, view

CASES = ((1, 256, 8, 4, 128), (1, 256, 8, 4, 64), (1, 4096, 8, 4, 128), (8, 576, 8, 4, 128), (64, 576, 8, 4, 128),
         (256, 576, 8, 4, 128))
LAYERS = 16


def step_of(seqs: int, length: int):
    """A decode step of sequences of one length."""
    sizes = Sizes(seqs, seqs, seqs, 0)
    width = -(-length // PAGE)
    words = np.zeros(sizes.places["table"].start + seqs * width, np.int32)
    words[0] = width
    words[sizes.places["positions"]] = length - 1
    words[sizes.places["owners"]] = words[sizes.places["singles"]] = np.arange(seqs)
    words[sizes.places["table"].start:] = np.random.default_rng(0).permutation(seqs * width)
    return view(torch.from_numpy(words).cuda(), sizes, torch.zeros(seqs, dtype=torch.int32, device="cuda"), alone=True)


def time(cut: Cut, seqs: int, length: int, kv: int, group: int, dim: int) -> float:
    """Microseconds of one layer, in a graph of several over different caches."""
    heads, step = Heads(kv * group, kv, dim), step_of(seqs, length)
    pages = seqs * -(-length // PAGE)
    layer = Attend(0, heads, dim ** -0.5, Rotary(torch.rand(dim // 2, device="cuda"), dim))
    attention = Attention(torch.device("cuda"), torch.bfloat16, cut=cut)
    caches = [tuple(torch.randn(pages, kv, PAGE, dim, device="cuda", dtype=torch.bfloat16) for _ in range(2))
              for _ in range(LAYERS)]
    qkv = torch.randn(seqs, (group + 2) * kv * dim, device="cuda", dtype=torch.bfloat16)

    def run() -> None:
        for cache in caches:
            attention(qkv, layer, step, cache)

    run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    times = []
    for _ in range(12):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return 1e3 * sorted(times)[5] / LAYERS


def main() -> None:
    """Print the cuts of each case, the fastest first."""
    for case in CASES:
        seqs, length, kv, _, dim = case
        floor = seqs * length * kv * dim * 4 / 3.0e6
        found = sorted((time(Cut(*cut), *case), cut)
                       for cut in itertools.product((8, 16, 32), (32, 64, 128), (4, 8), (1, 3))
                       if seqs < 64 or cut[0] == 16)
        print(case, f"copy {floor:.1f}", *(f"| {us:.1f} us {cut}" for us, cut in found[:4]),
              f"... rule {next(us for us, cut in found if cut == (16, 64, 4, 1)):.1f}", flush=True)


if __name__ == "__main__":
    main()
