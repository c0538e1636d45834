"""Rows of sequences over pages, as steps bring them to attention, and what attention makes of them."""
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from zonda.kernels.ops import Attend, Heads, Rotary
from zonda.kernels.torch.ops import PAGE
from zonda.kernels.torch.step import Sizes, Step, pieces, view

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
HEADS = Heads(32, 8, 128)
"""Of Llama 3.1 8B."""
BEYOND_CACHE = 2e8
Groups = tuple[tuple[int, int, int], ...]
"""Sequences, the rows of each, and the positions of each after them."""


class Work:
    """Rows of sequences and the layers' pages; queries and keys turn by angles of zero, so that they stay."""

    def __init__(self, groups: Groups, heads: Heads = HEADS) -> None:
        self.heads = heads
        self.counts = np.concatenate([np.full(seqs, rows, np.int32) for seqs, rows, _ in groups])
        self.lengths = np.concatenate([np.full(seqs, length, np.int32) for seqs, _, length in groups])
        self.starts = np.concatenate([[0], np.cumsum(self.counts)]).astype(np.int32)
        self.rows, self.runs = int(self.starts[-1]), bool(max(self.counts) > 1)
        self.positions = np.concatenate([np.arange(end - rows, end) for rows, end in zip(self.counts, self.lengths)])
        width = -(-int(max(self.lengths)) // PAGE)
        self.table = np.random.default_rng(0).permutation(len(self.counts) * width).astype(np.int32).reshape(-1, width)
        self.layer = Attend(0, heads, heads.dim ** -0.5, Rotary(torch.zeros(heads.dim // 2, device=DEVICE), heads.dim))
        shape = self.table.size, heads.kv, PAGE, heads.dim
        layers = max(1, min(128, int(BEYOND_CACHE / (4 * np.prod(shape)))))
        self.caches = [(random(*shape), random(*shape)) for _ in range(layers)]
        self.qkv = random(self.rows, (heads.q + 2 * heads.kv) * heads.dim)
        all = self.qkv.view(self.rows, -1, heads.dim)
        self.q, self.k, self.v = all[:, :heads.q].contiguous(), all[:, heads.q:-heads.kv], all[:, -heads.kv:]
        self.step = self._step()

    def _step(self) -> Step:
        seqs, items, alone = len(self.counts), pieces(self.starts, self.lengths), self.starts[:-1][self.counts == 1]
        sizes = Sizes(self.rows, seqs, seqs, len(items))
        fields = {"head": self.table.shape[1:], "positions": self.positions, "items": items.ravel(),
                  "owners": np.repeat(np.arange(seqs), self.counts), "starts": self.starts, "lengths": self.lengths,
                  "singles": np.pad(alone, (0, seqs - len(alone)), constant_values=-1), "table": self.table.ravel()}
        words = np.zeros(sizes.places["table"].start + self.table.size, np.int32)
        for name, values in fields.items():
            start = sizes.places[name].start
            words[start:start + len(values)] = values
        return view(on_device(words), sizes, on_device(self.counts), alone=not self.runs)

    def expected(self, rows: np.ndarray) -> Tensor:
        """Of the first layer, in float32: (rows, q heads, dim)."""
        found = []
        for row in rows:
            pages = on_device(self.table[np.searchsorted(self.starts, row, "right") - 1])
            k, v = (each[pages].float().transpose(0, 1).flatten(1, 2)[:, :self.positions[row] + 1]
                    for each in self.caches[0])
            q = self.q[row].float().view(self.heads.kv, -1, self.heads.dim)
            found.append((torch.softmax(q @ k.transpose(1, 2) * self.layer.scale, -1) @ v).flatten(0, 1))
        return torch.stack(found)

    @property
    def operations(self) -> float:
        return 4.0 * self.heads.q * self.heads.dim * float(np.sum(self.positions + 1))

    @property
    def bytes(self) -> float:
        return 4.0 * self.heads.kv * self.heads.dim * float(np.sum(self.lengths))


def random(*shape: int) -> Tensor:
    return torch.randn(shape, device=DEVICE).to(torch.bfloat16 if DEVICE.type == "cuda" else torch.float32)


def on_device(numbers: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(numbers, np.int32)).to(DEVICE)
