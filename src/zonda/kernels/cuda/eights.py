"""The kernels of matrices of eight-bit floats (E4M3)."""
from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from zonda.kernels.cuda.launch import kernel
from zonda.kernels.cuda.tiles import activate, joined


@triton.jit
def finish(first, second, bias, residual, out, r, n, rows, outs, stride, GATED: tl.constexpr, ACTIVATION: tl.constexpr,
           BIAS: tl.constexpr, RESIDUAL: tl.constexpr):
    """Bias, activation, residual and store of sums (rows r, outs n)."""
    mask = (r < rows)[:, None] & (n < outs)[None, :]
    at = r.to(tl.int64)[:, None] * stride + n[None, :]
    if BIAS:
        first += tl.load(bias + n, mask=n < outs, other=0.0)[None, :]
    if GATED:
        first = activate(first, ACTIVATION) * second
    if RESIDUAL:
        first += tl.load(residual + at, mask=mask, other=0.0)
    tl.store(out + at, first.to(out.dtype.element_ty), mask=mask)


@triton.jit
def _codes(codes, n, k, outs, INS: tl.constexpr):
    """E4M3 codes (outs n, columns k) as their bits."""
    mask = (n < outs)[:, None] & (k < INS)[None, :]
    return tl.load(codes + n.to(tl.int64)[:, None] * INS + k[None, :], mask=mask, other=0)


