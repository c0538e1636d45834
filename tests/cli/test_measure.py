"""What `bench` measures, and how."""
import pytest

from zonda.cli.measure import Case, cases, check, measured, prompt, speed
from zonda.errors import InvalidRequest
from zonda.options import BenchOptions


def test_cases_are_prefills_then_decodes_then_streams() -> None:
    options = BenchOptions(prompt_len=(8, 16), gen_len=4, depth=(2, 3), concurrency=(5,))
    assert list(cases(options)) == [
        Case("prefill", 8, 1, 0, 1), Case("prefill", 16, 1, 0, 1), Case("decode", 2, 4, 2, 1),
        Case("decode", 3, 4, 3, 1), Case("serve", 2, 4, 2, 5), Case("serve", 3, 4, 3, 5)]


@pytest.mark.parametrize(("options", "kinds"), [
    (BenchOptions(prompt_len=(0,)), ["decode"]), (BenchOptions(gen_len=1), ["prefill"]),
    (BenchOptions(prompt_len=(0,), gen_len=0, concurrency=(2,)), []),
    (BenchOptions(prompt_len=(0,), depth=(0,), concurrency=(2,)), ["serve"]),
])
def test_zeros_leave_cases_out(options: BenchOptions, kinds: list[str]) -> None:
    assert [case.case for case in cases(options)] == kinds


def test_warm_ups_are_not_counted_and_every_run_begins_elsewhere() -> None:
    starts: list[int] = []

    def fake(case: Case, start: int) -> float:
        starts.append(start)
        return [1000.0, 3.0, 1.0, 2.0][len(starts) - 1]

    result = measured(2, Case("decode", 4, 8, 4, 1), BenchOptions(iterations=3, warmup=1), fake)
    assert (result.tok_s, result.min, result.max) == (2.0, 1.0, 3.0)
    assert len(set(starts)) == 4


def test_prompts_stay_in_the_vocabulary_and_differ_by_start() -> None:
    for vocab in (30, 2000, 50_000):
        ids = prompt(131, 600, vocab)
        assert len(ids) == 600 and min(ids) >= 0 and max(ids) < vocab
        assert ids != prompt(132, 600, vocab)


@pytest.mark.parametrize(("case", "expected"), [
    (Case("prefill", 10, 1, 0, 1), 5.0), (Case("decode", 4, 3, 4, 1), 1.0), (Case("serve", 4, 3, 4, 1), 0.75)])
def test_speeds_are_tokens_over_the_time_of_their_case(case: Case, expected: float) -> None:
    assert speed(case, 0.0, [2.0, 3.0, 4.0]) == expected


def test_a_case_longer_than_the_context_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="exceed the context of 10"):
        check(Case("decode", 8, 8, 8, 1), 10)
