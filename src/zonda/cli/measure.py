"""Measuring an engine: greedy, no end-of-text, no prefix cache, prompts of token ids that differ each time."""
from __future__ import annotations

import queue
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from zonda.errors import Closed, InvalidRequest, ZondaError
from zonda.options import BenchOptions
from zonda.types import Event, Request, Sampling

if TYPE_CHECKING:
    from zonda.engine.engine import Engine

_FIRST, _RANGE = 1000, 2048  # ids of prompts lie in 1000 … 3047, or below the vocabulary's end
_POLL = 1.0


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to measure. `prefill`: prompt to first token; `decode`: after `depth` tokens; `serve`: all streams."""

    case: str
    prompt_len: int
    gen_len: int
    depth: int
    concurrency: int


@dataclass(frozen=True, slots=True)
class Result(Case):
    """A case's speed: the median, least and most over the iterations, in tokens a second."""

    tok_s: float
    min: float
    max: float


Inbox = queue.SimpleQueue[tuple[float, Sequence[Event]]]
Measure = Callable[[Case, int], float]
"""Tokens a second of a case; the number differs with each call, and the prompts with it."""


def cases(options: BenchOptions) -> Iterator[Case]:
    """What the options ask to measure, in order."""
    for length in options.prompt_len:
        if length:
            yield Case("prefill", length, 1, 0, 1)
    depths = [depth for depth in options.depth if depth]
    for depth in depths if options.gen_len > 1 else []:
        yield Case("decode", depth, options.gen_len, depth, 1)
    for streams in options.concurrency if options.gen_len else []:
        yield from (Case("serve", depth, options.gen_len, depth, streams) for depth in depths or [4])


def measured(number: int, case: Case, options: BenchOptions, measure: Measure) -> Result:
    """Warm up, then measure a case `iterations` times."""
    speeds = []
    for i in range(-options.warmup, options.iterations):
        speed = measure(case, (i + options.warmup + 1) * 131 + number * 719)
        if i >= 0:
            speeds.append(round(speed, 2))
    return Result(**asdict(case), tok_s=round(statistics.median(speeds), 2), min=min(speeds), max=max(speeds))


def prompt(start: int, length: int, vocab: int) -> tuple[int, ...]:
    """Token ids that begin elsewhere for each `start`."""
    first = min(_FIRST, vocab // 2)
    span = min(_RANGE, vocab - first)
    return tuple(first + (start + i) % span for i in range(length))


def check(case: Case, max_len: int) -> None:
    """Raise `InvalidRequest` for a case that does not fit the context."""
    if case.prompt_len + case.gen_len > max_len:
        raise InvalidRequest(f"{case.prompt_len} + {case.gen_len} tokens exceed the context of {max_len}",
                             hint="measure less, or raise --max-seq-len")


def speed(case: Case, began: float, moments: Sequence[float]) -> float:
    """Tokens a second, from the moments when the request was made and when each token came."""
    if case.case == "prefill":
        return case.prompt_len / (moments[0] - began)
    if case.case == "decode":
        return (len(moments) - 1) / (moments[-1] - moments[0])
    return len(moments) / (moments[-1] - began)


def in_process(engine: Engine) -> Measure:
    """Measure through the engine's own queue."""
    def measure(case: Case, start: int) -> float:
        inbox: Inbox = queue.SimpleQueue()
        sampling = Sampling(max_tokens=case.gen_len, temperature=0.0, ignore_eos=True)

        def sink(events: Sequence[Event]) -> None:
            inbox.put((time.perf_counter(), events))

        began = time.perf_counter()
        for i in range(case.concurrency):
            ids = prompt(start + 257 * i, case.prompt_len, engine.vocab)
            engine.submit(Request(f"bench-{start}-{i}", ids, sampling), sink)
        return speed(case, began, list(_moments(engine, inbox, case.concurrency)))

    return measure


def _moments(engine: Engine, inbox: Inbox, streams: int) -> Iterator[float]:
    """The moments of all tokens, until every stream has finished."""
    while streams:
        try:
            moment, events = inbox.get(timeout=_POLL)
        except queue.Empty:
            if not engine.alive:
                raise Closed("the engine has stopped") from None
            continue
        for event in events:
            if event.finish == "error":
                raise event.error or ZondaError("the engine failed without a message")
            yield from [moment] * len(event.tokens)
            streams -= event.finish is not None
