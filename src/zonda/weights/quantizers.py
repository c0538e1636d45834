"""From floats to the packed formats: the rounding of GGML's simple types, and a search for the scales of K-quants.

Within this file values lie as (group, groups): the members of a group are far from each other, so that sums over them
are sums of whole vectors.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from zonda.weights.formats.ggml import BITS, NIBBLES, PAIRS, codec

Pack = Callable[[np.ndarray], np.ndarray]
"""Rows of floats, float32 (r, cols), to packed rows, uint8 (r, row bytes)."""

STRETCHES = tuple(np.linspace(-0.9, 0.9, 7, dtype=np.float32))
"""By how many steps the extreme of a group is put off its usual code, to find the scale of the least error."""
TINY = np.float32(1e-30)


def _groups(values: np.ndarray, size: int) -> np.ndarray:
    return np.ascontiguousarray(values.reshape(-1, size).T)


def _blocks(codes: np.ndarray, block: int) -> np.ndarray:
    """Codes (group, groups) -> uint8 (blocks, block)."""
    return np.ascontiguousarray(codes.astype(np.uint8).T).reshape(-1, block)


def _half(values: np.ndarray) -> np.ndarray:
    """(n,) -> the bytes of float16 numbers, uint8 (n, 2)."""
    return values.astype("<f2")[:, None].view(np.uint8)


def _held(scales: np.ndarray) -> np.ndarray:
    """The scales as float16 holds them."""
    return scales.astype(np.float16).astype(np.float32)


def _inverse(scales: np.ndarray) -> np.ndarray:
    return np.where(scales == 0, np.float32(0), 1 / np.where(scales == 0, np.float32(1), scales))


def _merge(codes: np.ndarray, shifts: Sequence[int], mask: int, run: int) -> np.ndarray:
    """Bit fields (blocks, n) into bytes: a run of bytes takes all of a shift before those of the next."""
    fields = (codes & np.uint8(mask)).reshape(len(codes), -1, len(shifts), run)
    return np.bitwise_or.reduce(fields << np.array(shifts, np.uint8)[:, None], axis=2).reshape(len(codes), -1)


def _fifth_bits(codes: np.ndarray) -> np.ndarray:
    return np.packbits(codes >> np.uint8(4), axis=-1, bitorder="little")


def _extreme(x: np.ndarray) -> np.ndarray:
    """The value of each group that is the farthest from zero, with its sign."""
    high, low = x.max(0), x.min(0)
    return np.where(-low > high, low, high)


# --- GGML's simple types -----------------------------------------------------------------------------------------


def _signed(values: np.ndarray, levels: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes (blocks, 32) around `levels`, with the extreme of each block at code 0, and scales."""
    x = _groups(values, 32)
    first = np.take_along_axis(x, np.abs(x).argmax(0)[None], 0)[0]
    scales = first / np.float32(-levels)
    codes = np.trunc(x * _inverse(scales) + np.float32(levels + 0.5))
    return _blocks(np.clip(codes, 0, 2 * levels - 1), 32), scales


