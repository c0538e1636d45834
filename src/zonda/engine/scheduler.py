"""Who computes how many tokens now. There are no phases: every step closes gaps between known and computed tokens."""
from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator
from collections.abc import Sequence as Items

from zonda.engine.pages import Pages
from zonda.engine.request import Sequence
from zonda.engine.slots import Slots

MIN_SHARE = 32
"""Tokens of a step that a prompt gets at least, while others wait behind it."""
SCORED = 64
"""Prompt rows of a step whose logits may be asked for."""


class Step:
    """Sequences and how many tokens each computes now."""

    __slots__ = ("copies", "counts", "draws", "ended", "scored", "sequences")

    def __init__(self) -> None:
        self.sequences: list[Sequence] = []
        self.counts: list[int] = []
        self.draws: list[int] = []
        """Places in `sequences` of those that will know all but their next token."""
        self.ended: list[Sequence] = []
        """Those that will know all they may, and draw nothing."""
        self.scored: list[tuple[int, int]] = []
        """Places of sequences whose prompt is scored, and how many of their rows."""
        self.copies: list[tuple[int, int]] = []
        """Pages to copy before the step, from and to."""

    def __bool__(self) -> bool:
        return bool(self.sequences)

    @property
    def rows(self) -> int:
        return sum(self.counts)

    def add(self, seq: Sequence, count: int) -> None:
        if seq.computed + count == seq.known:
            if seq.known < seq.limit:
                self.draws.append(len(self.sequences))
            else:
                self.ended.append(seq)
        if seq.scoring:
            self.scored.append((len(self.sequences), min(count, len(seq.group.prompt) - 1 - seq.computed)))
        self.sequences.append(seq)
        self.counts.append(count)


