"""Attention of rows that may be rounded, by dot products of bfloat16 in vectors and in matrix registers."""
import numpy as np
import pytest
from recorded import Recorded
from test_cpu_ops import one_sequence

from zonda.kernels.cpu.library import Library, Target, host
from zonda.kernels.ops import Attend, Heads
from zonda.kernels.reference import ReferenceOps
from zonda.nn import Pages
from zonda.options import cache_folder

VECTORS = Target("znver4", host().features.replace("+amx-bf16", "-amx-bf16"))
"""A processor whose vectors are fast enough at it, with this machine's instructions."""
vectors = pytest.mark.skipif(not VECTORS.bfloats, reason="this processor has no dot products of bfloat16")
matrices = pytest.mark.skipif(not host().bfloat_matrices, reason="this processor has no AMX for bfloat16")
TARGETS = pytest.mark.parametrize("target", [
    pytest.param(VECTORS, marks=vectors), pytest.param(host(), marks=matrices)], ids=["vectors", "matrices"])


def numbers(rows: int, heads: Heads, seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, (heads.q + 2 * heads.kv) * heads.dim)).astype(np.float32)


class Attention:
    """One layer over one sequence."""

    def __init__(self, target: Target, layer: Attend, *, rows: int) -> None:
        self.run = Recorded(Library(cache_folder(), target), max_rows=rows, half_cache=True)
        self.run.ops.allocate([Pages(layer.heads)], rows // 32 + 1)
        self.cols = (layer.heads.q + 2 * layer.heads.kv) * layer.heads.dim
        self.input = self.run.put(np.zeros((rows, self.cols), np.float32))
        self.out = self.run.ops.attend(self.input, layer, None)

    def __call__(self, qkv: np.ndarray, first: int = 0) -> np.ndarray:
        self.input.memory[:qkv.nbytes].view(np.float32)[:] = qkv.ravel()
        self.run.run(len(qkv), exact=False, first=first)
        return self.run.get(self.out, len(qkv))


@TARGETS
@pytest.mark.parametrize(("window", "softcap", "sink"), [(0, 0.0, None), (7, 0.0, 3.0), (300, 0.0, None),
                                                         (40, 5.0, -1.0)])
@pytest.mark.parametrize(("heads", "rows"), [(Heads(6, 2, 64), 301), (Heads(5, 1, 80), 77), (Heads(2, 2, 256), 33),
                                             (Heads(40, 2, 24), 1)])
def test_it_equals_the_reference_but_for_rounding(heads, rows, window, softcap, sink, target) -> None:
    qkv = numbers(rows, heads)
    sinks = None if sink is None else np.linspace(sink - 3, sink + 3, heads.q, dtype=np.float32)
    layer = Attend(0, heads, heads.dim**-0.5, window=window, softcap=softcap, sinks=sinks)
    got = Attention(target, layer, rows=rows)(qkv)
    wanted = ReferenceOps(pages=rows // 32 + 1, page_size=32).attend(qkv, layer, one_sequence(rows))
    assert np.abs(got - wanted).max() < 2**-6 * np.abs(wanted).max()
    assert np.linalg.norm(got - wanted) < 2**-8 * np.linalg.norm(wanted)


@TARGETS
@pytest.mark.parametrize(("window", "sinks"), [(0, None), (40, np.arange(6, dtype=np.float32)), (300, None)])
def test_rows_have_the_same_bits_alone_and_among_others(window: int, sinks, target: Target) -> None:
    heads, rows = Heads(6, 2, 48), 601
    layer = Attend(0, heads, 0.3, window=window, sinks=sinks)
    qkv, attention = numbers(rows, heads), Attention(target, layer, rows=rows)
    together = attention(qkv)
    for first, count in ((600, 1), (512, 1), (255, 1), (31, 1), (0, 1), (500, 101), (250, 20), (95, 2)):
        alone = attention(qkv[first:first + count], first)
        np.testing.assert_array_equal(alone, together[first:first + count])


@TARGETS
@pytest.mark.parametrize("rows", [1, 34, 95])
def test_what_unused_positions_hold_does_not_matter(rows: int, target: Target) -> None:
    heads = Heads(4, 2, 32)
    qkv, layer = numbers(rows, heads), Attend(0, heads, 0.3)
    clean, poisoned = (Attention(target, layer, rows=rows) for _ in range(2))
    for memory in poisoned.run.ops.caches[0]:
        memory.view(np.uint16)[:] = 0x7E00  # no number
    np.testing.assert_array_equal(poisoned(qkv), clean(qkv))


@TARGETS
def test_the_least_halves_keep_their_values(target: Target) -> None:
    heads, rows = Heads(1, 1, 16), 40
    qkv, layer = numbers(rows, heads), Attend(0, heads, 0.3)
    qkv[:, 32:] *= np.float32(2**-20)
    got = Attention(target, layer, rows=rows)(qkv)
    qkv[:, 32:] = qkv[:, 32:].astype(np.float16)
    wanted = ReferenceOps(pages=2, page_size=32).attend(qkv, layer, one_sequence(rows))
    assert np.abs(got - wanted).max() < 2**-6 * np.abs(wanted).max()
