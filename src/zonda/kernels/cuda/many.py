"""Products of many rows with a matrix on the tensor cores; packed weights become numbers in registers, tile by tile."""
from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from zonda.kernels.cuda.few import finish, inverse_root
from zonda.kernels.cuda.launch import kernel
from zonda.kernels.cuda.tiles import codes_of, spread, steps_of


@triton.jit
def _codes(low, high, n, first, outs, INS: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, LOW: tl.constexpr,
           HIGH: tl.constexpr):
    """Codes of columns first … first+BK-1, int32 (BN, BK)."""
    UNIT: tl.constexpr = 128 // LOW
    UNITS: tl.constexpr = INS // UNIT
    rows = n[:, None, None, None]
    u = first // UNIT + tl.arange(0, BK // UNIT)[None, :, None, None]
    i = tl.arange(0, 32 // LOW)[None, None, :, None]
    j = tl.arange(0, 4)[None, None, None, :]
    mask = (rows < outs) & (u < UNITS)
    at = rows.to(tl.int64) * UNITS + u
    words = tl.load(low + at * 4 + j, mask=mask, other=0)
    above = words
    if HIGH > 0:
        HIGH_WORDS: tl.constexpr = 4 * HIGH // LOW
        above = tl.load(high + at * HIGH_WORDS, mask=mask, other=0)
        above = spread(above, tl.load(high + at * HIGH_WORDS + HIGH_WORDS - 1, mask=mask, other=0), LOW, HIGH, j)
    return tl.reshape(codes_of(words, above, i, LOW, HIGH), (BN, BK))


@triton.jit
def _per_column(values, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr):
    """(BN, BK / GROUP) -> (BN, BK)."""
    wide = tl.broadcast_to(values[:, :, None], (BN, BK // GROUP, GROUP))
    return tl.reshape(wide, (BN, BK))


@triton.jit
def packed_tile(low, high, scales, heads, n, first, outs, INS: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
                LOW: tl.constexpr, HIGH: tl.constexpr, GROUP: tl.constexpr, OFFSET: tl.constexpr, MINS: tl.constexpr,
                TWO: tl.constexpr):
    """Values of rows n at columns first … first+BK-1, float32 (BN, BK)."""
    codes = _codes(low, high, n, first, outs, INS, BN, BK, LOW, HIGH)
    g = first // GROUP + tl.arange(0, BK // GROUP)[None, :]
    mask = (n < outs)[:, None] & (g < INS // GROUP)
    rows = n.to(tl.int64)[:, None]
    stored = tl.load(scales + rows * (INS // GROUP) + g, mask=mask, other=0)
    head = stored
    if TWO:
        head = tl.load(heads + rows * (INS // 256) + g * GROUP // 256, mask=mask, other=0)
    scale, minimum = steps_of(stored, head, OFFSET, MINS, TWO)
    values = codes.to(tl.float32) * _per_column(scale, BN, BK, GROUP)
    if MINS or OFFSET > 0:
        values -= _per_column(minimum, BN, BK, GROUP)
    return values


@triton.jit
def _tile(low, high, scales, heads, n, first, outs, INS: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
          LOW: tl.constexpr, HIGH: tl.constexpr, GROUP: tl.constexpr, OFFSET: tl.constexpr, MINS: tl.constexpr,
          TWO: tl.constexpr):
    """A tile of weights (BN, BK): of floats, which have no bits that are low, as they are."""
    if LOW == 0:
        k = first + tl.arange(0, BK)[None, :]
        return tl.load(low + n.to(tl.int64)[:, None] * INS + k, mask=(n < outs)[:, None] & (k < INS), other=0.0)
    else:
        return packed_tile(low, high, scales, heads, n, first, outs, INS, BN, BK, LOW, HIGH, GROUP, OFFSET, MINS, TWO)


@kernel(varying=("rows",))
def many(x, norm, eps, low, high, scales, heads, low2, high2, scales2, heads2, bias, residual, out, rows, outs, stride,
         INS: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, STAGES: tl.constexpr,
         LOW: tl.constexpr, HIGH: tl.constexpr, GROUP: tl.constexpr, OFFSET: tl.constexpr, MINS: tl.constexpr,
         TWO: tl.constexpr, DOT: tl.constexpr, NORM: tl.constexpr, GATED: tl.constexpr, ACTIVATION: tl.constexpr,
         BIAS: tl.constexpr, RESIDUAL: tl.constexpr, PDL: tl.constexpr):
    """x (rows, INS) on a matrix (outs, INS), floats where LOW is 0 -> out (rows, stride); operands of type DOT."""
    # blocks of rows that share weights are neighbours, so that the weights come from memory once
    RANGE: tl.constexpr = 1.0 / 32 if NORM and tl.float16 == DOT else 1.0  # x that is not yet divided may be large
    blocks = tl.cdiv(rows, BM)
    top = tl.program_id(0) % blocks * BM
    n = tl.program_id(0) // blocks * BN + tl.arange(0, BN)
    r = top + tl.arange(0, BM)
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    sums = tl.zeros((BM, BN), tl.float32)
    sums2 = tl.zeros((BM, BN), tl.float32)
    squares = tl.zeros((BM, BK), tl.float32)
    for first in tl.range(0, INS, BK, num_stages=STAGES):
        k = first + tl.arange(0, BK)
        mask = (r < rows)[:, None] & (k < INS)[None, :]
        inputs = tl.load(x + r.to(tl.int64)[:, None] * INS + k[None, :], mask=mask, other=0.0)
        if NORM:
            inputs = inputs.to(tl.float32)
            squares += inputs * inputs
            inputs = inputs * (tl.load(norm + k, mask=k < INS, other=0.0) * RANGE)[None, :]
        inputs = inputs.to(DOT)
        weights = _tile(low, high, scales, heads, n, first, outs, INS, BN, BK, LOW, HIGH, GROUP, OFFSET, MINS, TWO)
        sums = tl.dot(inputs, tl.trans(weights.to(DOT)), sums, input_precision="ieee")
        if GATED:
            weights = _tile(low2, high2, scales2, heads2, n, first, outs, INS, BN, BK, LOW, HIGH, GROUP, OFFSET, MINS,
                            TWO)
            sums2 = tl.dot(inputs, tl.trans(weights.to(DOT)), sums2, input_precision="ieee")
    inverse = inverse_root(tl.sum(squares, axis=1), INS, eps)[:, None] / RANGE if NORM else 1.0
    finish(sums, sums2, inverse, bias, residual, out, rows, top, n, outs, stride, BM, NORM, GATED, ACTIVATION, BIAS,
           RESIDUAL)


@kernel
def unpack(low, high, scales, heads, out, outs, INS: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
           LOW: tl.constexpr, HIGH: tl.constexpr, GROUP: tl.constexpr, OFFSET: tl.constexpr, MINS: tl.constexpr,
           TWO: tl.constexpr):
    """A packed matrix as floats (outs, INS)."""
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    first = tl.program_id(1) * BK
    values = packed_tile(low, high, scales, heads, n, first, outs, INS, BN, BK, LOW, HIGH, GROUP, OFFSET, MINS, TWO)
    k = first + tl.arange(0, BK)[None, :]
    mask = (n < outs)[:, None] & (k < INS)
    tl.store(out + n.to(tl.int64)[:, None] * INS + k, values.to(out.dtype.element_ty), mask=mask)
