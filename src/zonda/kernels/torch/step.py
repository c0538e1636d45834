"""A step on a torch device: one int32 buffer, filled on the host, copied at once, and read through views."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

TILE = 64
"""Most query rows of an attention item."""
_HEAD = 4
"""Words at the start of the buffer; the first is the width of the page table, the second a row of `drawn`."""
_ALIGNED = 4
"""Words: each field starts at a multiple of 16 bytes, since kernels are compiled apart for addresses that do not."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a step has room for. Samples come one a row in a decode step; `items` are pieces of longer runs of rows."""

    rows: int
    seqs: int
    samples: int
    items: int

    @property
    def places(self) -> dict[str, slice]:
        """Where each field lies in the buffer; the page table follows the last."""
        lengths = {"head": _HEAD, "tokens": self.rows, "positions": self.rows, "owners": self.rows,
                   "starts": self.seqs + 1, "lengths": self.seqs, "singles": self.seqs, "items": 4 * self.items,
                   "sample": self.samples, "temperature": self.samples, "top_k": self.samples, "top_p": self.samples,
                   "min_p": self.samples, "key": 2 * self.samples, "number": self.samples}
        found, at = {}, 0
        for name, length in lengths.items():
            found[name] = slice(at, at + length)
            at += length + -length % _ALIGNED
        found["table"] = slice(at, at)
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """The views. `singles` are rows of sequences that have one row, -1 where there is none; `items` are (first row,
    rows, sequence, 0) of the others; `last` are the tokens that the step before drew."""

    sizes: Sizes
    head: Tensor
    tokens: Tensor
    positions: Tensor
    owners: Tensor
    starts: Tensor
    lengths: Tensor
    singles: Tensor
    items: Tensor
    sample: Tensor
    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    min_p: Tensor
    key: Tensor
    number: Tensor
    table: Tensor
    last: Tensor
    drawn: Tensor | None
    """Rows of tokens in memory of the host, of which the step names one for its own."""
    alone: bool
    """Whether every sequence has one row and is sampled."""

    @property
    def rows(self) -> int:
        return self.sizes.rows


def view(buffer: Tensor, sizes: Sizes, last: Tensor, drawn: Tensor | None = None, *, alone: bool) -> Step:
    """The step that an int32 buffer on the device holds."""
    parts = {name: buffer[place] for name, place in sizes.places.items() if name != "table"}
    for name in ("temperature", "top_p", "min_p"):
        parts[name] = parts[name].view(torch.float32)
    parts["key"] = parts["key"].view(torch.int64)
    table = buffer[sizes.places["table"].start:]
    return Step(sizes, **parts, table=table, last=last, drawn=drawn, alone=alone)


def pieces(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Items of the sequences that have more than one row, int32 (n, 4), those that look back furthest first."""
    counts = np.diff(starts)
    many = np.flatnonzero(counts > 1)
    shares = -(-counts[many] // TILE)
    owner = np.repeat(many, shares)
    within = (np.arange(len(owner)) - np.repeat(np.cumsum(shares) - shares, shares)) * TILE
    items = np.zeros((len(owner), 4), np.int32)
    items[:, 0] = starts[owner] + within
    items[:, 1] = np.minimum(TILE, counts[owner] - within)
    items[:, 2] = owner
    return items[np.argsort(counts[owner] - within - lengths[owner], kind="stable")]
