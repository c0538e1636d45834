"""Norm and rotation of heads, in registers."""
from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def angles(frequencies, position, factor, DP: tl.constexpr, RD: tl.constexpr):
    """Cosines and signed sines (DP,) that turn each number of a head, and its mate half a head away, by position."""
    d = tl.arange(0, DP)
    half: tl.constexpr = RD // 2
    step = tl.load(frequencies + tl.where(d < half, d, d - half), mask=d < RD, other=0.0)
    turns = position.to(tl.float64) * step.to(tl.float64) * 0.15915494309189535
    angle = ((turns - tl.floor(turns)) * 6.283185307179586).to(tl.float32)
    return tl.cos(angle) * factor, tl.sin(angle) * tl.where(d < half, -factor, factor)


@triton.jit
def turned(base, inside, cos, sin, norm, eps, D: tl.constexpr, DP: tl.constexpr, RD: tl.constexpr,
           NORM: tl.constexpr):
    """Heads at `base` (n, 1), normed, and turned where RD is not 0: float32 (n, DP)."""
    d = tl.arange(0, DP)
    x = tl.load(base + d[None, :], mask=inside & (d < D)[None, :], other=0.0).to(tl.float32)
    half: tl.constexpr = RD // 2
    mate = tl.where(d < half, d + half, tl.where(d < RD, d - half, d))
    y = tl.load(base + mate[None, :], mask=inside & (mate < D)[None, :], other=0.0).to(tl.float32)
    if NORM:
        inverse = 1.0 / tl.sqrt(tl.sum(x * x, 1) / D + eps)
        x = x * inverse[:, None] * tl.load(norm + d, mask=d < D, other=0.0)[None, :]
        y = y * inverse[:, None] * tl.load(norm + mate, mask=mate < D, other=0.0)[None, :]
    if RD > 0:
        x = tl.where((d < RD)[None, :], x * cos[None, :] + y * sin[None, :], x)
    return x
