"""The kernels of matrices of eight-bit floats (E4M3)."""
from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from zonda.kernels.cuda.launch import kernel
from zonda.kernels.cuda.tiles import activate


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
def _values(bits):
    return bits.to(tl.float8e4nv, bitcast=True).to(tl.float32)


@triton.jit
def _sums(inputs, bits, scales, n, outs, INS: tl.constexpr, SPAN: tl.constexpr, R: tl.constexpr, BN: tl.constexpr,
          HEIGHT: tl.constexpr, WHOLE: tl.constexpr):
    """inputs (R, 1, SPAN) on codes (BN, SPAN) -> (R, BN)."""
    product = inputs * _values(bits)[None, :, :]
    if WHOLE:
        return tl.sum(product, axis=2) * tl.load(scales + n // HEIGHT, mask=n < outs, other=0.0)[None, :]
    else:
        COUNT: tl.constexpr = (INS + 127) // 128
        g = tl.arange(0, SPAN // 128)
        at = (n // HEIGHT)[:, None] * COUNT + g[None, :]
        scale = tl.load(scales + at, mask=(n < outs)[:, None] & (g < COUNT)[None, :], other=0.0)
        by_block = tl.sum(tl.reshape(product, [R, BN, SPAN // 128, 128]), axis=3)
        return tl.sum(by_block * scale[None, :, :], axis=2)


@kernel(varying=("rows",))
def few(x, norm, eps, codes, scales, codes2, scales2, bias, residual, out, rows, outs, stride, INS: tl.constexpr,
        SPAN: tl.constexpr, R: tl.constexpr, BN: tl.constexpr, HEIGHT: tl.constexpr, WHOLE: tl.constexpr,
        HEIGHT2: tl.constexpr, WHOLE2: tl.constexpr, NORM: tl.constexpr, GATED: tl.constexpr,
        ACTIVATION: tl.constexpr, BIAS: tl.constexpr, RESIDUAL: tl.constexpr, TURNS: tl.constexpr,
        PDL: tl.constexpr):
    """x (rows, INS) in registers, on one block of BN outs after another, each loaded while the one before is used."""
    if R <= 2:
        rows = R  # a constant: no mask
    start, step = tl.program_id(0), tl.num_programs(0)
    k = tl.arange(0, SPAN)
    n = start * BN + tl.arange(0, BN)
    first = _codes(codes, n, k, outs, INS)
    second = _codes(codes2, n, k, outs, INS) if GATED else first
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    r = tl.arange(0, R)
    mask = (r < rows)[:, None] & (k < INS)[None, :]
    inputs = tl.load(x + r[:, None] * INS + k[None, :], mask=mask, other=0.0).to(tl.float32)
    if NORM:
        inverse = tl.rsqrt(tl.sum(inputs * inputs, axis=1) / INS + eps)
        inputs = inputs * inverse[:, None] * tl.load(norm + k, mask=k < INS, other=0.0)[None, :]
    inputs = inputs[:, None, :]
    for turn in range(TURNS):
        n = (start + turn * step) * BN + tl.arange(0, BN)
        ahead, ahead2 = first, second
        if TURNS > 1:
            ahead = _codes(codes, n + step * BN, k, outs, INS)
            ahead2 = _codes(codes2, n + step * BN, k, outs, INS) if GATED else ahead
        sums = _sums(inputs, first, scales, n, outs, INS, SPAN, R, BN, HEIGHT, WHOLE)
        sums2 = _sums(inputs, second, scales2, n, outs, INS, SPAN, R, BN, HEIGHT2, WHOLE2) if GATED else sums
        finish(sums, sums2, bias, residual, out, r, n, rows, outs, stride, GATED, ACTIVATION, BIAS, RESIDUAL)
        first, second = ahead, ahead2


@triton.jit
def _scale_of_block(scales, n, block, outs, INS: tl.constexpr, HEIGHT: tl.constexpr, WHOLE: tl.constexpr):
    """What rows n are multiplied with in the columns of one block of 128."""
    if WHOLE:
        return tl.load(scales + n // HEIGHT, mask=n < outs, other=0.0)
    else:
        return tl.load(scales + n // HEIGHT * ((INS + 127) // 128) + block, mask=n < outs, other=0.0)


@kernel(varying=("rows",))
def some(x, norm, eps, codes, scales, codes2, scales2, bias, residual, out, rows, outs, stride, INS: tl.constexpr,
         BM: tl.constexpr, BN: tl.constexpr, STAGES: tl.constexpr, DOT: tl.constexpr, HEIGHT: tl.constexpr,
         WHOLE: tl.constexpr, HEIGHT2: tl.constexpr, WHOLE2: tl.constexpr, NORM: tl.constexpr, GATED: tl.constexpr,
         ACTIVATION: tl.constexpr, BIAS: tl.constexpr, RESIDUAL: tl.constexpr):
    """x (rows, INS) on a matrix, 128 columns at a time; codes become numbers of type DOT in registers."""
    r = tl.program_id(0) * BM + tl.arange(0, BM)
    n = tl.program_id(1) * BN + tl.arange(0, BN)
    sums = tl.zeros([BM, BN], tl.float32)
    sums2 = tl.zeros([BM, BN], tl.float32)
    squares = tl.zeros([BM], tl.float32)
    for start in tl.range(0, INS, 128, num_stages=STAGES):
        k = start + tl.arange(0, 128)
        mask = (r < rows)[:, None] & (k < INS)[None, :]
        inputs = tl.load(x + r.to(tl.int64)[:, None] * INS + k[None, :], mask=mask, other=0.0).to(tl.float32)
        if NORM:
            squares += tl.sum(inputs * inputs, axis=1)
            inputs = inputs * tl.load(norm + k, mask=k < INS, other=0.0)[None, :]
        inputs = inputs.to(DOT)
        weights = _values(_codes(codes, n, k, outs, INS)).to(DOT)
        part = tl.dot(inputs, tl.trans(weights), input_precision="ieee")
        sums += part * _scale_of_block(scales, n, start // 128, outs, INS, HEIGHT, WHOLE)[None, :]
        if GATED:
            weights = _values(_codes(codes2, n, k, outs, INS)).to(DOT)
            part = tl.dot(inputs, tl.trans(weights), input_precision="ieee")
            sums2 += part * _scale_of_block(scales2, n, start // 128, outs, INS, HEIGHT2, WHOLE2)[None, :]
    if NORM:
        inverse = tl.rsqrt(squares / INS + eps)[:, None]
        sums = sums * inverse
        sums2 = sums2 * inverse
    finish(sums, sums2, bias, residual, out, r, n, rows, outs, stride, GATED, ACTIVATION, BIAS, RESIDUAL)


@kernel
def round_rows(x, norm, eps, codes, scales, given, INS: tl.constexpr, SPAN: tl.constexpr, GROUP: tl.constexpr,
               NORM: tl.constexpr, GIVEN: tl.constexpr):
    """norm(x) of one row as E4M3 codes, and the scale of each GROUP columns, `given` or that of the largest."""
    row = tl.program_id(0).to(tl.int64)
    k = tl.arange(0, SPAN)
    values = tl.load(x + row * INS + k, mask=k < INS, other=0.0).to(tl.float32)
    if NORM:
        inverse = tl.rsqrt(tl.sum(values * values, axis=0) / INS + eps)
        values = values * inverse * tl.load(norm + k, mask=k < INS, other=0.0)
    COUNT: tl.constexpr = SPAN // GROUP
    values = tl.reshape(values, [COUNT, GROUP])
    largest = tl.max(tl.abs(values), axis=1)
    scale = tl.where(largest > 0, largest / 448.0, 1.0)
    if GIVEN:
        scale = tl.zeros([COUNT], tl.float32) + given
    rounded = tl.clamp(values / scale[:, None], -448.0, 448.0).to(tl.float8e4nv).to(tl.uint8, bitcast=True)
    tl.store(codes + row * INS + k, tl.reshape(rounded, [SPAN]), mask=k < INS)
    g = tl.arange(0, COUNT)
    GROUPS: tl.constexpr = (INS + GROUP - 1) // GROUP
    tl.store(scales + row * GROUPS + g, scale, mask=g < GROUPS)


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
