"""The engine's promises, on its own thread, over a fake runner."""
from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from fakerunner import PATIENCE, AheadRunner, Collector, FakeRunner, request

from zonda.engine.batch import Batch
from zonda.engine.engine import MAX_FAILURES, Engine
from zonda.errors import Closed, ContextExceeded, InvalidRequest, OutOfMemory, Overloaded, ZondaError
from zonda.options import EngineOptions


@contextmanager
def running(runner: FakeRunner | None = None, *, stop_ids: frozenset[int] = frozenset(), defaults: dict | None = None,
            **options) -> Iterator[Engine]:
    engine = Engine(runner or FakeRunner(), EngineOptions(**options), stop_ids=stop_ids, defaults=defaults)
    try:
        yield engine
    finally:
        engine.close()


@contextmanager
def stepping(runner: FakeRunner, **options) -> Iterator[tuple[Engine, threading.Semaphore]]:
    """An engine that runs a step only when the semaphore lets it."""
    runner.gate = gate = threading.Semaphore(0)
    engine = Engine(runner, EngineOptions(**options))
    try:
        yield engine, gate
    finally:
        gate.release(10_000)
        engine.close()


def generate(engine: Engine, prompt=(1, 2, 3), **sampling) -> Collector:
    got = Collector()
    engine.submit(request("r", prompt, **sampling), got)
    got.wait("r")
    return got


def alone(prompt=(1, 2, 3), **sampling) -> list[int]:
    with running() as engine:
        return generate(engine, prompt, **sampling).tokens("r")


def until(condition) -> None:
    for _ in range(500 * PATIENCE):
        if condition():
            return
        time.sleep(0.002)
    raise AssertionError("it never came true")


# ---- generation

def test_a_request_ends_by_length_with_the_tokens_it_asked_for() -> None:
    with running() as engine:
        got = generate(engine, max_tokens=4)
    assert len(got.tokens("r")) == 4 and got.finish("r") == "length"


def test_the_context_is_filled_to_the_end_and_not_further() -> None:
    with running(max_seq_len=10) as engine:
        got = generate(engine, max_tokens=None)
        assert engine.max_len == 10
    assert len(got.tokens("r")) == 7 and got.finish("r") == "length"


def test_a_stop_token_ends_a_sequence_and_is_reported() -> None:
    free = alone(max_tokens=9)
    with running(stop_ids=frozenset({free[2]})) as engine:
        got = generate(engine, max_tokens=9)
        assert got.tokens("r") == free[:3] and got.finish("r") == "stop"
        assert generate(engine, max_tokens=9, ignore_eos=True).tokens("r") == free
    with running() as engine:
        assert generate(engine, max_tokens=9, stop_token_ids=(free[1],)).tokens("r") == free[:2]


def test_no_stop_token_comes_before_min_tokens() -> None:
    free = alone(max_tokens=9)
    with running(stop_ids=frozenset({free[0], free[1]})) as engine:
        got = generate(engine, max_tokens=9, min_tokens=4)
    assert len(got.tokens("r")) >= 4 and not {free[0], free[1]} & set(got.tokens("r")[:4])


def test_zero_tokens_give_an_end_without_tokens() -> None:
    with running() as engine:
        got = generate(engine, max_tokens=0)
    [event] = got.events["r"]
    assert event.finish == "length" and event.tokens == () and event.usage.completion_tokens == 0


def test_siblings_differ_and_each_is_reproducible() -> None:
    with running() as engine:
        got = generate(engine, n=3, temperature=1.0, seed=5, max_tokens=8)
    answers = [tuple(got.tokens("r", i)) for i in range(3)]
    assert len(set(answers)) == 3
    assert answers[0] == tuple(alone(temperature=1.0, seed=5, max_tokens=8))


def test_more_siblings_than_slots_all_answer() -> None:
    with running(max_seqs=3) as engine:
        got = generate(engine, n=20, max_tokens=3)
        assert engine.stats().capacity == 3
    assert [got.tokens("r", i) for i in range(20)] == [alone(max_tokens=3)] * 20


def test_a_seed_gives_the_same_tokens_whatever_else_is_in_the_batch() -> None:
    settings = {"temperature": 1.0, "seed": 11, "max_tokens": 12, "top_k": 20, "repetition_penalty": 1.2}
    expected = alone(**settings)
    with running(FakeRunner(pages=40), max_seqs=6, seed=99) as engine:
        got = Collector()
        for i in range(9):
            engine.submit(request(f"x{i}", range(1, 4 + i), temperature=1.0, max_tokens=10), got)
            engine.submit(request(f"r{i}", **settings), got)
        got.wait(*(f"{kind}{i}" for kind in "xr" for i in range(9)))
    assert all(got.tokens(f"r{i}") == expected for i in range(9))


