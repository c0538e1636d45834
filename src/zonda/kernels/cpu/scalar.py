"""Scalar mathematics in float32 that LLVM can vectorize."""
from __future__ import annotations

import numpy as np
from numba import njit

from zonda.kernels.cpu.words import bits_f32, nearest

f32 = np.float32
_LOG2E, _LN2_HIGH, _LN2_LOW = f32(1.44269504), f32(0.693359375), f32(-2.12194440e-4)
_C = tuple(f32(c) for c in (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1,
                            5.0000001201e-1))


@njit(error_model="numpy")
def exp(x: float) -> float:
    """eˣ to about 1 unit in the last place, for any x; arguments beyond ±88 are clamped."""
    x = min(max(x, f32(-87.3)), f32(88.0))
    n = nearest(x * _LOG2E)
    r = (x - n * _LN2_HIGH) - n * _LN2_LOW
    p = _C[0]
    p = p * r + _C[1]
    p = p * r + _C[2]
    p = p * r + _C[3]
    p = p * r + _C[4]
    p = p * r + _C[5]
    p = p * r * r + r + f32(1)
    return p * bits_f32(np.int32((np.int32(n) + np.int32(127)) << np.int32(23)))


@njit(error_model="numpy")
def tanh(x: float) -> float:
    return f32(1) - f32(2) / (exp(f32(2) * x) + f32(1))
