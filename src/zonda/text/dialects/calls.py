"""Pieces that the dialects share: calls as JSON objects, and calls as an element with parameters."""
from __future__ import annotations

import json
import re
from collections.abc import Callable

from zonda.text.dialects.dialect import Script
from zonda.text.dialects.free import SPACE
from zonda.text.dialects.json import text, value
from zonda.text.dialects.lark import Lark
from zonda.text.dialects.tools import Tools, coerced, sound, written
from zonda.text.reader import Marks, Reader, Sink, Steps, rest, spoken
from zonda.text.regular import exactly
from zonda.text.writer import Writer

NAMES = frozenset({"name", "function", "tool_name", "function_name", "tool"})
ARGUMENTS = frozenset({"arguments", "parameters", "args", "tool_args"})
_S = f"{SPACE}*"
FIRST, MORE = f"{_S}(```(json)?)?{_S}\\[?{_S}", f"{_S}[,;]?{_S}"
"""What may be before the first of bare calls, and before the others."""


class ObjectCall:
    """One call as a JSON object with a name and arguments, in any order.

    With `known`, only the names of these tools make a call; with `keyed`, the name may be the key of the arguments.
    `started` tells whether it was one.
    """

    def __init__(self, reader: Reader, writer: Writer, known: Tools | None = None, *, keyed: bool = False) -> None:
        self.started = False
        self._keyed, self._exact, self._typed = keyed, bool(known and known.held), False
        self._reader, self._writer, self._known = reader, writer, known
        self._name = ""
        self._early: list[str] = []
        self._has_arguments = False

    def read(self, depth: int = 0) -> Steps[bool]:
        """Read the object, whose brace comes next; tells whether it was a whole call."""
        reader = self._reader
        if not (yield from reader.literal("{")):
            return False
        while True:
            yield from reader.space()
            if (yield from reader.literal("}")):
                break
            if not (yield from self._member(depth)):
                return False
            yield from reader.space()
            if not (yield from reader.literal(",")):
                if not (yield from reader.literal("}")) and not self._has_arguments:
                    return False
                break
        if depth:
            return True
        if self.started and not self._has_arguments:
            self._writer.arguments("{}")
        return self.started

    def _member(self, depth: int) -> Steps[bool]:
        reader, key = self._reader, list[str]()
        if (yield from reader.peek()) not in ('"', "'") or not (yield from text(reader, key.append)):
            return False
        yield from reader.space()
        if not (yield from reader.literal(":")):
            return False
        yield from reader.space()
        word, char = json.loads("".join(key)), (yield from reader.peek())
        if self._exact and not self.started:
            return char in ('"', "'") and (yield from self._first("".join(key)))
        if word in NAMES and char in ('"', "'") and not self._name:
            return (yield from self._named())
        if word == "function" and char == "{" and not depth and not self._name:
            return (yield from self.read(depth + 1))
        if word in ARGUMENTS and not self._has_arguments:
            return (yield from self._arguments(char))
        if self._keyed and word and char == "{" and not self._name:
            self._start(sound(word))
            return (yield from self._arguments(char))
        return (yield from value(reader, lambda piece: None))

    def _named(self) -> Steps[bool]:
        pieces: list[str] = []
        whole = yield from text(self._reader, pieces.append)
        self._name = sound(json.loads("".join(pieces))) if whole else ""
        if not self._name or (self._known is not None and self._name not in self._known):
            return False
        self._start(self._name)
        return True

    def _first(self, key: str) -> Steps[bool]:
        """Read a name where calls are held to the tools, as `openings` has it: before all else but a type."""
        pieces: list[str] = []
        whole = yield from text(self._reader, pieces.append)
        found, typed = "".join(pieces)[1:-1], self._typed
        if key == '"type"':
            self._typed = True
            return whole and not typed and found == "function"
        if not whole or self._known is None or found not in self._known or key[1:-1] not in NAMES:
            return False
        self._start(found)
        return True

    def _start(self, name: str) -> None:
        self._name, self.started = name, True
        self._reader.recorded()
        self._writer.start(name)
        for piece in self._early:
            self._writer.arguments(piece)

    def _arguments(self, char: str) -> Steps[bool]:
        sink = self._writer.arguments if self.started else self._early.append
        if char != "{":
            pieces: list[str] = []
            whole = yield from value(self._reader, pieces.append)
            sink(_object("".join(pieces)) if whole else "".join(pieces))
        else:
            whole = yield from value(self._reader, sink)
        self._has_arguments = whole
        return whole


