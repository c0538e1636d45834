"""Products of many rows with a packed matrix on the tensor cores; weights become numbers in registers, word by word."""
from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from zonda.kernels.cuda.few import finish
from zonda.kernels.cuda.launch import kernel
from zonda.kernels.cuda.tiles import codes_of, joined, spread, steps_of


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
def _repeated(values, TIMES: tl.constexpr):
    """(BN, n) -> (BN, n · TIMES), each value so often."""
    wide = tl.broadcast_to(values[:, :, None], (values.shape[0], values.shape[1], TIMES))
    return tl.reshape(wide, (values.shape[0], values.shape[1] * TIMES))


@triton.jit
def _moved(words, place: tl.constexpr, to: tl.constexpr):
    """Bits at a place, at another."""
    if place > to:
        return words >> (place - to)
    else:
        return words << (to - place)


@triton.jit
def _field(loaded, one, i: tl.constexpr, KW: tl.constexpr, LOW: tl.constexpr, HIGH: tl.constexpr,
           GROUP: tl.constexpr, OFFSET: tl.constexpr, MINS: tl.constexpr, TWO: tl.constexpr):
    """Field i of each word as a weight, float32 (BN, KW).

    A code's bits become the first of a number's fraction, which is 1 + code / 2^bits: no conversion.
    """
    BITS: tl.constexpr = LOW + HIGH
    words, high, stored, heads = loaded
    if TWO:
        part: tl.constexpr = LOW * i * (128 // LOW // GROUP) // 32 if 128 // LOW > GROUP else 0
        stored = (stored >> ((16 if MINS else 8) * part)).to(tl.int16 if MINS else tl.int8)
        heads = _repeated(heads, stored.shape[1] // heads.shape[1])
    scale, minimum = steps_of(stored, heads, OFFSET, MINS, TWO)
    scale = scale * (1 << BITS)
    minimum = scale + minimum if MINS or OFFSET > 0 else scale
    bits = (_moved(words, LOW * i, 23 - BITS) & (((1 << LOW) - 1) << (23 - BITS))) | one
    if HIGH > 0:
        bits = bits | (_moved(high, LOW * i, 23 - HIGH) & (((1 << HIGH) - 1) << (23 - HIGH)))
    times: tl.constexpr = KW // scale.shape[1]
    return bits.to(tl.float32, bitcast=True) * _repeated(scale, times) - _repeated(minimum, times)


@triton.jit
def _loaded(low, high, scales, heads, n, first, j, INS: tl.constexpr, KW: tl.constexpr, LOW: tl.constexpr,
            HIGH: tl.constexpr, GROUP: tl.constexpr, MINS: tl.constexpr, TWO: tl.constexpr):
    """KW words of rows n from column `first`, their high bits where they are wanted, scales of units and heads."""
    BK: tl.constexpr = KW * 32 // LOW
    UNIT: tl.constexpr = 128 // LOW
    MASKED: tl.constexpr = INS % BK > 0
    WIDE: tl.constexpr = GROUP if GROUP > UNIT else UNIT
    words = _tile(low, n, first * LOW // 32, INS * LOW // 32, KW, MASKED, INS * LOW // 32)
    above = words
    if HIGH > 0:
        HIGH_WORDS: tl.constexpr = 4 * HIGH // LOW
        above = _tile(high, n, first // UNIT * HIGH_WORDS, INS // UNIT * HIGH_WORDS, KW * HIGH_WORDS // 4, MASKED,
                      INS // UNIT * HIGH_WORDS)
        above = _repeated(above, 4 // HIGH_WORDS)
        above = above >> (HIGH * (j & (LOW // HIGH - 1)))
    if UNIT > GROUP:
        bits: tl.constexpr = UNIT // GROUP * (16 if MINS else 8)
        scales = scales.to(tl.pointer_type(tl.int64 if bits == 64 else tl.int32 if bits == 32 else tl.int16))
    stored = _tile(scales, n, first // WIDE, INS // WIDE, BK // WIDE, MASKED, INS // WIDE)
    head = stored
    if TWO:
        head = _tile(heads, n, first // 256, INS // 256, BK // 256 if BK > 256 else 1, MASKED, INS // 256)
    return words, above, stored, head


@triton.jit
def _tile(values, n, first, STRIDE: tl.constexpr, BLOCK: tl.constexpr, MASKED: tl.constexpr, LIVE: tl.constexpr):
    """BLOCK of the LIVE columns of rows n from `first`."""
    k = first + tl.arange(0, BLOCK)[None, :]
    if MASKED:
        return tl.load(values + n[:, None] * STRIDE + k, mask=k < LIVE, other=0)
    else:
        return tl.load(values + n[:, None] * STRIDE + k)


@kernel
def by_fields(x, out, arrived, INS: tl.constexpr, LOW: tl.constexpr, BLOCK: tl.constexpr, ARRIVALS: tl.constexpr,
              PDL: tl.constexpr):
    """Columns (rows, INS) in the order in which `many` takes them, its counters at zero.

    Column w of part i is what field i of word w of a packed row is multiplied with.
    """
    UNIT: tl.constexpr = 128 // LOW
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    row = tl.program_id(0).to(tl.int64) * INS
    u = (tl.program_id(1) * BLOCK + tl.arange(0, BLOCK))[:, None]
    values = tl.load(x + row + u * UNIT + tl.arange(0, UNIT)[None, :], mask=u < INS // UNIT, other=0.0)
    values = tl.permute(tl.reshape(values, (BLOCK, UNIT // 4, 4)), (1, 0, 2))
    w = tl.program_id(1) * (4 * BLOCK) + tl.arange(0, 4 * BLOCK)[None, :]
    at = row + tl.arange(0, UNIT // 4)[:, None] * (INS * LOW // 32) + w
    values = tl.reshape(values, (UNIT // 4, 4 * BLOCK)).to(out.dtype.element_ty)
    tl.store(out + at, values, mask=w < INS * LOW // 32)
    if tl.program_id(0) + tl.program_id(1) == 0:
        tl.store(arrived + tl.arange(0, ARRIVALS), tl.zeros((ARRIVALS,), tl.int32))


@kernel(varying=("rows",))
def many(x, low, high, scales, heads, low2, high2, scales2, heads2, bias, parts, arrived, lanes, out, rows, outs,
         stride, INS: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, KW: tl.constexpr, STAGES: tl.constexpr,
         SPLITS: tl.constexpr, BULK: tl.constexpr, LOW: tl.constexpr, HIGH: tl.constexpr, GROUP: tl.constexpr,
         OFFSET: tl.constexpr, MINS: tl.constexpr, TWO: tl.constexpr, DOT: tl.constexpr, GATED: tl.constexpr,
         ACTIVATION: tl.constexpr, BIAS: tl.constexpr, PDL: tl.constexpr):
    """x (rows, INS), in the order of `by_fields`, on a packed matrix (outs, INS) -> out (rows, stride).

    Words become operands of type DOT where the tensor cores take them, in registers. Triton finds that only if all that
    a weight is made of is loaded: so `lanes` holds the numbers of a unit's words, and the bits of 1.0. Of SPLITS
    programs that have a part of a tile's columns, the last to end adds the parts, in order.
    """
    # blocks of rows that share weights are neighbours, so that the weights come from memory once
    BK: tl.constexpr = KW * 32 // LOW
    WORDS: tl.constexpr = INS * LOW // 32
    SPAN: tl.constexpr = (INS + BK * SPLITS - 1) // (BK * SPLITS) * BK
    blocks = tl.cdiv(rows, BM)
    top = tl.program_id(0) % blocks * BM
    n = tl.program_id(0) // blocks * BN + tl.arange(0, BN)
    live = tl.minimum(n, outs - 1).to(tl.int64)
    r = tl.minimum(top + tl.arange(0, BM), rows - 1).to(tl.int64)
    w = tl.arange(0, KW)[None, :]
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    j = tl.load(lanes + w % 4)
    one = tl.load(lanes + 4 + w * 0)
    sums = tl.zeros((BN, BM), tl.float32)
    sums2 = tl.zeros((BN, BM), tl.float32)
    start = tl.program_id(1) * SPAN
    for first in tl.range(start, min(start + SPAN, INS), BK, num_stages=STAGES):
        loaded = _loaded(low, high, scales, heads, live, first, j, INS, KW, LOW, HIGH, GROUP, MINS, TWO)
        loaded2 = loaded
        if GATED:
            loaded2 = _loaded(low2, high2, scales2, heads2, live, first, j, INS, KW, LOW, HIGH, GROUP, MINS, TWO)
        for i in tl.static_range(32 // LOW):
            if BULK:
                inputs = tl.trans(x.load([top, i * WORDS + first * LOW // 32]).to(DOT))
            else:
                inputs = tl.trans(_tile(x + i * WORDS, r, first * LOW // 32, INS, KW, INS % BK > 0, WORDS).to(DOT))
            weights = _field(loaded, one, i, KW, LOW, HIGH, GROUP, OFFSET, MINS, TWO).to(DOT)
            sums = tl.dot(weights, inputs, sums, input_precision="ieee")
            if GATED:
                weights = _field(loaded2, one, i, KW, LOW, HIGH, GROUP, OFFSET, MINS, TWO).to(DOT)
                sums2 = tl.dot(weights, inputs, sums2, input_precision="ieee")
    last = True
    if SPLITS > 1:
        last, sums, sums2 = joined(sums, sums2, parts, arrived, SPLITS, GATED)
    if last:
        finish(tl.trans(sums), tl.trans(sums2), 1.0, bias, out, out, rows, top, n, outs, stride, BM, False, GATED,
               ACTIVATION, BIAS, False)


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
