"""A step as arrays: what a runner hands to the kernels."""
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from zonda.engine.scheduler import Step
    from zonda.engine.slots import Slots


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
    prompts: np.ndarray | None = None  # int32 (rows,): tokens of the prompt of a row's sequence; None is none

    @property
    def rows(self) -> int:
        return len(self.tokens)


def assemble(step: Step, slots: Slots, page_size: int) -> Batch:
    """The arrays of a step."""
    seqs = step.sequences
    count = len(seqs)
    rows = np.array([seq.slot for seq in seqs], np.int32)
    computed = np.array([seq.computed for seq in seqs], np.int32)
    counts = np.array(step.counts, np.int32)
    prompts = np.array([len(seq.group.prompt) for seq in seqs], np.int32)
    lengths = computed + counts
    starts = np.zeros(count + 1, np.int32)
    np.cumsum(counts, out=starts[1:])
    owners, positions = rows, computed
    if starts[-1] > count:
        owners = np.repeat(rows, counts)
        positions = np.arange(starts[-1], dtype=np.int32) + np.repeat(computed - starts[:-1], counts)
    width = -(-int(lengths.max()) // page_size)
    return Batch(tokens=slots.tokens[owners, positions], positions=positions, starts=starts, lengths=lengths,
                 page_table=slots.tables[:, :width].take(rows, axis=0), sample=_sample(step, starts),
                 prompts=np.repeat(prompts, counts))


def _sample(step: Step, starts: np.ndarray) -> np.ndarray:
    """The last rows of sequences that draw, and the rows that tell the probability of the next token of a prompt."""
    last = starts[1:][step.draws] - 1
    if not step.scored:
        return last
    scored = [np.arange(starts[place], starts[place] + count, dtype=np.int32) for place, count in step.scored]
    return np.sort(np.concatenate([last, *scored]))
