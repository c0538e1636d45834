"""Attention, norms, embeddings and draws of the GPU kernels against plain torch, through whole steps."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.nearness import DEVICE, LIMITS, near, on_card
from tests.packing import random_packed
from zonda.engine.batch import Batch
from zonda.engine.torch_runner import TorchRunner
from zonda.kernels.cuda.ops import CUDAOps, Stream
from zonda.kernels.ops import Attend, Heads, Norm, Rotary
from zonda.kernels.torch.float8 import Float8Matrix
from zonda.kernels.torch.matrix import prepare
from zonda.kernels.torch.ops import PAGE, TorchOps
from zonda.kernels.torch.step import Sizes, Step, pieces, view


class Bare(TorchRunner):
    """What packs steps, without a model."""

    def __init__(self) -> None:
        self.device = DEVICE
        self.max_rows = 512
        self._last = torch.tensor([5, 6, 7], dtype=torch.int32, device=DEVICE)
        self._drawn = None
        self._host = [None] * 4
        self._turn = 0


def step_of(counts: list[int], lengths: list[int], seed: int = 0) -> tuple[Step, Batch]:
    random = np.random.default_rng(seed)
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    ends = np.array(lengths, np.int32)
    positions = np.concatenate([np.arange(e - c, e) for c, e in zip(counts, lengths)]).astype(np.int32)
    width = -(-max(lengths) // PAGE)
    table = random.permutation(len(counts) * width).astype(np.int32).reshape(len(counts), width)
    tokens = random.integers(0, 50, len(positions)).astype(np.int32)
    batch = Batch(tokens=tokens, positions=positions, starts=starts, lengths=ends, page_table=table,
                  sample=starts[1:] - 1)
    return Bare().upload(batch, None), batch


def both(heads: Heads, dtype: torch.dtype = torch.float32, cache: torch.dtype = torch.float32, pages: int = 24
         ) -> tuple[CUDAOps, TorchOps]:
    """The kernels for a type, and plain torch in float32, over equal caches."""
    made = []
    for ops in (CUDAOps(DEVICE, dtype, cache_dtype=cache), TorchOps(DEVICE, torch.float32, cache_dtype=cache)):
        generator = torch.Generator().manual_seed(1)
        shape = pages, heads.kv, PAGE, heads.dim
        ops.caches = [tuple((torch.randn(shape, generator=generator) / 2).to(DEVICE).to(cache)
                            for _ in range(2))]  # type: ignore[list-item]
        made.append(ops)
    return made[0], made[1]  # type: ignore[return-value]


@pytest.mark.parametrize(("counts", "lengths"), [([1, 1], [130, 7]), ([70, 1, 9], [75, 60, 100]), ([1], [1]),
                                                 ([33], [33]), ([150, 5], [180, 200]),
                                                 ([1] * 6, [1, 64, 65, 66, 150, 33])])
@pytest.mark.parametrize("variant", ["plain", "window", "softcap", "norms", "odd", "sinks"])
def test_attention_equals_plain_torch(counts: list[int], lengths: list[int], variant: str) -> None:
    heads = Heads(6, 2, 48) if variant == "odd" else Heads(4, 2, 64)
    rotary = Rotary(torch.rand(heads.dim // 4, device=DEVICE), heads.dim // 2, 1.1) if variant != "plain" else \
        Rotary(torch.rand(heads.dim // 2, device=DEVICE), heads.dim)
    norm = Norm(torch.rand(heads.dim, device=DEVICE) + 0.5, 1e-6) if variant == "norms" else None
    layer = Attend(0, heads, 0.3, rotary, norm, norm, window=40 if variant == "window" else 0,
                   softcap=5.0 if variant == "softcap" else 0.0,
                   sinks=torch.tensor([1.0, -3.0, 4.0, 0.0], device=DEVICE) if variant == "sinks" else None)
    step, _ = step_of(counts, lengths)
    ours, plain = both(heads)
    qkv = torch.randn(step.rows, (heads.q + 2 * heads.kv) * heads.dim, device=DEVICE)
    expected = plain.attend(qkv.clone(), layer, step)
    found = ours.attend(qkv.clone(), layer, step)
    near(found, expected, LIMITS[torch.float32])
    for mine, theirs in zip(ours.caches[0], plain.caches[0]):
        near(mine, theirs, LIMITS[torch.float32])


@on_card
@pytest.mark.parametrize("cache", [torch.bfloat16, torch.float8_e4m3fn])
@pytest.mark.parametrize("heads", [Heads(32, 8, 128), Heads(32, 8, 64), Heads(8, 8, 96), Heads(8, 1, 256),
                                   Heads(14, 2, 80)], ids=str)
@pytest.mark.parametrize(("counts", "lengths"), [([1], [4000]), ([1] * 70, list(range(1, 281, 4))),
                                                 ([700, 1, 130, 1], [700, 900, 1030, 33])])
def test_heads_of_real_models(counts: list[int], lengths: list[int], heads: Heads, cache: torch.dtype) -> None:
    step, _ = step_of(counts, lengths)
    ours, plain = both(heads, torch.bfloat16, cache, len(counts) * -(-max(lengths) // PAGE))
    layer = Attend(0, heads, heads.dim ** -0.5, Rotary(torch.rand(heads.dim // 2, device=DEVICE), heads.dim))
    qkv = torch.randn(step.rows, (heads.q + 2 * heads.kv) * heads.dim, device=DEVICE).bfloat16()
    expected = plain.attend(qkv.float(), layer, step)
    near(ours.attend(qkv, layer, step), expected, LIMITS[torch.bfloat16])


@pytest.mark.parametrize("kind", [TorchOps, pytest.param(CUDAOps, marks=on_card)])
@pytest.mark.parametrize("counts", [[1, 1], [9, 1]])
def test_a_cache_of_eight_bits_keeps_what_is_too_large_as_its_largest_number(
        kind: type[TorchOps], counts: list[int]) -> None:
    heads, eight = Heads(4, 2, 64), torch.float8_e4m3fn
    ops = dict(zip((CUDAOps, TorchOps), both(heads, torch.bfloat16 if kind is CUDAOps else torch.float32, eight)))[kind]
    step, _ = step_of(counts, [40, 50])
    qkv = torch.full((step.rows, 8 * 64), 900.0, device=DEVICE)
    found = ops.attend(qkv.to(ops.dtype), Attend(0, heads, 0.3), step)
    assert found.isfinite().all()
    assert {cache.float().max().item() for cache in ops.caches[0]} == {448.0}


def test_what_nobody_wrote_into_the_cache_is_not_read() -> None:
    ours, _ = both(Heads(4, 2, 64))
    for each in ours.caches[0]:
        each.fill_(float("nan"))
    step, _ = step_of([70, 9], [70, 9])
    assert ours.attend(torch.randn(79, 8 * 64, device=DEVICE), Attend(0, Heads(4, 2, 64), 0.3), step).isfinite().all()


def test_rows_beyond_a_batch_change_nothing() -> None:
    heads = Heads(4, 2, 64)
    layer = Attend(0, heads, 0.3)
    _, batch = step_of([1, 1], [40, 50])
    runner = Bare()
    sizes = Sizes(4, 4, 4, 0)
    words = runner.fill(batch, None, sizes, pieces(batch.starts, batch.lengths))
    step = view(words.to(DEVICE), sizes, runner._last, alone=True)
    ours, _ = both(heads)
    qkv = torch.randn(4, 8 * 64, device=DEVICE)
    layer = Attend(0, heads, 0.3, Rotary(torch.rand(32, device=DEVICE), 64))
    wide = ours.attend(qkv, layer, step)[:2]
    narrow = both(heads)[0].attend(qkv[:2].clone(), layer, runner.upload(batch, None))
    torch.testing.assert_close(wide, narrow)


def test_tokens_of_the_step_before_are_looked_up() -> None:
    step, _ = step_of([1, 1, 1], [3, 4, 5])
    step.tokens.copy_(torch.tensor([-2, 9, -3], dtype=torch.int32))
    from zonda.kernels.torch.matrix import DenseMatrix
    table = DenseMatrix(torch.randn(50, 96, device=DEVICE))
    ours, _ = both(Heads(1, 1, 16))
    torch.testing.assert_close(ours.embed(table, step, scale=2.0).x, table.values[[6, 9, 7]] * 2)


@pytest.mark.parametrize("name", ["q4_k", "q6_k", "q8_0"])
def test_tokens_are_looked_up_in_a_packed_table(name: str) -> None:
    step, _ = step_of([1, 1, 1], [3, 4, 5])
    step.tokens.copy_(torch.tensor([-2, 9, -3], dtype=torch.int32))
    table = prepare(random_packed(name, 50, 1280), DEVICE, torch.float32)
    ours, _ = both(Heads(1, 1, 16))
    near(ours.embed(table, step, scale=2.0).x, table.dense(torch.float32)[[6, 9, 7]] * 2, LIMITS[torch.float32])


@pytest.mark.parametrize("count", [1, 70])
def test_a_stream_is_normed_as_its_matrices_take_it(count: int) -> None:
    ours, plain = both(Heads(1, 1, 16))
    codes = torch.randint(0, 120, (64, 300), dtype=torch.uint8, device=DEVICE)
    matrix = Float8Matrix(codes, torch.rand(64, 1, device=DEVICE) / 50, 1, True)
    x, y = (torch.randn(count, 300, device=DEVICE) for _ in range(2))
    norm = Norm(torch.rand(300, device=DEVICE) + 0.5, 1e-6)
    wanted = plain.project(x + y, [matrix], [None], norm=norm)
    near(ours.project(Stream(x.clone(), y), [matrix], [None], norm=norm), wanted, 1e-3 if count == 1 else 0.12)
    wanted = plain.output(plain.gated(x + y, matrix, matrix, norm=norm), down := Float8Matrix(
        codes.T.contiguous(), torch.rand(300, 1, device=DEVICE) / 50, 1, True), None, residual=x)
    found = ours.output(ours.gated(Stream(x.clone(), y), matrix, matrix, norm=norm), down, None,
                        residual=Stream(x.clone()))
    ours._settled(found)
    near(found.x, wanted, 1e-3 if count == 1 else 0.12)


def test_draws_take_the_first_maximum_and_tell_of_rows_that_are_no_numbers() -> None:
    step, _ = step_of([1, 1, 1], [3, 4, 5])
    logits = torch.randn(3, 5000, device=DEVICE)
    logits[0, 4800] = logits[0, 77] = 9.0
    logits[1, 5] = float("nan")
    ours, _ = both(Heads(1, 1, 16))
    ours.draw(logits, step, greedy=True)
    assert step.last.tolist() == [77, -1, int(logits[2].argmax())]


def test_filtered_draws_stay_within_their_filters() -> None:
    step, _ = step_of([1, 1, 1], [3, 4, 5])
    logits = torch.randn(3, 3000, device=DEVICE)
    step.temperature.fill_(0.8)
    step.top_k.copy_(torch.tensor([3, 0, 0]))
    step.top_p.copy_(torch.tensor([1.0, 0.05, 1.0]))
    step.min_p.copy_(torch.tensor([0.0, 0.0, 0.5]))
    p = torch.softmax(logits / 0.8, -1)
    order = p.sort(descending=True)
    most = [3, int((order.values[1].cumsum(0) < 0.05).sum()) + 1, int((p[2] >= 0.5 * p[2].max()).sum())]
    ours, _ = both(Heads(1, 1, 16))
    seen: list[set[int]] = [set(), set(), set()]
    for number in range(40):
        step.number.fill_(number)
        ours.draw(logits, step, greedy=False)
        for row, token in enumerate(step.last.tolist()):
            seen[row].add(token)
    for row in range(3):
        assert seen[row] <= set(order.indices[row, :most[row]].tolist())
        assert len(seen[row]) > 1 or most[row] == 1


def test_plain_torch_draws_the_same_tokens() -> None:
    step, _ = step_of([1, 1, 1], [3, 4, 5])
    ours, plain = both(Heads(1, 1, 16))
    step.temperature.copy_(torch.tensor([0.8, 0.0, 1.5]))
    step.key.copy_(torch.tensor([-5, 3, 1 << 62]))
    for number, (k, p, least) in enumerate([(0, 1.0, 0.0), (20, 1.0, 0.0), (0, 0.6, 0.0), (0, 1.0, 0.1),
                                            (50, 0.7, 0.0)]):
        logits = 3 * torch.randn(3, 3000, device=DEVICE)
        for field, value in ((step.number, number), (step.top_k, k), (step.top_p, p), (step.min_p, least)):
            field.fill_(value)
        found = []
        for ops in (ours, plain):
            ops.draw(logits, step, greedy=False)
            found.append(step.last.tolist())
        assert found[0] == found[1] and found[0][1] == int(logits[1].argmax())
    logits[0, 7], logits[2] = float("nan"), -torch.inf
    plain.draw(logits, step, greedy=False)
    assert step.last.tolist() == [-1, int(logits[1].argmax()), -1]
