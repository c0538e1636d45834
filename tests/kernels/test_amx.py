"""Tiles in matrix registers, where the processor has them."""
import numpy as np
import pytest
from packing import random_packed
from recorded import Recorded
from test_cpu_ops import ROWS, product, rounded

from zonda.kernels.cpu.amx import wide_units
from zonda.kernels.cpu.layout import LAYOUTS
from zonda.kernels.cpu.library import Library, Target, host
from zonda.options import cache_folder
from zonda.weights.source import Weight

pytestmark = pytest.mark.skipif(not host().matrices, reason="this processor has no matrix registers (AMX)")
OUTS = 40


def numbers(rows: int, cols: int) -> np.ndarray:
    return np.random.default_rng(cols).normal(0.5, 1, (rows, cols)).astype(np.float32)


def without_matrices(weight: Weight, x: np.ndarray) -> np.ndarray:
    """The same product by tiles of vector registers."""
    target = Target(host().cpu, host().features.replace("+amx-tile", "-amx-tile"))
    run = Recorded(Library(cache_folder(), target))
    out = run.ops.project(run.put(x), [run.ops.prepare(weight)], [None])
    run.run(len(x), exact=True)
    return run.get(out, len(x))


@pytest.mark.parametrize("cols", [256, 768])
@pytest.mark.parametrize("name", LAYOUTS)
def test_exact_rows_have_the_bits_that_vector_registers_give(name: str, cols: int) -> None:
    weight, x = random_packed(name, OUTS, cols), numbers(33, cols)
    np.testing.assert_array_equal(product(weight, x, exact=True), without_matrices(weight, x))


@pytest.mark.parametrize("cols", [256, 512, 768])
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("name", LAYOUTS)
def test_wide_tiles_round_weights_and_activations_to_bytes(name: str, rows: int, cols: int) -> None:
    weight, x = random_packed(name, OUTS, cols), numbers(rows, cols)
    values = weight.dense().astype(np.float64)
    group = 32 * wide_units(cols // 32)
    wanted = rounded(x, 127, group).astype(np.float64) @ values.T
    steps = _most(weight, values, group) / 127
    bound = 0.51 * np.abs(x).reshape(rows, -1, group).sum(-1) @ steps.T
    assert (np.abs(product(weight, x, exact=False) - wanted) <= bound + 1e-5 * np.abs(wanted).max()).all()


def _most(weight: Weight, values: np.ndarray, group: int) -> np.ndarray:
    """The largest value that each group of columns could have, (rows, groups), from what it has: twice that is safe."""
    return 2 * np.abs(values).reshape(len(values), -1, group).max(-1)


@pytest.mark.parametrize("cols", [64, 96, 192, 320])
def test_rows_of_any_whole_units_are_multiplied(cols: int) -> None:
    weight, x = random_packed("q4_1", OUTS, cols), numbers(20, cols)
    wanted = x.astype(np.float64) @ weight.dense().T.astype(np.float64)
    found = product(weight, x, exact=False)
    assert np.linalg.norm(found - wanted) < 0.02 * np.linalg.norm(wanted)


def test_nothing_but_zeros_is_zero() -> None:
    weight = random_packed("q8_0", OUTS, 256)
    weight.packed[:] = 0
    assert not product(weight, numbers(20, 256), exact=False).any()
    assert not product(random_packed("q8_0", OUTS, 256), np.zeros((20, 256), np.float32), exact=False).any()