def _object(source: str) -> str:
    """The object that stands for arguments written as null, or as a text of JSON."""
    if source == "null":
        return "{}"
    try:
        found = json.loads(source)
        return written(json.loads(found or "{}")) if isinstance(found, str) else source
    except (ValueError, RecursionError):
        return source


def openings(lark: Lark, tools: Tools, before: str) -> list[tuple[str, str]]:
    """How calls of the tools as bare objects begin, behind an expression of what may be before, and go on."""
    keys = "|".join(sorted(NAMES))
    typed = f"""(["']type["']{_S}:{_S}["']function["']{_S},{_S})?"""
    key = lark.terminal(f"""/{before}\\{{{_S}{typed}["']({keys})["']{_S}:{_S}/""")
    middle = lark.terminal('/\\s{0,8},\\s{0,8}"(arguments|parameters)"\\s{0,8}:\\s{0,8}/')
    end = lark.terminal("/\\s{0,8}\\}/")
    return [(f"""{key} /["']{exactly(name)}["']/""", f"{middle} {lark.value(tools.schema(name))} {end}")
            for name in tools.functions]


def objects(reader: Reader, writer: Writer, mark: str, close: Marks | None, known: Tools | None = None, *,
            keyed: bool = False) -> Steps[bool]:
    """Read one call, a list of calls, or several one after another, behind a mark and up to `close` if it is given.

    What is no call becomes text, with its mark. Tells whether there was a call.
    """
    made = False
    reader.record(mark)
    yield from reader.space()
    listed = yield from reader.literal("[")
    while True:
        yield from reader.space()
        call = ObjectCall(reader, writer, known, keyed=keyed)
        if (yield from reader.peek()) != "{":
            break
        whole = yield from call.read()
        if call.started and not whole:
            yield from (reader.until(close, writer.arguments) if close else rest(reader, writer.arguments))
            return True
        if not call.started:
            writer.text(reader.recorded())
            return made
        made = True
        reader.record()
        yield from reader.space()
        yield from reader.literal(",", ";")
    if not made:
        writer.text(reader.recorded())
        return False
    if listed:
        yield from reader.literal("]")
        yield from reader.space()
    if close is None or (yield from reader.literal(*close.texts)):
        reader.recorded()
    else:
        writer.text(reader.recorded().lstrip())
    return made


def one_by_one(opening: str, around: tuple[str, ...], read: Callable[[Reader, Writer, Tools], Steps[object]]) -> Script:
    """A script of calls behind `opening`, each read by `read`; the marks around all of them say nothing more."""
    def script(reader: Reader, writer: Writer, tools: Tools) -> Steps[None]:
        while mark := (yield from spoken(reader, writer, *around, opening)):
            if mark == opening:
                reader.record(mark)
                yield from read(reader, writer, tools)

    return script


NAME = re.compile(r"[\w.-]")
"""A character of a tool's name."""
_NAME = re.compile(r"[^\s\"'<>=]")


def name_in(reader: Reader, *ends: str) -> Steps[str]:
    """Read a name up to one of these ends, over quotes and spaces; empty if it is none."""
    yield from reader.literal('"', "'")
    name = yield from reader.word(_NAME)
    yield from reader.literal('"', "'")
    yield from reader.space()
    return name if name and (yield from reader.literal(*ends)) else ""