def _shifted(values: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes (blocks, 32) from the least value of each block, scales and least values."""
    x = _groups(values, 32)
    low = x.min(0)
    scales = (x.max(0) - low) / np.float32(most)
    codes = np.trunc((x - low) * _inverse(scales) + np.float32(0.5))
    return _blocks(np.clip(codes, 0, most), 32), scales, low


def _q4_0(values: np.ndarray) -> list[np.ndarray]:
    codes, scales = _signed(values, 8)
    return [_half(scales), _merge(codes, NIBBLES, 15, 16)]


def _q4_1(values: np.ndarray) -> list[np.ndarray]:
    codes, scales, low = _shifted(values, 15)
    return [_half(scales), _half(low), _merge(codes, NIBBLES, 15, 16)]


def _q5_0(values: np.ndarray) -> list[np.ndarray]:
    codes, scales = _signed(values, 16)
    return [_half(scales), _fifth_bits(codes), _merge(codes, NIBBLES, 15, 16)]


def _q5_1(values: np.ndarray) -> list[np.ndarray]:
    codes, scales, low = _shifted(values, 31)
    return [_half(scales), _half(low), _fifth_bits(codes), _merge(codes, NIBBLES, 15, 16)]


def _q8_0(values: np.ndarray) -> list[np.ndarray]:
    x = _groups(values, 32)
    scales = np.abs(x).max(0) / np.float32(127)
    scaled = x * _inverse(scales)
    codes = np.trunc(scaled + np.copysign(np.float32(0.5), scaled)).astype(np.int8)
    return [_half(scales), _blocks(codes.view(np.uint8), 32)]


# --- K-quants ----------------------------------------------------------------------------------------------------


def _importance(x: np.ndarray) -> np.ndarray:
    """How much an error of each value counts: large ones are more often those that matter."""
    return np.abs(x) + np.sqrt(np.mean(x * x, 0))


def _best_scales(x: np.ndarray, low: int, high: int) -> np.ndarray:
    """The scale of each group for which codes `low` to `high` come nearest, by least squares for each stretch."""
    extreme = _extreme(x)
    weighted = _importance(x)
    codes, part = np.empty_like(x), np.empty_like(x)
    best, scales = np.zeros_like(extreme), np.zeros_like(extreme)
    per_step = _inverse(extreme)
    for stretch in STRETCHES:
        np.multiply(x, per_step * (low + stretch), out=codes)
        np.clip(np.rint(codes, out=codes), low, high, out=codes)
        np.multiply(weighted, codes, out=part)
        square = np.sum(np.multiply(part, codes, out=codes), 0)
        along = np.sum(np.multiply(part, x, out=part), 0)
        gain = along * along / np.maximum(square, TINY)
        better = gain > best
        best[better] = gain[better]
        scales[better] = (along / np.maximum(square, TINY))[better]
    return scales


def _best_ranges(x: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """The scale and the minimum, from 0, of each group for which codes 0 to `most` come nearest."""
    low = np.minimum(x.min(0), 0)
    per_step = _inverse(x.max(0) - low)
    weights = _importance(x)
    all_weights, all_x = weights.sum(0), (weights * x).sum(0)
    centred = x - low
    scales, mins = np.zeros_like(low), -low
    error = np.sum(weights * centred * centred, 0)
    codes, part = np.empty_like(x), np.empty_like(x)
    for stretch in STRETCHES:
        np.multiply(centred, per_step * (most + stretch), out=codes)
        np.clip(np.rint(codes, out=codes), 0, most, out=codes)
        np.multiply(weights, codes, out=part)
        linear, along = part.sum(0), np.sum(part * x, 0)
        square = np.sum(part * codes, 0)
        scale, minimum = _line(all_weights, all_x, linear, square, along)
        np.multiply(codes, scale, out=codes)
        codes -= minimum
        codes -= x
        codes *= codes
        off = np.sum(np.multiply(codes, weights, out=codes), 0)
        better = off < error
        error[better], scales[better], mins[better] = off[better], scale[better], minimum[better]
    return scales, mins


def _line(weight: np.ndarray, x: np.ndarray, code: np.ndarray, square: np.ndarray, along: np.ndarray
          ) -> tuple[np.ndarray, np.ndarray]:
    """Scale and minimum of the weighted line through values over codes; where it would begin above 0, through 0."""
    spread = weight * square - code * code
    safe = np.where(spread > 0, spread, 1)
    scale = np.where(spread > 0, (weight * along - x * code) / safe, 0)
    minimum = np.where(spread > 0, (code * along - square * x) / safe, 0)
    through = minimum <= 0
    return np.where(through, along / np.maximum(square, TINY), scale), np.where(through, 0, minimum)


def _steps(scales: np.ndarray, most: int, groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Scales of at least 0 as steps 0 to `most` (blocks, groups) of a float16 for each block."""
    by_block = scales.reshape(-1, groups)
    head = _held(by_block.max(1) / np.float32(most))
    return np.clip(np.rint(by_block * _inverse(head)[:, None]), 0, most), head


def _signed_steps(scales: np.ndarray, lowest: int, groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Scales as steps `lowest` to -`lowest` - 1 of a float16 for each block; the extreme one takes the lowest step."""
    by_block = scales.reshape(-1, groups)
    head = _held(_extreme(by_block.T) / np.float32(lowest))
    return np.clip(np.rint(by_block * _inverse(head)[:, None]), lowest, -lowest - 1), head


def _symmetric(values: np.ndarray, *, group: int, offset: int, lowest: int
               ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes (blocks, 256), steps int8 (blocks, groups) and heads of a format without minimums."""
    x = _groups(values, group)
    steps, head = _signed_steps(_best_scales(x, -offset, offset - 1), lowest, 256 // group)
    codes = np.rint(x * _inverse((steps * head[:, None]).ravel()))
    return _blocks(np.clip(codes, -offset, offset - 1) + offset, 256), steps.astype(np.int8), head


def _ranged(values: np.ndarray, *, group: int, most: int, most_steps: int) -> tuple[np.ndarray, ...]:
    """Codes (blocks, 256), steps of scales and of minimums (blocks, groups), heads of both."""
    x = _groups(values, group)
    scales, mins = _best_ranges(x, most)
    steps, head = _steps(scales, most_steps, 256 // group)
    min_steps, min_head = _steps(mins, most_steps, 256 // group)
    x += (min_steps * min_head[:, None]).ravel()
    codes = np.rint(x * _inverse((steps * head[:, None]).ravel()))
    return (_blocks(np.clip(codes, 0, most), 256), steps.astype(np.uint8), min_steps.astype(np.uint8), head, min_head)


def _six_bit_steps(scales: np.ndarray, mins: np.ndarray) -> np.ndarray:
    """Eight scale and eight minimum steps in the 12 bytes of a Q4_K or Q5_K block."""
    low = scales[:, :4] | scales[:, 4:] >> 4 << 6
    mid = mins[:, :4] | mins[:, 4:] >> 4 << 6
    return np.concatenate([low, mid, scales[:, 4:] & 15 | (mins[:, 4:] & 15) << 4], axis=-1)


def _q2_k(values: np.ndarray) -> list[np.ndarray]:
    codes, scales, mins, head, min_head = _ranged(values, group=16, most=3, most_steps=15)
    return [scales | mins << 4, _merge(codes, PAIRS, 3, 32), _half(head), _half(min_head)]


def _q3_k(values: np.ndarray) -> list[np.ndarray]:
    codes, steps, head = _symmetric(values, group=16, offset=4, lowest=-32)
    raised = (steps + np.int8(32)).view(np.uint8)
    return [_merge(codes >> 2, BITS, 1, 32), _merge(codes, PAIRS, 3, 32), _merge(raised, NIBBLES, 15, 8),
            _merge(raised >> 4, PAIRS, 3, 4), _half(head)]


def _q4_k(values: np.ndarray) -> list[np.ndarray]:
    codes, scales, mins, head, min_head = _ranged(values, group=32, most=15, most_steps=63)
    return [_half(head), _half(min_head), _six_bit_steps(scales, mins), _merge(codes, NIBBLES, 15, 32)]


def _q5_k(values: np.ndarray) -> list[np.ndarray]:
    codes, scales, mins, head, min_head = _ranged(values, group=32, most=31, most_steps=63)
    return [_half(head), _half(min_head), _six_bit_steps(scales, mins), _merge(codes >> 4, BITS, 1, 32),
            _merge(codes, NIBBLES, 15, 32)]


def _q6_k(values: np.ndarray) -> list[np.ndarray]:
    codes, steps, head = _symmetric(values, group=16, offset=32, lowest=-128)
    return [_merge(codes, NIBBLES, 15, 64), _merge(codes >> 4, PAIRS, 3, 32), steps.view(np.uint8), _half(head)]


_FIELDS = {"q4_0": _q4_0, "q4_1": _q4_1, "q5_0": _q5_0, "q5_1": _q5_1, "q8_0": _q8_0, "q2_k": _q2_k, "q3_k": _q3_k,
           "q4_k": _q4_k, "q5_k": _q5_k, "q6_k": _q6_k}


def packer(name: str) -> Pack:
    """What packs rows of whole blocks in the format of that name."""
    fields, block_bytes = _FIELDS[name], codec(name).block_bytes

    def pack(values: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            blocks = np.concatenate(fields(values), axis=-1)
        assert blocks.shape[-1] == block_bytes
        return blocks.reshape(len(values), -1)

    return pack


PACKED = tuple(_FIELDS)
"""Names of the formats that can be packed."""
