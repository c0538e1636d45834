"""Mistral: `[TOOL_CALLS][{...}]`, and since version 11 `[TOOL_CALLS]NAME[ARGS]{...}`."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zonda.text.dialects.calls import NAME, objects
from zonda.text.dialects.dialect import Dialect
from zonda.text.dialects.json import value
from zonda.text.dialects.lark import Lark, object_of
from zonda.text.dialects.tools import Tools
from zonda.text.reader import Reader, Steps, rest, spoken
from zonda.text.writer import Writer

CALLS, ARGUMENTS, ID = "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"


def read(reader: Reader, writer: Writer, tools: Tools) -> Steps[None]:
    """Calls behind their mark, in either form."""
    while (yield from spoken(reader, writer, CALLS)):
        reader.record(CALLS)
        yield from reader.space()
        if (yield from reader.peek()) in ("[", "{"):
            yield from objects(reader, writer, reader.recorded(), None)
        else:
            yield from _named(reader, writer)


def _named(reader: Reader, writer: Writer) -> Steps[None]:
    name = yield from reader.word(NAME)
    if (yield from reader.literal(ID)):
        yield from reader.word(NAME)
    yield from reader.literal(ARGUMENTS)
    yield from reader.space()
    if not name or (yield from reader.peek()) != "{":
        writer.text(reader.recorded())
        return
    reader.recorded()
    writer.start(name)
    if not (yield from value(reader, writer.arguments)):
        yield from rest(reader, writer.arguments)
    yield from reader.space()


def form(lark: Lark, name: str, schema: Mapping[str, Any]) -> str:
    """One call of the list."""
    return lark.value(object_of(name, schema))


def form_named(lark: Lark, name: str, schema: Mapping[str, Any]) -> str:
    """A call behind its own mark."""
    return f"{lark.text(CALLS + name + ARGUMENTS)} {lark.value(schema)}"


DIALECT = Dialect(name="mistral", tells=((CALLS, ARGUMENTS),), script=read, form=form_named,
                  marks=(CALLS, ARGUMENTS, ID), ends=(CALLS,), openings=(CALLS,))
LISTED = Dialect(name="mistral_list", tells=((CALLS,),), script=read, form=form, marks=(CALLS, ARGUMENTS, ID),
                 ends=(CALLS,), openings=(CALLS,), before=f"{CALLS}[", between=", ", after="]")
