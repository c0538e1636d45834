"""What a step consists of."""
from __future__ import annotations

import numpy as np

from zonda.engine.batch import assemble
from zonda.engine.cpu_runner import EXACT_START, Rounding, exact_rows
from zonda.engine.intake import Intake
from zonda.engine.pages import Pages
from zonda.engine.request import Group, Sequence
from zonda.engine.scheduler import MIN_SHARE, SCORED, Scheduler, Step
from zonda.engine.slots import Slots
from zonda.types import Request, Sampling


class Desk:
    """A scheduler whose steps are computed by declaring them so; every draw gives token 1."""

    def __init__(self, *, pages: int = 100, page_size: int = 4, budget: int = 64, seqs: int = 8, max_len: int = 400,
                 reuse: bool = True) -> None:
        self.pages = Pages(pages, page_size)
        self.slots = Slots(seqs, max_len=max_len, max_pages=-(-max_len // page_size))
        self.scheduler = Scheduler(self.pages, self.slots, budget=budget, reuse=reuse)
        self.intake = Intake(vocab=1000, max_len=max_len, stop_ids=frozenset(), defaults={}, seed=0)

    def add(self, id: str, prompt: int | list[int], *, salt: str = "", **sampling) -> Group:
        tokens = tuple(prompt) if isinstance(prompt, list) else tuple(range(sum(map(ord, id)) % 900, 1000))[:1] * prompt
        request = Request(id, tokens, Sampling(temperature=0, **sampling), salt)
        group = self.intake.accept(request, lambda events: None)
        for seq in group.sequences:
            self.scheduler.add(seq)
        return group

    def step(self) -> dict[str, int]:
        """Plan and complete a step; how many tokens each sequence computed."""
        return self.complete(self.scheduler.plan())

    def complete(self, step: Step) -> dict[str, int]:
        lengths = assemble(step, self.slots, self.pages.size).lengths.tolist() if step else []
        self.scheduler.commit(step)
        self.scheduler.publish(step, lengths)
        for seq in [step.sequences[place] for place in step.draws]:
            self.slots.tokens[seq.slot, seq.known] = 1
            seq.known += 1
            if seq.known == seq.limit:
                self.scheduler.finish(seq)
        return {name(seq): count for seq, count in zip(step.sequences, step.counts)}


def name(seq: Sequence) -> str:
    return seq.group.id + (str(seq.index) if len(seq.group.sequences) > 1 else "")


def test_a_prompt_is_computed_in_pieces_of_the_budget() -> None:
    desk = Desk(budget=64)
    desk.add("a", 150)
    assert [desk.step() for _ in range(4)] == [{"a": 64}, {"a": 64}, {"a": 22}, {"a": 1}]


def test_sequences_that_generate_come_before_prompts() -> None:
    desk = Desk(budget=64)
    desk.add("a", 3)
    desk.step()
    desk.add("long", 300)
    desk.add("b", 5)
    assert desk.step()["a"] == 1
    assert desk.step()["a"] == 1


def test_generation_and_prompts_share_a_step() -> None:
    desk = Desk(budget=64)
    desk.add("a", 3)
    desk.step()
    desk.add("long", 300)
    assert desk.step() == {"a": 1, "long": 63}


def test_a_short_prompt_does_not_wait_for_a_long_one_before_it() -> None:
    desk = Desk(budget=64)
    desk.add("long", 350)
    desk.step()
    desk.add("short", 10)
    assert desk.step() == {"long": 54, "short": 10}


def test_a_long_prompt_keeps_half_of_the_budget_while_short_ones_keep_coming() -> None:
    desk = Desk(budget=128, seqs=30, pages=1000)
    desk.add("long", 350)
    for i in range(40):
        desk.add(f"s{i}", 60, max_tokens=1)
    shares = [desk.step()["long"] for _ in range(5)]
    assert shares == [64, 64, 64, 64, 64]


def test_prompts_share_a_step_and_none_gets_less_than_the_least_share() -> None:
    desk = Desk(budget=256)
    for i in range(8):
        desk.add(f"r{i}", 390)
    counts = list(desk.step().values())
    assert counts == sorted(counts, reverse=True) and sum(counts) == 256 and min(counts) >= MIN_SHARE


def test_no_more_sequences_run_than_there_are_slots() -> None:
    desk = Desk(seqs=2)
    for i in range(3):
        desk.add(f"r{i}", 4, max_tokens=2)
    assert set(desk.step()) == {"r0", "r1"}
    desk.step()
    assert set(desk.step()) == {"r2"}


def test_the_first_in_the_queue_is_not_overtaken_by_smaller_ones() -> None:
    desk = Desk(pages=10, page_size=4)
    desk.add("a", 24, max_tokens=3)
    desk.step()
    desk.add("large", 30)
    desk.add("small", 2)
    assert set(desk.step()) == {"a"}
    desk.step()
    assert set(desk.step()) == {"large", "small"}


def test_the_youngest_gives_up_its_pages_and_is_the_first_to_return() -> None:
    desk = Desk(pages=6, page_size=4, reuse=False)
    old, young = desk.add("old", 7, max_tokens=16), desk.add("young", 7, max_tokens=16)
    desk.step()
    desk.add("new", 1)
    while not desk.scheduler.preemptions:
        desk.step()
    assert young.sequences[0].slot < 0 and old.sequences[0].slot >= 0
    assert next(iter(desk.scheduler.waiting)) is young.sequences[0]
    known = young.sequences[0].known
    while young.sequences[0].slot < 0:
        desk.step()
    assert old.sequences[0].slot < 0 and young.sequences[0].known >= known


def test_a_preempted_sequence_keeps_its_tokens() -> None:
    desk = Desk(pages=6, page_size=4)
    desk.add("old", 8, max_tokens=16)
    seq = desk.add("young", [5, 6, 7], max_tokens=16).sequences[0]
    while not desk.scheduler.preemptions:
        desk.step()
    assert seq.saved[:3].tolist() == [5, 6, 7] and set(seq.saved[3:].tolist()) == {1} and len(seq.saved) == seq.known


def test_a_known_beginning_is_not_computed_again_but_for_the_last_token() -> None:
    desk = Desk(page_size=4)
    prompt = list(range(16))
    desk.add("a", prompt, max_tokens=1)
    desk.step()
    again = desk.add("b", prompt, max_tokens=1)
    assert desk.step() == {"b": 4} and again.cached == 12
    desk.add("c", [*prompt, 16], max_tokens=1)
    assert desk.step() == {"c": 1}
    assert (desk.scheduler.lookups, desk.scheduler.hits, desk.scheduler.reused) == (3, 2, 28)


def test_what_was_generated_can_be_reused_too() -> None:
    desk = Desk(page_size=4)
    desk.add("a", [9, 9, 9], max_tokens=6)
    for _ in range(6):
        desk.step()
    desk.add("b", [9, 9, 9, 1, 1, 1, 1, 1, 2], max_tokens=1)
    assert desk.step() == {"b": 1}


def test_requests_with_different_salts_share_nothing() -> None:
    desk = Desk(page_size=4)
    prompt = list(range(9))
    desk.add("a", prompt, max_tokens=1, salt="x")
    desk.step()
    desk.add("b", prompt, max_tokens=1, salt="y")
    assert desk.step() == {"b": 9}
    desk.add("c", prompt, max_tokens=1, salt="x")
    assert desk.step() == {"c": 1}


def test_without_reuse_every_prompt_is_computed() -> None:
    desk = Desk(reuse=False)
    for id in "ab":
        desk.add(id, list(range(9)), max_tokens=1)
        assert desk.step() == {id: 9}
    assert desk.scheduler.lookups == 0


def test_siblings_share_the_full_pages_of_their_prompt_and_copy_the_last() -> None:
    desk = Desk(page_size=4, reuse=False)
    group = desk.add("a", list(range(10)), n=3)
    assert desk.step() == {"a0": 10}
    step = desk.scheduler.plan()
    first, *others = group.sequences
    assert all(seq.pages[:2] == first.pages[:2] for seq in others)
    assert step.copies == [(first.pages[2], seq.pages[2]) for seq in others]
    assert len({seq.pages[2] for seq in group.sequences}) == 3
    assert desk.complete(step) == {"a0": 1, "a1": 1, "a2": 1}
    assert desk.pages.used == 5


def test_siblings_of_a_prompt_that_fills_its_pages_copy_nothing_that_is_shared() -> None:
    desk = Desk(page_size=4)
    group = desk.add("a", list(range(8)), n=2)
    desk.step()
    step = desk.scheduler.plan()
    first, second = group.sequences
    assert second.pages[0] == first.pages[0] and second.pages[1] != first.pages[1]
    assert step.copies == [(first.pages[1], second.pages[1])]


def test_others_pass_siblings_that_wait_for_their_prompt() -> None:
    desk = Desk(budget=64)
    desk.add("a", 300, n=2)
    desk.add("b", 5)
    assert set(desk.step()) == {"a0", "b"}


def test_siblings_whose_leader_is_gone_compute_the_prompt_themselves() -> None:
    desk = Desk(budget=64, reuse=False)
    group = desk.add("a", 100, n=3)
    desk.step()
    desk.scheduler.finish(group.sequences[0])
    assert desk.step() == {"a1": 64}
    desk.step()
    assert desk.step() == {"a1": 1, "a2": 1}


def test_a_scored_prompt_asks_for_a_bounded_number_of_rows() -> None:
    desk = Desk(budget=256)
    desk.add("a", 200, prompt_logprobs=True)
    desk.add("b", 200, prompt_logprobs=True)
    step = desk.scheduler.plan()
    batch = assemble(step, desk.slots, desk.pages.size)
    assert len(batch.sample) <= SCORED
    assert desk.complete(step) == {"a": SCORED}


def test_rows_are_exact_by_their_place_in_their_request_whatever_else_runs() -> None:
    desk = Desk(pages=300, budget=1000, max_len=500)
    rounding = Rounding(100, 4, 12)
    prompts = {"a": 3, "b": 99, "c": 100}
    for name, length in prompts.items():
        desk.add(name, length, max_tokens=2)
    batch = assemble(desk.scheduler.plan(), desk.slots, desk.pages.size)
    rows = np.split(exact_rows(batch, rounding), batch.starts[1:-1])
    places = [np.flatnonzero(exact).tolist() for exact in rows]
    assert places == [[0, 1, 2], [*range(EXACT_START), 98], [*range(4), *range(88, 100)]]


def test_a_batch_holds_each_sequences_rows_pages_and_last_row() -> None:
    desk = Desk(page_size=4)
    desk.add("a", [5, 6], max_tokens=9)
    desk.step()
    desk.add("b", [7, 8, 9, 10, 11], max_tokens=9)
    step = desk.scheduler.plan()
    batch = assemble(step, desk.slots, 4)
    assert batch.tokens.tolist() == [1, 7, 8, 9, 10, 11] and batch.positions.tolist() == [2, 0, 1, 2, 3, 4]
    assert batch.starts.tolist() == [0, 1, 6] and batch.lengths.tolist() == [3, 5] and batch.sample.tolist() == [0, 5]
    a, b = step.sequences
    assert batch.page_table[0, 0] == a.pages[0] and batch.page_table[1].tolist() == b.pages
    assert all(array.dtype == np.int32 and array.flags.c_contiguous for array in (
        batch.tokens, batch.positions, batch.starts, batch.lengths, batch.page_table, batch.sample))
