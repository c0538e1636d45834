"""From the blocks of a GGML format to tiles (see `layout.py`), row by row, without ever expanding a matrix."""
from __future__ import annotations

from numba import njit

from zonda.kernels.cpu.layout import LAYOUTS, ROWS, SUPER, UNIT
from zonda.kernels.cpu.words import load_u8, store_u8

_inline = njit(error_model="numpy")


@_inline
def _copy(source: int, target: int, row: int, sign: int) -> None:
    """A float16 into lane `row`, its sign flipped by `sign` = 128."""
    store_u8(target, 2 * row, load_u8(source, 0))
    store_u8(target, 2 * row + 1, load_u8(source, 1) ^ sign)


@_inline
def _nibble(base: int, index: int, high: int) -> int:
    return (load_u8(base, index) >> (4 * high)) & 15


@_inline
def _q4_0(block: int, unit: int, column: int) -> int:
    return _nibble(block + 2, column & 15, column >> 4)


@_inline
def _q4_1(block: int, unit: int, column: int) -> int:
    return _nibble(block + 4, column & 15, column >> 4)


@_inline
def _q5_0(block: int, unit: int, column: int) -> int:
    return _nibble(block + 6, column & 15, column >> 4) | ((load_u8(block + 2, column >> 3) >> (column & 7)) & 1) << 4


@_inline
def _q5_1(block: int, unit: int, column: int) -> int:
    return _nibble(block + 8, column & 15, column >> 4) | ((load_u8(block + 4, column >> 3) >> (column & 7)) & 1) << 4


@_inline
def _q8_0(block: int, unit: int, column: int) -> int:
    return load_u8(block + 2, column)


@_inline
def _q2_k(block: int, unit: int, column: int) -> int:
    return (load_u8(block + 16, 32 * (unit >> 2) + column) >> (2 * (unit & 3))) & 3


@_inline
def _q3_k(block: int, unit: int, column: int) -> int:
    low = (load_u8(block + 32, 32 * (unit >> 2) + column) >> (2 * (unit & 3))) & 3
    return low | ((load_u8(block, column) >> unit) & 1) << 2


@_inline
def _q4_k(block: int, unit: int, column: int) -> int:
    return _nibble(block + 16, 32 * (unit >> 1) + column, unit & 1)


@_inline
def _q5_k(block: int, unit: int, column: int) -> int:
    return _nibble(block + 48, 32 * (unit >> 1) + column, unit & 1) | ((load_u8(block + 16, column) >> unit) & 1) << 4


@_inline
def _q6_k(block: int, unit: int, column: int) -> int:
    half, part = unit >> 2, unit & 3
    low = _nibble(block, 64 * half + 32 * (part & 1) + column, part >> 1)
    return low | ((load_u8(block + 128, 32 * half + column) >> (2 * part)) & 3) << 4


@_inline
def _one_level(block: int, unit: int, scales: int, mins: int, head: int, row: int) -> None:
    _copy(block, scales, row, 0)
    if mins:
        _copy(block + 2, mins, row, 128)


@_inline
def _scales_q2_k(block: int, unit: int, scales: int, mins: int, head: int, row: int) -> None:
    for half in range(2):
        both = load_u8(block, 2 * unit + half)
        store_u8(scales, ROWS * half + row, both & 15)
        store_u8(mins, ROWS * half + row, both >> 4)
    if unit == 0:
        _copy(block + 80, head, row, 0)
        _copy(block + 82, head + 2 * ROWS, row, 0)


@_inline
def _scales_q3_k(block: int, unit: int, scales: int, mins: int, head: int, row: int) -> None:
    for half in range(2):
        index = 2 * unit + half
        low = _nibble(block + 96, index & 7, index >> 3)
        high = (load_u8(block + 104, index & 3) >> (2 * (index >> 2))) & 3
        store_u8(scales, ROWS * half + row, (low | high << 4) - 32)
    if unit == 0:
        _copy(block + 108, head, row, 0)


@_inline
def _scales_q4_k(block: int, unit: int, scales: int, mins: int, head: int, row: int) -> None:
    packed = block + 4
    if unit < 4:
        scale, minimum = load_u8(packed, unit) & 63, load_u8(packed, unit + 4) & 63
    else:
        scale = load_u8(packed, unit + 4) & 15 | (load_u8(packed, unit - 4) >> 6) << 4
        minimum = load_u8(packed, unit + 4) >> 4 | (load_u8(packed, unit) >> 6) << 4
    store_u8(scales, row, scale)
    store_u8(mins, row, minimum)
    if unit == 0:
        _copy(block, head, row, 0)
        _copy(block + 2, head + 2 * ROWS, row, 0)


