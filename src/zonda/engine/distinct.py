"""Keeps the items of arrays apart that a schema wants to be unique, which no grammar can say."""
from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from zonda.engine.places import Place, Places

if TYPE_CHECKING:
    from llguidance import LLMatcher

_QUOTE, _ESCAPE, _COMMA, _COLON, _BLANK = b'"\\,: '
_ARRAY = ord("[")
_ENDS = frozenset(b'"],}')
_LOOKS = 400  # times that a step tries what may come after a token
_NEAR = 256  # items, the last ones, into which a token is tried to lead with no way out


class Pieces:
    """A vocabulary's tokens, by what they may do to an array's items. `texts` has nothing for special ones."""

    def __init__(self, texts: Sequence[bytes]) -> None:
        self.texts = texts
        self.ids: dict[bytes, list[int]] = {}
        for id, text in enumerate(texts):
            self.ids.setdefault(text, []).append(id)
        self.ending = np.array([not _ENDS.isdisjoint(text) for text in texts])
        """Whether an item may end within a token."""
        self.quoting = np.array([b'"' in text for text in texts])
        self.closing = np.array([text.count(b"]") + text.count(b"}") for text in texts])
        """How many arrays and objects it may close."""
        self.onward = np.array([bool(text.partition(b",")[2].strip()) for text in texts])
        """Whether an item may begin after another within it."""
        self.listed = self.onward & np.array([_ARRAY in text for text in texts])
        """Whether an array may begin, and have two items."""
        self.first = np.array([_COMMA if text[:1] in (b"]", b"}", b" ") else (text or b"\0")[0] for text in texts])
        """The first byte, the same for all that end a number or a list."""
        self._longest = max(map(len, texts))

    def along(self, text: bytes) -> Iterable[bytes]:
        """The tokens' texts that a text may begin with."""
        return (text[:end] for end in range(1, min(len(text), self._longest) + 1) if text[:end] in self.ids)


@dataclass(slots=True)
class Frame:
    """An array or object in progress."""

    kind: int
    place: Place
    unique: bool = False
    start: int = -1
    """Where the item in progress begins; -1 between items."""
    count: int = 0
    name: str = ""
    named: bool = False
    """Whether the next text is a member's value."""
    fork: int = -1
    """How many bytes the item in progress had when it could have become another that is not there; -1 if never."""
    seen: set[Any] = field(default_factory=set)
    more: tuple[Any, ...] = ()
    """Items that are there if what is tried comes to be."""
    texts: list[bytes] = field(default_factory=list)
    stuck: dict[bytes, bool] = field(default_factory=dict)
    """Beginnings of items, and whether they lead to nothing but items that are there."""
    ahead: dict[bytes, dict[bytes, bool]] = field(default_factory=dict)
    """The same once an item of a text is there, too."""


