"""Clients whose grammars are compiled take turns; what is refused is remembered."""
from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from typing import Any

import pytest
from spelled import VOCAB, Spelling

from zonda.engine import grammar as module
from zonda.engine.grammar import Grammars
from zonda.engine.round_robin import RoundRobin
from zonda.errors import Closed, InvalidRequest
from zonda.types import Grammar

PATIENCE = 30
STACK = 1 << 18


class Gate:
    """Jobs that wait until they are let through, and the order in which they began."""

    def __init__(self, turns: RoundRobin) -> None:
        self.turns, self.began = turns, list[str]()
        self._open: dict[str, threading.Event] = {}
        self._changed = threading.Condition()

    def queue(self, client: int, name: str) -> Future[str]:
        self._open[name] = threading.Event()
        return self.turns.submit(client, lambda: self._job(name))

    def let(self, *names: str) -> None:
        for name in names:
            self._open[name].set()

    def until(self, *names: str) -> None:
        """Wait until just these have begun."""
        with self._changed:
            assert self._changed.wait_for(lambda: sorted(self.began) == sorted(names), PATIENCE), self.began

    def _job(self, name: str) -> str:
        with self._changed:
            self.began.append(name)
            self._changed.notify_all()
        assert self._open[name].wait(PATIENCE)
        return name


@pytest.fixture
def turns() -> Iterator[RoundRobin]:
    turns = RoundRobin("test", 2, STACK)
    yield turns
    turns.close()


def test_clients_take_turns_and_have_one_job_at_a_time(turns: RoundRobin) -> None:
    gate = Gate(turns)
    queued = [gate.queue(1, name) for name in ("a1", "a2", "a3")]
    gate.until("a1")
    queued += [gate.queue(2, "b1"), gate.queue(2, "b2"), gate.queue(3, "c1")]
    gate.until("a1", "b1")
    gate.let("b1")
    gate.until("a1", "b1", "c1")  # before the second of those that had their turn
    gate.let("a1", "c1", "a2", "a3", "b2")
    assert [each.result(PATIENCE) for each in queued] == ["a1", "a2", "a3", "b1", "b2", "c1"]
    assert [name for name in gate.began if name[0] == "a"] == ["a1", "a2", "a3"]


def test_a_job_that_is_cancelled_or_fails_holds_nobody_up(turns: RoundRobin) -> None:
    gate = Gate(turns)
    first, left, last = gate.queue(1, "a1"), gate.queue(1, "a2"), gate.queue(1, "a3")
    failed = turns.submit(2, lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        failed.result(PATIENCE)
    assert left.cancel()
    gate.let("a1", "a3")
    assert first.result(PATIENCE) == "a1" and last.result(PATIENCE) == "a3" and gate.began == ["a1", "a3"]
    with pytest.raises(CancelledError):
        left.result()


class Slowly:
    """Grammars whose compilation waits to be let go, but for those of a client's own."""

    def __init__(self, grammars: Grammars, slow: str) -> None:
        self.begun, self.go_on, self.made = threading.Event(), threading.Event(), list[str]()
        make = grammars._make

        def slowly(grammar: Grammar) -> Any:
            self.made.append(grammar.source)
            if slow in grammar.source:
                self.begun.set()
                assert self.go_on.wait(PATIENCE)
            return make(grammar)

        grammars._make = slowly  # type: ignore[method-assign]


@pytest.fixture
def own() -> Iterator[Grammars]:
    grammars = Grammars(Spelling(), VOCAB)
    yield grammars
    grammars.close()


@pytest.mark.parametrize(("kind", "source", "client"), [
    ("regex", "yes|no", 1), ("json_schema", '{"type": "object", "properties": {"a": {"format": "date"}}}', 1),
    ("lark", 'start: "a"', 2), ("json_schema", '{"type": "string", "pattern": "^a$"}', 2)])
def test_a_grammar_that_takes_long_holds_up_its_clients_alone(own: Grammars, kind: Any, source: str,
                                                              client: int) -> None:
    """Nor those that take no time."""
    slow = Slowly(own, "slow")
    begun = [own.begin(Grammar("lark", f'start: "slow{number}"'), client=1) for number in range(5)]
    assert slow.begun.wait(PATIENCE)
    assert own.begin(Grammar(kind, source), client).result(PATIENCE)
    assert not any(each.done() for each in begun)
    slow.go_on.set()
    assert all(each.result(PATIENCE) for each in begun)


def refused(grammars: Grammars, kind: Any, source: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        grammars.compile(Grammar(kind, source if isinstance(source, str) else json.dumps(source)))
    return caught.value


def test_what_is_refused_is_compiled_once(own: Grammars) -> None:
    slow = Slowly(own, "none")
    wrong = Grammar("regex", "a(")
    first, again = refused(own, "regex", wrong.source), refused(own, "regex", wrong.source)
    assert (str(first), first.param) == (str(again), again.param) and first is not again
    assert own.knows(wrong) and slow.made == ["a("]
    assert not own.knows(Grammar("lark", wrong.source))


def test_a_refusal_is_remembered_for_a_while_and_so_many_are(own: Grammars, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slowly(own, "none")
    monkeypatch.setattr(module, "MAX_REFUSED", 2)
    for source in ("a(", "b(", "c(", "a(", "c("):
        refused(own, "regex", source)
    assert slow.made == ["a(", "b(", "c(", "a("] and len(own._refused) == 2
    monkeypatch.setattr(module, "REMEMBERED", -1.0)
    refused(own, "regex", "d(")
    refused(own, "regex", "d(")
    assert slow.made[4:] == ["d(", "d("]


def test_a_refusal_in_the_trial_is_the_last_word(own: Grammars, monkeypatch: pytest.MonkeyPatch) -> None:
    """No second compilation tells what is wrong."""
    monkeypatch.setattr(own, "_vocabulary", lambda: pytest.fail("it was compiled again"))
    assert "line 1, column 8" in str(refused(own, "lark", "start: nothing"))
    assert "`not`" in str(refused(own, "json_schema", {"not": {"pattern": "a"}}))


def test_a_trial_does_not_know_the_ids_of_tokens(own: Grammars) -> None:
    assert own.compile(Grammar("lark", f"start: <[{VOCAB - 1}]>"))


def test_nothing_is_compiled_after_the_end(own: Grammars) -> None:
    kept = Grammar("regex", "a")
    own.compile(kept)
    own.close()
    assert own.knows(kept)
    with pytest.raises(Closed):
        own.compile(Grammar("regex", "b"))