def test_requests_without_a_seed_differ_from_each_other_and_follow_the_engines_seed() -> None:
    def answers(seed: int) -> list[list[int]]:
        with running(seed=seed) as engine:
            return [generate(engine, temperature=1.0, max_tokens=8).tokens("r") for _ in range(2)]

    first, second = answers(1), answers(1)
    assert first == second and first[0] != first[1] and answers(2) != first


def test_defaults_of_the_model_apply() -> None:
    with running(defaults={"do_sample": False}) as engine:
        assert generate(engine, temperature=None).tokens("r") == alone()
    with running(defaults={"do_sample": False, "suppress_tokens": alone()}) as engine:
        assert not set(generate(engine, temperature=None).tokens("r")) & set(alone())


def test_a_logit_bias_forbids_and_forces_tokens() -> None:
    with running() as engine:
        assert generate(engine, logit_bias={9: 100.0}).tokens("r") == [9] * 5
        banned = alone()[0]
        assert generate(engine, logit_bias={banned: -100.0}).tokens("r")[0] != banned


def test_dry_breaks_at_the_tokens_that_its_breakers_stand_for() -> None:
    class Loop(FakeRunner):
        def _logits(self, batch: Batch, row: int, owner: int) -> np.ndarray:
            logits = np.zeros(self.vocab, np.float32)
            logits[batch.tokens[row] % 3 + 1] = 1.0  # 1 2 3 1 2 3 …
            return logits

    settings = {"dry_multiplier": 5.0, "dry_allowed_length": 2, "dry_sequence_breakers": ("x",), "max_tokens": 9}
    with running(Loop()) as engine:
        assert generate(engine, max_tokens=9).tokens("r") == [1, 2, 3] * 3
        assert generate(engine, **settings).tokens("r")[:3] != [1, 2, 3]
    engine = Engine(Loop(), breakers=lambda text: [1, 2, 3])
    assert generate(engine, **settings).tokens("r") == [1, 2, 3] * 3
    engine.close()


# ---- what is reported

def test_usage_counts_all_siblings_and_comes_once_with_the_last_event() -> None:
    with running(FakeRunner(page_size=4)) as engine:
        generate(engine, range(9), max_tokens=1)
        got = generate(engine, range(9), n=3, max_tokens=4)
    usages = [event.usage for event in got.events["r"] if event.usage]
    assert [(u.prompt_tokens, u.completion_tokens, u.cached_tokens) for u in usages] == [(9, 12, 8)]
    assert got.last("r").usage and min(
        usages[0].queue_seconds, usages[0].prompt_seconds, usages[0].completion_seconds) >= 0


def test_log_probabilities_come_with_each_token_when_asked_for() -> None:
    with running() as engine:
        got = generate(engine, logprobs=3)
        bare = generate(engine, logprobs=0)
    for event in got.events["r"]:
        [entry] = event.logprobs
        assert entry.token == event.tokens[0] == entry.top[0][0] and len(entry.top) == 3
        assert entry.logprob == entry.top[0][1] > entry.top[1][1] > entry.top[2][1]
    assert all(event.logprobs[0].top == () for event in bare.events["r"])
    with running() as engine:
        assert all(event.logprobs == () for event in generate(engine).events["r"])


@pytest.mark.parametrize("budget", [512, 4])
def test_prompt_log_probabilities_come_once_with_the_first_event(budget: int) -> None:
    runner = FakeRunner(page_size=4)
    with running(runner, max_num_batched_tokens=budget) as engine:
        generate(engine, range(1, 10), max_tokens=1)
        got = generate(engine, range(1, 10), prompt_logprobs=True, logprobs=2, n=2, max_tokens=2)
    first, *others = got.events["r"]
    assert all(event.prompt_logprobs is None for event in others)
    head, *scores = first.prompt_logprobs
    assert head is None and [entry.token for entry in scores] == list(range(2, 10))
    assert scores[3].top[0][0] == alone(range(1, 5))[0]
    assert all(len(entry.top) == 2 and entry.logprob <= entry.top[0][1] for entry in scores)


def test_prompt_log_probabilities_need_no_generated_token() -> None:
    with running() as engine:
        got = generate(engine, (4, 5), prompt_logprobs=True, max_tokens=0)
    [event] = got.events["r"]
    assert event.finish == "length" and len(event.prompt_logprobs) == 2


