"""Weights as eight-bit floats (E4M3, without infinities) with a scale for each row, or for each block of 128 x 128."""
from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from zonda.errors import InvalidModel
from zonda.weights.formats.dense import alike
from zonda.weights.source import Weight

BLOCK = 128
LARGEST = 448.0
CHUNK = 1 << 20
"""Weights that `dense` unpacks at a time."""


def _values() -> np.ndarray:
    codes = np.arange(256)
    exponent, fraction = codes >> 3 & 15, codes & 7
    sizes = np.where(exponent == 0, fraction / 512, (1 + fraction / 8) * 2.0 ** (exponent - 7))
    sizes[exponent * 8 + fraction == 127] = np.nan
    return np.where(codes < 128, sizes, -sizes).astype(np.float32)


VALUES = _values()
"""Code -> value; 127 and 255 are not numbers."""


def encode(values: np.ndarray) -> np.ndarray:
    """The nearest codes of float32 values, ties to even; values beyond ±448 become ±448."""
    sizes = np.minimum(np.abs(values), np.float32(LARGEST))
    bits = sizes.view(np.uint32)
    normal = (bits + (np.uint32((1 << 19) - 1) + (bits >> 20 & 1)) >> 20) - np.uint32(120 << 3)
    small = np.rint(sizes * np.float32(512))
    with np.errstate(invalid="ignore"):
        codes = np.where(sizes < np.float32(2**-6), small.astype(np.uint32), normal).astype(np.uint8)
    codes |= (values.view(np.uint32) >> 24 & 128).astype(np.uint8)
    return np.where(np.isnan(values), np.uint8(127), codes)


@dataclass(frozen=True, slots=True, eq=False)
class Float8:
    """A matrix or a stack of matrices: `codes` uint8 (…, rows, cols), `scales` float32 (…, row blocks, column blocks).

    A scale is for `height` rows, 1 or 128, and for 128 columns, or for the whole row where `whole`. `input_scale` is
    what the inputs are to be divided by before they are rounded to E4M3; None where each row of them has its own.
    """

    codes: np.ndarray
    scales: np.ndarray
    height: int
    whole: bool
    input_scale: float | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.codes.shape

    def rows(self, index: slice | np.ndarray) -> Float8:
        own = self if self._fits(index) else self.by_rows()
        at: slice | np.ndarray = index
        if own.height > 1:
            assert isinstance(index, slice)
            start, stop, _ = index.indices(self.shape[-2])
            at = slice(start // BLOCK, -(-max(start, stop) // BLOCK))
        return own._with(own.codes[..., index, :], own.scales[..., at, :])

    def cols(self, index: slice) -> Float8:
        start, stop, step = index.indices(self.shape[-1])
        if self.whole:
            return self._with(self.codes[..., index], self.scales)
        if step != 1 or start % BLOCK or (stop % BLOCK and stop != self.shape[-1]):
            raise InvalidModel(f"columns {start} to {stop} split a block of {BLOCK} float8 weights",
                               hint=f"cut at multiples of {BLOCK}")
        blocks = slice(start // BLOCK, -(-max(start, stop) // BLOCK))
        return self._with(self.codes[..., start:max(start, stop)], self.scales[..., blocks])

    def can_stack(self, other: Weight) -> bool:
        return (isinstance(other, Float8) and self.whole == other.whole and alike(self.shape, other.shape)
                and (self.input_scale is None) == (other.input_scale is None))

    def stack(self, others: Sequence[Weight]) -> Float8:
        assert all(map(self.can_stack, others))
        parts = [self, *(cast(Float8, other) for other in others)]
        if any(part.height == 1 for part in parts) or any(part.shape[-2] % BLOCK for part in parts[:-1]):
            parts = [part.by_rows() for part in parts]
        return Float8(np.concatenate([part.codes for part in parts], axis=-2),
                      np.concatenate([part.scales for part in parts], axis=-2),
                      parts[0].height, self.whole, largest([part.input_scale for part in parts]))

    def dense(self) -> np.ndarray:
        out = np.empty(self.shape, np.float32)
        for codes, scales, target in self._pieces(out):
            np.multiply(VALUES[codes], scales, out=target)
        return out

    def rounded(self) -> np.ndarray:
        """The values as the bits of bfloat16, whose error is a 32nd of the codes' own."""
        out = np.empty(self.shape, np.uint16)
        for codes, scales, target in self._pieces(out):
            bits = (VALUES[codes] * scales).view(np.uint32)
            target[:] = bits + (np.uint32(0x7FFF) + (bits >> 16 & 1)) >> 16
        return out

    def by_rows(self) -> Float8:
        """The same weight with scales for single rows."""
        if self.height == 1:
            return self
        scales = np.repeat(self.scales, self.height, axis=-2)[..., :self.shape[-2], :]
        return Float8(self.codes, scales, 1, self.whole, self.input_scale)

    def _fits(self, index: slice | np.ndarray) -> bool:
        """Whether a cut leaves blocks of rows whole."""
        if self.height == 1:
            return True
        if not isinstance(index, slice):
            return False
        start, stop, step = index.indices(self.shape[-2])
        return step == 1 and start % BLOCK == 0 and (stop % BLOCK == 0 or stop == self.shape[-2])

    def _pieces(self, out: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Some rows of codes at a time, with scales that broadcast over them, and their place in `out`."""
        count, cols = math.prod(self.shape[:-1]), self.shape[-1]
        codes, target = self.codes.reshape(count, cols), out.reshape(count, cols)
        scales = self.by_rows().scales.reshape(count, self.scales.shape[-1])
        step = max(1, CHUNK // max(1, cols))
        for at in range(0, count if cols else 0, step):
            yield codes[at:at + step], self._spread(scales[at:at + step]), target[at:at + step]

    def _spread(self, scales: np.ndarray) -> np.ndarray:
        return scales if self.whole else np.repeat(scales, BLOCK, axis=-1)[:, :self.shape[-1]]

    def _with(self, codes: np.ndarray, scales: np.ndarray) -> Float8:
        return Float8(codes, scales, self.height, self.whole, self.input_scale)


def largest(scales: Sequence[float | None]) -> float | None:
    """The scale that inputs of several matrices can share."""
    known = [scale for scale in scales if scale is not None]
    return max(known) if known else None
