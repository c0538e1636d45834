"""The engine: one thread, a queue in, events out, and between them a loop of plan, run, sample."""
from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from math import ceil
from typing import Any

from zonda.engine.flight import Flight, Flights
from zonda.engine.grammar import Grammars, Words
from zonda.engine.intake import Intake
from zonda.engine.masks import Masks
from zonda.engine.outbox import Outbox
from zonda.engine.pages import Pages
from zonda.engine.request import Group, Sequence, Sink
from zonda.engine.runner import Ahead, Runner
from zonda.engine.sampler import Sampler
from zonda.engine.scheduler import SCORED, Scheduler, Step
from zonda.engine.slots import Slots
from zonda.engine.stats import Counters, Stats
from zonda.errors import Closed, DeviceLost, InvalidRequest, OutOfMemory, Overloaded, ZondaError
from zonda.kernels import sample
from zonda.options import EngineOptions
from zonda.types import FinishReason, Logprob, Request

log = logging.getLogger("zonda.engine")

MAX_FAILURES = 3
"""Steps that may fail one after another before the engine gives up."""
QUIET = 0.1
"""Seconds without a request before the runner works ahead, so that one which follows another does not wait for it."""
_STOPPED = "the engine has stopped"


class Engine:
    """Serves requests to one model.

    Sinks are called on the engine's thread, once a step, with the events of all their requests; they must not block.
    `stop_ids` end a sequence; `defaults` is the model's generation_config; `breakers` gives the token ids that a
    breaker string of DRY stands for; `words` is the vocabulary that grammars need; `kernel` draws tokens, by plain
    numpy unless given. The engine owns the runner.
    A prompt must leave room for a token; `max_tokens` is cut to the room that it leaves, and then the sequence ends by
    `length`.
    """

    def __init__(self, runner: Runner, options: EngineOptions | None = None, *,
                 stop_ids: frozenset[int] = frozenset(), defaults: Mapping[str, Any] | None = None,
                 breakers: Callable[[str], Iterable[int]] | None = None, words: Words | None = None,
                 kernel: sample.Kernel = sample.draw) -> None:
        options = (options or EngineOptions()).filled()
        assert options.max_seqs and options.max_num_batched_tokens
        self.vocab = runner.vocab
        self.max_len = min(runner.max_len, runner.pages * runner.page_size, options.max_seq_len or runner.max_len)
        if self.max_len < 2:
            raise OutOfMemory(f"the cache holds {self.max_len} tokens", hint="give the cache more memory")
        budget = max(2, min(options.max_num_batched_tokens, runner.max_rows))
        self._capacity = max(1, min(options.max_seqs, budget // 2))  # a step has a row for each, and room for prompts
        self._max_live = self._capacity + options.max_queue
        self._runner = runner
        self._ahead = runner if isinstance(runner, Ahead) else None
        self.grammars = Grammars(words, self.vocab)
        self._intake = Intake(vocab=self.vocab, max_len=self.max_len, stop_ids=stop_ids, defaults=defaults or {},
                              seed=options.seed, breakers=breakers, grammars=self.grammars, words=words)
        self._slots = Slots(self._capacity, max_len=self.max_len, max_pages=ceil(self.max_len / runner.page_size))
        self._pages = Pages(runner.pages, runner.page_size)
        self._scheduler = Scheduler(self._pages, self._slots, budget=budget, reuse=options.reuses)
        self._sampler = Sampler(self._slots, kernel, max_draws=self._capacity + SCORED)
        self._flights = Flights(runner, self._slots, self._sampler, Masks(self._capacity, self.vocab))
        self._counters = Counters()
        self._groups: dict[str, Group] = {}
        self._live = 0
        self._hosted = 0
        """Live sequences whose tokens only the host can draw; while there are any, no step is launched ahead."""
        self._flight: Flight | None = None
        self._inbox: list[Group | tuple[Group, int | None, FinishReason]] = []
        self._outbox = Outbox()
        self._wake = threading.Condition()
        self._draining = self._closing = self._dead = False
        self.lost = False
        """Whether its device has failed for good."""
        self._failures = 0
        self._short: tuple[Step, OutOfMemory] | None = None
        """A step for which the device had no memory."""
        self._moved = time.monotonic()
        """When a step has ended, or the first request has come to an idle engine."""
        self._thread = threading.Thread(target=self._main, name="zonda-engine", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the engine still computes; false once it is closed, or dead after repeated failures."""
        return not self._dead and self._thread.is_alive()

    def submit(self, request: Request, sink: Sink) -> None:
        """Queue a request, or raise InvalidRequest, ContextExceeded, Overloaded or Closed."""
        self._refuse_closed()
        group = self._intake.accept(request, sink)
        hash(sink)
        with self._wake:
            self._refuse_closed()
            if request.id in self._groups:
                raise InvalidRequest("a request with this id is still running", hint="choose unique ids", param="id")
            if self._live >= self._max_live:
                self._counters.rejected += 1
                raise Overloaded(f"{self._live} sequences are running or waiting", retry_after=self._retry_after())
            self._groups[group.id] = group
            self._live += group.live
            self._post(group)

    def _refuse_closed(self) -> None:
        if self._draining or self._closing or not self.alive:
            raise Closed("the engine is shutting down" if self._draining and self.alive else _STOPPED)

    def _retry_after(self) -> int:
        """Seconds until the queue may have moved: what the average sequence takes, over the sequences that run."""
        done = sum(self._counters.finished.values())
        average = self._counters.step_seconds / done if done else 1.0
        return min(max(1, ceil(average)), 60)

    def cancel(self, request: str, index: int | None = None, finish: FinishReason = "cancelled") -> None:
        """End a request, or one sequence of it, before the next step; what is unknown or has ended is ignored."""
        with self._wake:
            if group := self._groups.get(request):
                self._post((group, index, finish))

    def _post(self, message: Group | tuple[Group, int | None, FinishReason]) -> None:
        if not self._inbox and not self._scheduler.busy:
            self._moved = time.monotonic()
        self._inbox.append(message)
        self._wake.notify_all()

    def stats(self) -> Stats:
        """The engine's state now."""
        scheduler, counted = self._scheduler, vars(self._counters)
        return Stats(
            running=len(scheduler.running), waiting=max(0, self._live - len(scheduler.running)),
            capacity=self._capacity, pages_used=self._pages.used, pages_total=self._pages.count,
            cached_tokens=scheduler.reused, prefix_lookups=scheduler.lookups, prefix_hits=scheduler.hits,
            prefix_evictions=self._pages.evictions, preemptions=scheduler.preemptions,
            last_step_age=time.monotonic() - self._moved if self._groups else 0.0,
            **counted | {"finished": dict(self._counters.finished)})

    def drain(self, timeout: float) -> None:
        """Refuse new requests, and wait until the others have ended and their sinks know."""
        with self._wake:
            self._draining = True
            self._wake.wait_for(lambda: not (self._groups or self._outbox) or not self.alive, timeout)

    def close(self) -> None:
        """Stop the thread, fail what still runs, and close the runner."""
        self.grammars.close()
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    # from here on, everything runs on the engine's thread

    def _main(self) -> None:
        try:
            while self._receive():
                self._step()
                self._flush()
        except Exception as error:
            log.exception("the engine has failed")
            self.lost = isinstance(error, DeviceLost)
        with self._wake:
            self._dead = True
            self._wake.notify_all()
        self._abort()
        self._flights.close()
        self.grammars.close()
        self._runner.close()

    def _receive(self) -> bool:
        """Take in what was posted, after waiting for it if there is nothing else to do; False to stop."""
        more = self._ahead
        while not self._asked(QUIET if more else None):
            more = more if more and more.idle() else None
        with self._wake:
            messages, self._inbox = self._inbox, []
        for message in messages:
            if isinstance(message, Group):
                self._enqueue(message)
            else:
                self._cancel(*message)
        return not self._closing

    def _asked(self, seconds: float | None) -> bool:
        """Wait for something to do; False when nothing has come in so many seconds."""
        with self._wake:
            return self._wake.wait_for(lambda: bool(self._inbox or self._scheduler.busy or self._closing), seconds)

    def _enqueue(self, group: Group) -> None:
        for seq in group.going:
            self._hosted += seq.params.hosted
            self._scheduler.add(seq)

    def _cancel(self, group: Group, index: int | None = None, finish: FinishReason = "cancelled") -> None:
        for seq in group.going:
            if index in (None, seq.index):
                self._end(seq, finish)

    def _step(self) -> None:
        """Plan and start a step, and finish the one before it; without a runner that draws, finish this one."""
        began = time.perf_counter()
        ahead = self._ahead is not None and not self._hosted
        before = self._flight
        if before and (not ahead or self._scheduler.scarce or self._closing_soon(before.step)):
            self._land(before)
            before = None
        step = self._scheduler.plan()
        self._flight = self._start(step, ahead) if step else None
        if before:
            self._land(before)
        if self._flight and not ahead:
            self._land(self._flight)
        if self._short:
            self._make_room(*self._short)
        self._counters.step_seconds += time.perf_counter() - began

    @staticmethod
    def _closing_soon(step: Step) -> bool:
        """Whether a step on its way may spend a budget: then what comes next is not what it draws."""
        return any(seq.spending and seq.spending.near for seq in step.sequences)

    def _start(self, step: Step, ahead: bool) -> Flight | None:
        """Launch a step, or compute it at once."""
        try:
            flight = self._flights.start(step, ahead=ahead)
        except OutOfMemory as error:
            self._short = step, error
            return None
        except Exception as error:
            self._fail(step, error)
            return None
        self._counters.compute_seconds += flight.seconds
        self._scheduler.commit(step)
        return flight

    def _land(self, flight: Flight) -> None:
        """Wait for the tokens of a step, and tell of them."""
        if flight is self._flight:
            self._flight = None
        waiting = time.perf_counter()
        try:
            tokens = flight.tokens()
        except Exception as error:
            self._fail(flight.step, error)
            return
        self._failures = 0
        self._moved = time.monotonic()
        self._counters.steps += 1
        self._counters.prompt_tokens += flight.fresh
        self._counters.compute_seconds += time.perf_counter() - waiting
        self._scheduler.publish(flight.step, flight.lengths)
        self._deliver(flight, tokens.tolist())

    def _deliver(self, flight: Flight, tokens: list[int]) -> None:
        now = time.monotonic()
        for draw, (place, token) in enumerate(zip(flight.step.draws, tokens)):
            seq, length = flight.step.sequences[place], flight.lengths[place]
            if seq.ended:
                continue
            if token < 0:
                self._end(seq, *_stuck(seq))
                continue
            self._clock(seq, now)
            wanted = seq.params.logprobs
            self._take(seq, length, token, () if wanted < 0 else (self._sampler.logprob(draw, token, wanted),))
            if seq.spending and seq.spending.spent and seq.known == length + 1:
                self._close_reasoning(seq)
        for seq in flight.step.ended:
            if not seq.ended:
                self._end(seq, "length")

    def _take(self, seq: Sequence, length: int, token: int, logprobs: tuple[Logprob, ...]) -> None:
        """Add a token to a sequence that has had so many, and tell of it."""
        if seq.constraint:
            seq.constraint.advance(token)
        if seq.spending:
            seq.spending.advance(token)
        self._slots.tokens[seq.slot, length] = token
        seq.known = max(seq.known, length + 1)
        seq.group.generated += 1
        self._counters.generated_tokens += 1
        if token in seq.stops:
            self._end(seq, "stop", (token,), logprobs)
        elif length + 1 == seq.limit:
            self._end(seq, "length", (token,), logprobs)
        else:
            if seq.params.breaks:
                self._slots.breaks[seq.slot, length] = token in seq.params.breaks
            self._outbox.add(seq, (token,), logprobs)

    def _close_reasoning(self, seq: Sequence) -> None:
        """End the reasoning of a sequence whose budget is spent by tokens that need not be drawn."""
        assert seq.spending
        wanted = seq.params.logprobs
        for token in seq.spending.closing():
            if not seq.ended:
                told = () if wanted < 0 else (Logprob(token, 0.0, ((token, 0.0),)[:wanted]),)
                self._take(seq, seq.known, token, told)

    def _clock(self, seq: Sequence, now: float) -> None:
        if seq.last:
            self._counters.between_tokens.add(now - seq.last)
        elif not seq.group.answered:
            seq.group.answered = now
            self._counters.first_token.add(now - seq.group.arrived)
        seq.last = now

    def _end(self, seq: Sequence, finish: FinishReason, tokens: tuple[int, ...] = (),
             logprobs: tuple[Logprob, ...] = (), error: Exception | None = None) -> None:
        """Free a sequence's memory and send its last event."""
        self._scheduler.finish(seq)
        self._conclude(seq, finish, tokens, logprobs, error)

    def _conclude(self, seq: Sequence, finish: FinishReason, tokens: tuple[int, ...], logprobs: tuple[Logprob, ...],
                  error: Exception | None) -> None:
        group = seq.group
        seq.ended = True
        self._hosted -= seq.params.hosted
        group.live -= 1
        self._counters.finished[finish] += 1
        self._outbox.add(seq, tokens, logprobs, finish, None if group.live else group.usage(), error)
        with self._wake:
            self._live -= 1
            if not group.live:
                del self._groups[group.id]
                self._wake.notify_all()

    def _flush(self) -> None:
        """Call the sinks; one that raises has its requests cancelled, unheard."""
        for sink in self._outbox.flush():
            for group in tuple(self._groups.values()):
                if group.sink == sink:
                    self._cancel(group)
            self._outbox.drop(sink)
        if self._draining:
            with self._wake:
                self._wake.notify_all()

    def _make_room(self, step: Step, error: OutOfMemory) -> None:
        """Try again with half the rows, the youngest preempted; of a single row, end the request."""
        self._short = None
        self._moved = time.monotonic()
        if step.rows > 1:
            log.warning("no memory for a step of %d rows, trying %d: %s", step.rows, step.rows // 2, error)
            self._scheduler.shrink(step.rows // 2)
            return
        for seq in step.sequences[0].group.going:
            self._end(seq, "error", error=error)

    def _fail(self, step: Step, error: Exception) -> None:
        """End the requests of a step that could not be computed."""
        self._moved = time.monotonic()
        self._failures += 1
        if self._failures == MAX_FAILURES or isinstance(error, DeviceLost):
            raise error
        log.error("a step has failed", exc_info=error)
        for group in {seq.group: None for seq in step.sequences}:
            for seq in group.going:
                self._end(seq, "error", error=_failure(error))

    def _abort(self) -> None:
        """Tell all that are still there that the engine has stopped."""
        for group in tuple(self._groups.values()):
            for seq in group.going:
                self._conclude(seq, "error", (), (), Closed(_STOPPED))
        self._flush()


def _stuck(seq: Sequence) -> tuple[FinishReason, tuple[int, ...], tuple[Logprob, ...], Exception | None]:
    """How a sequence ends for which nothing can be drawn."""
    constraint = seq.constraint
    if constraint and constraint.over:
        return "stop", (), (), None
    why = constraint.error if constraint else None
    return "error", (), (), why or ZondaError("the model's logits are not finite numbers",
                                            hint="on a GPU, try --compute-dtype bf16 or f32")


def _failure(cause: Exception) -> ZondaError:
    error = ZondaError("the model failed to compute a step", hint="the log tells why; other requests go on")
    error.__cause__ = cause
    return error
