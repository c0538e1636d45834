"""JSON as models write it, made valid on the way: read and passed on piece by piece, with their usual slips mended."""
from __future__ import annotations

import json
import re
from collections.abc import Callable

from zonda.text.reader import Reader, Sink, Steps

_PLAIN = {'"': re.compile(r'[^"\\\x00-\x1f]*'), "'": re.compile(r"""[^'"\\\x00-\x1f]*""")}
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_ZEROS = re.compile(r"^(-?)0+(?=[0-9])")
_RUN = re.compile(r"[-+.\w]+")
_WORDS = {"true": "true", "false": "false", "null": "null", "True": "true", "False": "false", "None": "null"}
_HEX = frozenset("0123456789abcdefABCDEF")
_CLOSE = {"{": "}", "[": "]"}
Read = Callable[[Reader, Sink], Steps[bool]]
"""Reads a part of a value, and tells whether it was whole."""


def value(reader: Reader, sink: Sink) -> Steps[bool]:
    """Read one value; tells whether it was whole. What was read of a broken one has gone to `sink` as it came.

    Mended are raw control characters and unknown escapes in texts, single quotes, names without quotes, commas before
    a closing bracket, zeros that lead a number, and Python's words for true, false and null.
    """
    return nested(reader, sink, _key, scalar)


def nested(reader: Reader, sink: Sink, key: Read, scalar: Read) -> Steps[bool]:
    """Read objects and lists of what `key` and `scalar` read; else as `value`."""
    open_: list[str] = []
    comma = False
    while True:
        yield from reader.space()
        char = yield from reader.peek()
        if not (open_ and char == open_[-1]):
            if comma:
                sink(",")
            if open_ and open_[-1] == "}":
                if not (yield from key(reader, sink)):
                    return False
                char = yield from reader.peek()
            if char in _CLOSE:
                sink(reader.take(1))
                open_.append(_CLOSE[char])
                comma = False
                continue
            if not (yield from scalar(reader, sink)):
                return False
        if (yield from _closed(reader, sink, open_)):
            return True
        if not (yield from reader.literal(",")):
            return False
        comma = True


def _closed(reader: Reader, sink: Sink, open_: list[str]) -> Steps[bool]:
    """Close what ends here; tells whether that was all."""
    while open_:
        yield from reader.space()
        if (yield from reader.peek()) != open_[-1]:
            return False
        sink(reader.take(1))
        open_.pop()
    return True


def _key(reader: Reader, sink: Sink) -> Steps[bool]:
    if (yield from reader.peek()) in _PLAIN:
        if not (yield from text(reader, sink)):
            return False
    else:
        name = yield from _run(reader)
        sink(json.dumps(name) if name else "")
        if not name:
            return False
    yield from reader.space()
    if not (yield from reader.literal(":")):
        return False
    sink(":")
    yield from reader.space()
    return True


def scalar(reader: Reader, sink: Sink) -> Steps[bool]:
    """Read a text, a number, or one of the words."""
    if (yield from reader.peek()) in _PLAIN:
        return (yield from text(reader, sink))
    word = yield from _run(reader)
    word = _WORDS.get(word) or _ZEROS.sub(r"\1", word)
    sink(word)
    return word in _WORDS or _NUMBER.fullmatch(word) is not None


def _run(reader: Reader) -> Steps[str]:
    pieces: list[str] = []
    while _RUN.match((yield from reader.peek())):
        pieces.append(reader.run(_RUN))
    return "".join(pieces)


def text(reader: Reader, sink: Sink) -> Steps[bool]:
    """Read a text in double or single quotes."""
    quote = reader.take(1)
    sink('"')
    while True:
        sink(reader.run(_PLAIN[quote]))
        char = yield from reader.peek()
        if not char:
            return False
        if char == quote:
            sink('"')
            reader.take(1)
            return True
        if char == "\\":
            yield from _escape(reader, sink)
        elif char == '"' or char < " ":
            sink(json.dumps(reader.take(1))[1:-1])


def _escape(reader: Reader, sink: Sink) -> Steps[None]:
    reader.take(1)
    char = yield from reader.peek()
    if char and char in '"\\/bfnrt':
        sink("\\" + reader.take(1))
    elif char == "'":
        sink(reader.take(1))
    elif char == "u":
        digits = reader.take(1)
        while len(digits) < 5 and (yield from reader.peek()) in _HEX:
            digits += reader.take(1)
        sink(("\\" if len(digits) == 5 else "\\\\") + digits)
    else:
        sink("\\\\" if char else "")
