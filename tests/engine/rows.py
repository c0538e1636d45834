"""Rows of logits with all that a draw needs beside them."""
from __future__ import annotations

from typing import Any

import numpy as np

from zonda.kernels import sample
from zonda.kernels.sample import Draws

NEUTRAL = {"TEMPERATURE": 1.0, "TOP_P": 1.0, "TYPICAL_P": 1.0, "REPETITION": 1.0, "DRY_BASE": 1.75, "LOGPROBS": -1,
           "DRY_ALLOWED": 2}
INTS = {"KEY", "TOP_K", "PROMPT", "LOGPROBS", "DRY_ALLOWED"}


def draws(rows: list[tuple[np.ndarray, dict[str, Any]]]) -> Draws:
    """A Draws for logits and settings; beside columns, settings may have `history`, `breaks` and `bias`."""
    count = len(rows)
    floats = np.zeros((count, sample.FLOATS), np.float32)
    ints = np.zeros((count, sample.INTS), np.int64)
    tokens, breaks = np.zeros((count, 300), np.int32), np.zeros((count, 300), np.uint8)
    lengths, starts = np.zeros(count, np.int32), np.zeros(count + 1, np.int32)
    biases: list[tuple[int, float]] = []
    for i, (_, settings) in enumerate(rows):
        given = {**NEUTRAL, **settings}
        history = given.pop("history", [0])
        lengths[i] = len(history)
        tokens[i, :len(history)] = history
        breaks[i, :len(history)] = np.isin(history, list(given.pop("breaks", ())))
        biases += given.pop("bias", {}).items()
        starts[i + 1] = len(biases)
        for name, value in given.items():
            (ints if name in INTS else floats)[i, getattr(sample, name)] = value
    floats[:, sample.MIROSTAT_MU] = 2 * floats[:, sample.MIROSTAT_TAU]
    places = np.arange(count, dtype=np.int32)
    return Draws(
        logits=np.stack([np.asarray(logits, np.float32) for logits, _ in rows]), rows=places, slots=places,
        lengths=lengths, bias_starts=starts, bias_ids=np.array([id for id, _ in biases], np.int32),
        bias_values=np.array([value for _, value in biases], np.float32), chosen=np.zeros(count, np.int32),
        logprobs=np.zeros((count, 1 + sample.TOP), np.float32), tops=np.zeros((count, sample.TOP), np.int32),
        floats=floats, ints=ints, tokens=tokens, breaks=breaks)


def kept(logits: Any, **settings: Any) -> dict[int, float]:
    """The tokens that may be drawn under settings, by falling probability."""
    d = draws([(np.asarray(logits, np.float32), settings)])
    ids, p = sample.kept(sample.adjusted(d, 0), d.floats[0].astype(float), d.ints[0], 0.0)
    return dict(zip(ids.tolist(), (p / p.sum()).tolist()))
