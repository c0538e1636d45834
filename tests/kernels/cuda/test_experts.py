"""The fused mixture of experts against its plain definition."""
from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from tests.nearness import DEVICE, LIMITS, ON_CARD, near, on_card
from tests.packing import HALVES, random_packed
from zonda.kernels.cuda import experts as fused
from zonda.kernels.cuda.experts import Blocks, Shape
from zonda.kernels.ops import Experts, Norm
from zonda.kernels.reference import ReferenceOps
from zonda.kernels.torch import experts as plain
from zonda.kernels.torch.matrix import prepare
from zonda.weights.formats import Dense, Float8
from zonda.weights.formats.float8 import encode
from zonda.weights.quantize import quantize
from zonda.weights.source import Weight

DIM, FFN, COUNT, TOP = 128, 64, 6, 3
LONE = Blocks(Shape(1, 32, 64), Shape(1, 64, 32))
SMALL = Blocks(Shape(16, 32, 64), Shape(16, 32, 32))


@pytest.fixture(autouse=True)
def seed() -> None:
    np.random.seed(0)


def random(*shape: int) -> np.ndarray:
    return (np.random.standard_normal(shape) / shape[-1] ** 0.5).astype(np.float32)


def weights(kind: str | None, *, dim: int = DIM, ffn: int = FFN, count: int = COUNT) -> list[Weight]:
    stacks: list[Weight] = [Dense.of(random(count, *shape)) for shape in ((ffn, dim), (ffn, dim), (dim, ffn))]
    return [quantize(stack, kind) if kind else stack for stack in stacks]


def mixture(stacks: list[Weight], *, top: int = TOP, normalize: bool = True, activation: str = "silu",
            dtype: torch.dtype = torch.float32) -> Experts:
    router = Dense.of(3 * random(stacks[0].shape[0], stacks[0].shape[-1]))
    made = [prepare(each, DEVICE, dtype) for each in (router, *stacks)]
    return Experts(*made, top=top, normalize=normalize, activation=activation)  # type: ignore[arg-type]


def norm(dim: int = DIM) -> Norm:
    return Norm(torch.from_numpy(1 + random(dim)).to(DEVICE), 1e-6)


def compare(x: torch.Tensor, experts: Experts, with_norm: Norm | None, *, blocks: Blocks | None = None,
            dtype: torch.dtype = torch.float32) -> None:
    residual = torch.zeros_like(x) + x
    wanted = plain.experts(x, experts, residual, with_norm, dtype=torch.float64)
    found = fused.experts(x, experts, residual, with_norm, dtype=dtype, blocks=blocks)
    near(found - x, wanted - x, LIMITS[dtype])


def rows(count: int, dim: int = DIM) -> torch.Tensor:
    return torch.from_numpy(np.random.standard_normal((count, dim)).astype(np.float32)).to(DEVICE)


@pytest.mark.parametrize("activation", ["silu", "gelu", "gelu_tanh", "relu"])
def test_the_plain_definition_is_the_references(activation: str) -> None:
    stacks = weights(None)
    experts, x, own = mixture(stacks, activation=activation), rows(5), norm()
    there = Experts(*(each.dense(torch.float32).cpu().numpy() for each in (  # type: ignore[misc]
        experts.router, experts.gate, experts.up, experts.down)), top=TOP, normalize=True, activation=activation)
    host = x.cpu().numpy()
    wanted = ReferenceOps().experts(host, there, residual=host, norm=Norm(own.weight.cpu().numpy(), own.eps))
    near(plain.experts(x, experts, x, own), torch.from_numpy(wanted).to(DEVICE), 1e-5)


@pytest.mark.parametrize("kind", [None, "fp8"])
@pytest.mark.parametrize("count", [1, 24])
def test_few_rows_and_many_are_what_the_definition_says(kind: str | None, count: int) -> None:
    compare(rows(count), mixture(weights(kind)), norm(), blocks=LONE if count < 9 else SMALL)


@pytest.mark.parametrize("count", [2, 9])
@pytest.mark.parametrize(("activation", "normalize"), [("gelu", True), ("gelu_tanh", False), ("relu", True)])
def test_every_activation_with_and_without_normalized_shares(count: int, normalize: bool, activation: str) -> None:
    experts = mixture(weights(None), normalize=normalize, activation=activation)
    compare(rows(count), experts, None, blocks=LONE if count < 9 else SMALL)


@pytest.mark.parametrize("count", [2, 9])
def test_sizes_need_not_be_whole_blocks(count: int) -> None:
    stacks = weights(None, dim=104, ffn=40, count=37)
    compare(rows(count, 104), mixture(stacks, top=5), norm(104), blocks=LONE if count < 9 else SMALL)


@pytest.mark.parametrize("count", [2, 9])
def test_sixteen_bits_are_as_near_as_they_can_be(count: int) -> None:
    dtype = torch.bfloat16 if ON_CARD else torch.float16  # the interpreter knows no bfloat16, and cuts for rounding
    blocks = LONE if count < 9 else SMALL
    compare(rows(count), mixture(weights(None), dtype=dtype), norm(), blocks=blocks, dtype=dtype)


