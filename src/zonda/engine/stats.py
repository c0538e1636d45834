"""What the engine counts."""
from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field

FIRST_TOKEN_BOUNDS = (.001, .005, .01, .02, .04, .06, .08, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80,
                      160, 640, 2560)
BETWEEN_TOKENS_BOUNDS = (.01, .025, .05, .075, .1, .15, .2, .3, .4, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)


class Histogram:
    """Durations in seconds, counted in buckets: `counts[i]` of those up to `bounds[i]`, the last of all above."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Counters:
    """What only grows; the engine thread writes, anyone reads."""

    def __init__(self) -> None:
        self.prompt_tokens = 0
        self.generated_tokens = 0
        self.rejected = 0
        self.finished = dict.fromkeys(("stop", "length", "cancelled", "error"), 0)
        self.steps = 0
        self.step_seconds = 0.0
        self.compute_seconds = 0.0
        self.first_token = Histogram(FIRST_TOKEN_BOUNDS)
        self.between_tokens = Histogram(BETWEEN_TOKENS_BOUNDS)


@dataclass(frozen=True, slots=True)
class Stats:
    """The engine at one moment. `last_step_age`: seconds since a step ended, 0 when there is nothing to do.

    `prompt_tokens` counts computed prompt tokens, `cached_tokens` those that were taken from the prefix cache.
    `step_seconds` of all steps contain `compute_seconds`, the runner's and the sampler's share.
    """

    running: int = 0
    waiting: int = 0
    capacity: int = 0
    pages_used: int = 0
    pages_total: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    cached_tokens: int = 0
    prefix_lookups: int = 0
    prefix_hits: int = 0
    prefix_evictions: int = 0
    preemptions: int = 0
    rejected: int = 0
    finished: Mapping[str, int] = field(default_factory=dict)
    steps: int = 0
    step_seconds: float = 0.0
    compute_seconds: float = 0.0
    first_token: Histogram = field(default_factory=lambda: Histogram(FIRST_TOKEN_BOUNDS))
    between_tokens: Histogram = field(default_factory=lambda: Histogram(BETWEEN_TOKENS_BOUNDS))
    last_step_age: float = 0.0