@triton.jit
def _fetch(codes, scales, n, outs, INS: tl.constexpr, UNITS: tl.constexpr, HEIGHT: tl.constexpr, WHOLE: tl.constexpr):
    """Codes of outs n in words of four, int32 (BN, UNITS, 4), and their scales, (BN,) or (BN, UNITS)."""
    u = tl.arange(0, UNITS)
    word = (u[:, None] * 4 + tl.arange(0, 4)[None, :])[None, :, :]
    mask = (n < outs)[:, None, None]
    if UNITS * 16 != INS:
        mask = mask & (word < INS // 4)
    words = tl.load(codes + n.to(tl.int64)[:, None, None] * (INS // 4) + word, mask=mask, other=0,
                    eviction_policy="evict_first")
    if WHOLE:
        return words, tl.load(scales + n // HEIGHT, mask=n < outs, other=0.0)
    else:
        at = (n // HEIGHT)[:, None] * ((INS + 127) // 128) + u[None, :] // 8
        return words, tl.load(scales + at, mask=(n < outs)[:, None] & (u * 16 < INS)[None, :], other=0.0)


@triton.jit
def _numbers(words, i: tl.constexpr, NATIVE: tl.constexpr):
    """Codes in byte i of words as float32: converted, or, times 2^-120, their bits put where float32 has them."""
    if NATIVE:
        return tl.inline_asm_elementwise("""{
        .reg .b16 low, high, even, odd;
        .reg .b32 pair;
        mov.b32 {low, high}, $1;
        cvt.rn.f16x2.e4m3x2 pair, """ + ("low" if i < 2 else "high") + """;
        mov.b32 {even, odd}, pair;
        cvt.f32.f16 $0, """ + ("odd" if i % 2 else "even") + """;
        }""", "=r,r", [words], dtype=tl.float32, is_pure=True, pack=1)
    else:
        return (((words << (24 - 8 * i)) >> 4) & -2014314496).to(tl.float32, bitcast=True)


@triton.jit
def _sums(x0, x1, x2, x3, words, scale, WHOLE: tl.constexpr, NATIVE: tl.constexpr):
    """Every fourth input from each of the first four (R, 1, UNITS, 4) on words of codes (BN, UNITS, 4) -> (R, BN)."""
    words = words[None, :, :, :]
    sums = x0 * _numbers(words, 0, NATIVE)
    sums += x1 * _numbers(words, 1, NATIVE)
    sums += x2 * _numbers(words, 2, NATIVE)
    sums = tl.sum(sums + x3 * _numbers(words, 3, NATIVE), axis=3)
    if WHOLE:
        return tl.sum(sums, axis=2) * scale[None, :]
    else:
        return tl.sum(sums * scale[None, :, :], axis=2)


@kernel(varying=("rows",))
def few(x, norm, eps, codes, scales, codes2, scales2, bias, residual, out, rows, outs, stride, INS: tl.constexpr,
        UNITS: tl.constexpr, R: tl.constexpr, BN: tl.constexpr, HEIGHT: tl.constexpr, WHOLE: tl.constexpr,
        HEIGHT2: tl.constexpr, WHOLE2: tl.constexpr, NORM: tl.constexpr, GATED: tl.constexpr,
        ACTIVATION: tl.constexpr, BIAS: tl.constexpr, RESIDUAL: tl.constexpr, TURNS: tl.constexpr,
        PDL: tl.constexpr, NATIVE: tl.constexpr):
    """x (rows, INS) in registers, on one block of BN outs after another, each loaded while the one before is used.

    `codes` are in words of four; NATIVE tells whether the processor converts them, which takes half the instructions.
    """
    if R <= 2:
        rows = R  # a constant: no mask
    start, step = tl.program_id(0), tl.num_programs(0)
    n = start * BN + tl.arange(0, BN)
    words, scale = _fetch(codes, scales, n, outs, INS, UNITS, HEIGHT, WHOLE)
    words2, scale2 = _fetch(codes2, scales2, n, outs, INS, UNITS, HEIGHT2, WHOLE2) if GATED else (words, scale)
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    r, k = tl.arange(0, R), tl.arange(0, UNITS * 16)
    mask = (r < rows)[:, None] & (k < INS)[None, :]
    inputs = tl.load(x + r[:, None] * INS + k[None, :], mask=mask, other=0.0).to(tl.float32)
    inverse = tl.rsqrt(tl.sum(inputs * inputs, axis=1) / INS + eps)[:, None] if NORM else 1.0
    if NORM:
        inputs = inputs * tl.load(norm + k, mask=k < INS, other=0.0)[None, :]
    if not NATIVE:
        inputs = inputs * 1152921504606846976.0  # 2^60 here and in the sums for the 2^-120 of the numbers
        inverse = inverse * 1152921504606846976.0
    even, odd = tl.split(tl.reshape(inputs, (R, 1, UNITS, 4, 2, 2)))
    x0, x2 = tl.split(even)
    x1, x3 = tl.split(odd)
    for turn in range(TURNS):
        n = (start + turn * step) * BN + tl.arange(0, BN)
        ahead, fresh, ahead2, fresh2 = words, scale, words2, scale2
        if TURNS > 1:
            ahead, fresh = _fetch(codes, scales, n + step * BN, outs, INS, UNITS, HEIGHT, WHOLE)
            ahead2, fresh2 = ahead, fresh
            if GATED:
                ahead2, fresh2 = _fetch(codes2, scales2, n + step * BN, outs, INS, UNITS, HEIGHT2, WHOLE2)
        sums = _sums(x0, x1, x2, x3, words, scale, WHOLE, NATIVE) * inverse
        sums2 = _sums(x0, x1, x2, x3, words2, scale2, WHOLE2, NATIVE) * inverse if GATED else sums
        finish(sums, sums2, bias, residual, out, r, n, rows, outs, stride, GATED, ACTIVATION, BIAS, RESIDUAL)
        words, scale, words2, scale2 = ahead, fresh, ahead2, fresh2


@triton.jit
def _scale_of_block(scales, n, block, outs, INS: tl.constexpr, HEIGHT: tl.constexpr, WHOLE: tl.constexpr):
    """What rows n are multiplied with in the columns of one block of 128."""
    if WHOLE:
        return tl.load(scales + n // HEIGHT, mask=n < outs, other=0.0)
    else:
        return tl.load(scales + n // HEIGHT * ((INS + 127) // 128) + block, mask=n < outs, other=0.0)


@triton.jit
def _added(sums, inputs, codes, scales, n, first, outs, INS: tl.constexpr, BK: tl.constexpr, DOT: tl.constexpr,
           HEIGHT: tl.constexpr, WHOLE: tl.constexpr):
    """Sums (BN, BM) with those of columns first … first+BK-1: rows n of a matrix times inputs (BK, BM)."""
    k = first + tl.arange(0, BK)[None, :]
    at = codes + n.to(tl.int64)[:, None] * INS + k
    bits = tl.load(at) if INS % BK == 0 else tl.load(at, mask=k < INS, other=0)
    weights = bits.to(tl.float8e4nv, bitcast=True).to(DOT)
    if WHOLE:
        return tl.dot(weights, inputs, sums, input_precision="ieee")
    else:
        scale = _scale_of_block(scales, n, first // 128, outs, INS, HEIGHT, WHOLE)[:, None]
        return sums + tl.dot(weights, inputs, input_precision="ieee") * scale


@kernel(varying=("rows",))
def some(x, codes, scales, codes2, scales2, bias, residual, parts, arrived, out, rows, outs, stride, INS: tl.constexpr,
         BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, STAGES: tl.constexpr, SPLITS: tl.constexpr,
         DOT: tl.constexpr, HEIGHT: tl.constexpr, WHOLE: tl.constexpr, HEIGHT2: tl.constexpr, WHOLE2: tl.constexpr,
         GATED: tl.constexpr, ACTIVATION: tl.constexpr, BIAS: tl.constexpr, RESIDUAL: tl.constexpr, PDL: tl.constexpr):
    """x (rows, INS) on a matrix; codes become numbers in registers, where the tensor cores take them from.

    Programs (tiles, SPLITS) share the columns of a tile, and the last to come adds their sums.
    """
    blocks = tl.cdiv(rows, BM)
    r = tl.program_id(0) % blocks * BM + tl.arange(0, BM)
    n = tl.program_id(0) // blocks * BN + tl.arange(0, BN)
    live, mine = tl.minimum(n, outs - 1), tl.minimum(r, rows - 1).to(tl.int64)
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    sums = tl.zeros((BN, BM), tl.float32)
    sums2 = tl.zeros((BN, BM), tl.float32)
    SPAN: tl.constexpr = (INS + BK * SPLITS - 1) // (BK * SPLITS) * BK
    start = tl.program_id(1) * SPAN
    for first in tl.range(start, min(start + SPAN, INS), BK, num_stages=STAGES):
        k = first + tl.arange(0, BK)[None, :]
        at = x + mine[:, None] * INS + k
        inputs = tl.trans((tl.load(at) if INS % BK == 0 else tl.load(at, mask=k < INS, other=0.0)).to(DOT))
        sums = _added(sums, inputs, codes, scales, live, first, outs, INS, BK, DOT, HEIGHT, WHOLE)
        if GATED:
            sums2 = _added(sums2, inputs, codes2, scales2, live, first, outs, INS, BK, DOT, HEIGHT2, WHOLE2)
    last = True
    if SPLITS > 1:
        last, sums, sums2 = joined(sums, sums2, parts, arrived, SPLITS, GATED)
    if last:
        if WHOLE:
            sums *= _scale_of_block(scales, live, 0, outs, INS, HEIGHT, WHOLE)[:, None]
        if WHOLE2:
            sums2 *= _scale_of_block(scales2, live, 0, outs, INS, HEIGHT2, WHOLE2)[:, None]
        finish(tl.trans(sums), tl.trans(sums2), bias, residual, out, r, n, rows, outs, stride, GATED, ACTIVATION, BIAS,
               RESIDUAL)


@triton.jit
def store_rounded(values, codes, scales, row, given, INS: tl.constexpr, GROUP: tl.constexpr, GIVEN: tl.constexpr):
    """A row of values as E4M3 codes, and the scale of each GROUP columns, `given` or that of the largest."""
    SPAN: tl.constexpr = values.shape[0]
    COUNT: tl.constexpr = SPAN // GROUP
    values = tl.reshape(values, [COUNT, GROUP])
    largest = tl.max(tl.abs(values), axis=1)
    scale = tl.where(largest > 0, largest / 448.0, 1.0)
    if GIVEN:
        scale = tl.zeros([COUNT], tl.float32) + given
    rounded = tl.clamp(values / scale[:, None], -448.0, 448.0).to(tl.float8e4nv).to(tl.uint8, bitcast=True)
    k, g = tl.arange(0, SPAN), tl.arange(0, COUNT)
    tl.store(codes + row * INS + k, tl.reshape(rounded, [SPAN]), mask=k < INS)
    GROUPS: tl.constexpr = (INS + GROUP - 1) // GROUP
    tl.store(scales + row * GROUPS + g, scale, mask=g < GROUPS)


@kernel
def round_rows(x, up, norm, eps, codes, scales, given, INS: tl.constexpr, SPAN: tl.constexpr, GROUP: tl.constexpr,
               NORM: tl.constexpr, GATED: tl.constexpr, ACTIVATION: tl.constexpr, GIVEN: tl.constexpr):
    """norm(x), or activation(x) · up, of one row as `store_rounded` rounds it."""
    row = tl.program_id(0).to(tl.int64)
    k = tl.arange(0, SPAN)
    values = tl.load(x + row * INS + k, mask=k < INS, other=0.0).to(tl.float32)
    if GATED:
        values = activate(values, ACTIVATION) * tl.load(up + row * INS + k, mask=k < INS, other=0.0).to(tl.float32)
    if NORM:
        inverse = tl.rsqrt(tl.sum(values * values, axis=0) / INS + eps)
        values = values * inverse * tl.load(norm + k, mask=k < INS, other=0.0)
    store_rounded(values, codes, scales, row, given, INS, GROUP, GIVEN)


@kernel(varying=("rows",))
def by_blocks(x, x_scales, codes, scales, out, rows, outs, INS: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
              HEIGHT: tl.constexpr):
    """Codes on codes, each 128 columns with their scales on either side -> out (rows, outs)."""
    blocks = tl.cdiv(rows, BM)
    r = tl.program_id(0) % blocks * BM + tl.arange(0, BM)
    n = tl.program_id(0) // blocks * BN + tl.arange(0, BN)
    sums = tl.zeros([BM, BN], tl.float32)
    for start in range(0, INS, 128):
        k = start + tl.arange(0, 128)
        mine = _codes(x, r, k, rows, INS).to(tl.float8e4nv, bitcast=True)
        theirs = _codes(codes, n, k, outs, INS).to(tl.float8e4nv, bitcast=True)
        part = tl.dot(mine, tl.trans(theirs))
        scale = _scale_of_block(x_scales, r, start // 128, rows, INS, 1, False)
        sums += part * scale[:, None] * _scale_of_block(scales, n, start // 128, outs, INS, HEIGHT, False)[None, :]
    at = r.to(tl.int64)[:, None] * outs + n[None, :]
    tl.store(out + at, sums.to(out.dtype.element_ty), mask=(r < rows)[:, None] & (n < outs)[None, :])


@kernel(varying=("rows",))
def end(first, second, bias, residual, out, rows, outs, stride, BN: tl.constexpr, GATED: tl.constexpr,
        ACTIVATION: tl.constexpr, BIAS: tl.constexpr, RESIDUAL: tl.constexpr):
    """What `finish` does, for a row of products from memory (rows, outs)."""
    r = tl.program_id(0) + tl.arange(0, 1)
    n = tl.program_id(1) * BN + tl.arange(0, BN)
    at = r.to(tl.int64)[:, None] * outs + n[None, :]
    sums = tl.load(first + at, mask=(n < outs)[None, :], other=0.0).to(tl.float32)
    sums2 = tl.load(second + at, mask=(n < outs)[None, :], other=0.0).to(tl.float32) if GATED else sums
    finish(sums, sums2, bias, residual, out, r, n, rows, outs, stride, GATED, ACTIVATION, BIAS, RESIDUAL)
