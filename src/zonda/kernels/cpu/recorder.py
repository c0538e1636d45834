"""Records instructions: the memory of their rows, activations packed into blocks, and the products of these."""
from __future__ import annotations

import numpy as np

from zonda.kernels.cpu import amx
from zonda.kernels.cpu import frame as f
from zonda.kernels.cpu.layout import UNIT
from zonda.kernels.cpu.library import Kernel, Library, Target
from zonda.kernels.cpu.matmul import MOST_TOKENS
from zonda.kernels.cpu.matrix import TOKENS, Matrix
from zonda.kernels.cpu.memory import Arena, Buffer, Pool, address
from zonda.kernels.cpu.wide import GROUP, token_bytes
from zonda.kernels.ops import Norm

_TWELVE = 10.5
"""What a block of 12 tokens costs, where one of 8 costs 8."""
_SIXTEEN = 10.0
"""The same for one of 16, by AMX."""
_PIECE = 512 << 10
"""Bytes of weights that a piece of a product has at most, packed or spread out, if it has more than one tile."""
_HALVES = 1 << 20
"""The same, spread out to bfloat16: every piece reads all activations, which are not in the cache of its thread."""


def _most(target: Target) -> int:
    """The tokens of the largest block."""
    if target.matrices:
        return amx.TOKENS
    return 12 if target.isa.startswith("avx512") else 8


def bits(value: float) -> int:
    """A float32 as the word that kernels take it from."""
    return int(np.float32(value).view(np.int32))


