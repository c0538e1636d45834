"""Every kind of processor computes what the reference does: those that this machine can be, and the others emulated."""
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llvmlite import ir
from packing import random_packed
from recorded import Recorded
from targets import AVX2, EMULATED, PORTABLE, library
from test_cpu_ops import COLS, OUTS, one_sequence, rounded

from zonda.kernels.cpu.library import Kernel, Library, Target, host
from zonda.kernels.cpu.matrix import Matrix
from zonda.kernels.cpu.threads import function
from zonda.kernels.cpu.vector import F16, F32, Emit
from zonda.kernels.ops import Attend, Experts, Heads, Norm, Rotary
from zonda.kernels.reference import ReferenceOps
from zonda.nn import Pages
from zonda.weights.formats import Dense
from zonda.weights.source import Weight

ROWS = (1, 3, 25)
KINDS = ("q5_0", "q8_0", "q2_k")
"""Formats that have, together, all that formats differ in."""
RUNNING = ("portable", *(["avx2"] if host().has("avx2", "fma", "f16c") else []))
EXACT = pytest.mark.parametrize(("exact", "most", "error"), [(False, 127, 2e-3), (True, 127 * 128, 2e-5)])


Packer = Callable[[Weight], Matrix]
Libraries = dict[str, Library]


@pytest.fixture(scope="module")
def packed() -> Packer:
    """Tiles, which are the same for all processors."""
    run = Recorded()
    return run.ops.prepare


@pytest.fixture(scope="module")
def libraries() -> Libraries:
    return {isa: library(isa) for isa in (*RUNNING, *EMULATED)}


def plain(values: np.ndarray, dtype: Any) -> Dense:
    if dtype == "bf16":
        return Dense((values.view(np.uint32) >> 16).astype(np.uint16), dtype)
    return Dense(values.astype({"f32": np.float32, "f16": np.float16}[dtype]), dtype)