def test_a_sink_hears_of_all_its_requests_in_one_call_a_step() -> None:
    runner, got = FakeRunner(), Collector()
    with stepping(runner) as (engine, gate):
        for i in range(5):
            engine.submit(request(f"r{i}", max_tokens=3), got)
        gate.release(20)
        got.wait(*(f"r{i}" for i in range(5)))
    assert len(got.calls) <= runner.steps
    assert max(len(call) for call in got.calls) >= 4


def test_stats_tell_what_happened() -> None:
    with running(FakeRunner(page_size=4), stop_ids=frozenset()) as engine:
        generate(engine, range(9), max_tokens=3)
        generate(engine, range(9), max_tokens=2)
        stats = engine.stats()
    assert (stats.prompt_tokens, stats.generated_tokens, stats.cached_tokens) == (10, 5, 8)
    assert (stats.prefix_lookups, stats.prefix_hits, stats.preemptions) == (2, 1, 0)
    assert stats.finished == {"stop": 0, "length": 2, "cancelled": 0, "error": 0}
    assert (stats.running, stats.waiting, stats.pages_used, stats.pages_total) == (0, 0, 0, 64)
    assert sum(stats.first_token.counts) == 2 and sum(stats.between_tokens.counts) == 3
    assert stats.step_seconds >= stats.compute_seconds > 0 and stats.last_step_age == 0


# ---- ends

def test_a_waiting_request_can_be_cancelled() -> None:
    runner, got = FakeRunner(), Collector()
    with stepping(runner, max_seqs=1) as (engine, gate):
        engine.submit(request("a", max_tokens=3), got)
        engine.submit(request("b"), got)
        engine.cancel("b")
        gate.release(2)
        got.wait("b")
        assert got.finish("b") == "cancelled" and got.tokens("b") == []
        gate.release(9)
        got.wait("a")
    assert got.finish("a") == "length"


def test_a_prompt_being_computed_can_be_cancelled_and_frees_its_pages_within_a_step() -> None:
    runner, got = FakeRunner(max_len=200), Collector()
    with stepping(runner, max_num_batched_tokens=8) as (engine, gate):
        engine.submit(request("a", range(1, 49)), got)
        gate.release(2)
        until(lambda: runner.steps == 2)
        engine.cancel("a")
        gate.release(1)
        got.wait("a")
        assert runner.steps <= 3 and got.finish("a") == "cancelled"
        assert engine.stats().pages_used == 0


def test_a_generating_request_can_be_cancelled_and_frees_its_pages_within_a_step() -> None:
    runner, got = FakeRunner(), Collector()
    with stepping(runner) as (engine, gate):
        engine.submit(request("a", max_tokens=100), got)
        gate.release(3)
        got.wait_tokens("a", 3)
        engine.cancel("a")
        gate.release(1)
        got.wait("a")
        assert len(got.tokens("a")) <= 4 and engine.stats().pages_used == 0
        assert got.last("a").usage.completion_tokens == len(got.tokens("a"))


def test_one_of_several_siblings_can_be_cancelled() -> None:
    runner, got = FakeRunner(), Collector()
    with stepping(runner) as (engine, gate):
        engine.submit(request("a", n=3, max_tokens=6), got)
        gate.release(2)
        until(lambda: runner.steps == 2)
        engine.cancel("a", 0)
        gate.release(50)
        got.wait("a")
    assert [got.finish("a", i) for i in range(3)] == ["cancelled", "length", "length"]
    assert got.tokens("a", 1) == got.tokens("a", 2) == alone(max_tokens=6)


def test_cancelling_what_is_unknown_or_over_changes_nothing() -> None:
    with running() as engine:
        generate(engine)
        engine.cancel("r")
        engine.cancel("never")
        assert generate(engine).finish("r") == "length"


def test_many_long_requests_that_are_left_do_not_keep_others_waiting() -> None:
    with stepping(FakeRunner(max_len=200, pages=100), max_seqs=4) as (engine, gate):
        got = Collector()
        for i in range(100):
            engine.submit(request(f"r{i}", range(1, 20), max_tokens=180), got)
        for i in range(100):
            engine.cancel(f"r{i}")
        gate.release(10)
        assert generate(engine, max_tokens=3).finish("r") == "length"
        assert engine.stats().finished["cancelled"] == 100


