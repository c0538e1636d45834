"""Any model: a call as bare JSON at the beginning of the answer, or in the marks that most models know."""
from __future__ import annotations

from dataclasses import replace

from zonda.text.dialects import hermes
from zonda.text.dialects.calls import FIRST, MORE, objects, openings
from zonda.text.dialects.dialect import Dialect
from zonda.text.dialects.free import Calls
from zonda.text.dialects.lark import Lark
from zonda.text.dialects.tools import Tools
from zonda.text.reader import Reader, Steps
from zonda.text.writer import Writer


def read(reader: Reader, writer: Writer, tools: Tools) -> Steps[None]:
    """Calls of known tools at the beginning, then calls between marks."""
    yield from bare(reader, writer, tools)
    yield from hermes.read(reader, writer, tools)


def bare(reader: Reader, writer: Writer, tools: Tools) -> Steps[None]:
    """Calls at the beginning of an answer, perhaps as a block of code; only those of known tools count."""
    reader.record()
    yield from reader.space()
    fence = yield from reader.literal("```json", "```")
    yield from reader.space()
    char = yield from reader.peek()
    before = reader.recorded()
    if char not in ("{", "["):
        writer.text(before)
    elif (yield from objects(reader, writer, before, None, tools)) and fence:
        yield from reader.literal("```")


def finds(lark: Lark, tools: Tools) -> Calls:
    """Bare calls at the beginning, and calls between marks."""
    return replace(hermes.DIALECT.found(lark, tools), heads=openings(lark, tools, FIRST),
                   more=openings(lark, tools, MORE))


DIALECT = Dialect(name="generic", tells=(), script=read, form=hermes.form, marks=hermes.DIALECT.marks, between="\n",
                  finds=finds)
