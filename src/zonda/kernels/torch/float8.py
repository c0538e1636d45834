"""Matrices of eight-bit floats on a torch device, and the rounding of activations to such floats."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zonda.kernels.torch.upload import upload
from zonda.weights.formats.float8 import BLOCK, LARGEST, Float8, largest

TYPE = torch.float8_e4m3fn


@dataclass(frozen=True, slots=True, eq=False)
class Float8Matrix:
    """E4M3 `codes`, uint8 (…, outs, ins), with `scales` float32 for rows or blocks: see `weights/formats/float8.py`."""

    codes: Tensor
    scales: Tensor
    height: int
    whole: bool
    input_scale: float | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.codes.shape)

    @property
    def outs(self) -> int:
        return self.codes.shape[-2]

    @property
    def ins(self) -> int:
        return self.codes.shape[-1]

    def by_rows(self) -> Float8Matrix:
        """The same with scales for single rows."""
        scales = self.scales.repeat_interleave(self.height, dim=-2)[..., :self.outs, :]
        return Float8Matrix(self.codes, scales, 1, self.whole, self.input_scale)

    @property
    def values(self) -> Tensor:
        """The codes as numbers, not yet scaled."""
        return self.codes.view(TYPE)

    def dense(self, dtype: torch.dtype) -> Tensor:
        return (self.values.float() * self._columns(self.by_rows().scales)).to(dtype)

    def rows(self, ids: Tensor) -> Tensor:
        at = ids // self.height
        return self.codes[ids].view(TYPE).float() * self._columns(self.scales[at])

    def _columns(self, scales: Tensor) -> Tensor:
        return scales if self.whole else scales.repeat_interleave(BLOCK, dim=-1)[..., :self.ins]


def prepare_float8(weight: Float8, device: torch.device | str) -> Float8Matrix:
    """The weight as it is, on the device."""
    codes, scales = upload(weight.codes, device, torch.uint8), upload(weight.scales, device, torch.float32)
    return Float8Matrix(codes, scales, weight.height, weight.whole, weight.input_scale)


def combined_float8(matrices: Sequence[Float8Matrix], combine: Callable[[list[Tensor]], Tensor]) -> Float8Matrix:
    """A matrix whose codes and scales `combine` makes of theirs; blocks of rows stay where none is cut."""
    if any(one.height == 1 for one in matrices) or any(one.outs % BLOCK for one in matrices[:-1]):
        matrices = [one.by_rows() for one in matrices]
    return Float8Matrix(combine([one.codes for one in matrices]), combine([one.scales for one in matrices]),
                        matrices[0].height, matrices[0].whole, largest([one.input_scale for one in matrices]))


def round_rows(x: Tensor, group: int, input_scale: float | None = None) -> tuple[Tensor, Tensor]:
    """Rows as E4M3 numbers and a float32 scale for each `group` columns, of which the largest becomes 448."""
    parts = x.float().unflatten(-1, (-1, group))
    scales = parts.abs().amax(-1) / LARGEST
    scales = torch.full_like(scales, input_scale) if input_scale else torch.where(scales > 0, scales, 1.0)
    return (parts / scales[..., None]).clamp(-LARGEST, LARGEST).to(TYPE).flatten(-2), scales
