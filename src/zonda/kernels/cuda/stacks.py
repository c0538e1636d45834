"""Tiles of one expert's matrix, whatever the format, decoded in registers: (outs, columns) float32.

The layouts are those of `kernels/torch/packed.py` and `kernels/torch/float8.py`. Rows count through all matrices.
"""
from __future__ import annotations

import triton
import triton.language as tl

from zonda.kernels.cuda.tiles import half

DENSE, FLOAT8, PACKED = 0, 1, 2
"""What `tile` is told of a matrix."""


@triton.jit
def dense_tile(values, row, live, k, INS: tl.constexpr):
    """Rows `row` and columns `k` of floats in rows."""
    at = row.to(tl.int64)[:, None] * INS + k[None, :]
    return tl.load(values + at, mask=live[:, None] & (k < INS)[None, :], other=0.0)


@triton.jit
def float8_tile(codes, scales, row, n, expert, live, start, INS: tl.constexpr, BK: tl.constexpr, OUTS: tl.constexpr,
                HEIGHT: tl.constexpr, WHOLE: tl.constexpr):
    """The same of E4M3 codes with scales, for the BK columns from `start`; row `n` of the expert is `row` of all."""
    BN: tl.constexpr = row.shape[0]
    BLOCKS: tl.constexpr = (INS + 127) // 128
    k = start + tl.arange(0, BK)
    mask = live[:, None] & (k < INS)[None, :]
    bits = tl.load(codes + row.to(tl.int64)[:, None] * INS + k[None, :], mask=mask, other=0)
    values = bits.to(tl.float8e4nv, bitcast=True).to(tl.float32)
    line = expert * ((OUTS + HEIGHT - 1) // HEIGHT) + n // HEIGHT
    if WHOLE:
        return values * tl.load(scales + line, mask=live, other=0.0)[:, None]
    elif BK <= 128:
        return values * tl.load(scales + line * BLOCKS + start // 128, mask=live, other=0.0)[:, None]
    else:
        g = start // 128 + tl.arange(0, BK // 128)
        scale = tl.load(scales + line[:, None] * BLOCKS + g[None, :], mask=live[:, None] & (g < BLOCKS)[None, :],
                        other=0.0)
        return values * tl.reshape(tl.broadcast_to(scale[:, :, None], [BN, BK // 128, 128]), [BN, BK])


@triton.jit
def packed_tile(low, high, scales, heads, row, live, start, INS: tl.constexpr, BK: tl.constexpr, LOW: tl.constexpr,
                HIGH: tl.constexpr, GROUP: tl.constexpr, OFFSET: tl.constexpr, MINS: tl.constexpr, TWO: tl.constexpr):
    """The same of packed integers, for the BK columns from `start`: whole units."""
    UNIT: tl.constexpr = 128 // LOW
    UNITS: tl.constexpr = INS // UNIT
    BN: tl.constexpr = row.shape[0]
    n = row.to(tl.int64)[:, None, None, None]
    u = start // UNIT + tl.arange(0, BK // UNIT)[None, :, None, None]
    i = tl.arange(0, 32 // LOW)[None, None, :, None]
    j = tl.arange(0, 4)[None, None, None, :]
    mask = live[:, None, None, None] & (u < UNITS)
    codes = (tl.load(low + n * (UNITS * 4) + 4 * u + j, mask=mask, other=0) >> (LOW * i)) & ((1 << LOW) - 1)
    if HIGH > 0:
        SLOTS: tl.constexpr = LOW // HIGH
        above = tl.load(high + n * (UNITS * (4 // SLOTS)) + (4 // SLOTS) * u + j // SLOTS, mask=mask, other=0)
        codes = codes | (((above >> (LOW * i + HIGH * (j % SLOTS))) & ((1 << HIGH) - 1)) << LOW)
    column = u * UNIT + 4 * i
    step = tl.load(scales + n * (INS // GROUP) + column // GROUP, mask=mask, other=0)
    if TWO:
        head = tl.load(heads + n * (INS // 256) + column // 256, mask=mask, other=0)
    values = codes.to(tl.float32) - OFFSET
    if MINS:
        if TWO:
            values = (values * ((step & 255).to(tl.float32) * half(head, False))
                      - ((step >> 8) & 255).to(tl.float32) * half(head, True))
        else:
            values = values * half(step, False) - half(step, True)
    elif TWO:
        values = values * (step.to(tl.float32) * head.to(tl.float32))
    else:
        values = values * step.to(tl.float32)
    return tl.reshape(values, [BN, BK])


@triton.jit
def tile(a, b, c, d, n, expert, start, OUTS: tl.constexpr, INS: tl.constexpr, BK: tl.constexpr, KIND: tl.constexpr,
         P0: tl.constexpr, P1: tl.constexpr, P2: tl.constexpr, P3: tl.constexpr, P4: tl.constexpr, P5: tl.constexpr):
    """Rows `n` of an expert's matrix and BK columns from `start`; tensors and constants as `experts.py` gives them."""
    row = expert * OUTS + n
    live = n < OUTS
    if KIND == 0:
        return dense_tile(a, row, live, start + tl.arange(0, BK), INS)
    elif KIND == 1:
        return float8_tile(a, b, row, n, expert, live, start, INS, BK, OUTS, P0, P1)
    else:
        return packed_tile(a, b, c, d, row, live, start, INS, BK, P0, P1, P2, P3, P4, P5)
