"""The packed formats of GGML, each as a `Codec`, and the numbers that GGUF files name them by."""
from __future__ import annotations

import numpy as np

from zonda.weights.formats.dense import DenseType
from zonda.weights.formats.group_int import Codec, Unpacked

NIBBLES = (0, 4)
PAIRS = (0, 2, 4, 6)
BITS = tuple(range(8))


def _blocks(packed: np.ndarray, size: int) -> np.ndarray:
    """(r, row bytes) -> (r, blocks, block bytes)."""
    return packed.reshape(len(packed), -1, size)


def _half(blocks: np.ndarray, at: int) -> np.ndarray:
    """The float16 at that byte of each block -> float32 (r, blocks, 1)."""
    return np.ascontiguousarray(blocks[..., at:at + 2]).view("<f2").astype(np.float32)


def _fields(data: np.ndarray, shifts: tuple[int, ...], mask: int, run: int) -> np.ndarray:
    """Bit fields of each run of bytes, all of a shift before those of the next -> uint8 (r, blocks, bytes · shifts)."""
    runs = data.reshape(*data.shape[:2], -1, 1, run)
    return (runs >> np.array(shifts, np.uint8)[:, None] & np.uint8(mask)).reshape(*data.shape[:2], -1)


def _flat(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    """(r, blocks, n) -> (r, blocks · n)."""
    return tuple(array.reshape(len(array), -1) for array in arrays)


def _fifth_bits(data: np.ndarray) -> np.ndarray:
    return np.unpackbits(data, axis=-1, bitorder="little") << np.uint8(4)


def _q4_0(packed: np.ndarray) -> Unpacked:
    blocks = _blocks(packed, 18)
    codes, scales = _flat(_fields(blocks[..., 2:], NIBBLES, 15, 16), _half(blocks, 0))
    return codes, scales, None


def _q4_1(packed: np.ndarray) -> Unpacked:
    blocks = _blocks(packed, 20)
    codes, scales, mins = _flat(_fields(blocks[..., 4:], NIBBLES, 15, 16), _half(blocks, 0), -_half(blocks, 2))
    return codes, scales, mins


def _q5_0(packed: np.ndarray) -> Unpacked:
    blocks = _blocks(packed, 22)
    codes = _fields(blocks[..., 6:], NIBBLES, 15, 16) | _fifth_bits(blocks[..., 2:6])
    codes, scales = _flat(codes, _half(blocks, 0))
    return codes, scales, None


def _q5_1(packed: np.ndarray) -> Unpacked:
    blocks = _blocks(packed, 24)
    codes = _fields(blocks[..., 8:], NIBBLES, 15, 16) | _fifth_bits(blocks[..., 4:8])
    codes, scales, mins = _flat(codes, _half(blocks, 0), -_half(blocks, 2))
    return codes, scales, mins


def _q8_0(packed: np.ndarray) -> Unpacked:
    blocks = _blocks(packed, 34)
    codes, scales = _flat(blocks[..., 2:] ^ np.uint8(128), _half(blocks, 0))
    return codes, scales, None


def _q2_k(packed: np.ndarray) -> Unpacked:
    blocks = _blocks(packed, 84)
    steps = blocks[..., :16]
    scales, mins = _half(blocks, 80) * (steps & 15), _half(blocks, 82) * (steps >> 4)
    codes, scales, mins = _flat(_fields(blocks[..., 16:80], PAIRS, 3, 32), scales, mins)
    return codes, scales, mins


def _q3_k(packed: np.ndarray) -> Unpacked:
    blocks = _blocks(packed, 110)
    high = _fields(blocks[..., :32], BITS, 1, 32) << np.uint8(2)
    codes = _fields(blocks[..., 32:96], PAIRS, 3, 32) | high
    steps = _fields(blocks[..., 96:104], NIBBLES, 15, 8) | _fields(blocks[..., 104:108], PAIRS, 3, 4) << np.uint8(4)
    codes, scales = _flat(codes, _half(blocks, 108) * (steps.astype(np.float32) - 32))
    return codes, scales, None


def _six_bit_steps(data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The eight scale and the eight minimum steps in the 12 bytes of a Q4_K or Q5_K block."""
    low, mid, high = data[..., :4], data[..., 4:8], data[..., 8:]
    scales = np.concatenate([low & 63, high & 15 | low >> 2 & 48], axis=-1)
    mins = np.concatenate([mid & 63, high >> 4 | mid >> 2 & 48], axis=-1)
    return scales, mins


def _q4_k(packed: np.ndarray) -> Unpacked:
    blocks = _blocks(packed, 144)
    scales, mins = _six_bit_steps(blocks[..., 4:16])
    codes = _fields(blocks[..., 16:], NIBBLES, 15, 32)
    codes, scales, mins = _flat(codes, _half(blocks, 0) * scales, _half(blocks, 2) * mins)
    return codes, scales, mins


def _q5_k(packed: np.ndarray) -> Unpacked:
    blocks = _blocks(packed, 176)
    scales, mins = _six_bit_steps(blocks[..., 4:16])
    codes = _fields(blocks[..., 48:], NIBBLES, 15, 32) | _fields(blocks[..., 16:48], BITS, 1, 32) << np.uint8(4)
    codes, scales, mins = _flat(codes, _half(blocks, 0) * scales, _half(blocks, 2) * mins)
    return codes, scales, mins


def _q6_k(packed: np.ndarray) -> Unpacked:
    blocks = _blocks(packed, 210)
    codes = _fields(blocks[..., :128], NIBBLES, 15, 64) | _fields(blocks[..., 128:192], PAIRS, 3, 32) << np.uint8(4)
    codes, scales = _flat(codes, _half(blocks, 208) * blocks[..., 192:208].view(np.int8))
    return codes, scales, None


CODECS: dict[int, Codec] = {
    2: Codec("q4_0", 4, 32, 32, 18, 8, False, _q4_0),
    3: Codec("q4_1", 4, 32, 32, 20, 0, True, _q4_1),
    6: Codec("q5_0", 5, 32, 32, 22, 16, False, _q5_0),
    7: Codec("q5_1", 5, 32, 32, 24, 0, True, _q5_1),
    8: Codec("q8_0", 8, 32, 32, 34, 128, False, _q8_0),
    10: Codec("q2_k", 2, 16, 256, 84, 0, True, _q2_k),
    11: Codec("q3_k", 3, 16, 256, 110, 4, False, _q3_k),
    12: Codec("q4_k", 4, 32, 256, 144, 0, True, _q4_k),
    13: Codec("q5_k", 5, 32, 256, 176, 0, True, _q5_k),
    14: Codec("q6_k", 6, 16, 256, 210, 32, False, _q6_k),
}
"""GGML type number -> packed format."""

SMALLER_BLOCKS = {"q2_k": "q4_0", "q3_k": "q4_0", "q4_k": "q5_0", "q5_k": "q5_1", "q6_k": "q8_0"}
"""A format of blocks of 256 -> its neighbour for rows that are not whole ones."""

DENSE: dict[int, DenseType] = {0: "f32", 1: "f16", 30: "bf16"}
"""GGML type number -> floating-point format."""

OTHERS = {
    9: "q8_1", 15: "q8_k", 16: "iq2_xxs", 17: "iq2_xs", 18: "iq3_xxs", 19: "iq1_s", 20: "iq4_nl", 21: "iq3_s",
    22: "iq2_s", 23: "iq4_xs", 24: "i8", 25: "i16", 26: "i32", 27: "i64", 28: "f64", 29: "iq1_m",
    34: "tq1_0", 35: "tq2_0", 39: "mxfp4", 40: "nvfp4",
}
"""GGML type number -> a format that is known but cannot be read."""


def codec(name: str) -> Codec:
    """The packed format of that name, such as `q4_k`."""
    return next(one for one in CODECS.values() if one.name == name)