@_inline
def _scales_q6_k(block: int, unit: int, scales: int, mins: int, head: int, row: int) -> None:
    for half in range(2):
        store_u8(scales, ROWS * half + row, load_u8(block + 192, 2 * unit + half))
    if unit == 0:
        _copy(block + 208, head, row, 0)


def packer(name: str) -> object:
    """The Numba function pack(source, row_bytes, rows, cols, target, first, last): tiles first … last-1 of a matrix.

    `source` holds `rows` rows of blocks; the target is zeroed memory for all tiles, so rows that are missing are zero.
    """
    layout = LAYOUTS[name]
    code_of, scales_of = _READERS[name]
    block_bytes, block_cols = _BLOCKS[name]
    low_bits, high_bits = (*layout.planes, 0)[:2]
    scales_at, mins_at = layout.scales_at, layout.scales_at + layout.scale_bytes if layout.mins else 0
    unit_bytes, head_bytes = layout.unit_bytes, layout.head_bytes
    units_a_block = block_cols // UNIT

    @njit(error_model="numpy")
    def plane(block: int, unit: int, target: int, bits: int, low: int) -> None:
        """Bits low … low+bits-1 of 32 codes of one row: four columns a step, 8/bits steps a byte."""
        per_byte, mask = 8 // bits, (1 << bits) - 1
        for chunk in range(bits):
            for lane in range(4):
                byte = 0
                for step in range(per_byte):
                    code = code_of(block, unit, 4 * (chunk * per_byte + step) + lane)
                    byte |= ((code >> low) & mask) << (bits * step)
                store_u8(target, 64 * chunk + lane, byte)

    def pack(source: int, row_bytes: int, rows: int, cols: int, target: int, first: int, last: int) -> None:
        units = cols // UNIT
        tile_bytes = units * unit_bytes + units // SUPER * head_bytes
        for tile in range(first, last):
            for row in range(min(ROWS, rows - ROWS * tile)):
                for unit in range(units):
                    block = source + (tile * ROWS + row) * row_bytes + unit // units_a_block * block_bytes
                    inner = unit % units_a_block
                    head = target + tile * tile_bytes + unit // SUPER * head_bytes + unit * unit_bytes
                    base = head
                    if head_bytes:
                        base += head_bytes
                        head -= inner * unit_bytes
                    plane(block, inner, base + 4 * row, low_bits, 0)
                    if high_bits:
                        plane(block, inner, base + 64 * low_bits + 4 * row, high_bits, low_bits)
                    scales_of(block, inner, base + scales_at, base + mins_at if mins_at else 0, head, row)

    return pack


_READERS = {
    "q4_0": (_q4_0, _one_level), "q4_1": (_q4_1, _one_level), "q5_0": (_q5_0, _one_level), "q5_1": (_q5_1, _one_level),
    "q8_0": (_q8_0, _one_level), "q2_k": (_q2_k, _scales_q2_k), "q3_k": (_q3_k, _scales_q3_k),
    "q4_k": (_q4_k, _scales_q4_k), "q5_k": (_q5_k, _scales_q4_k), "q6_k": (_q6_k, _scales_q6_k),
}
_BLOCKS = {
    "q4_0": (18, 32), "q4_1": (20, 32), "q5_0": (22, 32), "q5_1": (24, 32), "q8_0": (34, 32),
    "q2_k": (84, 256), "q3_k": (110, 256), "q4_k": (144, 256), "q5_k": (176, 256), "q6_k": (210, 256),
}
"""Bytes and columns of a block."""


def transposer(size: int) -> object:
    """The Numba function that puts rows of dense weights of `size` bytes into tiles [cols][16]; as `packer` else."""
    def transpose(source: int, row_bytes: int, rows: int, cols: int, target: int, first: int, last: int) -> None:
        for tile in range(first, last):
            for row in range(min(ROWS, rows - ROWS * tile)):
                line = source + (tile * ROWS + row) * row_bytes
                place = target + (tile * cols * ROWS + row) * size
                for column in range(cols):
                    for byte in range(size):
                        store_u8(place, column * ROWS * size + byte, load_u8(line, column * size + byte))

    return transpose
