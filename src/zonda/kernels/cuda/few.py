"""Products of one to four rows with a matrix: bound by memory, so everything around them is fused into one launch.

The whole input lies in the registers of a program, which then walks over blocks of outs; each block's weights are
loaded one block ahead. The first block's loads are issued before the kernel waits for the one before it. Weights are
the first to leave the cache, which keeps what kernels hand to each other.
"""
from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from zonda.kernels.cuda.launch import kernel
from zonda.kernels.cuda.tiles import activate, place_of, power_of_two, spread, steps_of, tiny


@triton.jit
def inverse_root(squares, INS: tl.constexpr, eps):
    return tl.rsqrt(squares / INS + eps)


@triton.jit
def finish(first, second, inverse, bias, residual, out, rows, top, n, live, stride, R: tl.constexpr,
           NORM: tl.constexpr, GATED: tl.constexpr, ACTIVATION: tl.constexpr, BIAS: tl.constexpr,
           RESIDUAL: tl.constexpr):
    """Sums (R, BN) of rows from `top` and outs n: norm, bias, activation, residual, store."""
    if NORM:
        first = first * inverse
    if BIAS:
        first += tl.load(bias + n, mask=n < live, other=0.0)[None, :]
    if GATED:
        if NORM:
            second = second * inverse
        first = activate(first, ACTIVATION) * second
    r = (top + tl.arange(0, R))[:, None]
    at = r.to(tl.int64) * stride + n[None, :]
    mask = (r < rows) & (n[None, :] < live)
    if RESIDUAL:
        first += tl.load(residual + at, mask=mask, other=0.0)
    tl.store(out + at, first.to(out.dtype.element_ty), mask=mask)


@triton.jit
def _dense_block(values, block, outs, INS: tl.constexpr, SPAN: tl.constexpr, BN: tl.constexpr):
    n = (block * BN + tl.arange(0, BN))[None, :, None]
    k = tl.arange(0, SPAN)[None, None, :]
    mask = n < outs
    if SPAN != INS:
        mask = mask & (k < INS)
    return tl.load(values + n.to(tl.int64) * INS + k, mask=mask, other=0.0, eviction_policy="evict_first")


@triton.jit
def _dense_sums(x, weights):
    return tl.sum(x * weights.to(tl.float32), axis=2)


@kernel(varying=("rows",))
def few_dense(x, norm, eps, values, values2, bias, residual, out, rows, outs, stride,
              INS: tl.constexpr, SPAN: tl.constexpr, R: tl.constexpr, BN: tl.constexpr, NORM: tl.constexpr,
              GATED: tl.constexpr, ACTIVATION: tl.constexpr, BIAS: tl.constexpr, RESIDUAL: tl.constexpr,
              TURNS: tl.constexpr, PDL: tl.constexpr):
    """x (rows, INS) on dense (outs, INS) -> out (rows, stride), a program taking TURNS blocks."""
    if R <= 2:
        rows = R  # a constant: no mask
    start = tl.program_id(0)
    step = tl.num_programs(0)
    first = _dense_block(values, start, outs, INS, SPAN, BN)
    second = _dense_block(values2, start, outs, INS, SPAN, BN) if GATED else first
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    r = tl.arange(0, R)[:, None, None]
    k = tl.arange(0, SPAN)[None, None, :]
    inputs = tl.load(x + r * INS + k, mask=(r < rows) & (k < INS), other=0.0).to(tl.float32)
    inverse = inverse_root(tl.sum(inputs * inputs, axis=2), INS, eps)
    if NORM:
        inputs = inputs * tl.load(norm + k, mask=k < INS, other=0.0)
    for turn in range(TURNS):
        block = start + turn * step
        ahead, ahead2 = first, second
        if TURNS > 1:
            ahead = _dense_block(values, block + step, outs, INS, SPAN, BN)
            ahead2 = _dense_block(values2, block + step, outs, INS, SPAN, BN) if GATED else ahead
        sums = _dense_sums(inputs, first)
        sums2 = _dense_sums(inputs, second) if GATED else sums
        n = block * BN + tl.arange(0, BN)
        finish(sums, sums2, inverse, bias, residual, out, rows, 0, n, outs, stride, R, NORM, GATED, ACTIVATION, BIAS,
               RESIDUAL)
        first, second = ahead, ahead2


