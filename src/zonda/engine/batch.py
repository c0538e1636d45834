"""A step as arrays: what a runner hands to the kernels."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(slots=True)
class Batch:
    """Tokens of several sequences side by side, each a run of consecutive positions of one sequence.

    `page_table[s, p]` is the page that holds positions p·page_size … of sequence s; the pages for every position of
    this step are there. Its width is the most pages of any sequence of the step; entries past a sequence's own pages
    are valid page numbers without meaning. `lengths[s]` counts positions after this step. Arrays are contiguous.
    """

    tokens: np.ndarray  # int32 (rows,)
    positions: np.ndarray  # int32 (rows,)
    starts: np.ndarray  # int32 (seqs + 1,): rows of sequence s are starts[s]:starts[s+1]
    lengths: np.ndarray  # int32 (seqs,)
    page_table: np.ndarray  # int32 (seqs, width)
    sample: np.ndarray  # int32 (samples,): the rows whose logits are wanted, ascending

    @property
    def rows(self) -> int:
        return len(self.tokens)
