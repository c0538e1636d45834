"""What kernels find where: the words of a step's frame and of a program's instructions."""
from __future__ import annotations

# Words of the frame. Fields 1-3, 4-6 and 9-11 describe domains of rows: all tokens of the step, the sampled ones, and
# the rows of experts.
ONE, ROWS, TOKENS, BLOCKS, SAMPLES, SAMPLE_TOKENS, SAMPLE_BLOCKS, SEQS, ITEMS, PLACES = range(10)
IDS, POSITIONS, PAGES, PAGES_STRIDE, SAMPLE, ITEM, SCRATCH, SCRATCH_BYTES, SEQ_OF = range(16, 25)
FRAME_WORDS = 32

ROW_DOMAIN, SAMPLE_DOMAIN, EXPERT_DOMAIN = ROWS, SAMPLES, PLACES
"""A domain's number of rows; the next two words are the tokens of a block and the number of blocks."""

INSTRUCTION = 32
"""Words of an instruction: the kernel's address, a field of the frame and a factor, whose product is the number of
pieces, then the kernel's arguments."""
ARGUMENTS = 3

PAGE = 32
"""Positions in a page of the cache."""

SPREADERS = 64
"""Pieces that copying rows to their experts' places is cut into."""

LINE = 64
"""Bytes of a cache line."""


def block_bytes(cols: int, dense: bool) -> int:
    """Bytes of one token's share of a block of activations: float32, or codes, scales, and two kinds of sums."""
    return 4 * cols if dense else cols + cols // 32 * 28
