"""Keeps the items of arrays apart that a schema wants to be unique, which no grammar can say."""
from __future__ import annotations

import json
import re
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from zonda.engine.places import Place

if TYPE_CHECKING:
    from llguidance import LLMatcher

_QUOTE, _ESCAPE, _COLON, _BLANK, _ARRAY = b'"\\: ['
_LOOKS = 400  # times that a step tries what may come next
_ENDING = [re.compile(each, re.DOTALL) for each in (rb"\[.*,", rb'[],}]|".*"', b'"')]
"""In what tokens an item may end: outside of arrays whose items must differ, within them, and in a string there."""
_NUMBERS: dict[str, Any] = dict.fromkeys(("parse_int", "parse_float"), lambda digits: float(digits) + 0.0)
"""Reads all numbers as floats, none of them -0.0."""
_KEPT = 100  # places
_INNER = 16  # arrays and objects around what comes whose items in progress are looked at
_NEAR = 256  # items that one in progress may become, and bytes of one, that are looked at or remembered


class Pieces:
    """A vocabulary's tokens, by what they may do to an array's items. `texts` has nothing for special ones."""

    def __init__(self, texts: Sequence[bytes]) -> None:
        self.texts = texts
        self.ids: dict[bytes, list[int]] = {}
        """Tokens by their texts, also without blanks between values."""
        for id, text in enumerate(texts):
            for each in {text, text.replace(b", ", b",").replace(b": ", b":").strip()}:
                self.ids.setdefault(each, []).append(id)
        self.ending = [np.flatnonzero([bool(each.search(text)) for text in texts]) for each in _ENDING]


@dataclass(frozen=True)
class Frame:
    """An array or object in progress."""

    place: Place
    key: str | int
    """A member's name, or an item's number, the same for all that have the same schemas."""
    start: int = -1
    """Where the item or name in progress begins; -1 behind one."""
    more: Mapping[str, bytes] = field(default_factory=dict)
    """Items that are there if what is tried comes to be."""
    values: set[str] = field(default_factory=set)
    texts: list[bytes] = field(default_factory=list)
    """The items that are there, sorted."""
    ways: dict[tuple[str | int, bytes], bytes | None] = field(default_factory=dict)
    """What else the beginning of an item may become; None if only one that is there."""

    def near(self, begun: bytes) -> list[bytes]:
        """Items that are there, and begin so."""
        first, end = bisect_left(self.texts, begun), bisect_left(self.texts, begun + b"\xff")
        tried = (each for each in self.more.values() if each.startswith(begun))
        return [*self.texts[first:min(end, first + _NEAR)], *tried]


@dataclass
class Scan:
    """JSON that a grammar has allowed, without blanks between values."""

    below: Callable[[Place, str | int], Place]
    frames: list[Frame]
    text: bytearray = field(default_factory=bytearray)
    quoted: bool = False
    escaped: bool = False
    trial: bool = False

    def after(self, data: bytes) -> Scan | None:
        """What is read when the text goes on so; None where an item would be there twice."""
        scan = Scan(self.below, [*self.frames], self.text[:], self.quoted, self.escaped, trial=True)
        return scan if all(map(scan.read, data)) else None

    @property
    def near(self) -> list[tuple[Frame, bytes]]:
        """The arrays whose items in progress may become some that are there, with what there is of them."""
        return [(each, self.since(each)) for each in self.frames[-_INNER:]
                if each.start >= 0 and each.near(self.since(each))]

    def since(self, frame: Frame) -> bytes:
        """The item or name in progress."""
        return bytes(self.text[frame.start:])

    def read(self, byte: int) -> bool:
        """Read on; whether all items differ."""
        if self.quoted:
            self.text.append(byte)
            self.quoted, self.escaped = self.escaped or byte != _QUOTE, byte == _ESCAPE and not self.escaped
            return self.quoted or self._end()
        if byte == _BLANK or (byte in b",]" and not self._end()):
            return byte == _BLANK
        top = self.frames[-1]
        if byte in b"]}":
            self.frames.pop()
        elif byte in b"[{":
            self.frames.append(Frame(self.below(top.place, top.key), 0 if byte == _ARRAY else ""))
        elif byte == _COLON:
            self._change(key=json.loads(self.since(top).decode(errors="replace")), start=-1)
        if byte in b"[{,":
            self._change(start=len(self.text) + 1)
        self.text.append(byte)
        self.quoted = byte == _QUOTE
        return byte not in b"]}" or self._end()

    def _change(self, **values: Any) -> None:
        self.frames[-1] = replace(self.frames[-1], **values)

    def _end(self) -> bool:
        """A value may have ended; whether it differs from all that it must differ from."""
        top = self.frames[-1]
        if not isinstance(top.key, int) or top.start < 0 or self.text.endswith(b"["):
            return True
        self._change(start=-1, key=min(top.key + 1, top.place.indexed))
        if top.place.unique:
            text, value = self.since(top), _value(self.since(top))
            if not value or value in top.values or value in top.more:
                return False
            if self.trial:
                self._change(more={**top.more, value: text})
            else:
                top.values.add(value)
                insort(top.texts, text)
        return True


