"""Matrices of eight-bit floats on a torch device, and the rounding of activations to such floats."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from zonda.weights.formats.float8 import BLOCK, LARGEST, Float8

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

    @property
    def values(self) -> Tensor:
        """The codes as numbers, not yet scaled."""
        return self.codes.view(TYPE)

    def dense(self, dtype: torch.dtype) -> Tensor:
        return (self.values.float() * self._spread(self.scales)).to(dtype)

    def rows(self, ids: Tensor) -> Tensor:
        at = ids // self.height
        return self.codes[ids].view(TYPE).float() * self._columns(self.scales[at])

    def _spread(self, scales: Tensor) -> Tensor:
        scales = scales.repeat_interleave(self.height, dim=-2)[..., :self.outs, :]
        return self._columns(scales)

    def _columns(self, scales: Tensor) -> Tensor:
        return scales if self.whole else scales.repeat_interleave(BLOCK, dim=-1)[..., :self.ins]


def prepare_float8(weight: Float8, device: torch.device | str) -> Float8Matrix:
    """The weight as it is, on the device."""
    codes = torch.empty(weight.shape, dtype=torch.uint8)
    np.copyto(codes.numpy(), weight.codes)
    scales = torch.from_numpy(np.array(weight.scales, np.float32))
    return Float8Matrix(codes.to(device), scales.to(device), weight.height, weight.whole, weight.input_scale)


def round_rows(x: Tensor, group: int, input_scale: float | None = None) -> tuple[Tensor, Tensor]:
    """Rows as E4M3 numbers and a float32 scale for each `group` columns, of which the largest becomes 448."""
    parts = x.float().unflatten(-1, (-1, group))
    scales = parts.abs().amax(-1) / LARGEST
    scales = torch.full_like(scales, input_scale) if input_scale else torch.where(scales > 0, scales, 1.0)
    return (parts / scales[..., None]).clamp(-LARGEST, LARGEST).to(TYPE).flatten(-2), scales