@dataclass(slots=True)
class Scan:
    """Reads JSON that a grammar has allowed."""

    places: Places
    text: bytearray = field(default_factory=bytearray)
    more: bytes = b""
    """Text behind it that is only tried."""
    frames: list[Frame] = field(default_factory=list)
    began: int = -1
    """Where the string, number or word in progress begins."""
    quoted: bool = False
    escaped: bool = False

    def tried(self, data: bytes) -> Scan | None:
        """What is read when the text goes on so; None where an item would be there twice."""
        other = replace(self, more=self.more + data, frames=[*self.frames])
        return other if other._read(data, len(self.text) + len(self.more)) else None

    def take(self, data: bytes) -> None:
        """Read on."""
        self.text += data
        self._read(data, len(self.text) - len(data))
        for each in self.frames:
            each.seen.update(each.more)
            each.more = ()

    @property
    def unique(self) -> list[Frame]:
        """The arrays in progress whose items must differ, the innermost last."""
        return [each for each in self.frames if each.unique]

    def since(self, start: int, end: int | None = None) -> bytes:
        """The text from one place to another."""
        known = len(self.text)
        stop = known + len(self.more) if end is None else end
        return bytes(self.text[start:stop]) + self.more[max(start - known, 0):max(stop - known, 0)]

    def _read(self, data: bytes, start: int) -> bool:
        for place, byte in enumerate(data, start):
            if not self.quoted:
                fits = self._structure(byte, place)
            elif self.escaped or byte != _QUOTE:
                self.escaped = byte == _ESCAPE and not self.escaped
                continue
            else:
                self.quoted = False
                fits = self._name(place + 1) or self._end(place + 1)
            if not fits:
                return False
        return True

    def _structure(self, byte: int, place: int) -> bool:
        if byte in b",]}" and self.began >= 0 and not self._end(place):
            return False
        top = self.frames[-1] if self.frames else None
        if byte in b"]}":
            self.frames.pop()
            return self._end(place + 1)
        if byte == _COMMA:
            self._change(named=False, fork=-1)
        elif byte == _COLON:
            self._change(named=True)
        elif byte != _BLANK and self.began < 0:
            if top and top.kind == _ARRAY:
                self._change(start=place)
            if byte in b"[{":
                inner = self._below(top)
                self.frames.append(Frame(byte, inner, byte == _ARRAY and inner.unique))
            else:
                self.began, self.quoted = place, byte == _QUOTE
        return True

    def _change(self, **values: Any) -> None:
        """Change the innermost array or object; what is only tried changes a copy."""
        changed = replace(self.frames[-1], **values)
        self.frames[-1] = changed

    def _below(self, top: Frame | None) -> Place:
        if top is None:
            return self.places.start
        return self.places.item(top.place, top.count) if top.kind == _ARRAY else self.places.member(top.place, top.name)

    def _name(self, end: int) -> bool:
        """Whether the text that has ended is a member's name."""
        top = self.frames[-1] if self.frames else None
        if top is None or top.kind == _ARRAY or top.named:
            return False
        self._change(name=json.loads(self.since(self.began, end).decode(errors="replace")))
        self.began = -1
        return True

    def _end(self, end: int) -> bool:
        """A value has ended; whether it differs from all that it must differ from."""
        self.began = -1
        top = self.frames[-1] if self.frames else None
        if top is None or top.kind != _ARRAY:
            return True
        changed: dict[str, Any] = {"start": -1, "count": top.count + 1}
        if top.unique:
            text = self.since(top.start, end)
            key = _key(text)
            if key is None or key in top.seen or key in top.more:
                return False
            if text not in top.ahead:
                top.ahead[text] = {} if top.place.indexed else {
                    each: stuck for each, stuck in top.stuck.items() if stuck or not text.startswith(each)}
            changed |= {"more": (*top.more, key), "texts": [*top.texts, text], "stuck": top.ahead[text], "ahead": {}}
        self._change(**changed)
        return True


def _key(text: bytes) -> Any:
    """What is the same for equal values, and numbers that are as floats; None for what is nested too deeply."""
    try:
        return _hashed(json.loads(text.decode(errors="replace"), parse_int=float))
    except RecursionError:
        return None


def _hashed(value: Any) -> Any:
    if isinstance(value, dict):
        return frozenset((name, _hashed(each)) for name, each in value.items())
    if isinstance(value, list):
        return tuple(map(_hashed, value))
    return value if isinstance(value, str | float) else str(value).encode()


