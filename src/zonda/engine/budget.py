"""Reasoning on a budget: when it has begun and ended, and what has been spent of its tokens."""
from __future__ import annotations

from collections.abc import Callable, Sequence

from zonda.types import Budget

Spell = Callable[[int], bytes]


def before_answer(budget: Budget | None, after: int | str, most: int, encode: Callable[[str], Sequence[int]]) -> Budget:
    """The budget of an answer of at most so many tokens that begins after a token, or a text: some are left for it."""
    closing = (after,) if isinstance(after, int) else tuple(encode(after))
    closings = budget.closings if budget else (closing,)
    tokens = most * 3 // 4 + len(closings[0])
    return Budget(min(tokens, budget.tokens) if budget else tokens, "", (after,), closings)


class Awaited:
    """Looks for a token, or for a text, in tokens as they come."""

    def __init__(self, wanted: int | str, spell: Spell) -> None:
        self._wanted = wanted.encode() if isinstance(wanted, str) else wanted
        self._spell = spell
        self._tail = b""

    def comes(self, token: int) -> bool:
        """Whether it is complete with this token."""
        if isinstance(self._wanted, int):
            return token == self._wanted
        self._tail += self._spell(token)
        found = self._wanted in self._tail
        self._tail = b"" if found else self._tail[-len(self._wanted):]
        return found


class Spending:
    """What one answer has spent of its budget; its closings count before they come."""

    def __init__(self, budget: Budget, spell: Spell) -> None:
        self._left = budget.tokens - len(budget.closings[0])
        self._open = budget.open.encode()
        self._begun = b""
        """Text in which reasoning may have begun."""
        self._opening = Awaited(budget.open, spell) if budget.again else None
        self._closes = [Awaited(each, spell) for each in budget.closes]
        self._closings = budget.closings
        self._spell = spell
        self._thinking = not budget.open
        self._over = False

    @property
    def near(self) -> bool:
        """Whether it may be spent with the next token."""
        return self._left <= 1 and (self._thinking or not (self._over or self._opening))

    @property
    def spent(self) -> bool:
        """Whether reasoning must end here."""
        return self._thinking and self._left <= 0

    def closing(self) -> tuple[int, ...]:
        """The tokens that end the reasoning, which is over with them."""
        now, self._closings = self._closings[0], self._closings[1:] or self._closings
        self._end()
        return now

    def advance(self, token: int) -> None:
        """Take note of one more token."""
        if self._over:
            return
        if self._thinking:
            if any(each.comes(token) for each in self._closes):
                self._end()
        elif self._opening:
            self._thinking = self._opening.comes(token)
        else:
            self._begin(token)
        self._left -= not self._opening or self._thinking

    def _end(self) -> None:
        self._thinking, self._over = False, self._opening is None

    def _begin(self, token: int) -> None:
        """Reasoning comes first, after white space at most, or not at all."""
        self._begun = (self._begun + self._spell(token)).lstrip()
        self._thinking = self._begun.startswith(self._open)
        self._over = not (self._thinking or self._open.startswith(self._begun))
