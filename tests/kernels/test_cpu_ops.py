"""The CPU's recorded operations against the reference, format by format."""
import numpy as np
import pytest
from packing import random_packed
from recorded import Recorded

from zonda.engine.batch import Batch
from zonda.kernels.cpu.layout import LAYOUTS
from zonda.kernels.cpu.library import host
from zonda.kernels.ops import Attend, Heads, Norm, Rotary
from zonda.kernels.reference import ReferenceOps
from zonda.nn import Pages
from zonda.weights.formats import Dense, Float8
from zonda.weights.source import Weight

COLS, OUTS = 512, 40
ROWS = (1, 2, 3, 8, 11, 25)
SINKS = np.array([1, -3, 4, 0, 200, -200], np.float32)


def one_sequence(rows: int) -> Batch:
    numbers = np.arange(rows, dtype=np.int32)
    return Batch(numbers, numbers, np.array([0, rows], np.int32), np.array([rows], np.int32),
                 np.arange(max(8, rows // 32 + 1), dtype=np.int32)[None], numbers[:1])


def rounded(x: np.ndarray, most: int, group: int = 32) -> np.ndarray:
    """x as codes of at most `most` with a scale for each `group` columns hold it."""
    groups = x.reshape(len(x), -1, group)
    scale = np.abs(groups).max(-1, keepdims=True) / np.float32(most)
    return (np.rint(groups / scale) * scale).reshape(x.shape)


def product(weight: Weight, x: np.ndarray, *, exact: bool) -> np.ndarray:
    """As of an output projection, whose fast rows are rounded most."""
    run = Recorded()
    zeros = run.put(np.zeros((len(x), OUTS), np.float32))
    out = run.ops.output(run.put(x), run.ops.prepare(weight), None, residual=zeros)
    run.run(len(x), exact=exact)
    return run.get(out, len(x))


@pytest.mark.parametrize(("exact", "most", "error"), [(False, 127, 2e-3), (True, 127 * 128, 2e-5)])
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("name", LAYOUTS)
def test_a_packed_product_equals_that_of_the_values_with_rounded_activations(name, rows, exact, most, error) -> None:
    weight = random_packed(name, OUTS, COLS)
    x = np.random.default_rng(1).normal(0.5, 1, (rows, COLS)).astype(np.float32)
    wanted = rounded(x, most).astype(np.float64) @ weight.dense().T.astype(np.float64)
    # a code on the border between two values may round the other way
    if exact or not (host().wide or host().matrices):  # test_wide.py has the others
        np.testing.assert_allclose(product(weight, x, exact=exact), wanted, atol=error * np.abs(wanted).max())


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("name", LAYOUTS)
def test_a_token_gives_the_same_bits_alone_and_among_others(name: str, exact: bool) -> None:
    weight, x = random_packed(name, OUTS, COLS), np.random.default_rng(2).normal(size=(25, COLS)).astype(np.float32)
    together = product(weight, x, exact=exact)
    for size in ROWS:
        np.testing.assert_array_equal(product(weight, x[:size], exact=exact), together[:size])


@pytest.mark.parametrize("name", LAYOUTS)
def test_an_embedding_reads_the_values_of_a_packed_row(name: str) -> None:
    table, ids = random_packed(name, OUTS, COLS), np.array([0, 39, 17, 16, 15], np.int32)
    run = Recorded()
    out = run.ops.embed(run.ops.prepare(table), None)
    run.run(len(ids), ids=ids)
    np.testing.assert_allclose(run.get(out, len(ids)), table.dense()[ids], atol=1e-4)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("activation", ["silu", "gelu", "gelu_tanh", "relu"])
def test_a_gated_mlp_equals_the_reference(activation, rows: int) -> None:
    rng = np.random.default_rng(3)
    x, gate, up = (rng.normal(size=shape).astype(np.float32) for shape in ((rows, 48), (OUTS, 48), (OUTS, 48)))
    weight = rng.normal(size=48).astype(np.float32)
    run = Recorded()
    out = run.ops.gated(run.put(x), run.ops.prepare(Dense(gate, "f32")), run.ops.prepare(Dense(up, "f32")),
                        activation=activation, norm=Norm(run.ops.vector(weight), 1e-6))
    run.run(rows)
    wanted = ReferenceOps().gated(x, gate, up, activation=activation, norm=Norm(weight, 1e-6))
    np.testing.assert_allclose(run.get(out, rows), wanted, atol=2e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_gate_and_the_other_half_of_a_gated_mlp_may_have_any_two_formats(name: str) -> None:
    x, gate = np.random.default_rng(3).normal(size=(25, COLS)).astype(np.float32), random_packed(name, OUTS, COLS)
    for other in LAYOUTS:
        up, run = random_packed(other, OUTS, COLS, seed=1), Recorded()
        out = run.ops.gated(run.put(x), run.ops.prepare(gate), run.ops.prepare(up))
        run.run(len(x), exact=True)
        wanted = ReferenceOps().gated(x, gate.dense(), up.dense())
        np.testing.assert_allclose(run.get(out, len(x)), wanted, atol=5e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("dim", [8, 24, 64])
@pytest.mark.parametrize(("rows", "window", "softcap"),
                         [(1, 0, 0.0), (13, 0, 0.0), (64, 0, 0.0), (64, 7, 0.0), (40, 33, 5.0)])
@pytest.mark.parametrize("sinks", [None, SINKS])
def test_attention_equals_the_reference(dim: int, rows: int, window: int, softcap: float, sinks) -> None:
    rng, heads = np.random.default_rng(4), Heads(6, 2, dim)
    qkv = rng.normal(size=(rows, 10 * dim)).astype(np.float32)
    frequencies = (1e4 ** -(np.arange(dim // 2) * 2 / dim)).astype(np.float32)
    layer = Attend(0, heads, 0.3, Rotary(frequencies, dim), window=window, softcap=softcap, sinks=sinks)
    run = Recorded()
    run.ops.allocate([Pages(heads)], 8)
    out = run.ops.attend(run.put(qkv), layer, None)
    run.run(rows)
    wanted = ReferenceOps(pages=8, page_size=32).attend(qkv, layer, one_sequence(rows))
    np.testing.assert_allclose(run.get(out, rows), wanted, atol=2e-5)


def test_weights_of_eight_bit_floats_are_multiplied_as_sixteen_bits() -> None:
    rng = np.random.default_rng(4)
    codes = (rng.integers(0, 127, (OUTS, COLS)) | rng.integers(0, 2, (OUTS, COLS)) << 7).astype(np.uint8)
    weight = Float8(codes, rng.uniform(0.5, 1, (OUTS, 1)).astype(np.float32), 1, True)
    x = rng.normal(size=(3, COLS)).astype(np.float32)
    wanted = x @ weight.dense().T
    np.testing.assert_allclose(product(weight, x, exact=True), wanted, atol=2**-8 * np.abs(wanted).max())


@pytest.mark.parametrize("slots", [0, 2, 3, 64])
@pytest.mark.parametrize(("window", "softcap", "sinks"), [(0, 0.0, None), (300, 0.0, SINKS), (40, 5.0, None)])
def test_a_long_context_gives_the_same_bits_cut_into_runs_of_pages(window: int, softcap: float, sinks, slots) -> None:
    rng, heads, rows = np.random.default_rng(5), Heads(6, 2, 24), 601
    qkv = rng.normal(size=(rows, 240)).astype(np.float32)
    layer = Attend(0, heads, 0.3, window=window, softcap=softcap, sinks=sinks)
    run = Recorded(max_rows=rows)
    run.ops.allocate([Pages(heads)], 20)
    buffer = run.put(qkv)
    out = run.ops.attend(buffer, layer, None)
    run.run(rows)
    together = run.get(out, rows)
    wanted = ReferenceOps(pages=20, page_size=32).attend(qkv, layer, one_sequence(rows))
    np.testing.assert_allclose(together, wanted, atol=2e-5)
    run.ops.slots = slots
    for row in (600, 512, 511, 255, 256, 31):
        buffer.memory[:960].view(np.float32)[:] = qkv[row]
        run.run(1, first=row)
        np.testing.assert_array_equal(run.get(out, 1)[0], together[row])
