"""Passes over a row of logits: maxima and sums of blocks, the largest, and sorting. Imported only to compile.

A first pass finds the maximum of each block of 64 logits. The k-th largest of these bounds the k-th largest logit, so
that few blocks need a second look. Logits are compared as integers in the same order. Arrays are addresses.
"""
from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from zonda.kernels.cpu import scalar, words
from zonda.kernels.cpu.draws import BLOCK
from zonda.kernels.cpu.words import load_f32, load_i32, store_f32, store_i32

f32: Any = np.float32
f64: Any = np.float64
i32: Any = np.int32
i64: Any = np.int64
# a function inherits its caller's fastmath, which would undo the rounding in exp, unless it says otherwise
_OPTIONS: dict[str, Any] = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
kernel: Any = njit(fastmath=False, **_OPTIONS)
summing: Any = njit(fastmath={"reassoc", "nsz"}, **_OPTIONS)
exp: Any = kernel(scalar.exp.py_func)
bits_f32: Any = words.bits_f32
f32_bits: Any = words.f32_bits

INFINITE = 0x7F800000
SMALLEST = -0x80000000
SMALL_SORT = 96


@kernel
def ordered(x: float) -> int:
    """An int32 that compares as the float32 does; both zeros are one, and NaNs lie beyond the infinities."""
    bits = f32_bits(x + f32(0))
    return i32(bits ^ ((bits >> 31) & 0x7FFFFFFF))


@kernel
def unordered(key: int) -> float:
    return bits_f32(i32(key ^ ((key >> 31) & 0x7FFFFFFF)))


@kernel
def weight(x: float, top: float, scale: float) -> float:
    """e^((x - top) · scale), 0 where it is too small for float32."""
    z = (x - top) * scale
    return exp(z) if z > f32(-87) else f32(0)


# ---- passes over all logits


@kernel
def block_maxima(x: int, n: int, maxima: int) -> int:
    """Fill the ordered maxima of all blocks; the largest of all, or SMALLEST where a logit is NaN."""
    largest, smallest = i32(SMALLEST), i32(0x7FFFFFFF)
    for b in range((n + BLOCK - 1) // BLOCK):
        most, least = i32(SMALLEST), i32(0x7FFFFFFF)
        for i in range(b * BLOCK, min(b * BLOCK + BLOCK, n)):
            value = ordered(load_f32(x, i))
            most, least = max(most, value), min(least, value)
        store_i32(maxima, b, most)
        largest, smallest = max(largest, most), min(smallest, least)
    if largest > INFINITE or smallest < ~INFINITE:
        return i32(SMALLEST)
    return largest


@kernel
def first_at(x: int, n: int, maxima: int, value: int) -> int:
    """Where the first logit with this ordered value is."""
    for b in range((n + BLOCK - 1) // BLOCK):
        if load_i32(maxima, b) == value:
            for i in range(b * BLOCK, min(b * BLOCK + BLOCK, n)):
                if ordered(load_f32(x, i)) == value:
                    return i
    return -1


@kernel
def weigh(x: int, n: int, top: float, scale: float, weights: int) -> None:
    for i in range(n):
        store_f32(weights, i, weight(load_f32(x, i), top, scale))


@summing
def add_up(weights: int, n: int, sums: int) -> float:
    """Fill the sums of all blocks, and return their sum."""
    total = 0.0
    for b in range((n + BLOCK - 1) // BLOCK):
        part = f32(0)
        for i in range(b * BLOCK, min(b * BLOCK + BLOCK, n)):
            part += load_f32(weights, i)
        store_f32(sums, b, part)
        total += f64(part)
    return total


@summing
def mass_above(weights: int, n: int, least: float) -> float:
    total = 0.0
    for b in range((n + BLOCK - 1) // BLOCK):
        part = f32(0)
        for i in range(b * BLOCK, min(b * BLOCK + BLOCK, n)):
            value = load_f32(weights, i)
            part += value if value >= least else f32(0)
        total += f64(part)
    return total


@kernel
def deviation(x: int, n: int) -> float:
    """Standard deviation of the finite logits."""
    count, total = 0, 0.0
    for i in range(n):
        value = f64(load_f32(x, i))
        if value > -math.inf:
            count += 1
            total += value
    mean, squares = total / count, 0.0
    for i in range(n):
        value = f64(load_f32(x, i))
        if value > -math.inf:
            squares += (value - mean) * (value - mean)
    return math.sqrt(squares / count)


# ---- choosing and sorting candidates


@kernel
def kth_largest(values: int, count: int, k: int, heap: int) -> int:
    """The k-th largest of int32 values, k <= count, by a heap of the k largest whose root is the least."""
    for i in range(count):
        value = load_i32(values, i)
        if i < k:
            at = i
            while at and load_i32(heap, (at - 1) >> 1) > value:
                store_i32(heap, at, load_i32(heap, (at - 1) >> 1))
                at = (at - 1) >> 1
            store_i32(heap, at, value)
        elif value > load_i32(heap, 0):
            at, child = 0, 1
            while child < k:
                if child + 1 < k and load_i32(heap, child + 1) < load_i32(heap, child):
                    child += 1
                if load_i32(heap, child) >= value:
                    break
                store_i32(heap, at, load_i32(heap, child))
                at, child = child, 2 * child + 1
            store_i32(heap, at, value)
    return load_i32(heap, 0)


@kernel
def collect(x: int, n: int, maxima: int, bound: int, keys: int, ids: int) -> int:
    """List the logits that are at least `bound`, by id; how many there are."""
    count = 0
    for b in range((n + BLOCK - 1) // BLOCK):
        if load_i32(maxima, b) < bound:
            continue
        for i in range(b * BLOCK, min(b * BLOCK + BLOCK, n)):
            value = ordered(load_f32(x, i))
            if value >= bound:
                store_i32(keys, count, value)
                store_i32(ids, count, i32(i))
                count += 1
    return count


@kernel
def sort(keys: int, ids: int, count: int, more_keys: int, more_ids: int, heap: int) -> None:
    """Sort by falling key, equal ones as they come. `heap`: int32 (256,)."""
    if count > SMALL_SORT:
        for shift in range(0, 32, 16):
            radix_pass(keys, ids, count, more_keys, more_ids, heap, shift)
            radix_pass(more_keys, more_ids, count, keys, ids, heap, shift + 8)
        return
    for i in range(1, count):
        key, id, at = load_i32(keys, i), load_i32(ids, i), i
        while at and load_i32(keys, at - 1) < key:
            store_i32(keys, at, load_i32(keys, at - 1))
            store_i32(ids, at, load_i32(ids, at - 1))
            at -= 1
        store_i32(keys, at, key)
        store_i32(ids, at, id)


@kernel
def radix_pass(keys: int, ids: int, count: int, to_keys: int, to_ids: int, places: int, shift: int) -> None:
    for digit in range(256):
        store_i32(places, digit, i32(0))
    for i in range(count):
        digit = digit_of(load_i32(keys, i), shift)
        store_i32(places, digit, i32(load_i32(places, digit) + 1))
    before = 0
    for digit in range(256):
        here = load_i32(places, digit)
        store_i32(places, digit, i32(before))
        before += here
    for i in range(count):
        key = load_i32(keys, i)
        digit = digit_of(key, shift)
        at = load_i32(places, digit)
        store_i32(places, digit, i32(at + 1))
        store_i32(to_keys, at, key)
        store_i32(to_ids, at, load_i32(ids, i))


@kernel
def digit_of(key: int, shift: int) -> int:
    return 255 - (((i64(key) + 0x80000000) >> shift) & 255)
