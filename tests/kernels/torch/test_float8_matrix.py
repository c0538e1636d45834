"""Matrices of eight-bit floats on a torch device."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from zonda.kernels.torch.float8 import Float8Matrix, round_rows
from zonda.kernels.torch.matrix import prepare, stacked
from zonda.weights.formats.float8 import Float8, encode


def random(*shape: int, height: int, whole: bool) -> Float8:
    rng = np.random.default_rng(0)
    blocks = (-(-shape[-2] // height), 1 if whole else -(-shape[-1] // 128))
    return Float8(encode(rng.normal(0, 50, shape).astype(np.float32)),
                  rng.uniform(0.5, 2, (*shape[:-2], *blocks)).astype(np.float32), height, whole, 0.5)


@pytest.mark.parametrize(("height", "whole"), [(1, True), (128, False), (1, False)])
@pytest.mark.parametrize("shape", [(200, 300), (2, 200, 300)], ids=str)
def test_values_are_those_of_the_weight(shape: tuple[int, ...], height: int, whole: bool) -> None:
    weight = random(*shape, height=height, whole=whole)
    made = prepare(weight, "cpu", torch.bfloat16)
    assert isinstance(made, Float8Matrix) and made.shape == shape and (made.outs, made.ins) == (200, 300)
    assert made.input_scale == 0.5
    np.testing.assert_array_equal(made.dense(torch.float32).numpy(), weight.dense())


@pytest.mark.parametrize(("height", "whole"), [(1, True), (128, False)])
def test_rows_are_rows_of_the_dense_matrix(height: int, whole: bool) -> None:
    made = prepare(random(200, 300, height=height, whole=whole), "cpu", torch.bfloat16)
    ids = torch.tensor([150, 0, 150])
    assert torch.equal(made.rows(ids), made.dense(torch.float32)[ids])


def test_rounded_rows_have_scales_of_their_own_or_the_given_one() -> None:
    x = torch.randn(3, 256, generator=torch.Generator().manual_seed(0)) * torch.tensor([[1.0], [100.0], [0.0]])
    codes, scales = round_rows(x, 128)
    assert scales.shape == (3, 2) and torch.allclose(codes.float() * scales.repeat_interleave(128, 1), x, rtol=0.07,
                                                     atol=0.02)
    codes, scales = round_rows(x, 256, 0.5)
    assert scales.tolist() == [[0.5]] * 3 and codes.float().abs().max() <= 448


@pytest.mark.parametrize(("rows", "height"), [(256, 128), (200, 128), (200, 1)])
def test_a_device_stacks_weights_as_the_host_would(rows: int, height: int) -> None:
    one, other = random(rows, 300, height=height, whole=False), random(100, 300, height=128, whole=False)
    made = stacked([prepare(each, "cpu", torch.bfloat16) for each in (one, other)])
    wanted = one.stack([other])
    assert isinstance(made, Float8Matrix) and (made.height, made.input_scale) == (wanted.height, 0.5)
    np.testing.assert_array_equal(made.dense(torch.float32).numpy(), wanted.dense())