@triton.jit
def _low_block(low, block, outs, UNITS: tl.constexpr, SPAN: tl.constexpr, BN: tl.constexpr):
    """Low bits of a block of outs, int32 (SPAN, 1, BN, 1, 4)."""
    n = (block * BN + tl.arange(0, BN))[None, None, :, None, None]
    u = tl.arange(0, SPAN)[:, None, None, None, None]
    j = tl.arange(0, 4)[None, None, None, None, :]
    at = n.to(tl.int64) * (4 * UNITS) + (4 * u + j)
    return tl.load(low + at, mask=(n < outs) & (u < UNITS), other=0, eviction_policy="evict_first")


@triton.jit
def _high_block(high, block, outs, one, WORDS: tl.constexpr, WORD: tl.constexpr, UNITS: tl.constexpr,
                SPAN: tl.constexpr, BN: tl.constexpr):
    """One word of high bits of each unit, int32 (SPAN, 1, BN, 1, 1)."""
    n = (block * BN + tl.arange(0, BN))[None, None, :, None, None]
    u = tl.arange(0, SPAN)[:, None, None, None, None]
    at = n.to(tl.int64) * (WORDS * UNITS) + WORDS * u * one + WORD
    return tl.load(high + at, mask=(n < outs) & (u < UNITS), other=0)


