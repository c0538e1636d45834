"""Attention of single rows on a GPU, over ways to cut it: microseconds a layer, and what copying its past takes."""
from __future__ import annotations

import itertools
from functools import partial

from batches import DEVICE, Work
from replay import MEMORY, seconds

from zonda.kernels.cuda.attention import Attention, Cut
from zonda.kernels.ops import Heads

CASES = ((1, 256, 8, 4, 128), (1, 256, 8, 4, 64), (1, 4096, 8, 4, 128), (8, 576, 8, 4, 128), (64, 576, 8, 4, 128),
         (256, 576, 8, 4, 128))
"""Sequences, positions of each, key heads, query heads for each of these, numbers of a head."""


def time(cut: Cut, work: Work) -> float:
    """Microseconds of one layer, in a graph of several over different caches."""
    attention = Attention(DEVICE, work.qkv.dtype, cut=cut)
    return 1e6 * seconds([partial(attention, work.qkv, work.layer, work.step, cache) for cache in work.caches])


def main() -> None:
    """Print the cuts of each case, the fastest first."""
    for case in CASES:
        seqs, length, kv, group, dim = case
        work = Work(((seqs, 1, length),), Heads(kv * group, kv, dim))
        found = sorted((time(Cut(*cut), work), cut)
                       for cut in itertools.product((8, 16, 32), (32, 64, 128), (4, 8), (1, 3))
                       if seqs < 64 or cut[0] == 16)
        print(case, f"copy {1e6 * work.bytes / MEMORY:.1f}", *(f"| {us:.1f} us {cut}" for us, cut in found[:4]),
              f"... rule {next(us for us, cut in found if cut == (16, 64, 4, 1)):.1f}", flush=True)


if __name__ == "__main__":
    main()
