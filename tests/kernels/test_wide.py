"""Wide tiles, and tiles in matrix registers where the processor has them."""
import numpy as np
import pytest
from packing import random_packed
from recorded import Recorded
from test_cpu_ops import ROWS, rounded

from zonda.kernels.cpu.layout import LAYOUTS
from zonda.kernels.cpu.library import Library, Target, host
from zonda.kernels.cpu.wide import wide_units
from zonda.options import cache_folder
from zonda.weights.source import Weight

PLAIN = Target(host().cpu, host().features.replace("+amx-tile", "-amx-tile"))
"""This machine without matrix registers."""
matrices = pytest.mark.skipif(not host().matrices, reason="this processor has no matrix registers (AMX)")
wide = pytest.mark.skipif(not host().wide, reason="wide tiles are for processors with AVX-512 VNNI")
TARGETS = pytest.mark.parametrize("target", [PLAIN, pytest.param(host(), marks=matrices)], ids=["vectors", "matrices"])
OUTS = 40


def numbers(rows: int, cols: int) -> np.ndarray:
    return np.random.default_rng(cols).normal(0.5, 1, (rows, cols)).astype(np.float32)


def product(weight: Weight, x: np.ndarray, target: Target, *, exact: bool = False) -> np.ndarray:
    run = Recorded(Library(cache_folder(), target))
    out = run.ops.project(run.put(x), [run.ops.prepare(weight)], [None])
    run.run(len(x), exact=exact)
    return run.get(out, len(x))


@matrices
@pytest.mark.parametrize("cols", [256, 768])
@pytest.mark.parametrize("name", LAYOUTS)
def test_exact_rows_have_the_bits_that_vector_registers_give(name: str, cols: int) -> None:
    weight, x = random_packed(name, OUTS, cols), numbers(33, cols)
    np.testing.assert_array_equal(product(weight, x, host(), exact=True), product(weight, x, PLAIN, exact=True))


@wide
@TARGETS
@pytest.mark.parametrize("cols", [256, 768])
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("name", LAYOUTS)
def test_weights_and_activations_are_rounded_to_bytes(name: str, rows: int, cols: int, target: Target) -> None:
    weight, x = random_packed(name, OUTS, cols), numbers(rows, cols)
    values = weight.dense().astype(np.float64)
    group = 32 * wide_units(cols // 32)
    wanted = rounded(x, 127, group).astype(np.float64) @ values.T
    # no value of a group can be more than twice the largest there is, and half a step is 1/254 of that
    steps = 2 * np.abs(values).reshape(OUTS, -1, group).max(-1) / 127
    bound = 0.51 * np.abs(x).reshape(rows, -1, group).sum(-1) @ steps.T
    assert (np.abs(product(weight, x, target) - wanted) <= bound + 1e-5 * np.abs(wanted).max()).all()


@wide
@TARGETS
def test_rows_have_the_same_bits_alone_and_among_others(target: Target) -> None:
    weight, x = random_packed("q5_1", OUTS, 576), numbers(25, 576)
    together = product(weight, x, target)
    for size in ROWS:
        np.testing.assert_array_equal(product(weight, x[:size], target), together[:size])


@wide
@matrices
def test_matrices_and_vectors_give_the_same_bits() -> None:
    weight, x = random_packed("q4_0", OUTS, 640), numbers(20, 640)
    np.testing.assert_array_equal(product(weight, x, host()), product(weight, x, PLAIN))


@wide
@TARGETS
@pytest.mark.parametrize("cols", [64, 96, 192, 320])
def test_rows_of_any_whole_units_are_multiplied(cols: int, target: Target) -> None:
    weight, x = random_packed("q4_1", OUTS, cols), numbers(20, cols)
    wanted = x.astype(np.float64) @ weight.dense().T.astype(np.float64)
    assert np.linalg.norm(product(weight, x, target) - wanted) < 0.02 * np.linalg.norm(wanted)


@wide
@TARGETS
def test_nothing_but_zeros_is_zero(target: Target) -> None:
    weight = random_packed("q8_0", OUTS, 256)
    assert not product(weight, np.zeros((20, 256), np.float32), target).any()
    weight.packed[:] = 0
    assert not product(weight, numbers(20, 256), target).any()