@triton.jit
def _group_block(values, block, outs, one, part: tl.constexpr, UNIT: tl.constexpr, GROUP: tl.constexpr,
                 UNITS: tl.constexpr, SPAN: tl.constexpr, BN: tl.constexpr):
    """What is stored for the group that part `part` of each unit lies in, (SPAN, 1, BN).

    `one` is 1: that it may not be makes neighbours fall to neighbouring threads, as the units do.
    """
    n = (block * BN + tl.arange(0, BN))[None, None, :]
    u = tl.arange(0, SPAN)[:, None, None]
    group = u * one * UNIT // GROUP + part
    at = n.to(tl.int64) * (UNITS * UNIT // GROUP) + group
    return tl.load(values + at, mask=(n < outs) & (u < UNITS), other=0)


@triton.jit
def _fetch(low, high, scales, heads, block, outs, one, LOW: tl.constexpr, HIGH: tl.constexpr, GROUP: tl.constexpr,
           TWO: tl.constexpr, UNITS: tl.constexpr, SPAN: tl.constexpr, BN: tl.constexpr):
    """All that is stored of a block of outs: low bits, two words of high bits, the scales of four parts, heads."""
    UNIT: tl.constexpr = 128 // LOW
    words = _low_block(low, block, outs, UNITS, SPAN, BN)
    high0, high1 = words, words
    if HIGH > 0:
        HIGH_WORDS: tl.constexpr = 4 * HIGH // LOW
        high0 = _high_block(high, block, outs, one, HIGH_WORDS, 0, UNITS, SPAN, BN)
        high1 = high0
        if HIGH_WORDS == 2:
            high1 = _high_block(high, block, outs, one, HIGH_WORDS, 1, UNITS, SPAN, BN)
    scales0 = _group_block(scales, block, outs, one, 0, UNIT, GROUP, UNITS, SPAN, BN)
    scales1, scales2, scales3, head = scales0, scales0, scales0, scales0
    if UNIT // GROUP >= 2:
        scales1 = _group_block(scales, block, outs, one, 1, UNIT, GROUP, UNITS, SPAN, BN)
    if UNIT // GROUP == 4:
        scales2 = _group_block(scales, block, outs, one, 2, UNIT, GROUP, UNITS, SPAN, BN)
        scales3 = _group_block(scales, block, outs, one, 3, UNIT, GROUP, UNITS, SPAN, BN)
    if TWO:
        head = _group_block(heads, block, outs, one, 0, UNIT, 256, UNITS, SPAN, BN)
    return words, high0, high1, scales0, scales1, scales2, scales3, head


@triton.jit
def _input_part(x, norm, rows, part: tl.constexpr, PARTS: tl.constexpr, LOW: tl.constexpr, INS: tl.constexpr,
                SPAN: tl.constexpr, R: tl.constexpr, NORM: tl.constexpr):
    """Part `part` of every unit's columns, (SPAN, R, 1, fields, 4), and its sum of squares (R, 1) before the norm."""
    UNIT: tl.constexpr = 128 // LOW
    COLUMNS: tl.constexpr = UNIT // PARTS
    r = tl.arange(0, R)[None, :, None]
    k = tl.arange(0, SPAN)[:, None, None] * UNIT + part * COLUMNS + tl.arange(0, COLUMNS)[None, None, :]
    inputs = tl.load(x + r * INS + k, mask=(r < rows) & (k < INS), other=0.0).to(tl.float32)
    squares = tl.sum(tl.sum(inputs * inputs, axis=2), axis=0)[:, None]
    if NORM:
        inputs = inputs * tl.load(norm + k, mask=k < INS, other=0.0)
    return tl.reshape(inputs, (SPAN, R, 1, COLUMNS // 4, 4)), squares


@triton.jit
def _scaled(inputs, part: tl.constexpr, PARTS: tl.constexpr, LOW: tl.constexpr, HIGH: tl.constexpr):
    """Inputs times 2^(90 - place), which brings products with `tiny` codes to 2^-59 of their size."""
    FIELDS: tl.constexpr = 32 // LOW // PARTS
    i = part * FIELDS + tl.arange(0, FIELDS)[None, None, None, :, None]
    return inputs * power_of_two(90 - place_of(i, LOW, HIGH))


@triton.jit
def _part_sums(scaled, total, low, high0, high1, scales, heads, part: tl.constexpr, PARTS: tl.constexpr,
               LOW: tl.constexpr, HIGH: tl.constexpr, OFFSET: tl.constexpr, MINS: tl.constexpr, TWO: tl.constexpr):
    """One part's share of the sums, (SPAN, R, BN)."""
    FIELDS: tl.constexpr = 32 // LOW // PARTS
    i = part * FIELDS + tl.arange(0, FIELDS)[None, None, None, :, None]
    high = low
    if HIGH > 0:
        high = spread(high0, high1, LOW, HIGH, tl.arange(0, 4)[None, None, None, None, :])
    codes = tiny(low, high, i, LOW, HIGH)
    sums = tl.sum(tl.sum(scaled * codes, axis=4), axis=3)
    scale, minimum = steps_of(scales, heads, OFFSET, MINS, TWO)
    return sums * (scale * 576460752303423488.0) - total * minimum


@triton.jit
def _packed_sums(x0, x1, x2, x3, t0, t1, t2, t3, held, LOW: tl.constexpr, HIGH: tl.constexpr, GROUP: tl.constexpr,
                 OFFSET: tl.constexpr, MINS: tl.constexpr, TWO: tl.constexpr):
    PARTS: tl.constexpr = 128 // LOW // GROUP if 128 // LOW > GROUP else 1
    low, high0, high1, s0, s1, s2, s3, heads = held
    sums = _part_sums(x0, t0, low, high0, high1, s0, heads, 0, PARTS, LOW, HIGH, OFFSET, MINS, TWO)
    if PARTS >= 2:
        sums += _part_sums(x1, t1, low, high0, high1, s1, heads, 1, PARTS, LOW, HIGH, OFFSET, MINS, TWO)
    if PARTS == 4:
        sums += _part_sums(x2, t2, low, high0, high1, s2, heads, 2, PARTS, LOW, HIGH, OFFSET, MINS, TWO)
        sums += _part_sums(x3, t3, low, high0, high1, s3, heads, 3, PARTS, LOW, HIGH, OFFSET, MINS, TWO)
    return tl.sum(sums, axis=0)


@triton.jit
def _total(inputs):
    """(SPAN, R, 1, fields, 4) -> (SPAN, R, 1)."""
    return tl.sum(tl.sum(inputs, axis=4), axis=3)


@kernel(varying=("rows",))
def few_packed(x, norm, eps, low, high, scales, heads, low2, high2, scales2, heads2, bias, residual, out, rows, outs,
               stride, one, INS: tl.constexpr, SPAN: tl.constexpr, R: tl.constexpr, BN: tl.constexpr,
               LOW: tl.constexpr, HIGH: tl.constexpr, GROUP: tl.constexpr, OFFSET: tl.constexpr, MINS: tl.constexpr,
               TWO: tl.constexpr, NORM: tl.constexpr, GATED: tl.constexpr, ACTIVATION: tl.constexpr,
               BIAS: tl.constexpr, RESIDUAL: tl.constexpr, TURNS: tl.constexpr, PDL: tl.constexpr):
    """x (rows, INS) on a packed matrix (outs, INS) -> out (rows, stride), a program taking TURNS blocks."""
    UNITS: tl.constexpr = INS * LOW // 128
    PARTS: tl.constexpr = 128 // LOW // GROUP if 128 // LOW > GROUP else 1
    if R <= 2:
        rows = R  # a constant: no mask
    start = tl.program_id(0)
    step = tl.num_programs(0)
    held = _fetch(low, high, scales, heads, start, outs, one, LOW, HIGH, GROUP, TWO, UNITS, SPAN, BN)
    held2 = held
    if GATED:
        held2 = _fetch(low2, high2, scales2, heads2, start, outs, one, LOW, HIGH, GROUP, TWO, UNITS, SPAN, BN)
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    x0, squares = _input_part(x, norm, rows, 0, PARTS, LOW, INS, SPAN, R, NORM)
    t0, x0 = _total(x0), _scaled(x0, 0, PARTS, LOW, HIGH)
    x1, x2, x3, t1, t2, t3 = x0, x0, x0, t0, t0, t0
    if PARTS >= 2:
        x1, more = _input_part(x, norm, rows, 1, PARTS, LOW, INS, SPAN, R, NORM)
        t1, x1, squares = _total(x1), _scaled(x1, 1, PARTS, LOW, HIGH), squares + more
    if PARTS == 4:
        x2, more = _input_part(x, norm, rows, 2, PARTS, LOW, INS, SPAN, R, NORM)
        t2, x2, squares = _total(x2), _scaled(x2, 2, PARTS, LOW, HIGH), squares + more
        x3, more = _input_part(x, norm, rows, 3, PARTS, LOW, INS, SPAN, R, NORM)
        t3, x3, squares = _total(x3), _scaled(x3, 3, PARTS, LOW, HIGH), squares + more
    inverse = inverse_root(squares, INS, eps)
    for turn in range(TURNS):
        block = start + turn * step
        ahead, ahead2 = held, held2
        if TURNS > 1:
            ahead = _fetch(low, high, scales, heads, block + step, outs, one, LOW, HIGH, GROUP, TWO, UNITS, SPAN, BN)
            ahead2 = ahead
            if GATED:
                ahead2 = _fetch(low2, high2, scales2, heads2, block + step, outs, one, LOW, HIGH, GROUP, TWO, UNITS,
                                SPAN, BN)
        sums = _packed_sums(x0, x1, x2, x3, t0, t1, t2, t3, held, LOW, HIGH, GROUP, OFFSET, MINS, TWO)
        sums2 = sums
        if GATED:
            sums2 = _packed_sums(x0, x1, x2, x3, t0, t1, t2, t3, held2, LOW, HIGH, GROUP, OFFSET, MINS, TWO)
        n = block * BN + tl.arange(0, BN)
        finish(sums, sums2, inverse, bias, residual, out, rows, 0, n, outs, stride, R, NORM, GATED, ACTIVATION, BIAS,
               RESIDUAL)
        held, held2 = ahead, ahead2
