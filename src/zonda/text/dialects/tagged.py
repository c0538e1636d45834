"""Calls as JSON with `name` and `arguments` between the marks of a family."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zonda.text.dialects.calls import MORE, objects, openings
from zonda.text.dialects.dialect import Dialect
from zonda.text.dialects.free import Calls
from zonda.text.dialects.lark import Lark, keyed, object_of
from zonda.text.dialects.tools import Tools
from zonda.text.reader import Marks, Reader, Steps, spoken
from zonda.text.writer import Writer


def between(name: str, open: str, close: str = "", *, tells: tuple[tuple[str, ...], ...] = (), ends: bool = False,
            extra: tuple[str, ...] = (), words: tuple[str, str] | None = ("name", "arguments"),
            listed: bool = True) -> Dialect:
    """The dialect that writes a list of calls behind `open`, up to `close` if there is one; also behind `extra`.

    `words` are what it calls the name and the arguments; without them the name is the arguments' key. A call that is
    not `listed` stands behind a mark of its own.
    """
    end = Marks(close) if close else None

    def read(reader: Reader, writer: Writer, tools: Tools) -> Steps[None]:
        while mark := (yield from spoken(reader, writer, open, *extra)):
            yield from objects(reader, writer, mark, end if mark == open else None,
                               tools if tools.held and not listed and not close else None, keyed=not words)

    def form(lark: Lark, name: str, schema: Mapping[str, Any]) -> str:
        return lark.value(object_of(name, schema, *words) if words else keyed(name, schema))

    def finds(lark: Lark, tools: Tools) -> Calls:
        if not listed:
            rest = f"{made.one(lark, tools)} {lark.text(close)}"
            return Calls(marks=[(open, rest)], more=() if close else openings(lark, tools, MORE))
        calls = f"{lark.text('[')} {made.calls(lark, tools)}"
        return Calls(marks=[(mark, f"{calls} {lark.text(']' + close * (mark == open))}") for mark in (open, *extra)])

    made = Dialect(name=name, tells=tells or ((open,),), script=read, form=form, marks=(open, *filter(None, (close,))),
                   ends=(open,) if ends else (), before=f"{open}[" if listed else open,
                   between=", " if listed else close + open, after=f"]{close}" if listed else close,
                   finds=finds)
    return made
