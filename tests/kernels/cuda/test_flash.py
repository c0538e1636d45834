"""FlashAttention 4 in place of our kernel for runs of rows: by a stand-in here, by itself on a card that has it."""
from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.kernels.cuda.test_attention import both, step_of
from tests.nearness import DEVICE, LIMITS, near, on_card
from zonda.kernels import choose
from zonda.kernels.cuda import flash
from zonda.kernels.ops import Attend, Heads, Norm, Rotary
from zonda.kernels.torch.ops import PAGE, cap

HEADS = Heads(4, 2, 128)
MIXED = [70, 1, 9, 1], [75, 60, 100, 3]


def stand_in(q: Tensor, k: Tensor, v: Tensor, *, cu_seqlens_q: Tensor, seqused_q: Tensor, seqused_k: Tensor,
             page_table: Tensor, softmax_scale: float, causal: bool) -> tuple[Tensor, None]:
    """What `flash_attn_varlen_func` makes of these; what it leaves open is no number here."""
    out = torch.full_like(q, float("nan"), memory_format=torch.contiguous_format)
    for start, rows, length, pages in zip(cu_seqlens_q.tolist(), seqused_q.tolist(), seqused_k.tolist(), page_table):
        keys, values = (each[pages].flatten(0, 1)[:length].float() for each in (k, v))
        mine = q[start:start + rows].float().unflatten(1, (k.shape[2], -1))
        scores = cap(torch.einsum("rhgd,phd->hgrp", mine, keys) * softmax_scale, 0.0)
        seen = torch.arange(length)[None] <= torch.arange(length - rows, length)[:, None]
        assert causal
        weights = torch.softmax(scores.masked_fill(~seen.to(scores.device), -torch.inf), -1)
        out[start:start + rows] = torch.einsum("hgrp,phd->rhgd", weights, values).flatten(1, 2).to(q.dtype)
    return out, None


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The stand-in is there, for steps of any length; the calls of it."""
    calls: list[Any] = []
    module = ModuleType("flash_attn.cute.interface")
    module.flash_attn_varlen_func = lambda *given, **named: (calls.append(named), stand_in(*given, **named))[1]
    for name in ("flash_attn", "flash_attn.cute"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(flash, "flash_on", lambda capability: True)
    monkeypatch.setattr(flash, "LONG", 1)
    return calls


def attended(layer: Attend, dtype: torch.dtype = torch.bfloat16, cache: torch.dtype = torch.bfloat16,
             counts: list[int] = MIXED[0], lengths: list[int] = MIXED[1]) -> tuple[Tensor, Tensor]:
    """By the kernels, where FlashAttention may compute, and by plain torch."""
    step, _ = step_of(counts, lengths)
    heads = layer.heads
    ours, plain = both(heads, dtype, cache, len(counts) * -(-max(lengths) // PAGE))
    ours._attention._flash._able = True
    qkv = torch.randn(step.rows, (heads.q + 2 * heads.kv) * heads.dim, device=DEVICE).to(dtype)
    expected = plain.attend(qkv.float(), layer, step)
    return ours.attend(qkv, layer, step), expected


def rotary() -> Rotary:
    return Rotary(torch.rand(64, device=DEVICE), 128)


def test_runs_are_left_to_it_and_single_rows_are_not(installed: list[Any]) -> None:
    norm = Norm(torch.rand(128, device=DEVICE) + 0.5, 1e-6)
    near(*attended(Attend(0, HEADS, 0.1, rotary(), norm, norm)), LIMITS[torch.bfloat16])
    assert [call["seqused_q"].tolist() for call in installed] == [[2], [70, 0, 9, 0]]  # the first compiles


@pytest.mark.parametrize(("layer", "dtype", "cache"), [
    (Attend(0, HEADS, 0.1, window=40), torch.bfloat16, torch.bfloat16),
    (Attend(0, HEADS, 0.1, softcap=5.0), torch.bfloat16, torch.bfloat16),
    (Attend(0, HEADS, 0.1, sinks=torch.zeros(4, device=DEVICE)), torch.bfloat16, torch.bfloat16),
    (Attend(0, Heads(4, 2, 64), 0.1), torch.bfloat16, torch.bfloat16),
    (Attend(0, HEADS, 0.1), torch.float32, torch.float32),
    pytest.param(Attend(0, HEADS, 0.1), torch.bfloat16, torch.float8_e4m3fn, marks=on_card)],
    ids=["window", "cap", "sinks", "smaller heads", "float32", "cache of eight bits"])
def test_what_was_not_measured_is_computed_by_our_own(
        installed: list[Any], layer: Attend, dtype: torch.dtype, cache: torch.dtype) -> None:
    near(*attended(layer, dtype, cache), LIMITS[dtype])
    assert not installed


def test_short_steps_are_computed_by_our_own(installed: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flash, "LONG", 1000)
    near(*attended(Attend(0, HEADS, 0.1, rotary())), LIMITS[torch.bfloat16])
    assert len(installed) == 1  # compiled at the first step of all the same


def test_where_it_fails_our_own_computes_and_a_warning_says_why(
        installed: list[Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def fails(*given: object, **named: object) -> None:
        raise ValueError("no such card")

    monkeypatch.setattr(sys.modules["flash_attn.cute.interface"], "flash_attn_varlen_func", fails)
    near(*attended(Attend(0, HEADS, 0.1, rotary())), LIMITS[torch.bfloat16])
    assert "FlashAttention 4 is installed, but does not run here: ValueError: no such card" in caplog.text


@pytest.mark.parametrize(("capability", "there", "status"), [((9, 0), True, "chosen"), ((10, 0), True, "not used"),
                                                             ((9, 0), False, "not installed")])
def test_it_is_chosen_where_it_is_installed_and_was_measured(
        monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], there: bool, status: str) -> None:
    monkeypatch.setattr(choose, "_there", lambda package: None if there else "not installed")
    monkeypatch.setattr(choose, "find_spec", lambda name: name)
    choose.flash_on.cache_clear()
    told = {each.kernels: each.status for each in choose.choices(capability) if each.work == "attention of prompts"}
    assert told["FlashAttention 4"] == status and choose.flash_on(capability) == (status == "chosen")
    choose.flash_on.cache_clear()


@on_card
@pytest.mark.parametrize("heads", [Heads(32, 8, 128), Heads(16, 16, 128)], ids=str)
@pytest.mark.parametrize(("counts", "lengths"), [([700, 1, 2300, 1], [700, 900, 4030, 33]), ([2048], [2048])])
def test_the_package_itself_computes_the_same(heads: Heads, counts: list[int], lengths: list[int]) -> None:
    pytest.importorskip("flash_attn.cute", reason="FlashAttention 4 is not installed")
    layer = Attend(0, heads, 128 ** -0.5, rotary())
    near(*attended(layer, counts=counts, lengths=lengths), LIMITS[torch.bfloat16])