class Recorder:
    """Records `instructions`, int64 words of instructions. `max_rows` bounds the rows of a step."""

    def __init__(self, library: Library, *, threads: int, max_rows: int) -> None:
        self.library = library
        self.threads = threads
        self.max_rows = max_rows
        self.instructions: list[list[int]] = []
        self.scratch_bytes = 4096
        self._most = _most(library.target)
        self._pool = Pool(Arena())
        self._constants: dict[tuple[int, float], np.ndarray] = {}

    def block_tokens(self, rows: int, *, exact: bool = True) -> int:
        """The tokens of a block for so many rows: more than 8 where they cost less, padding and all."""
        if self._most == amx.TOKENS and not exact:
            return amx.TOKENS  # whose wide tiles round in their own way, however few the rows
        if rows <= 8:
            return next(tokens for tokens in TOKENS if rows <= tokens)
        cost = {12: _TWELVE, amx.TOKENS: _SIXTEEN}.get(self._most)
        return self._most if cost and -(-rows // self._most) * cost < -(-rows // 8) * 8 else 8

    @property
    def _isa(self) -> str:
        return self.library.target.isa

    def _emit(self, kernel: Kernel, field: int, factor: int, *arguments: int) -> None:
        words = [self.library.address(kernel), field, factor, *arguments]
        assert len(words) <= f.INSTRUCTION
        self.instructions.append(words + [0] * (f.INSTRUCTION - len(words)))

    def _rows(self, cols: int) -> Buffer:
        return Buffer(self._pool, 4 * self.max_rows * cols, cols)

    def _like(self, x: Buffer, cols: int) -> Buffer:
        return Buffer(self._pool, 4 * self.max_rows * cols, cols, x.rows)

    def _memory(self, size: int, cols: int = 0) -> Buffer:
        return Buffer(self._pool, size, cols)

    def _scratch(self, size: int) -> None:
        self.scratch_bytes = max(self.scratch_bytes, f.aligned(size))

    def _tiles(self, weight: Matrix, blocks: Buffer) -> list[int]:
        last = [self._most] if self._most > TOKENS[-1] else []
        tiles = [self.library.address(weight.kernel(tokens, exact=blocks.exact, wide=blocks.wide))
                 for tokens in [*TOKENS, *last]]
        return tiles if last else [*tiles, 0]

    def _wide(self, domain: int, weight: Matrix, *, fine: bool) -> int:
        """Bytes of a code in tiles of a product, or 0 where they keep the groups of their format."""
        wide = domain == f.FAST and not weight.dense and self.library.target.wide and weight.cols % GROUP == 0
        return 0 if not wide else 2 if fine else 1

    def _halved(self, domain: int, weight: Matrix) -> bool:
        """Whether a product is one of bfloat16 in matrix registers."""
        return domain == f.FAST and self.library.target.matrices and weight.cols % UNIT == 0

    def _form(self, weight: Matrix, domain: int) -> tuple[int, ...]:
        """What is equal for weights that take the same blocks of activations."""
        return () if self._halved(domain, weight) else (weight.dense, weight.offset(self._isa))

    def _together(self, gate: Matrix, up: Matrix) -> bool:
        """Whether one kernel may multiply by both."""
        return (self._form(gate, f.EXACT) == self._form(up, f.EXACT) and gate.group == up.group
                and not (self._halved(f.FAST, gate) and gate.rows % UNIT))

    def _spread(self, blocks: Buffer, share: int, *weights: Matrix) -> list[int]:
        """What spreads tiles of each of `weights`, the bytes they then have, and what releases the registers, or 0."""
        target, wide = self.library.target, blocks.wide
        if weights[0].dense or not (wide or target.matrices):
            return [0] * (len(weights) + 2)
        kernels, sizes = zip(*(weight.spread(wide) for weight in weights))
        self._scratch(8 * 16 * MOST_TOKENS + len(weights) * share * max(sizes))
        return [*map(self.library.address, kernels), max(sizes), self._release if target.matrices else 0]

    @property
    def _release(self) -> int:
        """The address of what gives the matrix registers back."""
        return self.library.address(Kernel("release", 4, "amx:release", writer=True))

    def _share(self, blocks: Buffer, weight: Matrix, matrices: int = 1) -> int:
        """Tiles a piece: half a megabyte, packed or spread out, but several pieces for each thread."""
        size = weight.spread(blocks.wide)[1] if blocks.wide else weight.tile_bytes
        return max(1, min(_PIECE // (size * matrices), weight.height // (4 * self.threads)))

    def _pack(self, x: Buffer, weight: Matrix, norm: Norm | None, domain: int, *, most: int = 0,
              fine: bool = False) -> Buffer:
        """x, normed, in the blocks that `weight` takes; `cols` of the result counts bytes of a token. Rounding of what
        is `fine` matters most."""
        if self._halved(domain, weight):
            return x.fast or self._pack_halves(x, weight, norm)
        wide = self._wide(domain, weight, fine=fine)
        exact = domain != f.FAST or (fine and not wide)
        size = (token_bytes(weight.cols, wide) if wide else
                f.block_bytes(weight.cols, dense=weight.dense, exact=exact))
        blocks = Buffer(self._pool, ((most or self.max_rows) + MOST_TOKENS) * size, size)
        blocks.exact, blocks.wide = exact, wide
        scale = norm.weight if norm else self._constant(weight.cols)
        self._emit(Kernel("pack", 4, "activations:pack"), domain + f.BLOCKS, 1, x.at, x.cols, address(scale),
                   bits(norm.eps) if norm else 0, weight.cols, domain, blocks.at, size,
                   weight.offset(self._isa), int(weight.dense), int(exact), self.library.target.word_tokens,
                   wide)
        return blocks

    def _pack_halves(self, x: Buffer, weight: Matrix, norm: Norm | None) -> Buffer:
        """Fast rows of x, normed, in blocks of bfloat16."""
        blocks = self._halves(weight.cols)
        self._emit(Kernel("pack_bfloat", 4, "bfloat_tiles:pack"), f.FAST + f.BLOCKS, 1, x.at, x.cols,
                   address(norm.weight if norm else self._constant(weight.cols)), bits(norm.eps) if norm else 0,
                   weight.cols, blocks.at)
        return blocks

    def _halves(self, cols: int) -> Buffer:
        """Blocks of bfloat16, with room for one more of which nothing is read."""
        return self._memory(2 * cols * (self.max_rows + 2 * amx.TOKENS), cols)

    def _constant(self, count: int, value: float = 1.0) -> np.ndarray:
        if (count, value) not in self._constants:
            self._constants[count, value] = np.full(count, value, np.float32)
        return self._constants[count, value]

    def _product(self, blocks: Buffer, weight: Matrix, out: Buffer, domain: int, *, column: int = 0,
                 bias: np.ndarray | None = None, residual: Buffer | None = None, scale: float = 1.0,
                 softcap: float = 0.0) -> None:
        to = (out.at, out.cols, column, weight.rows, address(bias) if bias is not None else 0,
              residual.at if residual else 0, bits(scale), bits(softcap))
        if self._halved(domain, weight):
            self._emit(Kernel("product_bfloat", 4, "bfloat_tiles:product"), f.FAST + f.ANY,
                       *self._begin_halves(blocks, weight), *to)
            return
        share = self._share(blocks, weight)
        self._emit(Kernel("product", 4, "matmul:product"), domain + f.ANY, *self._begin(blocks, weight, domain, share),
                   *to, *self._spread(blocks, share, weight))

    def _begin(self, blocks: Buffer, weight: Matrix, domain: int, share: int) -> tuple[int, ...]:
        """The pieces of a product, of `share` tiles each, and the words that it begins with."""
        return (-(-weight.height // share), blocks.at, blocks.cols, weight.units, domain, address(weight.tiles),
                weight.tile_bytes, weight.height, share, *self._tiles(weight, blocks))

    def _begin_halves(self, blocks: Buffer, weight: Matrix, matrices: int = 1) -> tuple[int, ...]:
        """The same for AMX, with an even number of tiles, and the kernels that spread, multiply and release them."""
        spread, size = weight.halves
        most = min(_HALVES // (size * matrices), weight.height // (2 * self.threads))
        share = max(2, most // 2 * 2)
        self._scratch(4 * amx.SQUARE + share * size * matrices)
        tile = Kernel("tile_bfloat", 4, "bfloat_tiles:tile", writer=True)
        return (-(-weight.height // share), blocks.at, weight.cols // UNIT, address(weight.tiles), weight.tile_bytes,
                weight.height, share, self.library.address(spread), self.library.address(tile), self._release)
