"""Experts on many rows: slots sorted by expert on the device, one product for all experts, a sum in a fixed order.

A slot is one of the `top` places of a row: slot = row · top + rank. The grids follow from the shapes alone.
"""
from __future__ import annotations

import triton
import triton.language as tl

from zonda.kernels.cuda.launch import kernel
from zonda.kernels.cuda.stacks import tile
from zonda.kernels.cuda.tiles import activate


@triton.jit
def ranks(logits, E: tl.constexpr, EP: tl.constexpr):
    """The place of each expert by its logit, from 0; the first of equals comes before the others, no numbers last."""
    e = tl.arange(0, EP)
    own = tl.load(logits + e, mask=e < E, other=float("-inf"))
    own = tl.where(own == own, own, float("-inf"))
    rank = tl.zeros([EP], tl.int32)
    for start in tl.static_range(0, E, 32):
        other = start + tl.arange(0, 32)
        theirs = tl.load(logits + other, mask=other < E, other=float("-inf"))
        theirs = tl.where(theirs == theirs, theirs, float("-inf"))
        wins = theirs[None, :] > own[:, None]
        wins = wins | ((theirs[None, :] == own[:, None]) & (other[None, :] < e[:, None]))
        rank += tl.sum((wins & (other < E)[None, :]).to(tl.int32), axis=1)
    return tl.where(e < E, rank, EP), own


@triton.jit
def share(own, rank, which, TOP: tl.constexpr, NORMALIZE: tl.constexpr):
    """The expert of rank `which`, and its softmax weight among all, or among the chosen."""
    e = tl.arange(0, own.shape[0])
    weight = tl.exp(own - tl.max(own, axis=0))
    among = tl.where(rank < TOP, weight, 0.0) if NORMALIZE else weight
    expert = tl.sum(tl.where(rank == which, e, 0), axis=0)
    return expert, tl.sum(tl.where(rank == which, weight, 0.0), axis=0) / tl.sum(among, axis=0)


@kernel
def choose(logits, chosen, shares, E: tl.constexpr, EP: tl.constexpr, TOP: tl.constexpr, NORMALIZE: tl.constexpr):
    """The experts of one row, in the order of their ranks."""
    row = tl.program_id(0)
    rank, own = ranks(logits + row * E, E, EP)
    e = tl.arange(0, EP)
    weight = tl.exp(own - tl.max(own, axis=0))
    among = tl.where(rank < TOP, weight, 0.0) if NORMALIZE else weight
    tl.store(chosen + row * TOP + rank, e, mask=rank < TOP)
    tl.store(shares + row * TOP + rank, weight / tl.sum(among, axis=0), mask=rank < TOP)


@kernel(varying=("slots",))
def sort(chosen, starts, order, slots, E: tl.constexpr, BS: tl.constexpr):
    """The slots of one expert, in their own order: from `starts`[expert] on in `order`."""
    expert = tl.program_id(0)
    before = 0
    at = 0
    while at < slots:
        slot = at + tl.arange(0, BS)
        before += tl.sum((tl.load(chosen + slot, mask=slot < slots, other=E) < expert).to(tl.int32), axis=0)
        at += BS
    tl.store(starts + expert, before)
    at = 0
    while at < slots:
        slot = at + tl.arange(0, BS)
        mine = (tl.load(chosen + slot, mask=slot < slots, other=E) == expert).to(tl.int32)
        tl.store(order + before + tl.cumsum(mine, axis=0) - 1, slot, mask=mine > 0)
        before += tl.sum(mine, axis=0)
        at += BS
    if expert == E - 1:
        tl.store(starts + E, before)


@triton.jit
def place(starts, index, E: tl.constexpr, EP: tl.constexpr, BM: tl.constexpr):
    """The expert of a block of BM slots, and the block's place among the expert's; past all blocks expert E."""
    e = tl.arange(0, EP)
    first = tl.load(starts + e, mask=e < E, other=0)
    last = tl.load(starts + e + 1, mask=e < E, other=0)
    blocks = (last - first + BM - 1) // BM
    ends = tl.cumsum(blocks, axis=0)
    expert = tl.sum(((ends <= index) & (e < E)).to(tl.int32), axis=0)
    return expert, index - tl.sum(tl.where(e < expert, blocks, 0), axis=0)


