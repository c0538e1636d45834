"""The blocks of packed formats, taken apart by torch on the device: codes, scales and minimums as they are stored."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zonda.weights.formats.ggml import BITS, NIBBLES, PAIRS


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """Rows of a format: value = (code - offset) · scale - minimum, the two perhaps steps of `heads` of 256 columns.

    `codes` uint8 (r, cols). One level: `scales` and `mins` float16 (r, groups). Two levels: bytes of that shape, and
    `heads` float16 (r, cols / 256, 1 or 2).
    """

    codes: Tensor
    scales: Tensor
    mins: Tensor | None = None
    heads: Tensor | None = None


def split(name: str, packed: Tensor) -> Parts:
    """Packed rows, uint8 (r, row bytes), of the format of that name."""
    size, read = READERS[name]
    codes, scales, mins, heads = (*read(packed.reshape(len(packed), -1, size)), None, None)[:4]
    assert codes is not None and scales is not None
    return Parts(_flat(codes), _flat(scales), None if mins is None else _flat(mins), heads)


def _flat(array: Tensor) -> Tensor:
    return array.reshape(len(array), -1)


def _half(blocks: Tensor, at: int, count: int = 1) -> Tensor:
    """The float16 numbers at that byte of each block -> (r, blocks, count)."""
    return blocks[..., at:at + 2 * count].contiguous().view(torch.float16)


def _fields(data: Tensor, shifts: Sequence[int], mask: int, run: int) -> Tensor:
    """Bit fields of each run of bytes, all of a shift before those of the next -> uint8 (r, blocks, bytes · shifts)."""
    runs = data.reshape(*data.shape[:2], -1, 1, run)
    parts = torch.cat([runs >> shift & mask for shift in shifts], dim=-2)
    return parts.reshape(*data.shape[:2], -1)


def _fifth_bits(data: Tensor) -> Tensor:
    """The bits of each byte, lowest first, at the place of the fifth."""
    bits = torch.stack([data >> shift & 1 for shift in BITS], dim=-1) << 4
    return bits.reshape(*data.shape[:2], -1)


def _q4_0(blocks: Tensor) -> tuple[Tensor, ...]:
    return _fields(blocks[..., 2:], NIBBLES, 15, 16), _half(blocks, 0)


def _q4_1(blocks: Tensor) -> tuple[Tensor, ...]:
    return _fields(blocks[..., 4:], NIBBLES, 15, 16), _half(blocks, 0), -_half(blocks, 2)


def _q5_0(blocks: Tensor) -> tuple[Tensor, ...]:
    return _fields(blocks[..., 6:], NIBBLES, 15, 16) | _fifth_bits(blocks[..., 2:6]), _half(blocks, 0)


def _q5_1(blocks: Tensor) -> tuple[Tensor, ...]:
    codes = _fields(blocks[..., 8:], NIBBLES, 15, 16) | _fifth_bits(blocks[..., 4:8])
    return codes, _half(blocks, 0), -_half(blocks, 2)


def _q8_0(blocks: Tensor) -> tuple[Tensor, ...]:
    return blocks[..., 2:] ^ 128, _half(blocks, 0)


def _q2_k(blocks: Tensor) -> tuple[Tensor, ...]:
    steps = blocks[..., :16]
    return _fields(blocks[..., 16:80], PAIRS, 3, 32), steps & 15, steps >> 4, _half(blocks, 80, 2)


def _q3_k(blocks: Tensor) -> tuple[Tensor | None, ...]:
    codes = _fields(blocks[..., 32:96], PAIRS, 3, 32) | _fields(blocks[..., :32], BITS, 1, 32) << 2
    steps = _fields(blocks[..., 96:104], NIBBLES, 15, 8) | _fields(blocks[..., 104:108], PAIRS, 3, 4) << 4
    return codes, (steps - 32).view(torch.int8), None, _half(blocks, 108)


def _six_bit_steps(data: Tensor) -> tuple[Tensor, Tensor]:
    """The eight scale and the eight minimum steps in the 12 bytes of a Q4_K or Q5_K block."""
    low, mid, high = data[..., :4], data[..., 4:8], data[..., 8:]
    scales = torch.cat([low & 63, high & 15 | low >> 2 & 48], dim=-1)
    mins = torch.cat([mid & 63, high >> 4 | mid >> 2 & 48], dim=-1)
    return scales, mins


def _q4_k(blocks: Tensor) -> tuple[Tensor, ...]:
    return _fields(blocks[..., 16:], NIBBLES, 15, 32), *_six_bit_steps(blocks[..., 4:16]), _half(blocks, 0, 2)


def _q5_k(blocks: Tensor) -> tuple[Tensor, ...]:
    codes = _fields(blocks[..., 48:], NIBBLES, 15, 32) | _fields(blocks[..., 16:48], BITS, 1, 32) << 4
    return codes, *_six_bit_steps(blocks[..., 4:16]), _half(blocks, 0, 2)


def _q6_k(blocks: Tensor) -> tuple[Tensor | None, ...]:
    codes = _fields(blocks[..., :128], NIBBLES, 15, 64) | _fields(blocks[..., 128:192], PAIRS, 3, 32) << 4
    return codes, blocks[..., 192:208].view(torch.int8), None, _half(blocks, 208)


Read = Callable[[Tensor], tuple[Tensor | None, ...]]
READERS: dict[str, tuple[int, Read]] = {
    "q4_0": (18, _q4_0), "q4_1": (20, _q4_1), "q5_0": (22, _q5_0), "q5_1": (24, _q5_1), "q8_0": (34, _q8_0),
    "q2_k": (84, _q2_k), "q3_k": (110, _q3_k), "q4_k": (144, _q4_k), "q5_k": (176, _q5_k), "q6_k": (210, _q6_k),
}
"""Bytes of a block, and what takes it apart."""