def test_a_full_queue_refuses_with_a_time_to_come_back() -> None:
    runner, got = FakeRunner(), Collector()
    with stepping(runner, max_seqs=2, max_queue=3) as (engine, gate):
        for i in range(5):
            engine.submit(request(f"r{i}"), got)
        with pytest.raises(Overloaded) as caught:
            engine.submit(request("more"), got)
        assert caught.value.status == 429 and 1 <= caught.value.retry_after <= 60
        assert engine.stats().rejected == 1 and engine.stats().waiting >= 3
        gate.release(100)
        got.wait(*(f"r{i}" for i in range(5)))
        engine.submit(request("more"), got)
        got.wait("more")


def test_an_id_can_be_used_again_only_after_its_end() -> None:
    runner, got = FakeRunner(), Collector()
    with stepping(runner) as (engine, gate):
        engine.submit(request("a"), got)
        with pytest.raises(InvalidRequest, match="id"):
            engine.submit(request("a"), got)
        gate.release(20)
        got.wait("a")
        engine.submit(request("a"), got)


def test_draining_refuses_new_requests_and_finishes_the_old() -> None:
    got = Collector()
    with running() as engine:
        for i in range(20):
            engine.submit(request(f"r{i}", max_tokens=20), got)
        engine.drain(PATIENCE)
        assert all(got.finish(f"r{i}") == "length" for i in range(20)) and engine.alive
        with pytest.raises(Closed, match="shutting down"):
            engine.submit(request("late"), got)


def test_draining_gives_up_after_its_time_and_closing_fails_the_rest() -> None:
    runner, got = FakeRunner(), Collector()
    with stepping(runner) as (engine, gate):
        engine.submit(request("a", max_tokens=100), got)
        engine.drain(0.01)
        assert got.finish("a") is None
        gate.release(10_000)
        engine.close()
    assert got.finish("a") in ("error", "length") and runner.closed and not engine.alive
    engine.close()


def test_a_closed_engine_refuses_requests() -> None:
    with running() as engine:
        pass
    with pytest.raises(Closed, match="stopped"):
        engine.submit(request("a"), Collector())
    engine.drain(1)
    assert engine.stats().last_step_age == 0


def test_what_waits_when_the_engine_closes_is_told_so() -> None:
    runner, got = FakeRunner(), Collector()
    with stepping(runner, max_seqs=1) as (engine, gate):
        for id in "abc":
            engine.submit(request(id, max_tokens=100), got)
        gate.release(1)
        until(lambda: runner.steps == 1)
        closing = threading.Thread(target=engine.close)
        closing.start()
        until(lambda: engine._closing)
        gate.release(1)
        closing.join(PATIENCE)
    assert [got.finish(id) for id in "abc"] == ["error"] * 3
    assert all(isinstance(got.last(id).error, Closed) for id in "abc")


# ---- failures

class Failing(FakeRunner):
    """Raises while `broken`."""

    broken = False

    def run(self, batch: Batch) -> np.ndarray:
        if self.broken:
            raise RuntimeError("secret detail")
        return super().run(batch)


def test_a_step_that_fails_fails_its_requests_and_no_later_ones() -> None:
    runner, got = Failing(), Collector()
    with running(runner) as engine:
        runner.broken = True
        engine.submit(request("a", n=2), got)
        got.wait("a")
        runner.broken = False
        assert [got.finish("a", i) for i in range(2)] == ["error", "error"]
        assert isinstance(got.last("a").error, ZondaError) and "secret" not in str(got.last("a").error)
        assert generate(engine).finish("r") == "length"
        assert engine.stats().pages_used == 0 and engine.alive


def test_repeated_failures_kill_the_engine_and_everyone_is_told() -> None:
    runner, got = Failing(), Collector()
    with running(runner, max_seqs=1) as engine:
        runner.broken = True
        for i in range(MAX_FAILURES + 2):
            engine.submit(request(f"r{i}"), got)
        got.wait(*(f"r{i}" for i in range(MAX_FAILURES + 2)))
        until(lambda: not engine.alive)
        assert all(got.finish(f"r{i}") == "error" for i in range(MAX_FAILURES + 2))
        with pytest.raises(Closed):
            engine.submit(request("late"), got)
    assert runner.closed