class Distinct:
    """Forbids one sequence the tokens that would repeat an item, or leave it no other way than to."""

    def __init__(self, places: Places, pieces: Pieces) -> None:
        self._scan, self._pieces = Scan(places), pieces
        self._open = np.zeros(256, np.bool_)
        """First bytes of the tokens that might be drawn."""
        self._looks = 0

    def advance(self, token: int) -> None:
        """Take note of a token that was drawn."""
        first, others = self._pieces.first[token], self._open.copy()
        others[first] = False
        within, begins = bool(others.any()), bool(first != _COMMA and np.delete(others, _COMMA).any())
        for frame in self._scan.frames:
            if frame.start < 0 and begins:
                frame.fork = 0
            elif frame.start >= 0 and within:
                frame.fork = len(self._scan.text) - frame.start
        self._scan.take(self._pieces.texts[token])

    def forbid(self, row: np.ndarray, matcher: LLMatcher) -> None:
        """Add to a row of forbidden tokens for the place at which the matcher is."""
        self._looks = _LOOKS
        self._forbid(row, self._scan, matcher)
        self._open[:] = False
        if self._scan.unique:
            self._open[self._pieces.first[~row]] = True

    def _forbid(self, row: np.ndarray, scan: Scan, matcher: LLMatcher) -> None:
        for piece in self._along(scan):
            ids = [id for id in self._pieces.ids[piece] if not row[id]]
            if ids and self._stuck(piece, ids[0], scan, matcher):
                row[ids] = True
        last = self._may_be_last(row, scan)
        for id in np.flatnonzero(~row & self._ending(scan)):
            row[id] = not self._fits(int(id), scan, matcher, last=last)

    def _ending(self, scan: Scan) -> np.ndarray:
        """The tokens that may end an item, or leave none to come."""
        pieces, unique = self._pieces, scan.unique
        if not unique:
            return pieces.listed
        within = len(scan.frames) - 1 - scan.frames.index(unique[-1])
        found = (pieces.ending & (pieces.closing >= within)) | pieces.listed
        if not scan.quoted:
            return found
        if not within and len(unique) == 1 and unique[-1].fork >= 0:
            begun, texts = scan.since(unique[-1].start), unique[-1].texts
            if _ESCAPE not in begun and not any(_ESCAPE in each or each.startswith(begun) for each in texts):
                found = pieces.onward
        return found & pieces.quoting

    def _may_be_last(self, row: np.ndarray, scan: Scan) -> bool:
        """Whether the item in progress may be the last one that there is."""
        unique = scan.unique
        if any(each.place.indexed for each in unique):
            return True
        ends = (_QUOTE,) if scan.quoted else (_COMMA, _QUOTE)
        return any(each.fork < 0 for each in unique) and bool(np.isin(self._pieces.first[~row], ends).all())

    def _fits(self, token: int, scan: Scan, matcher: LLMatcher, *, last: bool) -> bool:
        """Whether a token repeats no item, and leaves one to come where it wants one."""
        text = self._pieces.texts[token]
        after = scan.tried(text)
        return after is not None and not (_COMMA in text and (last or _leads(scan, after))
                                          and not self._goes_on(token, after, matcher))

    def _along(self, scan: Scan) -> Iterable[bytes]:
        """What tokens may add to the item in progress to make it one that is there."""
        inner = scan.unique[-1] if scan.unique else None
        if inner is None or not inner.texts:
            return ()
        begun = b"" if inner.start < 0 else scan.since(inner.start)
        rests = {each[len(begun):] for each in inner.texts[-_NEAR:] if each.startswith(begun)}
        if inner.start < 0:
            rests |= {b" " + rest for rest in rests}
        found = {piece for rest in rests for piece in self._pieces.along(rest)}
        return found if scan.quoted else found - {b" "}

    def _stuck(self, piece: bytes, token: int, scan: Scan, matcher: LLMatcher) -> bool:
        """Whether an item that goes on so can only become one that is there."""
        inner = scan.unique[-1]
        text = piece.lstrip() if inner.start < 0 else scan.since(inner.start) + piece
        if text not in inner.stuck:
            after = scan.tried(piece)
            stuck = after is None or not self._goes_on(token, after, matcher)
            if self._looks < 0:
                return stuck
            inner.stuck[text] = stuck
        return inner.stuck[text]

    def _goes_on(self, token: int, after: Scan, matcher: LLMatcher) -> bool:
        """Whether an answer can go on after a token."""
        self._looks -= 1
        if self._looks < 0 or not after.unique:
            return True
        other = matcher.deep_copy()
        other.consume_token(token)
        bits = np.frombuffer(other.compute_bitmask(), np.uint8)
        free = np.unpackbits(bits, count=len(self._pieces.texts) + 1, bitorder="little").view(np.bool_)
        if free[-1] or other.is_error() or other.is_stopped():
            return True
        free = free[:-1]
        if not after.quoted:
            free[self._pieces.ids.get(b" ", [])] = False  # what could come without it must still be able to
        last, ending = self._may_be_last(~free, after), self._ending(after)
        along = {piece: ids for piece in self._along(after)
                 if (ids := [id for id in self._pieces.ids[piece] if free[id]])}
        for ids in along.values():
            free[ids] = False
        return bool((free & ~ending).any()) or any(
            self._fits(int(id), after, other, last=last) for id in np.flatnonzero(free & ending)) or any(
            not self._stuck(piece, ids[0], after, other) for piece, ids in along.items())


def _leads(scan: Scan, after: Scan) -> bool:
    """Whether another item has begun as one that is there, and may have no way out."""
    inner, before = after.unique[-1] if after.unique else None, scan.unique[-1] if scan.unique else None
    if inner is None or inner.start < 0:
        return False
    begun = after.since(inner.start)
    fork = before.fork if before and before.texts == inner.texts[:before.count] and not before.place.indexed else -1
    return len(begun) > fork and any(each.startswith(begun) for each in inner.texts)