@kernel
def gated_many(x, out, starts, order, a, b, c, d, a2, b2, c2, d2, E: tl.constexpr, EP: tl.constexpr,
               TOP: tl.constexpr, OUTS: tl.constexpr, INS: tl.constexpr, ACTIVATION: tl.constexpr, BM: tl.constexpr,
               BN: tl.constexpr, BK: tl.constexpr, KIND: tl.constexpr, P0: tl.constexpr, P1: tl.constexpr,
               P2: tl.constexpr, P3: tl.constexpr, P4: tl.constexpr, P5: tl.constexpr, KIND2: tl.constexpr,
               Q0: tl.constexpr, Q1: tl.constexpr, Q2: tl.constexpr, Q3: tl.constexpr, Q4: tl.constexpr,
               Q5: tl.constexpr):
    """activation(x gateᵀ) · (x upᵀ) of sorted slots; x (rows, INS), out (slots, OUTS) sorted."""
    expert, block = place(starts, tl.program_id(0) // tl.cdiv(OUTS, BN), E, EP, BM)
    if expert < E:
        n = (tl.program_id(0) % tl.cdiv(OUTS, BN)) * BN + tl.arange(0, BN)
        at = tl.load(starts + expert) + block * BM + tl.arange(0, BM)
        live = at < tl.load(starts + expert + 1)
        row = tl.load(order + at, mask=live, other=0) // TOP
        first = tl.zeros([BM, BN], tl.float32)
        second = tl.zeros([BM, BN], tl.float32)
        for start in range(0, INS, BK):
            k = start + tl.arange(0, BK)
            mine = tl.load(x + row[:, None] * INS + k[None, :], mask=live[:, None] & (k < INS)[None, :], other=0.0)
            gate = tile(a, b, c, d, n, expert, start, OUTS, INS, BK, KIND, P0, P1, P2, P3, P4, P5)
            first = tl.dot(mine, tl.trans(gate.to(mine.dtype)), first, input_precision="ieee")
            up = tile(a2, b2, c2, d2, n, expert, start, OUTS, INS, BK, KIND2, Q0, Q1, Q2, Q3, Q4, Q5)
            second = tl.dot(mine, tl.trans(up.to(mine.dtype)), second, input_precision="ieee")
        hidden = (activate(first, ACTIVATION) * second).to(out.dtype.element_ty)
        tl.store(out + at[:, None] * OUTS + n[None, :], hidden, mask=live[:, None] & (n < OUTS)[None, :])


@kernel
def down_many(x, out, starts, order, a, b, c, d, E: tl.constexpr, EP: tl.constexpr, OUTS: tl.constexpr,
              INS: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, KIND: tl.constexpr,
              P0: tl.constexpr, P1: tl.constexpr, P2: tl.constexpr, P3: tl.constexpr, P4: tl.constexpr,
              P5: tl.constexpr):
    """x downᵀ of sorted slots, put back to the slots' own places: x (slots, INS) sorted, out (slots, OUTS)."""
    expert, block = place(starts, tl.program_id(0) // tl.cdiv(OUTS, BN), E, EP, BM)
    if expert < E:
        n = (tl.program_id(0) % tl.cdiv(OUTS, BN)) * BN + tl.arange(0, BN)
        at = tl.load(starts + expert) + block * BM + tl.arange(0, BM)
        live = at < tl.load(starts + expert + 1)
        sums = tl.zeros([BM, BN], tl.float32)
        for start in range(0, INS, BK):
            k = start + tl.arange(0, BK)
            mine = tl.load(x + at[:, None] * INS + k[None, :], mask=live[:, None] & (k < INS)[None, :], other=0.0)
            down = tile(a, b, c, d, n, expert, start, OUTS, INS, BK, KIND, P0, P1, P2, P3, P4, P5)
            sums = tl.dot(mine, tl.trans(down.to(mine.dtype)), sums, input_precision="ieee")
        slot = tl.load(order + at, mask=live, other=0).to(tl.int64)
        tl.store(out + slot[:, None] * OUTS + n[None, :], sums.to(out.dtype.element_ty),
                 mask=live[:, None] & (n < OUTS)[None, :])


@kernel
def mix(parts, shares, residual, COLS: tl.constexpr, TOP: tl.constexpr, BC: tl.constexpr):
    """One row of residual + the sum of its slots' parts times their shares, in the order of ranks."""
    row = tl.program_id(0).to(tl.int64)
    col = tl.program_id(1) * BC + tl.arange(0, BC)
    live = col < COLS
    total = tl.zeros([BC], tl.float32)
    for k in tl.static_range(TOP):
        part = tl.load(parts + (row * TOP + k) * COLS + col, mask=live, other=0.0).to(tl.float32)
        total += tl.load(shares + row * TOP + k) * part
    at = residual + row * COLS + col
    tl.store(at, tl.load(at, mask=live, other=0.0) + total, mask=live)
