"""Executable weights on a torch device against the weights that they were made of."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.packing import HALVES, random_packed
from zonda.errors import Unsupported
from zonda.kernels.torch import matrix, upload
from zonda.kernels.torch.matrix import prepare, stacked
from zonda.kernels.torch.upload import Staging
from zonda.weights.formats import Dense
from zonda.weights.formats.repeated import Repeated


def dense(kind: str, *shape: int) -> Dense:
    values = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    if kind == "bf16":
        return Dense((values.view(np.uint32) >> 16).astype(np.uint16), "bf16")
    return Dense(values.astype(np.float16 if kind == "f16" else np.float32), kind)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16"])
def test_floats_keep_their_values(kind: str) -> None:
    weight = dense(kind, 5, 7)
    weight.array.flags.writeable = False
    made = prepare(weight, "cpu", torch.float32)
    assert made.shape == (5, 7) and (made.outs, made.ins) == (5, 7)
    np.testing.assert_array_equal(made.dense(torch.float32).numpy(), weight.dense())


def test_floats_become_the_type_that_is_computed_in() -> None:
    assert prepare(dense("f32", 3, 4), "cpu", torch.bfloat16).dense(torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.parametrize("name", HALVES)
def test_packed_weights_keep_their_values(name: str) -> None:
    weight = random_packed(name, 5, 512)
    np.testing.assert_array_equal(prepare(weight, "cpu", torch.bfloat16).dense(torch.float32).numpy(), weight.dense())


@pytest.mark.parametrize("name", HALVES)
def test_packed_weights_stay_about_as_small_as_on_disk(name: str) -> None:
    weight = random_packed(name, 8, 512)
    made = prepare(weight, "cpu", torch.bfloat16)
    size = sum(each.nbytes for each in made.planes.tensors() if each is not None)  # type: ignore[attr-defined]
    assert size <= (1.2 if name == "q2_k" else 1.06) * weight.packed.nbytes


@pytest.mark.parametrize("weight", [dense("f32", 6, 256), random_packed("q4_k", 6, 256), random_packed("q6_k", 6, 256)])
def test_rows_are_rows_of_the_dense_matrix(weight) -> None:
    ids = torch.tensor([4, 0, 4])
    made = prepare(weight, "cpu", torch.float32)
    assert torch.equal(made.rows(ids), made.dense(torch.float32)[ids])


@pytest.mark.parametrize("weight", [dense("f32", 3, 4, 256), random_packed("q5_k", 3, 4, 256)])
def test_a_stack_of_experts_keeps_its_shape(weight) -> None:
    made = prepare(weight, "cpu", torch.float32)
    assert made.shape == (3, 4, 256) and made.outs == 4
    np.testing.assert_array_equal(made.dense(torch.float32).numpy(), weight.dense())


def test_a_matrix_that_is_taken_apart_in_pieces_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix, "CHUNK", 2 * 256)
    weight = random_packed("q4_0", 7, 256)
    np.testing.assert_array_equal(prepare(weight, "cpu", torch.bfloat16).dense(torch.float32).numpy(), weight.dense())


def test_weights_of_an_unknown_kind_are_refused() -> None:
    with pytest.raises(Unsupported, match="do not know"):
        prepare(object(), "cpu", torch.float32)  # type: ignore[arg-type]


@pytest.mark.parametrize("part", [dense("bf16", 3, 256), random_packed("q6_k", 3, 256), dense("f32", 2, 3, 256)])
def test_a_device_repeats_rows_as_the_host_would(part) -> None:
    weight = Repeated(part, 7)
    made = prepare(weight, "cpu", torch.float32)
    assert made.shape == weight.shape == (*part.shape[:-2], 7, 256)
    np.testing.assert_array_equal(made.dense(torch.float32).numpy(), weight.dense())
    np.testing.assert_array_equal(weight.dense()[..., 3:6, :], part.dense())


@pytest.mark.parametrize(("one", "other"), [(dense("f16", 3, 256), dense("f16", 5, 256)),
                                            (random_packed("q4_k", 3, 256), random_packed("q4_k", 5, 256))])
def test_a_device_stacks_weights_as_the_host_would(one, other) -> None:
    made = stacked([prepare(each, "cpu", torch.float32) for each in (one, other)])
    assert made.shape == (8, 256)
    np.testing.assert_array_equal(made.dense(torch.float32).numpy(), one.stack([other]).dense())


@pytest.mark.parametrize("size", [1, 64, 100, 1000])
def test_arrays_come_through_staging_whole(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(upload, "STAGE", 64)
    monkeypatch.setattr(upload, "SHARE", 10)
    staging = Staging(torch.device("cpu"))
    for _ in range(2):
        array = np.random.default_rng().integers(0, 1 << 16, size, np.uint16)
        out = torch.empty(size, dtype=torch.bfloat16)
        staging.copy(array, out)
        np.testing.assert_array_equal(out.view(torch.int16).numpy().view(np.uint16), array)
