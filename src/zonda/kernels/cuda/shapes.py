"""How products are cut into programs: by rule from shape and format, as measured on an H100, less where memory is."""
from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace

import torch

from zonda.kernels.torch.matrix import DenseMatrix, GroupIntMatrix, Matrix

DENSE_ROWS, PACKED_ROWS = 4, 2
"""Rows up to which multiply-adds are as fast as the memory; from there on tensor cores."""
LARGE = 1 << 25
"""Numbers of a dense matrix from which programs of one block each are the fastest."""
UNPACKED_ROWS = 256
"""Rows beyond which a packed matrix is first made floats."""
ARRIVALS = 1024
"""Tiles of which parts may be made by several programs."""
LEAST_COLUMNS = 64
"""Columns that a tile keeps however small the shared memory is."""
_SCRATCH = 4096  # bytes that Triton takes for scales and changes of layout


@dataclass(frozen=True, slots=True)
class Few:
    """`block` outs at a time in each of `programs` programs."""

    block: int
    warps: int
    programs: int


@dataclass(frozen=True, slots=True)
class Many:
    """Tiles of rows × outs, `words` of low bits at a time; `splits` programs share the columns of a tile.

    With `bulk` the copy engine brings the inputs.
    """

    rows: int
    outs: int
    words: int
    warps: int
    stages: int
    splits: int = 1
    bulk: bool = False


@dataclass(frozen=True, slots=True)
class Tiled:
    """`rows` × `outs` of a product with floats, `columns` at a time; `band` blocks of rows run together."""

    rows: int
    outs: int
    columns: int
    warps: int
    stages: int
    band: int = 16


def power(n: int) -> int:
    """The next power of two."""
    return 1 << max(0, n - 1).bit_length()


@functools.cache
def processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 4


@functools.cache
def room(device: torch.device) -> int:
    """Bytes of shared memory that a program may have."""
    if device.type != "cuda":
        return 1 << 62
    return int(getattr(torch.cuda.get_device_properties(device), "shared_memory_per_block_optin", 1 << 16))


