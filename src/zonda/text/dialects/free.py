"""Grammars of answers that are free, but for the calls in them: walks through states, each a kind of free text."""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from zonda.text.dialects.lark import Lark
from zonda.text.reasoning import Reasoning
from zonda.text.regular import exactly

SPACE = "[\\s\\x1c-\\x1f]"
"""A character that readers take for white space, as an expression."""


@dataclass(frozen=True, slots=True)
class Move:
    """A way out of a text: the mark that ends it, the expression that must follow, and the state behind that.

    One that is `first` comes before all text; its mark is an expression of texts where it is no special token.
    """

    mark: str
    rest: str
    to: str
    first: bool = False


@dataclass(frozen=True, slots=True)
class State:
    """Text up to one of the moves. Other special tokens are free, and lead to the state `stay`."""

    moves: Sequence[Move]
    stay: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """Where calls begin, each a mark and the expression of what must follow.

    `marks` are found anywhere, `heads` at the beginning of the answer, `more` right behind a call; the latter two are
    expressions of texts. `leads` may come before a head, `frames` anywhere: they share special tokens with marks.
    """

    marks: Sequence[tuple[str, str]]
    heads: Sequence[tuple[str, str]] = ()
    more: Sequence[tuple[str, str]] = ()
    leads: Sequence[str] = ()
    frames: Sequence[str] = ()


def answers(lark: Lark, calls: Calls, special: Iterable[int], style: Reasoning | None = None, *,
            ends: Sequence[str] = (), opened: bool = False) -> str:
    """A Lark grammar of answers with text and calls, and perhaps reasoning of a style before them.

    `special` are all special tokens. Marks of `ends` end reasoning as well, which the prompt may have `opened`.
    """
    spoken, called = "spoken" if calls.heads else "free", "called" if calls.more else "free"
    moves = [*(Move(mark, rest, called) for mark, rest in calls.marks), *(Move(mark, "", "free")
                                                                         for mark in calls.frames)]
    heads = [Move(mark, rest, called, first=True) for mark, rest in calls.heads]
    leads = [*calls.leads, *(wrap[0] for wrap in (style.wrap if style and heads else ()))]
    heads += [Move(_first(lark, mark), "", spoken, first=True) for mark in leads]
    more = [Move(mark, rest, called, first=True) for mark, rest in calls.more]
    states = {"spoken": State([*moves, *heads], "free"), "called": State([*moves, *more], "free"),
              "free": State(moves, "free")}
    if style is None:
        return walk(lark, states, spoken, special)
    over = [Move(style.close, "", spoken), *(move for move in moves if move.mark in ends)]
    begins = Move(_first(lark, style.open), "", "thought", first=True)
    states |= {"thought": State(over, "thought"), "begun": State([*states[spoken].moves, begins], "free")}
    return walk(lark, states, "thought" if opened else "begun", special)


def _first(lark: Lark, mark: str) -> str:
    return mark if _special(lark, mark) else f"/{SPACE}*{exactly(mark)}/"


def _special(lark: Lark, mark: str) -> bool:
    """Whether there is a special token in a mark."""
    return lark.parted(mark)[1] is not None


def walk(lark: Lark, states: Mapping[str, State], start: str, special: Iterable[int]) -> str:
    """A Lark grammar of all walks that begin in a state; they may end in every text."""
    ways: dict[str, list[str]] = {start: ['""']}
    ends, left = list[str](), [start]
    while left:
        name = left.pop()
        text = lark.terminal(_text(lark, states[name].moves))
        ends.append(f"{name} {text}?")
        for to, way in _ways(lark, states[name], text, frozenset(special)):
            if to not in ways:
                left.append(to)
            ways.setdefault(to, []).append(f"{name} {way}".rstrip())
    rules = [f"{name}: {' | '.join(each)}" for name, each in ways.items()]
    return "\n".join([f"start: {' | '.join(ends)}", *rules, *lark.rules])


def _ways(lark: Lark, state: State, text: str, special: frozenset[int]) -> Iterator[tuple[str, str]]:
    """From a state to others: their names, and what is written on the way."""
    quiet = set(special)
    for move in state.moves:
        start, token = lark.parted(move.mark)
        if token is None:
            yield move.to, f"{lark.lazy(_ending(lark, start, move, state.moves))} {move.rest}"
            continue
        quiet.discard(token)
        before = f"{lark.terminal(f'/{SPACE}+/')}?" if move.first else f"{text}?"
        if start:
            before = lark.terminal(_ending(lark, start, move, state.moves))
        yield move.to, f"{before} {lark.text(move.mark[len(start):])} {move.rest}"
    if quiet:
        yield state.stay, f"{text}? <[{ranges(quiet)}]>"


def _text(lark: Lark, moves: Sequence[Move]) -> str:
    """Text in which no move begins."""
    marks = [exactly(move.mark) for move in moves if not move.first and not _special(lark, move.mark)]
    none = [f"~/(?s:.*)({'|'.join(marks)})(?s:.*)/"] if marks else []
    return " & ".join(["/(?s:.+)/", *none, *_begun(lark, moves)])


def _ending(lark: Lark, mark: str, move: Move, moves: Sequence[Move]) -> str:
    """Text up to and with a move's mark, or with as much of it as comes before a special token."""
    return mark if move.first else " & ".join([f"/(?s:.*){exactly(mark)}/", *_begun(lark, moves)])


def _begun(lark: Lark, moves: Sequence[Move]) -> list[str]:
    """What keeps a text from beginning as moves do that come before all text."""
    marks = [move.mark for move in moves if move.first and not _special(lark, move.mark)]
    return ["~" + lark.terminal(f"({' | '.join(marks)}) /(?s:.*)/")] if marks else []


def ranges(tokens: Iterable[int]) -> str:
    """Tokens as llguidance lists them."""
    found = list[list[int]]()
    for token in sorted(tokens):
        if found and found[-1][1] == token - 1:
            found[-1][1] = token
        else:
            found.append([token, token])
    return ",".join(f"{first}-{last}" if last > first else f"{first}" for first, last in found)
