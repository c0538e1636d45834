"""Experts on few rows: each slot, one of the `top` places of a row, reads the weights of its own expert."""
from __future__ import annotations

import triton.language as tl

from zonda.kernels.cuda.grouped import ranks, share
from zonda.kernels.cuda.launch import kernel
from zonda.kernels.cuda.stacks import tile
from zonda.kernels.cuda.tiles import activate


@kernel
def normed(x, weight, eps, hidden, wide, COLS: tl.constexpr, SPAN: tl.constexpr, NORM: tl.constexpr):
    """norm(x) of one row, in the compute type and in float32."""
    at = tl.program_id(0) * COLS + tl.arange(0, SPAN)
    k = tl.arange(0, SPAN)
    own = tl.load(x + at, mask=k < COLS, other=0.0).to(tl.float32)
    if NORM:
        own = own * tl.rsqrt(tl.sum(own * own, axis=0) / COLS + eps) * tl.load(weight + k, mask=k < COLS, other=0.0)
    tl.store(hidden + at, own.to(hidden.dtype.element_ty), mask=k < COLS)
    tl.store(wide + at, own, mask=k < COLS)


@kernel
def route(x, weight, eps, router, hidden, logits, COLS: tl.constexpr, SPAN: tl.constexpr, E: tl.constexpr,
          BE: tl.constexpr, NORM: tl.constexpr):
    """Logits of some experts for one row; the first program of a row also leaves norm(x)."""
    row = tl.program_id(0)
    k = tl.arange(0, SPAN)
    e = tl.program_id(1) * BE + tl.arange(0, BE)
    mine = tl.load(router + e[:, None] * COLS + k[None, :], mask=(e < E)[:, None] & (k < COLS)[None, :], other=0.0)
    own = tl.load(x + row * COLS + k, mask=k < COLS, other=0.0).to(tl.float32)
    if NORM:
        own = own * tl.rsqrt(tl.sum(own * own, axis=0) / COLS + eps) * tl.load(weight + k, mask=k < COLS, other=0.0)
    tl.store(logits + row * E + e, tl.sum(mine.to(tl.float32) * own[None, :], axis=1), mask=e < E)
    if tl.program_id(1) == 0:
        tl.store(hidden + row * COLS + k, own.to(hidden.dtype.element_ty), mask=k < COLS)


@kernel
def gated_few(x, logits, chosen, shares, out, a, b, c, d, a2, b2, c2, d2, E: tl.constexpr, EP: tl.constexpr,
              TOP: tl.constexpr, NORMALIZE: tl.constexpr, OUTS: tl.constexpr, INS: tl.constexpr,
              ACTIVATION: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, KIND: tl.constexpr, P0: tl.constexpr,
              P1: tl.constexpr, P2: tl.constexpr, P3: tl.constexpr, P4: tl.constexpr, P5: tl.constexpr,
              KIND2: tl.constexpr, Q0: tl.constexpr, Q1: tl.constexpr, Q2: tl.constexpr, Q3: tl.constexpr,
              Q4: tl.constexpr, Q5: tl.constexpr):
    """activation(x gateᵀ) · (x upᵀ) of BN units of one slot, whose first program leaves its expert and share."""
    slot = tl.program_id(0)
    row = slot // TOP
    rank, own = ranks(logits + row * E, E, EP)
    expert, weight = share(own, rank, slot % TOP, TOP, NORMALIZE)
    if tl.program_id(1) == 0:
        tl.store(chosen + slot, expert)
        tl.store(shares + slot, weight)
    n = tl.program_id(1) * BN + tl.arange(0, BN)
    first = tl.zeros([BN], tl.float32)
    second = tl.zeros([BN], tl.float32)
    for start in tl.static_range(0, INS, BK):
        k = start + tl.arange(0, BK)
        gate = tile(a, b, c, d, n, expert, start, OUTS, INS, BK, KIND, P0, P1, P2, P3, P4, P5)
        up = tile(a2, b2, c2, d2, n, expert, start, OUTS, INS, BK, KIND2, Q0, Q1, Q2, Q3, Q4, Q5)
        mine = tl.load(x + row * INS + k, mask=k < INS, other=0.0).to(tl.float32)[None, :]
        first += tl.sum(gate.to(tl.float32) * mine, axis=1)
        second += tl.sum(up.to(tl.float32) * mine, axis=1)
    hidden = activate(first, ACTIVATION) * second
    tl.store(out + slot * OUTS + n, hidden.to(out.dtype.element_ty), mask=n < OUTS)


@kernel
def down_few(x, chosen, shares, residual, a, b, c, d, TOP: tl.constexpr, OUTS: tl.constexpr, INS: tl.constexpr,
             BN: tl.constexpr, BK: tl.constexpr, KIND: tl.constexpr, P0: tl.constexpr, P1: tl.constexpr,
             P2: tl.constexpr, P3: tl.constexpr, P4: tl.constexpr, P5: tl.constexpr):
    """residual + the sum over a row's slots of share · (x downᵀ), for BN columns; x (slots, INS)."""
    row = tl.program_id(0)
    n = tl.program_id(1) * BN + tl.arange(0, BN)
    total = tl.zeros([BN], tl.float32)
    for rank in tl.static_range(TOP):
        slot = row * TOP + rank
        expert = tl.load(chosen + slot)
        sums = tl.zeros([BN], tl.float32)
        for start in tl.static_range(0, INS, BK):
            k = start + tl.arange(0, BK)
            down = tile(a, b, c, d, n, expert, start, OUTS, INS, BK, KIND, P0, P1, P2, P3, P4, P5)
            mine = tl.load(x + slot * INS + k, mask=k < INS, other=0.0).to(tl.float32)
            sums += tl.sum(down.to(tl.float32) * mine[None, :], axis=1)
        total += tl.load(shares + slot) * sums
    at = residual + row * OUTS + n
    tl.store(at, tl.load(at, mask=n < OUTS, other=0.0) + total, mask=n < OUTS)
