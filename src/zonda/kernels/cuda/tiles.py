"""What the kernels of matrices share: tiles of weights, decoded in registers, and activations.

A tile of packed codes has the dimensions (units, rows, outs, fields, words), of which inputs lack the outs and codes
the rows: see `kernels/torch/packed.py`.
"""
from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_wait

from zonda.kernels.cuda.launch import kernel


@triton.jit
def activate(x, KIND: tl.constexpr):
    if KIND == "silu":
        return x / (1 + tl.exp(-x))
    elif KIND == "gelu":
        return 0.5 * x * (1 + tl.erf(x * 0.7071067811865476))
    elif KIND == "gelu_tanh":
        # tanh(z) = 2 / (1 + exp(-2z)) - 1
        return x / (1 + tl.exp(-1.5957691216057308 * (x + 0.044715 * x * x * x)))
    else:
        return tl.maximum(x, 0.0)


@triton.jit
def half(word, HIGH: tl.constexpr):
    """One of the two float16 numbers in an int32, as float32."""
    bits = (word >> 16) if HIGH else word
    return bits.to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)


@triton.jit
def spread(high0, high1, LOW: tl.constexpr, HIGH: tl.constexpr, j):
    """The high bits of words j of a unit, at the spacing of their fields, from the one or two words that hold them."""
    if LOW // HIGH == 4:
        return high0 >> (HIGH * j)
    else:
        return tl.where(j < 2, high0, high1) >> (HIGH * (j & 1))


@triton.jit
def tiny(low, high, i, LOW: tl.constexpr, HIGH: tl.constexpr):
    """Fields i of each word as float32, times 2^(place - 149): their bits where they lie, read as subnormal numbers.

    `place` is what `place_of` gives. A mask and no conversion: the arithmetic of subnormals costs nothing.
    """
    BITS: tl.constexpr = LOW + HIGH
    near = LOW * i + BITS <= 23
    place = tl.where(near, LOW * i, LOW * i - 16)
    words = tl.where(near, low, low >> 16)
    bits = words & (((1 << LOW) - 1) << place)
    if HIGH > 0:
        # high bits move up by LOW from their place to beside the low ones
        above = tl.where(near, high, high >> 16)
        bits = bits | ((above & (((1 << HIGH) - 1) << place)) << LOW)
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def place_of(i, LOW: tl.constexpr, HIGH: tl.constexpr):
    return tl.where(LOW * i + LOW + HIGH <= 23, LOW * i, LOW * i - 16)


@triton.jit
def power_of_two(n):
    """2^n as float32, for int32 n of normal numbers."""
    return ((n + 127) << 23).to(tl.float32, bitcast=True)


@triton.jit
def codes_of(low, high, i, LOW: tl.constexpr, HIGH: tl.constexpr):
    """Fields i of each word as int32."""
    codes = (low >> (LOW * i)) & ((1 << LOW) - 1)
    if HIGH > 0:
        codes = codes | (((high >> (LOW * i)) & ((1 << HIGH) - 1)) << LOW)
    return codes


@triton.jit
def steps_of(scales, heads, OFFSET: tl.constexpr, MINS: tl.constexpr, TWO: tl.constexpr):
    """Scales and what is subtracted after them, float32, from what is stored of a group."""
    if MINS:
        if TWO:
            scale = (scales & 255).to(tl.float32) * half(heads, False)
            minimum = ((scales >> 8) & 255).to(tl.float32) * half(heads, True)
        else:
            scale, minimum = half(scales, False), half(scales, True)
    else:
        scale = scales.to(tl.float32)
        if TWO:
            scale = scale * heads.to(tl.float32)
        minimum = scale * OFFSET
    return scale, minimum


@triton.jit
def joined(sums, sums2, parts, arrived, SPLITS: tl.constexpr, GATED: tl.constexpr):
    """Sums of all SPLITS programs (axis 1) of a tile (axis 0), in order, and whether this program has come last.

    Only the last has them; it leaves the counter of the tile, `arrived`, at zero, as it was.
    """
    HIGH: tl.constexpr = sums.shape[0]
    WIDE: tl.constexpr = sums.shape[1]
    here = parts + tl.program_id(0).to(tl.int64) * (SPLITS * (2 if GATED else 1) * HIGH * WIDE) + (
        tl.arange(0, HIGH)[:, None] * WIDE + tl.arange(0, WIDE)[None, :])
    mine = here + tl.program_id(1) * HIGH * WIDE
    tl.store(mine, sums)
    if GATED:
        tl.store(mine + SPLITS * HIGH * WIDE, sums2)
    tl.debug_barrier()
    last = tl.atomic_add(arrived + tl.program_id(0), 1, sem="acq_rel") == SPLITS - 1
    if last:
        tl.debug_barrier()
        tl.store(arrived + tl.program_id(0), 0)
        sums = tl.zeros((HIGH, WIDE), tl.float32)
        sums2 = tl.zeros((HIGH, WIDE), tl.float32)
        for split in tl.static_range(SPLITS):
            sums += tl.load(here + split * HIGH * WIDE, cache_modifier=".cg")
            if GATED:
                sums2 += tl.load(here + (SPLITS + split) * HIGH * WIDE, cache_modifier=".cg")
    return last, sums, sums2


@kernel
def combined(gate, up, out, ffn, gate_stride, up_stride, out_stride, ACTIVATION: tl.constexpr, BLOCK: tl.constexpr,
             PDL: tl.constexpr):
    """activation(gate) · up -> out (rows, ffn)."""
    if PDL:
        gdc_wait()
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = at < ffn
    values = activate(tl.load(gate + row * gate_stride + at, mask=mask, other=0.0).to(tl.float32), ACTIVATION)
    values = values * tl.load(up + row * up_stride + at, mask=mask, other=0.0).to(tl.float32)
    tl.store(out + row * out_stride + at, values.to(out.dtype.element_ty), mask=mask)
