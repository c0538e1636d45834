"""Wide tiles, and matrix registers where the processor has them."""
import numpy as np
import pytest
from packing import random_packed
from recorded import Recorded
from test_cpu_ops import ROWS, rounded

from zonda.environment import cache_folder
from zonda.kernels.cpu.layout import LAYOUTS
from zonda.kernels.cpu.library import Library, Target, host
from zonda.kernels.cpu.wide import GROUP, most
from zonda.kernels.ops import Activation
from zonda.kernels.reference import ReferenceOps
from zonda.weights.formats import Dense
from zonda.weights.source import Weight

PLAIN = Target(host().cpu, host().features.replace("+amx-tile", "-amx-tile"))
"""This machine without matrix registers."""
matrices = pytest.mark.skipif(not host().matrices, reason="this processor has no matrix registers (AMX)")
wide = pytest.mark.skipif(not PLAIN.wide, reason="wide tiles are for processors with AVX-512 VNNI")
TARGETS = pytest.mark.parametrize("target", [PLAIN, pytest.param(host(), marks=matrices)], ids=["vectors", "matrices"])
OUTS = 40


def numbers(rows: int, cols: int) -> np.ndarray:
    return np.random.default_rng(cols).normal(0.5, 1, (rows, cols)).astype(np.float32)


def product(weight: Weight, x: np.ndarray, target: Target, *, exact: bool = False, fine: bool = True) -> np.ndarray:
    """Of queries, keys and values, if `fine`, else of an output."""
    run = Recorded(Library(cache_folder(), target))
    matrix = run.ops.prepare(weight)
    if fine:
        out = run.ops.project(run.put(x), [matrix], [None])
    else:
        out = run.ops.output(run.put(x), matrix, None, residual=run.put(np.zeros((len(x), OUTS), np.float32)))
    run.run(len(x), exact=exact)
    return run.get(out, len(x))


@matrices
@pytest.mark.parametrize("cols", [256, 768])
@pytest.mark.parametrize("name", LAYOUTS)
def test_exact_rows_have_the_bits_that_vector_registers_give(name: str, cols: int) -> None:
    weight, x = random_packed(name, OUTS, cols), numbers(33, cols)
    np.testing.assert_array_equal(product(weight, x, host(), exact=True), product(weight, x, PLAIN, exact=True))


@wide
@pytest.mark.parametrize("cols", [256, 768])
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("fine", [False, True], ids=["bytes", "words"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_weights_and_activations_are_rounded(name: str, fine: bool, rows: int, cols: int) -> None:
    weight, x = random_packed(name, OUTS, cols), numbers(rows, cols)
    values, top = weight.dense().astype(np.float64), most(2 if fine else 1)
    assert top >= (4000 if fine else 127)
    wanted = rounded(x, top, GROUP).astype(np.float64) @ values.T
    # no value of a group can be more than twice the largest there is; words' factors are rounded as well
    steps = 2 * np.abs(values).reshape(OUTS, -1, GROUP).max(-1) / top
    bound = (1.1 if fine else 0.51) * np.abs(x).reshape(rows, -1, GROUP).sum(-1) @ steps.T
    assert (np.abs(product(weight, x, PLAIN, fine=fine) - wanted) <= bound + 1e-5 * np.abs(wanted).max()).all()


@wide
def test_the_largest_sums_of_words_fit() -> None:
    weight, x = random_packed("q8_0", OUTS, 576), np.full((12, 576), 3, np.float32)
    weight.packed[:] = weight.packed[0, 0]  # one scale and one code, whatever they are
    wanted = x.astype(np.float64) @ weight.dense().T.astype(np.float64)
    np.testing.assert_allclose(product(weight, x, PLAIN), wanted, rtol=2e-3)


@wide
@TARGETS
def test_rows_have_the_same_bits_alone_and_among_others(target: Target) -> None:
    weight, x = random_packed("q5_1", OUTS, 576), numbers(25, 576)
    together = product(weight, x, target)
    for size in ROWS:
        np.testing.assert_array_equal(product(weight, x[:size], target), together[:size])


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


def halved(x: np.ndarray) -> np.ndarray:
    """x rounded to bfloat16."""
    return ((np.ascontiguousarray(x, np.float32).view(np.uint32) + 0x8000) & 0xFFFF0000).view(np.float32)


@matrices
@pytest.mark.parametrize("cols", [256, 768])
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("name", [*LAYOUTS, "f32", "f16", "bf16"])
def test_weights_and_activations_are_rounded_to_halves(name: str, rows: int, cols: int) -> None:
    weight, x = of(name, cols), numbers(rows, cols)
    wanted = halved(x).astype(np.float64) @ halved(weight.dense()).T.astype(np.float64)
    # the last bit of a weight may differ where the product that makes it lies between two
    np.testing.assert_allclose(product(weight, x, host()), wanted, atol=5e-4 * np.abs(wanted).max())


def of(name: str, cols: int) -> Weight:
    """A weight of a format, packed or not."""
    if name in LAYOUTS:
        return random_packed(name, OUTS, cols)
    values = np.random.default_rng(3).normal(size=(OUTS, cols)).astype(np.float32)
    stored = {"f32": values, "f16": values.astype(np.float16), "bf16": (values.view(np.uint32) >> 16).astype(np.uint16)}
    return Dense(stored[name], name)


@wide
@TARGETS
@pytest.mark.parametrize("activation", ["silu", "gelu", "gelu_tanh", "relu"])
def test_fast_rows_of_a_gated_block_are_those_of_the_values(activation: Activation, target: Target) -> None:
    run, x = Recorded(Library(cache_folder(), target)), numbers(25, 64) / 8
    gate, up, down = (random_packed("q8_0", *shape) for shape in ((96, 64), (96, 64), (OUTS, 96)))
    residual = numbers(25, OUTS)
    hidden = run.ops.gated(run.put(x), run.ops.prepare(gate), run.ops.prepare(up), activation=activation)
    out = run.ops.output(hidden, run.ops.prepare(down), None, residual=run.put(residual))
    run.run(25, exact=False)
    wanted = ReferenceOps().gated(x, gate.dense(), up.dense(), activation=activation) @ down.dense().T
    got = run.get(out, 25) - residual
    assert np.linalg.norm(got - wanted) < (0.006 if target.matrices else 0.02) * np.linalg.norm(wanted)