@functools.cache
def in_turn(device: torch.device) -> bool:
    """Whether tensor cores are done with a stage when its product is; else they still read it beside the next."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] not in (9, 10)


def has_eights(device: torch.device | str) -> bool:
    """Whether kernels can compute with eight-bit floats (E4M3): from compute capability 8.9 on."""
    others = torch.device(device).type != "cuda" or torch.version.hip is not None
    return others or torch.cuda.get_device_capability(device) >= (8, 9)


def staged(device: torch.device, columns: int, stages: int, *, loaded: float, made: float) -> tuple[int, int]:
    """Columns and stages, less of them where the device's shared memory is too small for so many.

    `loaded` are the bytes of a column that each stage brings from memory, `made` those that a program makes of them
    for the tensor cores.
    """
    def need() -> float:
        return columns * (loaded * (stages - in_turn(device)) + made) + _SCRATCH

    while need() > room(device) and (stages > 2 or columns > LEAST_COLUMNS):
        stages, columns = (stages - 1, columns) if stages > 2 else (stages, columns // 2)
    return columns, stages


def width(matrix: Matrix) -> float:
    """Bytes of a number in memory."""
    if isinstance(matrix, GroupIntMatrix):
        return matrix.layout.bits / 8
    return matrix.values.element_size() if isinstance(matrix, DenseMatrix) else 1


def span(matrix: DenseMatrix | GroupIntMatrix) -> int:
    """What a program's tile covers of a row: a power of two of columns, or of units of a packed row."""
    return power(matrix.ins // matrix.layout.unit if isinstance(matrix, GroupIntMatrix) else matrix.ins)


def few(matrix: DenseMatrix | GroupIntMatrix, rows: int, *, gated: bool = False) -> Few:
    """About 64 numbers of a dense block, or 128 of a packed one, in each thread, and programs that end together."""
    if isinstance(matrix, GroupIntMatrix):
        return _few_packed(matrix, rows, gated=gated)
    if rows == 1 and matrix.outs * matrix.ins >= LARGE and matrix.outs >= 3 * matrix.ins:
        block = max(1, 8192 // matrix.ins // (2 if gated else 1))
        return Few(block, 4, -(-matrix.outs // block))
    columns = span(matrix)
    warps = 4 if columns <= 2048 else 8 if columns <= 8192 else 16
    return even(matrix, _block(columns, warps, 64, rows, gated=gated), warps)


def _few_packed(matrix: GroupIntMatrix, rows: int, *, gated: bool) -> Few:
    columns = span(matrix) * matrix.layout.unit
    warps = 4 if columns < 2048 or (gated and columns == 4096) else 8
    numbers = 64 if columns > 8192 and matrix.layout.bits > 5 else 128
    block = _block(columns, warps, numbers, rows, gated=gated)
    while block > 1 and matrix.outs < block * _at_once(matrix, warps) * 0.9:
        block //= 2
    return even(matrix, block, warps)


def _block(columns: int, warps: int, numbers: int, rows: int, *, gated: bool) -> int:
    """Outs of which each thread has so many numbers."""
    return max(1, numbers // max(1, columns // (32 * warps)) // (2 if gated else 1) // power(rows))


def _at_once(matrix: DenseMatrix | GroupIntMatrix, warps: int) -> int:
    """Programs that run at once."""
    return processors(_device(matrix)) * max(1, 16 // warps)


def even(matrix: DenseMatrix | GroupIntMatrix, block: int, warps: int) -> Few:
    """As many programs as run at once, each with as many blocks."""
    blocks = -(-matrix.outs // block)
    turns = -(-blocks // _at_once(matrix, warps))
    return Few(block, warps, -(-blocks // turns))


def rule(matrix: DenseMatrix | GroupIntMatrix, rows: int, *, gated: bool = False) -> Few | Many:
    """How a product is cut, fused for few rows."""
    if isinstance(matrix, GroupIntMatrix) and rows > PACKED_ROWS:
        return many(matrix, rows, gated=gated)
    return few(matrix, rows, gated=gated)


def many(matrix: GroupIntMatrix, rows: int, *, gated: bool = False) -> Many:
    """Tiles by the rows, and as many programs as a processor runs at once: four, three or one."""
    words = 32 if matrix.layout.low > 2 else 16
    if rows <= 8:
        return _split(Many(8, 64, words, 4, 3), 4, matrix, rows, gated=gated)
    if rows <= 32:
        return _split(Many(32, 64, words, 4, 3), 3, matrix, rows, gated=gated)
    if rows <= 64:
        return _split(Many(64, 128, words, 8, 3), 1, matrix, rows, gated=gated)
    if gated and matrix.layout.high:
        words = 16  # or registers run out
    return _split(Many(128, 128, words, 8, 2, bulk=True), 1, matrix, rows, gated=gated)


def _split(shape: Many, each: int, matrix: GroupIntMatrix, rows: int, *, gated: bool) -> Many:
    """What fits the card, its columns split so that about `each` programs, of two steps, fall to a processor."""
    columns, stages = staged(_device(matrix), shape.words * 32 // matrix.layout.low, shape.stages,
                             loaded=shape.rows * 2 + shape.outs * (1 + gated) * width(matrix) * 1.25, made=0)
    shape = replace(shape, words=max(16, columns * matrix.layout.low // 32), stages=stages)
    tiles = -(-rows // shape.rows) * -(-matrix.outs // shape.outs) * (1 + gated)
    wanted = round(math.log2(max(1, each * processors(_device(matrix)) / tiles)))
    steps = matrix.ins * matrix.layout.low // 32 // shape.words
    return replace(shape, splits=min(1 << wanted, power(max(1, steps // 2 + 1)) // 2 or 1))


def tiled(x: torch.Tensor, outs: int, *, gated: bool) -> Tiled | None:
    """How floats are multiplied by a kernel of our own, or None where the library is as fast.

    That is a gated product whose tiles end together, and any of so few rows that reading the matrix takes the time.
    """
    rows, half = len(x), 2 if gated else 1
    if not _warp_groups(x.device) or x.element_size() != 2 or x.shape[1] % 8 or (rows > 128 and not gated):
        return None
    if rows <= 64:
        return Tiled(64, 128 // half, 128, 4, 4)
    if rows > 128:
        return _together(Tiled(128, 256 // half, 64, 8, 4), 1, rows, outs, x.device)
    one = Tiled(128, 128 // half, 128, 4, 3)
    return _together(one, 1, rows, outs, x.device) or _together(replace(one, columns=64), 2, rows, outs, x.device)


def _together(shape: Tiled, each: int, rows: int, outs: int, device: torch.device) -> Tiled | None:
    """The shape, if its programs, `each` to a processor at once, fit at once, or seldom leave processors idle."""
    tiles, slots = -(-rows // shape.rows) * -(-outs // shape.outs), each * processors(device)
    return shape if tiles <= slots or tiles >= 0.7 * slots * -(-tiles // slots) else None


@functools.cache
def _warp_groups(device: torch.device) -> bool:
    """Whether four warps multiply what lies in shared memory, as on an H100, where the tiles were measured."""
    return device.type == "cuda" and torch.version.hip is None and torch.cuda.get_device_capability(device)[0] == 9


def _device(matrix: DenseMatrix | GroupIntMatrix) -> torch.device:
    return (matrix.planes.low if isinstance(matrix, GroupIntMatrix) else matrix.values).device
