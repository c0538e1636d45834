"""Products of many rows with a matrix of floats on the tensor cores, a program a tile: gated in one kernel."""
from __future__ import annotations

import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from zonda.kernels.cuda.few import finish
from zonda.kernels.cuda.launch import kernel


@kernel(varying=("rows",))
def tiled(x, values, values2, out, rows, outs, stride, INS: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
          BK: tl.constexpr, STAGES: tl.constexpr, BAND: tl.constexpr, DOT: tl.constexpr, GATED: tl.constexpr,
          ACTIVATION: tl.constexpr, PDL: tl.constexpr):
    """x (rows, INS) on floats (outs, INS), or the activation of one product times another -> out (rows, stride).

    The copy engine brings the inputs. Programs of BAND blocks of rows share weights and run together, so that the
    weights come from memory once a band and the inputs stay in the cache.
    """
    blocks, across = tl.cdiv(rows, BM), tl.cdiv(outs, BN)
    band = tl.program_id(0) // (BAND * across)
    inside = tl.program_id(0) % (BAND * across)
    high = tl.minimum(blocks - band * BAND, BAND)
    top = (band * BAND + inside % high) * BM
    n = inside // high * BN
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    sums = tl.zeros((BM, BN), tl.float32)
    sums2 = tl.zeros((BM, BN), tl.float32)
    for k in tl.range(0, INS, BK, num_stages=STAGES):
        inputs = x.load([top, k]).to(DOT)
        sums = tl.dot(inputs, values.load([n, k]).to(DOT).T, sums)
        if GATED:
            sums2 = tl.dot(inputs, values2.load([n, k]).to(DOT).T, sums2)
    finish(sums, sums2, 1.0, out, out, out, rows, top, n + tl.arange(0, BN), outs, stride, BM, False, GATED, ACTIVATION,
           False, False)
