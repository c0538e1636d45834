"""The executable layout of integers with group scales on a GPU.

A row is a chain of units of 32 columns. Column `low · i + j` of a unit, where `low` is 2, 4 or 8, has its low bits in
word `j` of the unit's `low` words of 32 bits, from bit `low · i`: one 16-byte load, and masks that select equal fields
of words give values of neighbouring columns. A fifth or third bit of that code is bit `low · i + j` of one more word; a
fifth and sixth bit are those from `4 · i + 2 · (j & 1)` of word `j >> 1` of two more words.

Scales are float16, or bytes that multiply a float16 head of 256 columns; where there are minimums, the two lie side by
side in one int32, int16 or, of heads, int32.
"""
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zonda.kernels.torch.blocks import Parts

UNIT = 32
"""Columns of a unit."""
SUPER = 256
"""Columns that share a head."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How one format lies: `low` and `high` bits of a code, `group` columns a scale."""

    name: str
    low: int
    high: int = 0
    group: int = 32
    offset: int = 0
    mins: bool = False
    two_level: bool = False

    @property
    def bits(self) -> int:
        return self.low + self.high


LAYOUTS = {layout.name: layout for layout in (
    Layout("q4_0", 4, offset=8),
    Layout("q4_1", 4, mins=True),
    Layout("q5_0", 4, 1, offset=16),
    Layout("q5_1", 4, 1, mins=True),
    Layout("q8_0", 8, offset=128),
    Layout("q2_k", 2, group=16, mins=True, two_level=True),
    Layout("q3_k", 2, 1, group=16, offset=4, two_level=True),
    Layout("q4_k", 4, mins=True, two_level=True),
    Layout("q5_k", 4, 1, mins=True, two_level=True),
    Layout("q6_k", 4, 2, group=16, offset=32, two_level=True),
)}


@dataclass(frozen=True, slots=True, eq=False)
class Planes:
    """The tensors of a matrix in a `Layout`, rows before last; `high` and `heads` may be absent."""

    low: Tensor  # int32 (…, outs, units · low bits)
    high: Tensor | None  # int32 (…, outs, units · high bits)
    scales: Tensor  # (…, outs, groups)
    heads: Tensor | None  # (…, outs, groups of 256)

    def rows(self, ids: Tensor) -> Planes:
        """Only these rows of one matrix."""
        return Planes(*(None if each is None else each[ids] for each in self.tensors()))  # type: ignore[arg-type]

    def tensors(self) -> tuple[Tensor | None, ...]:
        return self.low, self.high, self.scales, self.heads


def pack(parts: Parts, layout: Layout) -> Planes:
    """Rows that were taken apart, in the executable layout."""
    high = _high(parts.codes, layout) if layout.high else None
    heads = None if parts.heads is None else _beside(parts.heads)
    scales = parts.scales if parts.mins is None else _beside(torch.stack([parts.scales, parts.mins], dim=-1))
    return Planes(_low(parts.codes, layout), high, scales.contiguous(), heads)


def _beside(pairs: Tensor) -> Tensor:
    """(…, 1) -> (…); (…, 2) -> (…) integers of twice the width, the first in the low bits."""
    if pairs.shape[-1] == 1:
        return pairs[..., 0].contiguous()
    wide = torch.int32 if pairs.dtype == torch.float16 else torch.int16
    return pairs.contiguous().view(wide)[..., 0].contiguous()


def _low(codes: Tensor, layout: Layout) -> Tensor:
    low, count = layout.low, 8 // layout.low
    fields = (codes & (1 << low) - 1).reshape(len(codes), -1, 4, count, low)  # (r, units, bytes, fields, words)
    packed = fields[..., 0, :]
    for i in range(1, count):
        packed = packed | fields[..., i, :] << low * i
    return _words(packed.transpose(-1, -2))


def _high(codes: Tensor, layout: Layout) -> Tensor:
    bits = codes >> layout.low
    if layout.high == 1:
        packed = bits.reshape(len(codes), -1, 1, 4, 8)  # (r, units, words, bytes, fields)
    else:
        fields = bits.reshape(len(codes), -1, 4, 2, 2, 2)  # (r, units, bytes, i, words, j)
        packed = fields.permute(0, 1, 4, 2, 3, 5).flatten(-2)
    width = layout.high
    out = packed[..., 0]
    for i in range(1, 8 // width):
        out = out | packed[..., i] << width * i
    return _words(out)


def _words(data: Tensor) -> Tensor:
    """Bytes (r, units, words, 4) -> int32 (r, units · words)."""
    return data.contiguous().view(torch.int32).reshape(len(data), -1)


def unpack(planes: Planes, layout: Layout) -> Tensor:
    """The values, float32 (…, outs, ins)."""
    codes = _codes(planes, layout)
    scales, mins = _scales(planes, layout)
    grouped = (codes - layout.offset).to(torch.float32).reshape(*scales.shape, layout.group) * scales[..., None]
    if mins is not None:
        grouped -= mins[..., None]
    return grouped.reshape(codes.shape)


def _codes(planes: Planes, layout: Layout) -> Tensor:
    """int32 (…, ins)."""
    low, device = layout.low, planes.low.device
    i = torch.arange(32 // low, dtype=torch.int32, device=device)[:, None]
    j = torch.arange(low, dtype=torch.int32, device=device)
    words = planes.low.unflatten(-1, (-1, 1, low))  # (…, units, 1, words)
    codes = words >> low * i & (1 << low) - 1
    if planes.high is not None and layout.high == 1:
        codes = codes | (planes.high[..., None, None] >> low * i + j & 1) << low
    elif planes.high is not None:
        words = planes.high.unflatten(-1, (-1, 1, 2)).repeat_interleave(2, dim=-1)
        codes = codes | (words >> 4 * i + 2 * (j & 1) & 3) << low
    return codes.flatten(-3)


def _scales(planes: Planes, layout: Layout) -> tuple[Tensor, Tensor | None]:
    """Scales and minimums, float32 (…, groups)."""
    scales, mins = _apart(planes.scales, layout.mins, torch.float16 if not layout.two_level else torch.uint8)
    if planes.heads is not None:
        repeats = SUPER // layout.group
        heads, min_heads = _apart(planes.heads, layout.mins, torch.float16)
        scales = scales * heads.repeat_interleave(repeats, dim=-1)
        if mins is not None and min_heads is not None:
            mins = mins * min_heads.repeat_interleave(repeats, dim=-1)
    return scales, mins


def _apart(values: Tensor, pairs: bool, kind: torch.dtype) -> tuple[Tensor, Tensor | None]:
    if not pairs:
        return values.to(torch.float32), None
    both = values.contiguous()[..., None].view(kind).to(torch.float32)
    return both[..., 0], both[..., 1]
