"""From a step's logits to tokens and log-probabilities."""
from __future__ import annotations

import math
from collections.abc import Sequence as Items

import numpy as np

from zonda.engine.request import Sequence
from zonda.engine.runner import Drawing
from zonda.engine.slots import Slots
from zonda.kernels import sample
from zonda.kernels.sample import LOWEST, TOP, Draws, Kernel
from zonda.types import Logprob

_NO_IDS = np.zeros(0, np.int32)
_NO_VALUES = np.zeros(0, np.float32)


class Sampler:
    """Draws for the sequences of a step. Rows that only want the first maximum need no more than numpy's argmax."""

    def __init__(self, slots: Slots, kernel: Kernel, *, max_draws: int) -> None:
        self._slots = slots
        self._kernel = kernel
        self._chosen = np.zeros(max_draws, np.int32)
        self._logprobs = np.zeros((max_draws, 1 + TOP), np.float32)
        self._tops = np.zeros((max_draws, TOP), np.int32)

    def draw(self, logits: np.ndarray, rows: np.ndarray, seqs: Items[Sequence], slots: np.ndarray,
             lengths: np.ndarray) -> np.ndarray:
        """A token for each sequence from its row of logits, -1 where the row is unusable. All arrays are int32."""
        if all(seq.params.plain for seq in seqs):
            return first_maxima(logits if len(rows) == len(logits) else logits[rows])
        count = len(seqs)
        starts, ids, values = biases(seqs)
        draws = Draws(logits=logits, rows=rows, slots=slots, lengths=lengths, bias_starts=starts, bias_ids=ids,
                      bias_values=values, chosen=self._chosen[:count], logprobs=self._logprobs[:count],
                      tops=self._tops[:count], floats=self._slots.floats, ints=self._slots.ints,
                      tokens=self._slots.tokens, breaks=self._slots.breaks)
        self._kernel(draws)
        return draws.chosen

    def logprob(self, draw: int, token: int, count: int) -> Logprob:
        """What the last call found out about a draw whose request asked for `count` alternatives."""
        values = self._logprobs[draw, :count + 1].tolist()
        return Logprob(token, values[0], tuple(zip(self._tops[draw, :count].tolist(), values[1:])))


def drawing(slots: Slots, rows: np.ndarray, lengths: np.ndarray) -> Drawing:
    """What a device needs to draw for these slots, whose sequences have so many tokens."""
    floats, ints = slots.floats[rows], slots.ints[rows]
    temperature = floats[:, sample.TEMPERATURE]
    return Drawing(np.where(temperature < sample.GREEDY, 0, temperature), ints[:, sample.TOP_K].astype(np.int32),
                   floats[:, sample.TOP_P], floats[:, sample.MIN_P], ints[:, sample.KEY],
                   lengths - ints[:, sample.PROMPT].astype(np.int32))


def first_maxima(logits: np.ndarray) -> np.ndarray:
    """The first maximum of each row, -1 where it is not finite."""
    chosen = logits.argmax(axis=1).astype(np.int32)
    best = logits[np.arange(len(logits)), chosen]
    if not np.isfinite(best).all():
        chosen[~np.isfinite(best)] = -1
    return chosen


def biases(seqs: Items[Sequence]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The logit biases of each sequence side by side; what may not end yet has its stop tokens forbidden."""
    starts = np.zeros(len(seqs) + 1, np.int32)
    ids, values = [_NO_IDS], [_NO_VALUES]
    for i, seq in enumerate(seqs):
        params = seq.params
        size = len(params.bias_ids)
        if size:
            ids.append(params.bias_ids)
            values.append(params.bias_values)
        if seq.known - len(seq.group.prompt) < params.min_tokens and seq.stops:
            ids.append(np.fromiter(seq.stops, np.int32))
            values.append(np.full(len(seq.stops), -np.inf, np.float32))
            size += len(seq.stops)
        starts[i + 1] = starts[i] + size
    return starts, np.concatenate(ids), np.concatenate(values)


def score(logits: np.ndarray, targets: np.ndarray, top: int) -> list[Logprob]:
    """Log-probability of each target under its row of untouched logits, with the `top` likeliest tokens."""
    return [_score(row.astype(np.float64), int(target), top) for row, target in zip(logits, targets)]


def _score(row: np.ndarray, target: int, top: int) -> Logprob:
    row -= row.max()
    row -= math.log(np.exp(row).sum())
    ids = np.argpartition(-row, top)[:top] if top < len(row) else np.arange(len(row))
    ids = ids[np.lexsort((ids, -row[ids]))]
    return Logprob(target, max(float(row[target]), LOWEST), tuple((int(id), max(float(row[id]), LOWEST)) for id in ids))