@pytest.mark.parametrize("settings", [{}, {"temperature": 1.0}, {"logprobs": 2}])
def test_logits_that_are_not_numbers_fail_only_their_own_request(settings: dict) -> None:
    class Poisoned(FakeRunner):
        def _logits(self, batch: Batch, row: int, owner: int) -> np.ndarray:
            logits = super()._logits(batch, row, owner).copy()
            if 13 in batch.tokens[batch.starts[owner]:batch.starts[owner + 1]]:
                logits[5] = np.nan
            return logits

    got = Collector()
    with running(Poisoned()) as engine:
        engine.submit(request("good", max_tokens=8, logit_bias={13: -1000.0}, **settings), got)
        engine.submit(request("bad", (13,), **settings), got)
        got.wait("good", "bad")
        assert engine.stats().pages_used == 0
    assert got.finish("bad") == "error" and "finite" in str(got.last("bad").error)
    assert got.finish("good") == "length" and len(got.tokens("good")) == 8


def test_a_sink_that_raises_has_its_requests_cancelled_and_hurts_nobody() -> None:
    def broken(events) -> None:
        raise RuntimeError("gone")

    got = Collector()
    with running(max_seqs=2) as engine:
        for i in range(3):
            engine.submit(request(f"bad{i}", max_tokens=150), broken)
        engine.submit(request("good", max_tokens=30), got)
        got.wait("good")
        until(lambda: engine.stats().running + engine.stats().waiting == 0)
        assert engine.stats().finished["cancelled"] == 3 and engine.stats().pages_used == 0
    assert got.tokens("good") == alone(max_tokens=30)


def test_a_request_that_comes_while_a_broken_sink_is_silenced_is_answered() -> None:
    class Broken:
        """Submits at the moment when the engine looks for its requests, as another thread might."""

        def __call__(self, events) -> None:
            raise RuntimeError("gone")

        def __hash__(self) -> int:
            return 1

        def __eq__(self, other: object) -> bool:
            if other is got and not late:
                late.append(True)
                engine.submit(request("late"), got)
            return self is other

    got, late = Collector(), list[bool]()
    with stepping(FakeRunner()) as (engine, gate):
        engine.submit(request("good", max_tokens=60), got)
        engine.submit(request("bad", max_tokens=60), Broken())
        engine.submit(request("more", max_tokens=60), got)
        gate.release(1000)
        got.wait("good", "more", "late")
    assert late and got.finish("good") == got.finish("late") == "length"


def test_a_stuck_step_shows_in_the_age_of_the_last_step() -> None:
    runner, got = FakeRunner(), Collector()
    with stepping(runner) as (engine, gate):
        assert engine.stats().last_step_age == 0
        engine.submit(request("a"), got)
        until(lambda: engine.stats().last_step_age > 0.02)
        gate.release(20)
        got.wait("a")
        until(lambda: engine.stats().last_step_age == 0)


def test_a_prompt_beyond_the_context_is_refused_at_once() -> None:
    with running(max_seq_len=16) as engine, pytest.raises(ContextExceeded):
        engine.submit(request("a", range(16)), Collector())


def test_a_cache_smaller_than_the_context_bounds_the_context() -> None:
    with running(FakeRunner(pages=5, page_size=4, max_len=200)) as engine:
        assert engine.max_len == 20
        assert len(generate(engine, max_tokens=None).tokens("r")) == 17
    with pytest.raises(OutOfMemory):
        Engine(FakeRunner(pages=1, page_size=1))


def test_little_memory_preempts_and_changes_no_answer() -> None:
    with running(FakeRunner(pages=12, page_size=4), max_seqs=8) as engine:
        got = Collector()
        for i in range(12):
            engine.submit(request(f"r{i}", (i, 2), max_tokens=30), got)
        got.wait(*(f"r{i}" for i in range(12)))
        assert engine.stats().preemptions > 0
    assert all(got.tokens(f"r{i}") == alone((i, 2), max_tokens=30) for i in range(12))


def test_a_sink_may_submit_and_cancel() -> None:
    got = Collector()
    with running() as engine:
        def sink(events) -> None:
            got(events)
            if events[-1].request == "a" and events[-1].finish:
                engine.submit(request("b", max_tokens=100), sink)
            elif events[-1].request == "b" and len(got.tokens("b")) == 3:
                engine.cancel("b")

        engine.submit(request("a"), sink)
        got.wait("a", "b")
    assert got.finish("b") == "cancelled"


def test_an_idle_engine_works_ahead_and_leaves_that_for_a_request() -> None:
    runner, collector = AheadRunner(), Collector()
    runner.chores = 1 << 60
    engine = Engine(runner)
    assert runner.idled.wait(PATIENCE)
    engine.submit(request("r", max_tokens=3), collector)
    collector.wait("r")
    assert len(collector.tokens("r")) == 3
    runner.idled.clear()
    assert runner.idled.wait(PATIENCE)
    engine.close()
