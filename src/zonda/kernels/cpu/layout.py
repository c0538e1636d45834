"""The executable layouts of packed weights on a CPU.

A matrix is cut into tiles of 16 rows. A tile is a run of units, each of 32 columns:

    [ planes | scales | mins ]        and before each eighth unit of a two-level format   [ d | dmin ]

A plane holds some bits of each code. The bytes of a 4-bit plane, 64 at a time, are 16 rows × 4 columns: the low
nibbles columns 8c … 8c+3, the high nibbles the next four. A 2-bit plane packs four such steps into a byte, a 1-bit
plane eight. So one 64-byte load, a shift and a mask give what a four-way int8 dot product of 16 rows takes.
Scales are float16 for 16 rows, or int8 multiples of the float16 `d`; mins likewise.
"""
from __future__ import annotations

from dataclasses import dataclass

ROWS = 16
UNIT = 32
SUPER = 8
"""Units that share `d` and `dmin` in a two-level format."""


@dataclass(frozen=True, slots=True)
class Layout:
    """value = (code - offset) · scale - min, with a scale and a min for each `group` columns (32 or 16)."""

    name: str
    bits: int
    group: int = 32
    offset: int = 0
    mins: bool = False
    two_level: bool = False

    @property
    def planes(self) -> tuple[int, ...]:
        """Bits in each plane, low bits first."""
        return {2: (2,), 3: (2, 1), 4: (4,), 5: (4, 1), 6: (4, 2), 8: (8,)}[self.bits]

    @property
    def scales_at(self) -> int:
        """Bytes from a unit's start to its scales."""
        return 64 * self.bits

    @property
    def scale_bytes(self) -> int:
        """Bytes of one unit's scales."""
        return ROWS * (1 if self.two_level else 2) * (UNIT // self.group)

    @property
    def unit_bytes(self) -> int:
        return self.scales_at + self.scale_bytes * (2 if self.mins else 1)

    @property
    def head_bytes(self) -> int:
        """Bytes of `d` and `dmin` before eight units."""
        return 2 * ROWS * (2 if self.mins else 1) if self.two_level else 0

    def tile_bytes(self, cols: int) -> int:
        units = cols // UNIT
        return units * self.unit_bytes + (units // SUPER) * self.head_bytes


LAYOUTS = {layout.name: layout for layout in (
    Layout("q4_0", 4, offset=8),
    Layout("q4_1", 4, mins=True),
    Layout("q5_0", 5, offset=16),
    Layout("q5_1", 5, mins=True),
    Layout("q8_0", 8),
    Layout("q2_k", 2, group=16, mins=True, two_level=True),
    Layout("q3_k", 3, group=16, offset=4, two_level=True),
    Layout("q4_k", 4, mins=True, two_level=True),
    Layout("q5_k", 5, mins=True, two_level=True),
    Layout("q6_k", 6, group=16, offset=32, two_level=True),
)}
