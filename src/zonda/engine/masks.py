"""Keeps sequences to their grammars: which tokens each may draw next, found out while the device computes."""
from __future__ import annotations

from collections.abc import Sequence as Items
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from zonda.engine.budget import Awaited
from zonda.engine.complaints import followed
from zonda.engine.grammar import Compiled
from zonda.errors import ZondaError

if TYPE_CHECKING:
    from llguidance import LLExecutor, LLMatcher


class Constraint:
    """Where one sequence stands in its grammar. `ends` are the tokens that end it."""

    __slots__ = ("awaited", "behind", "distinct", "ends", "error", "grammar", "held", "matcher", "over")

    def __init__(self, grammar: Compiled, ends: frozenset[int]) -> None:
        self.grammar = grammar
        self.ends = np.fromiter(ends, np.int64)
        self.held = np.fromiter(ends - grammar.special, np.int64)
        """Tokens that end a sequence though a grammar may mean them as text."""
        self.awaited = None if grammar.after is None else Awaited(grammar.after, grammar.spell)
        """What ends the free text, as long as it is free."""
        self.matcher: LLMatcher | None = None
        self.distinct = grammar.distinct()
        self.behind: list[int] = []
        """Tokens that the matcher has not seen."""
        self.over = False
        """Whether the grammar allows nothing more."""
        self.error: ZondaError | None = None

    def advance(self, token: int) -> None:
        """Take note of one more token."""
        if self.awaited is None:
            self.behind.append(token)
            if self.distinct:
                self.distinct.advance(token)
        elif self.awaited.comes(token):
            self.awaited = None

    def ready(self) -> LLMatcher:
        """What follows the grammar, made when first needed."""
        if self.matcher is None:
            self.matcher = self.grammar.start.deep_copy()
        return self.matcher

    def forbid_ends(self, row: np.ndarray) -> None:
        """Set a row of forbidden tokens for text that is free, but must not end."""
        row[:] = False
        row[self.ends] = True
        if isinstance(self.grammar.after, int):
            row[self.grammar.after] = False

    def forbid(self, row: np.ndarray, bits: np.ndarray) -> None:
        """Set a row of forbidden tokens from the matcher's bits, of which the one after the vocabulary is the end."""
        assert self.matcher is not None
        if self.matcher.is_error():
            self.error = followed(self.matcher.get_error())
            row[:] = True
            return
        self.over = self.matcher.is_stopped()
        allowed = np.unpackbits(bits.view(np.uint8), count=len(row) + 1, bitorder="little")
        np.equal(allowed[:-1], 0, out=row)
        row[self.held] = True
        if allowed[-1]:
            row[self.ends] = False
        elif len(self.held) and row.all():  # the text has to go on with a token that ends the sequence
            np.equal(allowed[:-1], 0, out=row)
        if self.distinct and not self.over:
            self.distinct.forbid(row)
            if row.all():
                self.error = followed("all items that may come are there")


class Masks:
    """The masks of a step's draws; at most `rows` of them. `vocab` counts tokens."""

    def __init__(self, rows: int, vocab: int) -> None:
        self._forbidden = np.zeros((rows, vocab), np.bool_)
        self._bits = np.zeros((rows, vocab // 32 + 1), np.uint32)
        self._beside: ThreadPoolExecutor | None = None
        self._executor: LLExecutor | None = None
        self._begun: Future[list[int]] | None = None

    def begin(self, drawn: Items[Constraint | None]) -> None:
        """Find out, on another thread, what the sequences of a step's draws may draw, None for those that are free."""
        self._wait()
        constraints = [(draw, each) for draw, each in enumerate(drawn) if each]
        if constraints:
            if self._beside is None:
                self._beside = ThreadPoolExecutor(1, thread_name_prefix="zonda-masks")
            self._begun = self._beside.submit(self._find, constraints)

    def apply(self, logits: np.ndarray, rows: np.ndarray) -> None:
        """Make what is forbidden impossible; `rows` are the rows of logits of the draws that were begun with."""
        for draw in self._wait():
            np.copyto(logits[rows[draw]], -np.inf, where=self._forbidden[draw])

    def close(self) -> None:
        """End the thread."""
        if self._beside:
            self._beside.shutdown()

    def _wait(self) -> list[int]:
        begun, self._begun = self._begun, None
        return begun.result() if begun else []

    def _find(self, constraints: list[tuple[int, Constraint]]) -> list[int]:
        """Fill the rows of forbidden tokens; returns their numbers."""
        bound = [(draw, each) for draw, each in constraints if not each.awaited]
        if bound:
            self._match(bound)
        for draw, each in constraints:
            if each.awaited:
                each.forbid_ends(self._forbidden[draw])
            else:
                each.forbid(self._forbidden[draw], self._bits[draw])
        return [draw for draw, _ in constraints]

    def _match(self, bound: list[tuple[int, Constraint]]) -> None:
        from llguidance import LLExecutor

        if self._executor is None:
            self._executor = LLExecutor()
        matchers = [(each.ready(), draw) for draw, each in bound]
        while behind := [(each.ready(), each.behind.pop(0)) for _, each in bound if each.behind]:
            self._executor.consume_token_par(behind)
        width = self._bits.shape[1] * self._bits.itemsize
        self._executor.unsafe_compute_mask_ptr(matchers, self._bits.ctypes.data, width, len(self._bits))
