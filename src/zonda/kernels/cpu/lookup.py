"""Single rows out of packed tiles, for embeddings."""
from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from zonda.kernels.cpu.layout import LAYOUTS, ROWS, SUPER, UNIT
from zonda.kernels.cpu.words import bits_f32, load_f16, load_f32, load_u8, store_f32

f32 = np.float32


@njit(error_model="numpy")
def _field(unit: int, offset: int, bits: int, row: int, column: int) -> int:
    step, per_byte = column >> 2, 8 // bits
    byte = load_u8(unit, offset + 64 * (step // per_byte) + 4 * row + (column & 3))
    return (byte >> (bits * (step % per_byte))) & ((1 << bits) - 1)


@njit(error_model="numpy")
def _signed(base: int, index: int) -> int:
    value = np.int64(load_u8(base, index))
    return value - 256 if value > 127 else value


def row_of(name: str) -> Any:
    """The function read(tile, row, cols, out, scale): a tile's row as float32."""
    if name in ("f32", "f16", "bf16"):
        return _dense_row(name)
    layout = LAYOUTS[name]
    low, high = (*layout.planes, 0)[:2]
    group, offset, has_min, two_level = layout.group, layout.offset, layout.mins, layout.two_level
    signed = layout.bits == 8
    scales_at, mins_at = layout.scales_at, layout.scales_at + layout.scale_bytes
    unit_bytes, head_bytes = layout.unit_bytes, layout.head_bytes

    @njit(error_model="numpy")
    def factor(unit: int, at: int, head: int, index: int, row: int) -> float:
        if two_level:
            return f32(_signed(unit + at, ROWS * index + row)) * load_f16(head, row)
        return load_f16(unit + at, ROWS * index + row)

    @njit(error_model="numpy")
    def read(tile: int, row: int, cols: int, out: int, scale: float) -> None:
        for u in range(cols // UNIT):
            head = tile + u // SUPER * (SUPER * unit_bytes + head_bytes)
            unit = tile + u * unit_bytes
            if head_bytes:
                unit += (u // SUPER + 1) * head_bytes
            for column in range(UNIT):
                code = np.int64(_field(unit, 0, low, row, column))
                if high:
                    code |= np.int64(_field(unit, 64 * low, high, row, column)) << low
                if signed:
                    code = code - 256 if code > 127 else code
                value = f32(code - offset) * factor(unit, scales_at, head, column // group, row)
                if has_min:
                    value -= factor(unit, mins_at, head + 2 * ROWS, column // group, row)
                store_f32(out, u * UNIT + column, value * scale)

    return read


@njit(error_model="numpy")
def bf16(base: int, index: int) -> float:
    """The bfloat16 at base[index], as float32."""
    bits = np.int32(load_u8(base, 2 * index)) << np.int32(16) | np.int32(load_u8(base, 2 * index + 1)) << np.int32(24)
    return bits_f32(np.int32(bits))


def _dense_row(name: str) -> Any:
    load = {"f32": load_f32, "f16": load_f16, "bf16": bf16}[name]

    @njit(error_model="numpy")
    def read(tile: int, row: int, cols: int, out: int, scale: float) -> None:
        for i in range(cols):
            store_f32(out, i, load(tile, i * ROWS + row) * scale)

    return read
