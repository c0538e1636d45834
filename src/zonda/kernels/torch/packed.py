"""The executable layout of integers with group scales on a GPU.

A row is a chain of units of 16 bytes, four words of 32 bits: 16, 32 or 64 columns whose low 8, 4 or 2 bits it holds.
Column `4 · i + j` of a unit has its low bits in word `j`, from bit `low · i`: so one load and a mask of equal fields
give four neighbouring columns. The high bits of codes of 3, 5 or 6 bits lie in one or two more words a unit, at the
same spacing of `low` bits, the columns of `low / high` words side by side.

Scales are float16, or bytes that multiply a head of 256 columns, float32 of which a copy engine can bring one; where
there are minimums, the two lie side by side in one int32, int16 or, of heads, two float16 in an int32.
"""
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zonda.kernels.torch.blocks import Parts

WORDS = 4
"""Words of a unit."""
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

    @property
    def unit(self) -> int:
        """Columns of a unit."""
        return 128 // self.low

    @property
    def slots(self) -> int:
        """Words of a unit whose high bits share a word."""
        return self.low // self.high if self.high else 0

    @property
    def high_words(self) -> int:
        """Words of high bits a unit."""
        return WORDS // self.slots if self.high else 0


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

    low: Tensor  # int32 (…, outs, units · 4)
    high: Tensor | None  # int32 (…, outs, units · high words)
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
    heads = None if parts.heads is None else _beside(parts.heads if layout.mins else parts.heads.to(torch.float32))
    scales = parts.scales if parts.mins is None else _beside(torch.stack([parts.scales, parts.mins], dim=-1))
    return Planes(_low(parts.codes, layout), high, scales.contiguous(), heads)


def _beside(pairs: Tensor) -> Tensor:
    """(…, 1) -> (…); (…, 2) -> (…) integers of twice the width, the first in the low bits."""
    if pairs.shape[-1] == 1:
        return pairs[..., 0].contiguous()
    wide = torch.int32 if pairs.dtype == torch.float16 else torch.int16
    return pairs.contiguous().view(wide)[..., 0].contiguous()


def _low(codes: Tensor, layout: Layout) -> Tensor:
    fields = codes.reshape(len(codes), -1, 4, 8 // layout.low, WORDS)  # (r, units, bytes, fields, words)
    return _words(_joined(fields.transpose(-1, -2) & (1 << layout.low) - 1, layout.low).transpose(-1, -2))


def _high(codes: Tensor, layout: Layout) -> Tensor:
    bits = codes.reshape(len(codes), -1, 4, 8 // layout.low, layout.high_words, layout.slots) >> layout.low
    fields = bits.permute(0, 1, 4, 2, 3, 5).flatten(-2)  # (r, units, words, bytes, fields · slots)
    return _words(_joined(fields, layout.high))


def _joined(fields: Tensor, width: int) -> Tensor:
    """Bytes of which the last dimension holds the fields, lowest first."""
    out = fields[..., 0]
    for i in range(1, fields.shape[-1]):
        out = out | fields[..., i] << width * i
    return out


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
    words = planes.low.unflatten(-1, (-1, 1, WORDS))  # (…, units, 1, words)
    codes = words >> low * i & (1 << low) - 1
    if planes.high is not None:
        j = torch.arange(WORDS, dtype=torch.int32, device=device)
        words = planes.high.unflatten(-1, (-1, 1, layout.high_words)).repeat_interleave(layout.slots, dim=-1)
        codes = codes | (words >> low * i + layout.high * (j % layout.slots) & (1 << layout.high) - 1) << low
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
