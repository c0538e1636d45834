"""References, names and eviction of pages."""
from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from zonda.engine.pages import Pages, chain, root


def names(*pages: list[int], salt: str = "") -> list[bytes]:
    found, parent = [], root(salt)
    for tokens in pages:
        parent = chain(parent, np.array(tokens, np.int32))
        found.append(parent)
    return found


def test_a_page_is_free_again_when_its_last_holder_lets_go() -> None:
    pages = Pages(2, 4)
    held = pages.allocate(1)
    pages.share(held)
    pages.release(held)
    assert pages.available == 1
    pages.release(held)
    assert pages.available == 2


def test_a_known_page_stays_findable_after_its_holder_is_gone() -> None:
    pages, chained = Pages(3, 2), names([1, 2], [3, 4])
    held = pages.allocate(2)
    for page, name in zip(held, chained):
        pages.publish(page, name)
    pages.release(held)
    assert pages.available == 3 and pages.find(chained) == held


def test_a_page_is_found_only_behind_all_that_was_before_it() -> None:
    pages = Pages(3, 2)
    [page] = pages.allocate(1)
    pages.publish(page, names([1, 2], [3, 4])[1])
    assert pages.find(names([3, 4])) == []
    assert pages.find(names([1, 2], [3, 4])) == []


def test_other_salts_give_other_names() -> None:
    assert set(names([1, 2], [3, 4])).isdisjoint(names([1, 2], [3, 4], salt="tenant"))


def test_the_oldest_idle_page_is_given_away_first_and_the_end_of_a_chain_before_its_start() -> None:
    pages, first, second = Pages(4, 1), names([1], [2]), names([8], [9])
    for chained in (first, second):
        held = pages.allocate(2)
        for page, name in zip(held, chained):
            pages.publish(page, name)
        pages.release(held)
    pages.allocate(1)
    assert len(pages.find(first)) == 1 and len(pages.find(second)) == 2 and pages.evictions == 1
    pages.allocate(1)
    assert len(pages.find(first)) == 0 and len(pages.find(second)) == 2


def test_a_shared_idle_page_cannot_be_allocated() -> None:
    pages, chained = Pages(2, 1), names([1])
    held = pages.allocate(1)
    pages.publish(held[0], chained[0])
    pages.release(held)
    assert pages.fits([], 2) and not pages.fits(held, 2)
    pages.share(held)
    assert pages.allocate(1) != held and pages.available == 0


def test_the_first_of_two_equal_pages_stays_known() -> None:
    pages, [name] = Pages(2, 1), names([1])
    a, b = pages.allocate(2)
    pages.publish(a, name)
    pages.publish(b, name)
    assert pages.find([name]) == [a]
    pages.release([b])
    assert pages.find([name]) == [a]


class Books(RuleBasedStateMachine):
    """Chains of pages that come and go, beside what each page should hold."""

    def __init__(self) -> None:
        super().__init__()
        self.pages = Pages(6, 1)
        self.held: list[list[int]] = []
        self.content: dict[int, bytes] = {}

    @rule(tokens=st.lists(st.integers(0, 1), min_size=1, max_size=5))
    def begin(self, tokens: list[int]) -> None:
        chained = names(*([token] for token in tokens))
        found = self.pages.find(chained)
        assert [self.content[page] for page in found] == chained[:len(found)]
        if not self.pages.fits(found, len(chained) - len(found)):
            assert self.pages.available < len(chained)
            return
        self.pages.share(found)
        fresh = self.pages.allocate(len(chained) - len(found))
        assert not {page for each in (*self.held, found) for page in each} & set(fresh)
        for page, name in zip(fresh, chained[len(found):]):
            self.content[page] = name
            self.pages.publish(page, name)
        self.held.append(found + fresh)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        self.pages.release(self.held.pop(data.draw(st.integers(0, len(self.held) - 1))))

    @invariant()
    def every_page_is_accounted_for(self) -> None:
        count = Counter(page for each in self.held for page in each)
        assert [count[page] for page in range(6)] == self.pages.references
        assert self.pages.used == len(count) and self.pages.available == 6 - len(count)


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