def normal(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@EXACT
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("isa", [*RUNNING, *EMULATED])
def test_a_packed_product_is_right_and_the_same_in_any_company(isa, name, exact, most, error, packed, libraries):
    weight, x = random_packed(name, OUTS, COLS), normal(25, COLS) + np.float32(0.5)
    wanted, results = rounded(x, most).astype(np.float64) @ weight.dense().T.astype(np.float64), []
    for rows in ROWS:
        run = Recorded(libraries[isa])
        zeros = run.put(np.zeros((rows, OUTS), np.float32))
        out = run.ops.output(run.put(x[:rows]), packed(weight), None, residual=zeros)
        run.run(rows, exact=exact)
        results.append(run.get(out, rows))
    if not exact and libraries[isa].target.wide:  # test_wide.py has how near these come
        error = 2e-2
    np.testing.assert_allclose(results[-1], wanted, atol=error * np.abs(wanted).max())
    for rows, result in zip(ROWS, results):
        np.testing.assert_array_equal(result, results[-1][:rows])


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("isa", [*RUNNING, *EMULATED])
def test_fast_rows_have_fine_queries_keys_and_values(isa: str, name: str, packed: Packer, libraries: Libraries) -> None:
    weight, x = random_packed(name, OUTS, COLS), normal(25, COLS)
    run = Recorded(libraries[isa])
    out = run.ops.project(run.put(x), [packed(weight)], [None])
    run.run(25, exact=False)
    wanted = x.astype(np.float64) @ weight.dense().T.astype(np.float64)
    np.testing.assert_allclose(run.get(out, 25), wanted, atol=1e-3 * np.abs(wanted).max())


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("isa", [*RUNNING, "avx512vnni"])
def test_attention_over_a_cache_of_halves_is_right(isa: str, rows: int, libraries: Libraries) -> None:
    heads, frequencies = Heads(6, 2, 24), (1e4 ** -(np.arange(12) / 12)).astype(np.float32)
    qkv, layer = normal(rows, 240), Attend(0, heads, 0.3, Rotary(frequencies, 24), window=19, softcap=5.0)
    run = Recorded(libraries[isa], half_cache=True)
    run.ops.allocate([Pages(heads)], 8)
    out = run.ops.attend(run.put(qkv), layer, None)
    run.run(rows)
    wanted = ReferenceOps(pages=8, page_size=32).attend(qkv, layer, one_sequence(rows))
    np.testing.assert_allclose(run.get(out, rows), wanted, atol=2e-3)


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("isa", RUNNING)
def test_a_gated_mlp_of_embedded_tokens_is_right(isa: str, dtype: Any, packed: Packer, libraries: Libraries) -> None:
    table, gate, up = (plain(normal(OUTS, 48, seed=seed), dtype) for seed in (2, 3, 4))
    ids, norm = np.array([0, 39, 17], np.int32), np.linspace(0.5, 2, 48, dtype=np.float32)
    run = Recorded(libraries[isa])
    x = run.ops.embed(packed(table), None)
    out = run.ops.gated(x, packed(gate), packed(up), activation="gelu", norm=Norm(norm, 1e-6))
    run.run(3, ids=ids)
    wanted = ReferenceOps().gated(table.dense()[ids], gate.dense(), up.dense(), activation="gelu",
                                  norm=Norm(norm, 1e-6))
    np.testing.assert_allclose(run.get(out, 3), wanted, atol=2e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("isa", RUNNING)
def test_experts_are_right(isa: str, packed: Packer, libraries: Libraries) -> None:
    router, down = plain(normal(5, 64, seed=5), "f32"), random_packed("q4_k", 5, 64, 256, seed=8)
    gate, up = (random_packed("q4_0", 5, 256, 64, seed=seed) for seed in (6, 7))
    x, run = normal(25, 64), Recorded(libraries[isa])
    out = run.ops.experts(run.put(x), Experts(*map(packed, (router, gate, up, down)), top=2, normalize=True),
                          residual=run.put(x))
    run.run(25)
    wanted = ReferenceOps().experts(x, Experts(*(each.dense() for each in (router, gate, up, down)), top=2,
                                               normalize=True), residual=x)
    np.testing.assert_allclose(run.get(out, 25), wanted, atol=1e-3 * np.abs(wanted).max())


@pytest.mark.parametrize("isa", RUNNING)
def test_logits_are_right(isa: str, packed: Packer, libraries: Libraries) -> None:
    x, head, sample = normal(25, COLS), random_packed("q6_k", OUTS, COLS), np.array([0, 3, 24], np.int32)
    run = Recorded(libraries[isa])
    out = run.ops.logits(run.ops.sampled(run.put(x), None), packed(head), softcap=30.0, scale=0.5)
    run.run(25, sample=sample)
    wanted = 30 * np.tanh(x[sample] @ head.dense().T * 0.5 / 30)
    np.testing.assert_allclose(run.get(out, 3), wanted, atol=1e-3 * np.abs(wanted).max())


# ---- float16 without the instructions for it


def converted(values: np.ndarray, result: np.dtype, folder: Path, *, lanes: int, target: Target) -> np.ndarray:
    """All values converted to halves or from them, `lanes` at a time."""
    def write(builder: ir.IRBuilder, target: Target, source: Any, out: Any, count: Any) -> None:
        e, narrowing = Emit(builder, target), values.dtype == np.float32
        kind = F32 if narrowing else F16
        with e.loop(count) as i:
            value = e.load(ir.VectorType(kind, lanes) if lanes > 1 else kind,
                           e.at(source, e.times(i, lanes * values.itemsize)))
            e.store(e.to_half(value) if narrowing else e.from_half(value),
                    e.at(out, e.times(i, lanes * result.itemsize)))

    out = np.zeros(len(values), result)
    owner = Library(folder, target)
    convert = function(owner, Written("convert", 3, "", (write,), writer=True))
    convert(values.ctypes.data, out.ctypes.data, len(values) // lanes)
    return out


class Written(Kernel):
    """A kernel that is made here."""

    def resolve(self) -> Callable[..., Any]:
        return self.options[0]


@pytest.mark.parametrize("lanes", [1, 4])
@pytest.mark.parametrize("target", [PORTABLE, AVX2] if "avx2" in RUNNING else [PORTABLE])
def test_every_half_becomes_the_same_float(target: Target, lanes: int, tmp_path: Path) -> None:
    halves = np.arange(65536, dtype=np.uint16).view(np.float16)
    got = converted(halves, np.dtype(np.float32), tmp_path, lanes=lanes, target=target)
    nan = np.isnan(halves)
    np.testing.assert_array_equal(got[~nan].view(np.uint32), halves[~nan].astype(np.float32).view(np.uint32))
    assert np.isnan(got[nan]).all()


@pytest.mark.parametrize("lanes", [1, 4])
@pytest.mark.parametrize("target", [PORTABLE, AVX2] if "avx2" in RUNNING else [PORTABLE])
def test_floats_are_rounded_to_the_nearest_half_with_ties_to_even(target: Target, lanes: int, tmp_path: Path) -> None:
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    between = np.append((halves[1:] + halves[:-1]) / 2, np.float32(65520))
    near = np.concatenate([halves, between, np.nextafter(between, np.float32(0)),
                           np.nextafter(between, np.float32(np.inf))])
    odd = np.array([np.inf, 1e38, 1e-38, 2**-24, 2**-25, 2**-26, 1e-45, 65504, 65519, 65521], np.float32)
    random = np.random.default_rng(0).integers(0, 0x7F800000, 1 << 18, dtype=np.uint32).view(np.float32)
    values = np.concatenate([near, odd, random])
    values = np.concatenate([values, -values])[:len(values) * 2 // 4 * 4]
    with np.errstate(over="ignore"):
        wanted = values.astype(np.float16)
    got = converted(values, np.dtype(np.float16), tmp_path, lanes=lanes, target=target)
    np.testing.assert_array_equal(got.view(np.uint16), wanted.view(np.uint16))


@pytest.mark.parametrize("target", [PORTABLE, AVX2] if "avx2" in RUNNING else [PORTABLE])
def test_what_is_no_number_stays_none(target: Target, tmp_path: Path) -> None:
    bits = np.array([0x7F800001, 0x7FC00000, 0x7FFFFFFF, 0xFF800001, 0xFFC00000, 0x7F802000, 0x7FA00000, 0xFFFFFFFF],
                    np.uint32)
    got = converted(bits.view(np.float32), np.dtype(np.float16), tmp_path, lanes=4, target=target)
    assert np.isnan(got).all()
