"""Attention of rows that may be rounded: of float32 by vectors of each size, of bfloat16 by vectors and by AMX."""
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from recorded import Recorded
from targets import library
from test_cpu_ops import one_sequence

from zonda.environment import cache_folder
from zonda.kernels.cpu.library import Library, Target, host
from zonda.kernels.ops import Attend, Heads
from zonda.kernels.reference import ReferenceOps
from zonda.nn import Pages

PAIRS = Target("znver4", host().features.replace("+amx-bf16", "-amx-bf16"))
"""A processor whose vectors are fast enough at it, with this machine's instructions."""
FLOATS = Target(host().cpu, host().features.replace("+avx512bf16", "-avx512bf16"))
"""This machine without products of bfloat16."""
pairs = pytest.mark.skipif(not PAIRS.bfloats, reason="this processor has no dot products of bfloat16")
matrices = pytest.mark.skipif(not host().bfloat_matrices, reason="this processor has no AMX for bfloat16")
avx2 = pytest.mark.skipif(not host().has("avx2", "fma", "f16c"), reason="this processor has no AVX2")
LIBRARIES = pytest.mark.parametrize("made", [
    pytest.param(lambda: Library(cache_folder(), PAIRS), marks=pairs, id="pairs"),
    pytest.param(lambda: Library(cache_folder(), host()), marks=matrices, id="matrices"),
    pytest.param(lambda: Library(cache_folder(), FLOATS), id="floats"),
    pytest.param(lambda: library("avx2"), marks=avx2, id="avx2"),
    *(pytest.param(partial(library, isa), id=isa) for isa in ("portable", "neon", "avx512"))])
Made = Callable[[], Library]


def numbers(rows: int, heads: Heads, seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, (heads.q + 2 * heads.kv) * heads.dim)).astype(np.float32)


class Attention:
    """One layer over one sequence."""

    def __init__(self, made: Made, layer: Attend, *, rows: int, half: bool = True) -> None:
        self.run = Recorded(made(), max_rows=rows, half_cache=half)
        self.run.ops.allocate([Pages(layer.heads)], rows // 32 + 1)
        self.cols = (layer.heads.q + 2 * layer.heads.kv) * layer.heads.dim
        self.input = self.run.put(np.zeros((rows, self.cols), np.float32))
        self.out = self.run.ops.attend(self.input, layer, None)

    def __call__(self, qkv: np.ndarray, first: int = 0, *, exact: bool = False) -> np.ndarray:
        self.input.memory[:qkv.nbytes].view(np.float32)[:] = qkv.ravel()
        self.run.run(len(qkv), exact=exact, first=first)
        return self.run.get(self.out, len(qkv))


@LIBRARIES
@pytest.mark.parametrize(("window", "softcap", "sink"), [(0, 0.0, None), (7, 0.0, 3.0), (300, 0.0, None),
                                                         (40, 5.0, -1.0)])
@pytest.mark.parametrize(("heads", "rows"), [(Heads(6, 2, 64), 301), (Heads(5, 1, 80), 77), (Heads(2, 2, 256), 33),
                                             (Heads(40, 2, 24), 1)])
def test_it_equals_the_reference_but_for_rounding(heads, rows, window, softcap, sink, made) -> None:
    qkv = numbers(rows, heads)
    sinks = None if sink is None else np.linspace(sink - 3, sink + 3, heads.q, dtype=np.float32)
    layer = Attend(0, heads, heads.dim**-0.5, window=window, softcap=softcap, sinks=sinks)
    got = Attention(made, layer, rows=rows)(qkv)
    wanted = ReferenceOps(pages=rows // 32 + 1, page_size=32).attend(qkv, layer, one_sequence(rows))
    assert np.abs(got - wanted).max() < 2**-6 * np.abs(wanted).max()
    assert np.linalg.norm(got - wanted) < 2**-8 * np.linalg.norm(wanted)


@LIBRARIES
@pytest.mark.parametrize(("window", "sinks"), [(0, None), (40, np.arange(6, dtype=np.float32)), (300, None)])
def test_rows_have_the_same_bits_alone_and_among_others(window: int, sinks, made: Made) -> None:
    heads, rows = Heads(6, 2, 48), 601
    layer = Attend(0, heads, 0.3, window=window, sinks=sinks)
    qkv, attention = numbers(rows, heads), Attention(made, layer, rows=rows)
    together = attention(qkv)
    for first, count in ((600, 1), (512, 1), (255, 1), (31, 1), (0, 1), (500, 101), (250, 20), (95, 2)):
        alone = attention(qkv[first:first + count], first)
        np.testing.assert_array_equal(alone, together[first:first + count])


@LIBRARIES
@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("rows", [1, 34, 95])
def test_what_unused_positions_hold_does_not_matter(rows: int, exact: bool, made: Made) -> None:
    heads = Heads(4, 2, 32)
    qkv, layer = numbers(rows, heads), Attend(0, heads, 0.3)
    clean, poisoned = (Attention(made, layer, rows=rows) for _ in range(2))
    for memory in poisoned.run.ops.caches[0]:
        memory.view(np.uint16)[:] = 0x7E00  # no number
    np.testing.assert_array_equal(poisoned(qkv, exact=exact), clean(qkv, exact=exact))


@LIBRARIES
def test_the_least_halves_keep_their_values(made: Made) -> None:
    heads, rows = Heads(1, 1, 16), 40
    qkv, layer = numbers(rows, heads), Attend(0, heads, 0.3)
    qkv[:, 32:] *= np.float32(2**-20)
    got = Attention(made, layer, rows=rows)(qkv)
    qkv[:, 32:] = qkv[:, 32:].astype(np.float16)
    wanted = ReferenceOps(pages=2, page_size=32).attend(qkv, layer, one_sequence(rows))
    assert np.abs(got - wanted).max() < 2**-6 * np.abs(wanted).max()


@LIBRARIES
def test_a_cache_of_floats_is_not_rounded(made: Made) -> None:
    heads, rows = Heads(6, 2, 48), 70
    qkv, layer = numbers(rows, heads), Attend(0, heads, 0.3, window=50)
    got = Attention(made, layer, rows=rows, half=False)(qkv)
    wanted = ReferenceOps(pages=3, page_size=32).attend(qkv, layer, one_sequence(rows))
    assert np.abs(got - wanted).max() < 2e-4 * np.abs(wanted).max()


@LIBRARIES
@pytest.mark.parametrize("window", [0, 300])
def test_a_long_context_gives_the_same_bits_cut_into_runs_of_pages(window: int, made: Made) -> None:
    heads, rows = Heads(6, 2, 24), 1200
    qkv, attention = numbers(rows, heads), Attention(made, Attend(0, heads, 0.3, window=window), rows=rows)
    attention(qkv)
    whole, cut = [], []
    for slots, results in ((0, whole), (8, cut)):
        attention.run.ops.slots = slots
        results += [attention(qkv[row:row + 1], row) for row in (1199, 512, 511, 256)]
    np.testing.assert_array_equal(cut, whole)
