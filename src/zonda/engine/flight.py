"""A step on the runner: from a plan to the tokens that it draws, at once or launched ahead."""
from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np

from zonda.engine.batch import Batch, assemble
from zonda.engine.masks import Masks
from zonda.engine.request import Sequence
from zonda.engine.runner import Ahead, Runner
from zonda.engine.sampler import Sampler, drawing, score
from zonda.engine.scheduler import Step
from zonda.engine.slots import Slots

Tokens = Callable[[], np.ndarray]
"""Waits for a step's tokens, int32 (draws,)."""
NONE = np.zeros(0, np.int32)


@dataclass(slots=True)
class Flight:
    """A step on its way: each sequence's computed tokens after it, and what it has taken until now."""

    step: Step
    lengths: list[int]
    fresh: int
    """Tokens of prompts among its rows."""
    tokens: Tokens
    seconds: float


class Flights:
    """Sends steps to the runner; `sampler` and `masks` draw where the runner does not draw by itself."""

    def __init__(self, runner: Runner, slots: Slots, sampler: Sampler, masks: Masks) -> None:
        self._runner = runner
        self._slots = slots
        self._sampler = sampler
        self._masks = masks

    def close(self) -> None:
        """End the thread of the masks."""
        self._masks.close()

    def start(self, step: Step, *, ahead: bool) -> Flight:
        """Launch a step, or compute it at once; raises what the runner raises."""
        batch = assemble(step, self._slots, self._runner.page_size)
        drawn = [step.sequences[place] for place in step.draws]
        fresh = int(np.count_nonzero(batch.positions < batch.prompts))
        began = time.perf_counter()
        for source, target in step.copies:
            self._runner.copy_page(source, target)
        tokens = self._launch(step, batch, drawn) if ahead else self._compute(step, batch, drawn)
        return Flight(step, batch.lengths.tolist(), fresh, tokens, time.perf_counter() - began)

    def _launch(self, step: Step, batch: Batch, drawn: list[Sequence]) -> Tokens:
        """Start the step; the tokens that it draws count as known, so that the next step can be planned."""
        runner = cast(Ahead, self._runner)
        tokens = runner.launch(batch, drawing(self._slots, _slots_of(drawn), batch.lengths[step.draws]))
        for draw, seq in enumerate(drawn):
            if seq.known + 1 < seq.limit:
                self._slots.tokens[seq.slot, seq.known] = -1 - draw
                seq.known += 1
        return tokens

    def _compute(self, step: Step, batch: Batch, drawn: list[Sequence]) -> Tokens:
        """Run the step and draw; tokens for the sequences that know all but their next."""
        self._masks.begin([seq.constraint for seq in drawn])
        logits = self._runner.run(batch)
        if step.scored:
            _score(step, batch, logits)
        tokens = self._draw(step, batch, logits, drawn) if drawn else NONE
        return lambda: tokens

    def _draw(self, step: Step, batch: Batch, logits: np.ndarray, drawn: list[Sequence]) -> np.ndarray:
        places = np.array(step.draws)
        rows = np.arange(len(drawn), dtype=np.int32)
        if step.scored:
            rows = np.searchsorted(batch.sample, batch.starts[places + 1] - 1).astype(np.int32)
        self._masks.apply(logits, rows)
        return self._sampler.draw(logits, rows, drawn, _slots_of(drawn), batch.lengths[places])


def _slots_of(seqs: list[Sequence]) -> np.ndarray:
    return np.array([seq.slot for seq in seqs], np.int32)


def _score(step: Step, batch: Batch, logits: np.ndarray) -> None:
    """Add the log-probabilities of the prompt tokens that follow the step's rows."""
    for place, count in step.scored:
        seq = step.sequences[place]
        row = int(np.searchsorted(batch.sample, batch.starts[place]))
        following = seq.computed + 1
        targets = seq.group.prompt[following:following + count]
        seq.group.scores[following:] = score(logits[row:row + count], targets, max(0, seq.params.logprobs))
