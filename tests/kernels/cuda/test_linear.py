"""Products with matrices against torch in float64."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.nearness import DEVICE, LIMITS, near, on_card
from tests.packing import HALVES, random_packed
from zonda.kernels.cuda import linear, shapes
from zonda.kernels.ops import Norm
from zonda.kernels.torch.matrix import Matrix, prepare
from zonda.weights.formats import Dense


def numbers(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype).to(DEVICE)


def dense(outs: int, ins: int, dtype: torch.dtype = torch.float32) -> Matrix:
    return prepare(Dense.of(numbers(outs, ins).cpu().numpy()), DEVICE, dtype)


def packed(name: str, outs: int, ins: int, seed: int = 0) -> Matrix:
    return prepare(random_packed(name, outs, ins, seed=seed), DEVICE, torch.bfloat16)


def normed(x: Tensor, norm: Norm | None) -> Tensor:
    x = x.double()
    if norm is None:
        return x
    return x / (x.square().mean(-1, keepdim=True) + norm.eps).sqrt() * norm.weight.double()


def product(x: Tensor, matrix: Matrix, norm: Norm | None = None) -> Tensor:
    return normed(x, norm) @ matrix.dense(torch.float64).T


def close(made: Tensor, wanted: Tensor, dtype: torch.dtype) -> None:
    near(made, wanted, LIMITS[dtype])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 2, 3, 4])
def test_few_rows_are_projected(rows: int, dtype: torch.dtype) -> None:
    x, matrix, norm = numbers(rows, 576), dense(52, 576, dtype), Norm(numbers(576), 1e-5)
    close(linear.project(x, [matrix], [None], norm=norm, dtype=dtype), product(x, matrix, norm), dtype)


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("name", HALVES)
def test_few_rows_are_projected_by_packed_weights(name: str, rows: int) -> None:
    x, matrix, norm = numbers(rows, 768), packed(name, 21, 768), Norm(numbers(768), 1e-5)
    made = linear.project(x, [matrix], [None], norm=norm, dtype=torch.float32)
    close(made, product(x, matrix, norm), torch.float32)


@pytest.mark.parametrize("rows", [3, 17, 33, 131])
@pytest.mark.parametrize("name", HALVES)
def test_many_rows_are_multiplied_by_packed_weights(name: str, rows: int) -> None:
    x, matrix, bias = numbers(rows, 512), packed(name, 70, 512), numbers(70)
    close(linear.matmul(x, matrix, bias), product(x, matrix) + bias.double(), torch.float32)


@pytest.mark.parametrize("bulk", [False, True])
@pytest.mark.parametrize("name", ["q4_1", "q5_0", "q8_0", "q6_k", "q2_k"])
def test_several_programs_may_share_the_columns_of_a_tile(name: str, bulk: bool) -> None:
    ins = 1280 if name.endswith("k") else 992  # the last program has fewer columns, or none
    x, gate, up = numbers(19, ins), packed(name, 37, ins), packed(name, 37, ins, 1)
    out, shape = torch.empty(19, 37, device=DEVICE), shapes.Many(16, 32, 32, 4, 2, 4, bulk)
    linear.multiply(x, gate, out, dot=torch.float32, shape=shape)
    close(out, product(x, gate), torch.float32)
    linear.multiply(x, gate, out, dot=torch.float32, shape=shape, up=up)
    close(out, torch.nn.functional.silu(product(x, gate)) * product(x, up), torch.float32)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("rows", [5, 70, 200])
def test_many_rows_are_multiplied_by_floats_in_tiles(rows: int, dtype: torch.dtype) -> None:
    x = numbers(rows, 136, dtype=dtype)
    gate, up = dense(77, 136, dtype), dense(77, 136, dtype)
    shape = shapes.Tiled(64, 32, 64, 4, 3, band=2)
    out = torch.full((rows, 77), float("nan"), dtype=torch.float32, device=DEVICE)
    close(linear.tiled(x, gate.dense(dtype), out, shape), product(x, gate), dtype)
    linear.tiled(x, gate.dense(dtype), out, shape, up=up.dense(dtype))
    close(out, torch.nn.functional.silu(product(x, gate)) * product(x, up), dtype)


def test_tiles_of_floats_are_ours_where_they_end_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "processors", lambda device: 132)
    monkeypatch.setattr(shapes, "_warp_groups", lambda device: True)

    def tile(rows: int, outs: int, *, gated: bool = True, dtype: torch.dtype = torch.bfloat16) -> shapes.Tiled | None:
        return shapes.tiled(torch.empty(rows, 64, dtype=dtype), outs, gated=gated)

    assert tile(128, 14336) == tile(65, 14336) == shapes.Tiled(128, 64, 128, 4, 3)
    assert tile(128, 9728) == shapes.Tiled(128, 64, 64, 4, 3)  # 152 tiles: two to a processor
    assert tile(256, 14336) and not tile(256, 9728) and not tile(256, 17408)
    assert tile(64, 128256, gated=False) and not tile(129, 128256, gated=False)
    assert not tile(64, 14336, dtype=torch.float32)
    monkeypatch.setattr(shapes, "_warp_groups", lambda device: False)
    assert not tile(64, 14336)


def test_columns_are_split_where_tiles_are_fewer_than_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "processors", lambda device: 4)
    assert shapes.many(packed("q4_k", 64, 4096), 8).splits > 1  # type: ignore[arg-type]
    assert shapes.many(packed("q4_k", 64, 512), 8).splits == 1  # type: ignore[arg-type]
    assert shapes.many(packed("q4_k", 4096, 1024), 8).splits == 1  # type: ignore[arg-type]


@pytest.mark.parametrize("ins", [960, 4096, 14336])
@pytest.mark.parametrize("rows", [1, 3])
def test_inputs_may_be_of_any_width(ins: int, rows: int) -> None:
    x = numbers(rows, ins, dtype=torch.bfloat16)
    for matrix in (dense(9, ins, torch.bfloat16), packed("q4_0", 9, ins), packed("q8_0", 9, ins)):
        close(linear.project(x, [matrix], [None]), product(x, matrix), torch.bfloat16)


@pytest.mark.parametrize("rows", [1, 9])
def test_matrices_of_several_formats_stand_side_by_side(rows: int) -> None:
    x, matrices = numbers(rows, 256), [packed("q4_k", 20, 256), packed("q6_k", 8, 256), dense(12, 256)]
    biases = [numbers(20), None, numbers(12)]
    wanted = torch.cat([product(x, matrix) + (0 if bias is None else bias.double())
                        for matrix, bias in zip(matrices, biases)], dim=1)
    close(linear.project(x, matrices, biases, dtype=torch.float32), wanted, torch.float32)


@pytest.mark.parametrize("activation", ["silu", "gelu", "gelu_tanh", "relu"])
@pytest.mark.parametrize("rows", [1, 2])
def test_gated_products_are_activated(rows: int, activation) -> None:
    x, norm = numbers(rows, 256), Norm(numbers(256), 1e-6)
    act = {"silu": torch.nn.functional.silu, "gelu": torch.nn.functional.gelu, "relu": torch.relu,
           "gelu_tanh": lambda v: torch.nn.functional.gelu(v, approximate="tanh")}[activation]
    for gate, up in ((dense(33, 256), dense(33, 256)), (packed("q4_k", 33, 256), packed("q4_k", 33, 256, 1)),
                     (packed("q4_k", 33, 256), packed("q6_k", 33, 256))):
        wanted = act(product(x, gate, norm)) * product(x, up, norm)
        close(linear.gated(x, gate, up, activation, norm=norm, dtype=torch.float32), wanted, torch.float32)


@pytest.mark.parametrize("rows", [20, 600])
def test_many_rows_are_gated(rows: int) -> None:
    x = numbers(rows, 256)
    for gate, up in ((dense(40, 256), dense(40, 256)), (packed("q4_0", 40, 256), packed("q4_0", 40, 256, 1)),
                     (packed("q4_k", 40, 256), packed("q6_k", 40, 256))):
        wanted = torch.nn.functional.silu(product(x, gate)) * product(x, up)
        close(linear.matmul_gated(x, gate, up, "silu"), wanted, torch.float32)


@pytest.mark.parametrize("rows", [1, 2])
def test_outputs_are_added_to_the_residual_where_it_lies(rows: int) -> None:
    x, bias = numbers(rows, 512, dtype=torch.bfloat16), numbers(37)
    for matrix in (dense(37, 512, torch.bfloat16), packed("q5_k", 37, 512)):
        residual = numbers(rows, 37)
        wanted = residual.double() + product(x, matrix) + bias.double()
        assert linear.output(x, matrix, bias, residual) is residual
        close(residual, wanted, torch.bfloat16)


def test_logits_are_float32() -> None:
    x, norm = numbers(2, 256), Norm(numbers(256), 1e-5)
    for matrix in (dense(101, 256), packed("q6_k", 101, 256)):
        made = linear.logits(x, matrix, norm=norm)
        assert made.dtype == torch.float32
        close(made, product(x, matrix, norm), torch.float32)
    x, matrix = numbers(5, 256), packed("q6_k", 101, 256)
    made = linear.logits(x, matrix)
    assert made.dtype == torch.float32
    close(made, product(x, matrix), torch.bfloat16)


@pytest.mark.parametrize("name", HALVES)
def test_a_kernel_unpacks_a_matrix(name: str) -> None:
    matrix = packed(name, 19, 512)
    assert torch.equal(linear.floats(matrix, torch.float32), matrix.dense(torch.float32))


def test_programs_walk_over_several_blocks() -> None:
    x = numbers(1, 256)
    for matrix in (dense(50, 256), packed("q4_k", 50, 256)):
        out = torch.empty(1, 50, device=DEVICE)
        linear.multiply(x, matrix, out, dot=torch.float32, shape=shapes.Few(4, 4, 5))
        close(out, product(x, matrix), torch.float32)


def test_large_inputs_do_not_overflow_inside() -> None:
    x, matrix = numbers(1, 256) * 1e9, packed("q4_k", 8, 256)
    close(linear.project(x, [matrix], [None], dtype=torch.float32), product(x, matrix), torch.float32)


def test_programs_end_together() -> None:
    matrix = dense(1000, 64)
    shape = shapes.few(matrix, 1)
    blocks = -(-1000 // shape.block)
    assert -(-blocks // shape.programs) * shape.programs - blocks < shape.programs
    assert np.log2(shape.block) % 1 == 0


FLOATS = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


@on_card
@pytest.mark.parametrize("name", [*FLOATS, *HALVES])
@pytest.mark.parametrize("rows", [1, 2])
def test_few_rows_on_matrices_of_real_models(rows: int, name: str) -> None:
    dtype = FLOATS.get(name, torch.bfloat16)

    def made(outs: int, ins: int, seed: int = 0) -> Matrix:
        return dense(outs, ins, dtype) if name in FLOATS else packed(name, outs, ins, seed)

    x, norm, matrix = numbers(rows, 2048), Norm(numbers(2048), 1e-5), made(1000, 2048)
    close(linear.project(x, [matrix], [None], norm=norm, dtype=dtype), product(x, matrix, norm), dtype)
    x, norm, gate, up = numbers(rows, 4096), Norm(numbers(4096), 1e-5), made(333, 4096), made(333, 4096, 1)
    wanted = torch.nn.functional.silu(product(x, gate, norm)) * product(x, up, norm)
    close(linear.gated(x, gate, up, "silu", norm=norm, dtype=dtype), wanted, dtype)
    x, residual, matrix = numbers(rows, 14336).to(dtype), numbers(rows, 777), made(777, 14336)
    wanted = residual.double() + product(x, matrix)
    close(linear.output(x, matrix, None, residual), wanted, dtype)


@on_card
@pytest.mark.parametrize("name", HALVES)
@pytest.mark.parametrize("rows", [17, 100, 700])
def test_many_rows_on_matrices_of_real_models(rows: int, name: str) -> None:
    x, matrix = numbers(rows, 1024, dtype=torch.bfloat16), packed(name, 520, 1024)
    close(linear.matmul(x, matrix), product(x, matrix), torch.bfloat16)
