"""Weights in executable tiles: repacked once at load, by all threads."""
from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from zonda.errors import Unsupported
from zonda.kernels.cpu import amx
from zonda.kernels.cpu.layout import LAYOUTS, ROWS, UNIT
from zonda.kernels.cpu.library import Kernel, Library
from zonda.kernels.cpu.memory import Arena, address
from zonda.kernels.cpu.threads import function
from zonda.kernels.cpu.wide import GROUP, group_bytes
from zonda.weights.formats import Dense, Float8, GroupInt
from zonda.weights.source import Weight

TOKENS = (1, 2, 4, 8)
"""Tokens of a block, and so the variants of each tile kernel; there is one more where registers allow."""
_SIZES = {"f32": 4, "f16": 2, "bf16": 2}


@dataclass(frozen=True, slots=True)
class Matrix:
    """Tiles of a matrix (rows, cols), or of a stack of such matrices one after the other."""

    format: str
    rows: int
    cols: int
    tiles: np.ndarray  # uint8, all tiles
    tile_bytes: int

    @property
    def dense(self) -> bool:
        return self.format in _SIZES

    @property
    def height(self) -> int:
        """Tiles of one matrix."""
        return -(-self.rows // ROWS)

    @property
    def units(self) -> int:
        """What a tile kernel counts by: single columns if dense, else units of 32."""
        return self.cols if self.dense else self.cols // UNIT

    @property
    def group(self) -> int:
        """Columns that share a scale in the tiles, of a unit at most."""
        return UNIT if self.dense else LAYOUTS[self.format].group

    def kernel(self, tokens: int, *, exact: bool, wide: int = 0) -> Kernel:
        """The tile kernel for blocks of so many tokens; wide ones have codes of so many bytes."""
        exact = exact or self.dense
        name = f"tile_{self.format}_{tokens}_{'exact' if exact else 'fast'}"
        if wide:
            return Kernel(f"tile_wide_{wide}_{tokens}", 4, "wide:tile", (wide, tokens), writer=True)
        if tokens == amx.TOKENS and not self.dense:
            return Kernel(name, 4, "amx:tile", (self.format,), writer=True)
        recipe = "matmul:dense_tile" if self.dense else "tile:tile"
        return Kernel(name, 4, recipe, (self.format, tokens, exact), writer=True)

    @property
    def halves(self) -> tuple[Kernel, int]:
        """The kernel that spreads a tile out to bfloat16, and the bytes that takes."""
        kernel = Kernel(f"spread_{self.format}_bfloat", 4, "bfloat_tiles:spread", (self.format,), writer=True)
        return kernel, 2 * ROWS * self.cols

    def spread(self, wide: int) -> tuple[Kernel, int]:
        """The kernel that spreads a tile out, wide or for AMX, and the bytes that takes."""
        if wide:
            name, size = f"spread_{self.format}_{wide}", self.cols // GROUP * group_bytes(wide)
            return Kernel(name, 4, "wide:spread", (self.format, wide), writer=True), size
        size = amx.spread_bytes(self.format, self.units)
        return Kernel(f"spread_{self.format}", 4, "amx:spread", (self.format,), writer=True), size

    def offset(self, isa: str) -> int:
        """What tiles expect to be taken from every code: the format's offset, or the shift that makes int8 unsigned."""
        if self.dense:
            return 0
        unsigned = self.format == "q8_0" and isa in ("avx512vnni", "avxvnni")
        return 128 if unsigned else LAYOUTS[self.format].offset


def tiled(weight: Weight, library: Library, arena: Arena, pool: ThreadPoolExecutor, threads: int) -> Matrix:
    """A weight, or a stack of weights, in tiles."""
    *stack, rows, cols = weight.shape
    count = int(np.prod(stack)) if stack else 1
    if isinstance(weight, Float8):
        weight = Dense(weight.rounded(), "bf16")
    height = -(-rows // ROWS)
    if isinstance(weight, GroupInt):
        name = weight.codec.name
        if name not in LAYOUTS:
            raise Unsupported(f"the CPU kernels have no layout for {name}", hint=f"they have {', '.join(LAYOUTS)}")
        tile_bytes, source = LAYOUTS[name].tile_bytes(cols), weight.packed
        kernel = Kernel(f"pack_{name}", 7, "pack:packer", (name,))
    elif isinstance(weight, Dense):
        name = weight.dtype
        tile_bytes, source = ROWS * cols * _SIZES[name], weight.array
        kernel = Kernel(f"transpose_{_SIZES[name]}", 7, "pack:transposer", (_SIZES[name],))
    else:
        raise Unsupported(f"the CPU kernels do not know {type(weight).__name__}")
    tiles = arena.take(count * height * tile_bytes)
    source = source.reshape(count, rows, -1)
    if source.strides[-1] != source.itemsize:
        source = np.ascontiguousarray(source)
    pack = function(library, kernel)
    for i in range(count):
        target = address(tiles) + i * height * tile_bytes
        _in_parallel(height, pool, threads, lambda first, last, part=source[i], to=target:  # type: ignore[misc]
                     pack(address(part), part.strides[0], rows, cols, to, first, last))
    return Matrix(name, rows, cols, tiles, tile_bytes)


def _in_parallel(count: int, pool: ThreadPoolExecutor, threads: int, work: Callable[[int, int], Any]) -> None:
    """work(first, last) on equal shares of `count`."""
    share = -(-count // threads)
    if count < 2 * threads:
        work(0, count)
        return
    list(pool.map(lambda first: work(first, min(count, first + share)), range(0, count, share)))
