"""What kernels find where: the words of a step's frame and of a program's instructions."""
from __future__ import annotations

ONE, ROWS, EXACT, FAST, SAMPLES, PLACES, ITEMS, MERGES = 0, 1, 2, 7, 12, 17, 22, 23
"""Words of the frame: the number 1, all rows of the step, four domains, work items of attention, and rows whose
attention is merged from several items.

A domain is a run of rows that are multiplied alike, in five words: its rows, the tokens of a block, blocks, the first
row, and whether it has any. Rows come exact first, then fast. `PLACES` are the rows of experts."""
TOKENS, BLOCKS, FIRST, ANY = 1, 2, 3, 4
"""Words of a domain."""
IDS, POSITIONS, PAGES, PAGES_STRIDE, SAMPLE, ITEM, SCRATCH, SCRATCH_BYTES, SEQ_OF, MERGE, STRIPS = range(24, 35)
FAST_ITEMS, FAST_ITEM = 35, 36
"""Work items of attention for fast rows, where these are attended to in their own way."""
FRAME_WORDS = 40

INSTRUCTION = 32
"""Words of an instruction: the kernel's address, a field of the frame and a factor, whose product is the number of
pieces, then the kernel's arguments."""
ARGUMENTS = 3

PAGE = 32
"""Positions in a page of the cache."""

RUN = 8
"""Pages that are attended to from scratch, before the result is merged with those of the runs before."""

SPAN = RUN * PAGE
"""Positions of a run."""

STATE = 16
"""Bytes of a query's state in attention."""

STRIP = 32
"""Rows whose keys and values one thread writes: neighbours share cache lines. The frame's `STRIPS` counts them."""

SPREADERS = 64
"""Pieces that copying rows to their experts' places is cut into."""

LINE = 64
"""Bytes of a cache line."""

HEAD = 16
"""Heads have numbers of a multiple of this, filled up with zeros."""


def padded(dim: int) -> int:
    """The numbers of a head of `dim`."""
    return aligned(dim, HEAD)


def aligned(size: int, multiple: int = LINE) -> int:
    """The least multiple that holds `size`."""
    return -(-size // multiple) * multiple


def block_bytes(cols: int, *, dense: bool, exact: bool) -> int:
    """Bytes of one token's share of a block of activations: float32, or codes of one or two bytes and their scales."""
    return 4 * cols if dense else cols * (2 if exact else 1) + cols // 32 * 28


def domain(at: int, rows: int, tokens: int, first: int = 0) -> dict[int, int]:
    """The words of a domain, by their place in the frame."""
    return {at: rows, at + TOKENS: tokens, at + BLOCKS: -(-rows // tokens), at + FIRST: first, at + ANY: int(rows > 0)}