def _value(text: bytes) -> str:
    """The same for equal values, and numbers that are as floats; empty for what is nested too deeply."""
    try:
        return json.dumps(json.loads(text.decode(errors="replace"), **_NUMBERS), sort_keys=True)
    except RecursionError:
        return ""


class Distinct:
    """Forbids one sequence what would repeat an item, or have to; `letters` follows its grammar byte by byte."""

    def __init__(self, document: Place, letters: LLMatcher, pieces: Pieces) -> None:
        self._scan = Scan(lru_cache(_KEPT)(Place.below), [Frame(document, "")])
        self._letters, self._pieces, self._behind, self._looks = letters.deep_copy(), pieces, b"", 0

    def advance(self, token: int) -> None:
        """Take note of a token that was drawn."""
        self._behind += self._pieces.texts[token]

    def forbid(self, row: np.ndarray) -> None:
        """Add to a row of forbidden tokens."""
        self._letters.consume_tokens([*self._behind])
        for byte in self._behind:
            self._scan.read(byte)
        self._behind, self._looks = b"", _LOOKS
        inside = any(each.place.unique for each in self._scan.frames)
        ending = self._pieces.ending[inside and 1 + self._scan.quoted]
        for id in {*ending[~row[ending]].tolist(), *(id for id in self._along() if not row[id])}:
            text = self._pieces.texts[id]
            after = self._scan.after(text)
            row[id] = after is None or self._way(after, self._letters, text) is None

    def _along(self) -> Iterator[int]:
        """The tokens that may add to an item in progress what makes it one that is there."""
        for frame, begun in self._scan.near:
            for rest in (text[len(begun):][:_NEAR] for text in frame.near(begun)):
                for end in range(len(rest)):
                    yield from self._pieces.ids.get(rest[:end + 1], ())

    def _way(self, scan: Scan, letters: LLMatcher, text: bytes) -> Scan | None:
        """What leads on to an item that is not there, None if nothing does; `letters` is where the text began."""
        near = scan.near
        if not near:
            return scan
        frame, begun = near[0]  # the outermost, whose text tells all within
        key, ways = (frame.key, begun), frame.ways if len(begun) < _NEAR else {}
        known = ways.get(key, b"")
        rest = [*text, *(known or b"")[len(begun):]]
        if known is None or (known and not frame.near(known) and letters.validate_tokens(rest) == len(rest)):
            return scan.after(known[len(begun):]) if known else None
        self._looks -= 1
        letters = letters.deep_copy()
        if self._looks < 0 or not letters.consume_tokens([*text]):
            return scan
        bits = np.unpackbits(np.frombuffer(letters.compute_bitmask(), np.uint8)[:32], bitorder="little")
        steps = [letters.compute_ff_bytes() or bytes([byte]) for byte in np.flatnonzero(bits).tolist()]
        there = {each[len(begun):][:1] for each in frame.near(begun)}
        for step in sorted(steps, key=lambda step: step in there):
            after = scan.after(step) if scan.quoted or step != b" " else None
            way = self._way(after, letters, step) if after else None
            if way:
                if frame in way.frames:
                    ways[key] = way.since(frame)
                return way
        if not frame.more:
            ways[key] = None
        return None