class Members:
    """The arguments of a call whose values are written one by one without types."""

    def __init__(self, reader: Reader, writer: Writer, tools: Tools, name: str) -> None:
        self._reader, self._writer, self._tools, self._name = reader, writer, tools, name
        self._count = 0
        writer.start(name)
        writer.arguments("{")

    def close(self) -> None:
        """All arguments are there."""
        self._writer.arguments("}")

    def put(self, key: str, value: str) -> None:
        """Write a value that is JSON."""
        self._writer.arguments((", " if self._count else "") + json.dumps(key, ensure_ascii=False) + ": " + value)
        self._count += 1

    def read(self, key: str, ends: Marks, *, string: bool | None = None, framed: bool = True) -> Steps[str]:
        """Read a value up to one of the ends, and write it as its schema says; returns the end.

        A text that is `framed` may have a line break around it that is not its own.
        """
        self.put(key, "")
        kinds = self._tools.kinds(self._name, key)
        if string is not None and (not kinds or (string and "string" in kinds)):
            kinds = ("string",) if string else ()
        if kinds == ("string",):
            return (yield from self._text(ends, framed=framed))
        pieces: list[str] = []
        end = yield from self._reader.until(ends, pieces.append)
        self._writer.arguments(coerced(unframed("".join(pieces)), kinds))
        return end

    def _text(self, ends: Marks, *, framed: bool) -> Steps[str]:
        """Pass a text on as it comes."""
        sink = Framed(lambda piece: self._writer.arguments(written(piece)[1:-1]), framed=framed)
        self._writer.arguments('"')
        end = yield from self._reader.until(ends, sink)
        if not end:
            sink.end()
        self._writer.arguments('"' if end else "")
        return end


DATA, _DATA_END = "<![CDATA[", "]]>"


def elements(reader: Reader, writer: Writer, tools: Tools, opening: str, closing: str, end: str, *,
             typed: bool = False, data: bool = False) -> Steps[bool]:
    """Read a name, then arguments as elements of a key and a value between `opening` and `closing`, then `end`.

    With `typed` keys may say whether their values are texts, with `data` values may be CDATA. A value without its end
    ends where a line begins with the next thing. Without a name all becomes text, and false is returned; a call that is
    cut short stays open.
    """
    name = yield from name_in(reader, ">")
    if not name:
        writer.text(reader.recorded())
        return False
    reader.recorded()
    call, early = Members(reader, writer, tools, name), (f"\n{opening}", f"\n{end}")
    ends, data_ends = Marks(closing, *early), Marks(_DATA_END + closing)
    while True:
        yield from reader.space()
        if not (yield from reader.literal(opening)):
            break
        key = yield from name_in(reader, *((">", "string=") if typed else (">",)))
        said = (yield from reader.literal('"true">', '"false">')) if typed else ""
        plain = not (data and key and (yield from reader.literal(DATA)))
        mark = (yield from call.read(key, ends if plain else data_ends,
                                     string="true" in said if said else None)) if key else ""
        if not mark:
            break
        if mark in early:
            reader.unread(mark)
    if (yield from reader.literal(end)) or not reader.ended:
        call.close()
    return True


class Framed:
    """Passes a text on without one line break at its beginning and one at its end, if it is `framed` by them."""

    def __init__(self, sink: Sink, *, framed: bool = True) -> None:
        self._sink = sink
        self._framed = self._first = framed
        self._held = ""

    def __call__(self, piece: str) -> None:
        if self._first:
            piece, self._first = piece.removeprefix("\n"), False
        piece = self._held + piece
        self._held = "\n" if self._framed and piece.endswith("\n") else ""
        self._sink(piece[:-1] if self._held else piece)

    def end(self) -> None:
        """The text was cut short: the last line break belongs to it."""
        self._sink(self._held)


def unframed(text: str) -> str:
    """A text without one line break at its beginning and one at its end."""
    return text.removeprefix("\n").removesuffix("\n")
