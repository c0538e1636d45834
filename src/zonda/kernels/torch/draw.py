"""Drawing tokens in plain torch: the tokens that the GPU's kernels draw, from the same random numbers."""
from __future__ import annotations

import torch
from torch import Tensor

from zonda.kernels.torch.step import Step

_GOLDEN, _FIRST, _SECOND = (value - (1 << 64) for value in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def noisy(logits: Tensor, step: Step) -> Tensor:
    """Logits (rows, vocab) whose first maximum is a draw: in rows with a temperature, noise above what filters leave.

    Rows that are not finite keep their maximum.
    """
    heat = step.temperature[:, None]
    scaled = logits / torch.where(heat > 0, heat, 1.0)
    drawn = (scaled + _noise(step, logits.shape[1])).masked_fill(~_kept(scaled, step), -torch.inf)
    return torch.where((heat > 0) & logits.amax(-1, keepdim=True).isfinite(), drawn, logits)


def _kept(scaled: Tensor, step: Step) -> Tensor:
    """Which tokens top-k, then top-p of what it leaves, and min-p keep; the likeliest always."""
    p, order = torch.softmax(scaled, -1).sort(dim=-1, descending=True, stable=True)
    rank = torch.arange(p.shape[-1], device=p.device)
    most = torch.where(step.top_k > 0, step.top_k, p.shape[-1])[:, None]
    p = p.masked_fill(rank >= most, 0.0)
    mass = p.cumsum(-1)
    keep = (rank < most) & (p >= step.min_p[:, None] * p[:, :1])
    keep &= (mass - p < step.top_p[:, None] * mass[:, -1:]) | (step.top_p[:, None] >= 1)
    return torch.zeros_like(keep).scatter(-1, order, keep | (rank == 0))


def _noise(step: Step, vocab: int) -> Tensor:
    """Gumbel noise of each row's tokens, float32 (rows, vocab), from the row's key and number."""
    tokens = torch.arange(1, vocab + 1, device=step.key.device)
    seeds = _mixed(step.key + (step.number.long() + 1) * _GOLDEN)
    bits = _mixed(seeds[:, None] + tokens * _GOLDEN) >> 40 & 0xFFFFFF
    return -torch.log(-torch.log((bits.float() + 0.5) * 2.0**-24))


def _mixed(value: Tensor) -> Tensor:
    """The finalizer of splitmix64, on the bits of int64."""
    value = (value ^ (value >> 30 & (1 << 34) - 1)) * _FIRST
    value = (value ^ (value >> 27 & (1 << 37) - 1)) * _SECOND
    return value ^ (value >> 31 & (1 << 33) - 1)
