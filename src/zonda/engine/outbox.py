"""What has happened to requests, until their receivers are told, once a step."""
from __future__ import annotations

import logging

from zonda.engine.request import Sequence, Sink
from zonda.types import Event, FinishReason, Logprob, Usage

log = logging.getLogger("zonda.engine")


class Outbox:
    """Events by their sinks."""

    def __init__(self) -> None:
        self._events: dict[Sink, list[Event]] = {}

    def __bool__(self) -> bool:
        return bool(self._events)

    def add(self, seq: Sequence, tokens: tuple[int, ...], logprobs: tuple[Logprob, ...] = (),
            finish: FinishReason | None = None, usage: Usage | None = None, error: Exception | None = None) -> None:
        """An event of a sequence, with the log-probabilities of its prompt once they are complete."""
        group = seq.group
        scores = None
        if len(group.scores) == len(group.prompt):
            scores, group.scores = tuple(group.scores), []
        event = Event(group.id, seq.index, tokens, logprobs, finish, usage, error, scores)
        self._events.setdefault(group.sink, []).append(event)

    def flush(self) -> list[Sink]:
        """Call the sinks; returns those that have raised."""
        broken = list[Sink]()
        for sink, events in self._events.items():
            try:
                sink(events)
            except Exception:
                log.exception("a receiver of events has failed; its requests are cancelled")
                broken.append(sink)
        self._events.clear()
        return broken

    def drop(self, sink: Sink) -> None:
        """Forget what a sink would be told."""
        self._events.pop(sink, None)