@pytest.mark.parametrize("count", [2, 9])
def test_all_rows_may_want_the_same_experts(count: int) -> None:
    same = rows(1).expand(count, -1).contiguous()
    compare(same, mixture(weights(None)), norm(), blocks=LONE if count < 9 else SMALL)


@pytest.mark.parametrize("count", [2, 9])
def test_of_equal_logits_the_first_experts_are_chosen(count: int) -> None:
    experts = mixture(weights(None))
    experts.router.values[:] = 0
    compare(rows(count), experts, norm(), blocks=LONE if count < 9 else SMALL)


@pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning")
@pytest.mark.parametrize("count", [3, 9])
def test_a_row_of_no_numbers_chooses_experts_that_there_are_and_hurts_no_other(
        count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made, routing = [], fused._routing
    monkeypatch.setattr(fused, "_routing", lambda *given: made.append(routing(*given)) or made[-1])
    experts, x, own, blocks = mixture(weights(None)), rows(count), norm(), LONE if count < 9 else SMALL
    wanted = plain.experts(x, experts, x, own)
    x[1] = torch.nan
    found = fused.experts(x, experts, x.clone(), own, dtype=torch.float32, blocks=blocks)
    chosen = made[0][2].sort().values
    assert (chosen[:, 0] >= 0).all() and (chosen[:, -1] < COUNT).all() and (chosen.diff() > 0).all()
    assert found[1].isnan().all()
    others = torch.arange(count, device=DEVICE) != 1
    near(found[others] - x[others], wanted[others] - x[others], LIMITS[torch.float32])


def test_a_row_among_few_gives_the_same_bits_as_alone() -> None:
    experts, x, own = mixture(weights(None, ffn=32)), rows(3), norm()
    together = fused.experts(x, experts, x.clone(), own, dtype=torch.float32)
    alone = fused.experts(x[1:2].contiguous(), experts, x[1:2].clone(), own, dtype=torch.float32)
    assert torch.equal(together[1:2], alone)


def test_the_blocks_of_any_number_of_slots_have_room_for_all() -> None:
    for slots in (1, 7, 16, 100):
        for block in (16, 64):
            worst = 1 + (slots - 1) // block + min(COUNT - 1, slots - 1)
            assert fused._most_blocks(slots, COUNT, block) >= worst


@pytest.mark.parametrize("name", ["q4_0", "q5_1", "q8_0", "q2_k", "q3_k", "q6_k"])
@pytest.mark.parametrize("count", [1, 9])
def test_packed_stacks_are_decoded_as_their_layout_says(name: str, count: int) -> None:
    stacks = weights(name, dim=256, ffn=256, count=3)
    narrow, wide = Blocks(Shape(1, 32, 256), Shape(1, 64, 128)), Blocks(Shape(16, 64, 256), Shape(16, 64, 64))
    blocks = narrow if count < 9 else wide
    compare(rows(count, 256), mixture(stacks, top=2), norm(256), blocks=blocks)


def eights(count: int, outs: int, ins: int) -> Float8:
    """Random eight-bit floats with scales of blocks."""
    codes = encode((50 * np.random.standard_normal((count, outs, ins))).astype(np.float32))
    scales = np.random.uniform(0.5, 2, (count, -(-outs // 128), -(-ins // 128))) / 50 / ins**0.5
    return Float8(codes, scales.astype(np.float32), 128, False)


@pytest.mark.parametrize("count", [1, 9])
@pytest.mark.parametrize("cols", [64, 128, 256])
def test_eight_bit_floats_may_have_scales_of_blocks(count: int, cols: int) -> None:
    stacks: list[Weight] = [eights(3, *shape) for shape in ((200, 300), (200, 300), (300, 200))]
    height, width = (1, 256) if count < 9 else (16, 128)
    blocks = Blocks(Shape(height, width, cols), Shape(height, width, cols))
    compare(rows(count, 300), mixture(stacks, top=2), norm(300), blocks=blocks)


@on_card
@pytest.mark.parametrize("name", ["bf16", "fp8", *HALVES])
@pytest.mark.parametrize("count", [1, 3, 8, 9, 40, 300, 2000])
def test_sizes_of_real_models(count: int, name: str) -> None:
    made = {"bf16": lambda *shape: Dense.of(random(*shape)), "fp8": eights}.get(name) or partial(random_packed, name)
    stacks = [made(8, *shape) for shape in ((768, 2048), (768, 2048), (2048, 768))]
    x, experts = rows(count, 2048), mixture(stacks, dtype=torch.bfloat16)
    compare(x, experts, norm(2048), dtype=torch.bfloat16)
    first, second = (fused.experts(x, experts, x.clone(), None) for _ in range(2))
    assert torch.equal(first, second)
