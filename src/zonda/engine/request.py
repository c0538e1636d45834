"""What the engine keeps of a request while it lives."""
from __future__ import annotations

import time
from collections.abc import Callable
from collections.abc import Sequence as Items
from dataclasses import dataclass

import numpy as np

from zonda.engine.budget import Spending
from zonda.engine.grammar import Compiled
from zonda.engine.masks import Constraint
from zonda.engine.pages import chain, root
from zonda.kernels.sample import MIROSTAT_TAU, key
from zonda.types import Event, Logprob, Usage

Sink = Callable[[Items[Event]], None]


@dataclass(frozen=True, slots=True)
class Params:
    """Sampling as the engine needs it: validated, defaults filled in, arrays in the layout of kernels/sample.py."""

    floats: np.ndarray  # float32 (FLOATS,)
    ints: np.ndarray  # int64 (INTS,)
    max_tokens: int
    min_tokens: int
    stops: frozenset[int]
    bias_ids: np.ndarray  # int32
    bias_values: np.ndarray  # float32
    breaks: frozenset[int]
    plain: bool
    """The first maximum of the untouched logits, and nothing to report: no need of the sampler."""
    hosted: bool
    """Drawn by the sampler of the host, not by a device that could draw itself."""
    logprobs: int
    """Alternatives to report, -1 for no log-probabilities at all."""
    prompt_logprobs: bool
    seed: int


class Sequence:
    """One answer in the making: tokens it knows, tokens it has computed, and where its state lies."""

    __slots__ = ("computed", "constraint", "ended", "group", "index", "key", "known", "last", "limit", "mu", "names",
                 "pages", "params", "published", "room", "saved", "slot", "spending", "stops")

    def __init__(self, group: Group, index: int) -> None:
        self.group = group
        self.index = index
        self.params = group.params
        self.stops = group.params.stops
        self.constraint = Constraint(group.grammar, self.stops) if group.grammar else None
        self.spending = group.spending() if group.spending else None
        self.key = key(group.params.seed, index)
        self.known = len(group.prompt)
        self.computed = 0
        self.limit = self.known + group.params.max_tokens
        self.pages: list[int] = []
        self.room = 0
        """Positions that the pages hold."""
        self.published = 0
        """Full pages that have been made known."""
        self.names: list[bytes] = []
        self.slot = -1
        self.saved: np.ndarray = group.prompt
        """Known tokens while the sequence has no slot."""
        self.mu = 2.0 * float(group.params.floats[MIROSTAT_TAU])
        self.ended = False
        self.last = 0.0
        """When the last token came."""

    @property
    def scoring(self) -> bool:
        """Whether the prompt's own log-probabilities are still wanted from it."""
        return bool(self.group.scores) and self.computed < len(self.group.prompt) - 1

    @property
    def follows(self) -> bool:
        """Whether it had better wait for the sibling that computes their prompt now."""
        leader = self.group.leader
        return leader is not None and leader.slot >= 0 and leader.computed < len(self.group.prompt) - 1

    def chain(self, tokens: np.ndarray, count: int, size: int) -> list[bytes]:
        """Names of the first `count` full pages of `tokens`."""
        for page in range(len(self.names), count):
            parent = self.names[-1] if page else root(self.group.salt)
            self.names.append(chain(parent, tokens[page * size:(page + 1) * size]))
        return self.names[:count]


class Group:
    """The `n` sequences of one request."""

    def __init__(self, id: str, prompt: np.ndarray, params: Params, sink: Sink, *, n: int = 1, salt: str = "",
                 grammar: Compiled | None = None, spending: Callable[[], Spending] | None = None) -> None:
        self.id = id
        self.prompt = prompt  # int32
        self.params = params
        self.sink = sink
        self.salt = salt
        self.grammar = grammar
        self.spending = spending
        self.scores: list[Logprob | None] = [None] if params.prompt_logprobs else []
        """Log-probabilities of the prompt as far as they are known; empty when not wanted, or sent."""
        self.leader: Sequence | None = None
        """The sequence that computes the prompt, and whose pages the others share."""
        self.sequences = [Sequence(self, index) for index in range(n)]
        self.live = n
        self.generated = 0
        self.cached = 0
        self.arrived = time.monotonic()
        self.started = 0.0
        self.answered = 0.0

    @property
    def going(self) -> list[Sequence]:
        """The sequences that have not ended."""
        return [seq for seq in self.sequences if not seq.ended]

    def usage(self) -> Usage:
        now = time.monotonic()
        started = self.started or now
        answered = self.answered or now
        return Usage(len(self.prompt), self.generated, self.cached, started - self.arrived, answered - started,
                     now - answered)