class Scheduler:
    """Plans steps of at most `budget` tokens.

    Running sequences come first, one token each, so that none starves; `budget` exceeds their number. The rest goes to
    prompts, eldest first, half of what is left to each while others wait: a long prompt and a short one behind it both
    advance. A prompt's pages are allocated when it is admitted, in order of arrival. When a running sequence needs a
    page and there is none, the youngest is preempted: it gives up its pages, and waits, first in the queue, to be
    computed again. The eldest is never preempted, so every step makes progress that lasts.
    """

    def __init__(self, pages: Pages, slots: Slots, *, budget: int, reuse: bool = True) -> None:
        self.pages = pages
        self.slots = slots
        self.budget = self._full = budget
        self.reuse = reuse
        self.waiting: OrderedDict[Sequence, None] = OrderedDict()
        self.running: list[Sequence] = []
        self.preemptions = 0
        self.lookups = 0
        self.hits = 0
        self.reused = 0

    @property
    def scarce(self) -> bool:
        """Whether the next step may have to preempt a sequence."""
        return self.pages.available < len(self.running)

    @property
    def busy(self) -> bool:
        return bool(self.running or self.waiting)

    def add(self, seq: Sequence) -> None:
        """Queue a new sequence; the first after a pause has the whole budget again."""
        if not self.busy:
            self.budget = self._full
        self.waiting[seq] = None

    def plan(self) -> Step:
        """What to compute now; empty only when there is nothing to do."""
        step = Step()
        prompts = self._continue(step)
        self._advance(step, prompts)
        return step

    def _continue(self, step: Step) -> list[Sequence]:
        """Add every sequence that lacks one token, and return those that lack more."""
        prompts = []
        for seq in tuple(self.running):
            if seq.slot < 0:
                continue  # an elder has just preempted it
            gap = seq.known - seq.computed
            if gap and self._grow(seq):
                if gap > 1:
                    prompts.append(seq)
                else:
                    step.add(seq, 1)
        return [seq for seq in prompts if seq.slot >= 0]

    def _grow(self, seq: Sequence) -> bool:
        """Give a sequence the pages that it lacks, whatever it costs others; False if it had to go itself."""
        while seq.known > seq.room:
            while not self.pages.available:
                victim = self.running[-1]
                self.preempt(victim)
                if victim is seq:
                    return False
            self.slots.extend(seq, self.pages.allocate(1)[0])
            seq.room += self.pages.size
        return True

    def _advance(self, step: Step, prompts: list[Sequence]) -> None:
        left, scored = self.budget - len(step.sequences), 0
        shares: list[tuple[Sequence, int, int]] = []
        queue = self._prompts(step, prompts)
        while left > 0 and (seq := next(queue, None)):
            want = seq.known - seq.computed
            if seq.scoring:
                want = min(want, SCORED - scored)
                scored += want
            given = min(want, max(left // 2, MIN_SHARE), left)
            shares.append((seq, want, given))
            left -= given
        for seq, want, given in shares:  # what the younger ones leave goes to the eldest
            extra = min(want - given, left)
            left -= extra
            if given + extra:
                step.add(seq, given + extra)

    def _prompts(self, step: Step, prompts: list[Sequence]) -> Iterator[Sequence]:
        yield from prompts
        while seq := self._admit(step):
            yield seq

    def _admit(self, step: Step) -> Sequence | None:
        """Start the first waiting sequence, unless there is no slot or no memory for it."""
        if not self.slots.free:
            return None
        seq = next((seq for seq in self.waiting if not seq.follows), None)
        return seq if seq and self._start(seq, step) else None

    def _start(self, seq: Sequence, step: Step) -> bool:
        shared, computed, partial = self._shareable(seq)
        missing = -(-seq.known // self.pages.size) - len(shared)
        if not self.pages.fits(shared, missing + len(self.running)):
            return False
        self.pages.share(shared)
        seq.pages = shared + self.pages.allocate(missing)
        if partial is not None:
            step.copies.append((partial, seq.pages[len(shared)]))
        seq.room = len(seq.pages) * self.pages.size
        seq.computed = computed
        seq.published = len(shared)
        self._enter(seq)
        return True

    def _enter(self, seq: Sequence) -> None:
        group = seq.group
        if not group.started:
            group.started, group.cached = time.monotonic(), seq.computed
        if self.reuse:
            self.lookups += 1
            self.hits += seq.computed > 0
            self.reused += seq.computed
        if group.leader is None or group.leader.slot < 0:
            group.leader = seq
        del self.waiting[seq]
        self.running.append(seq)
        self.slots.take(seq)

    def _shareable(self, seq: Sequence) -> tuple[list[int], int, int | None]:
        """Full pages with the sequence's beginning, how many tokens need no computing, a page to copy the last from."""
        leader = seq.group.leader
        if leader is not None and leader.slot >= 0 and seq.known == len(seq.group.prompt):
            computed = seq.known - 1
            full, rest = divmod(computed, self.pages.size)
            seq.names = leader.names[:full]
            return leader.pages[:full], computed, leader.pages[full] if rest else None
        if not self.reuse or seq.scoring:
            return [], 0, None
        shared = self.pages.find(seq.chain(seq.saved, (seq.known - 1) // self.pages.size, self.pages.size))
        return shared, len(shared) * self.pages.size, None

    def commit(self, step: Step) -> None:
        """Take a launched step as computed."""
        for seq, count in zip(step.sequences, step.counts):
            seq.computed += count

    def publish(self, step: Step, lengths: Items[int]) -> None:
        """Let what a step has filled be shared from now on; `lengths` are the sequences' computed tokens after it."""
        size = self.pages.size
        for seq, length in zip(step.sequences, lengths):
            if self.reuse and not seq.ended and length >= (seq.published + 1) * size:
                self._publish(seq, length // size)

    def _publish(self, seq: Sequence, full: int) -> None:
        names = seq.chain(self.slots.tokens[seq.slot], full, self.pages.size)
        for page in range(seq.published, full):
            self.pages.publish(seq.pages[page], names[page])
        seq.published = full

    def shrink(self, rows: int) -> None:
        """Plan steps of at most so many rows, until there is a pause: the device has no memory for more."""
        self.budget = rows
        while len(self.running) > rows:
            self.preempt(self.running[-1])

    def preempt(self, seq: Sequence) -> None:
        """Free a running sequence's memory; it will be computed again, before all that wait."""
        self._stop(seq, keep=True)
        self.waiting[seq] = None
        self.waiting.move_to_end(seq, last=False)
        self.preemptions += 1

    def finish(self, seq: Sequence) -> None:
        """Forget a sequence, running or waiting."""
        if seq.slot < 0:
            self.waiting.pop(seq, None)
        else:
            self._stop(seq, keep=False)

    def _stop(self, seq: Sequence, *, keep: bool) -> None:
        self.running.remove(seq)
        self.slots.leave(seq, keep=keep)
        self.pages.release(seq.pages)
        seq.pages = []
        seq.room = seq.computed = seq.published = 0
