"""DeepSeek V3, R1 and V3.1: calls between marks, the name before a separator."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zonda.text.dialects.calls import NAME, one_by_one
from zonda.text.dialects.dialect import Dialect
from zonda.text.dialects.json import value
from zonda.text.dialects.lark import Lark
from zonda.text.dialects.tools import Tools
from zonda.text.reader import Marks, Reader, Steps
from zonda.text.writer import Writer


def _mark(words: str) -> str:
    return f"<\uff5c{words.replace(' ', chr(0x2581))}\uff5c>"


ALL, ALL_END = _mark("tool calls begin"), _mark("tool calls end")
CALL, CALL_END = _mark("tool call begin"), _mark("tool call end")
SEPARATOR = _mark("tool sep")
_END = Marks(CALL_END)


def read(reader: Reader, writer: Writer, tools: Tools) -> Steps[None]:
    """One call, with or without a word for its kind before the name."""
    yield from reader.space()
    name = yield from reader.word(NAME)
    yield from reader.space()
    if name and (yield from reader.literal(SEPARATOR)):
        yield from reader.space()
        name = (yield from reader.word(NAME)) or name
        yield from reader.space()
        yield from reader.literal("```json")
        yield from reader.space()
        if (yield from reader.peek()) == "{":
            reader.recorded()
            yield from _arguments(reader, writer, name)
            return
    writer.text(reader.recorded())


def _arguments(reader: Reader, writer: Writer, name: str) -> Steps[None]:
    writer.start(name)
    if not (yield from value(reader, writer.arguments)):
        yield from reader.until(_END, writer.arguments)
        return
    reader.record()
    yield from reader.space()
    yield from reader.literal("```")
    yield from reader.space()
    if (yield from reader.literal(CALL_END)):
        reader.recorded()
    else:
        writer.text(reader.recorded())


def form(lark: Lark, name: str, schema: Mapping[str, Any]) -> str:
    """A call with its JSON as a block of code."""
    head = lark.text(f"{CALL}function{SEPARATOR}{name}\n```json\n")
    return f"{head} {lark.value(schema)} {lark.text(chr(10) + '```' + CALL_END)}"


def form_bare(lark: Lark, name: str, schema: Mapping[str, Any]) -> str:
    """A call with its JSON alone."""
    return f"{lark.text(CALL + name + SEPARATOR)} {lark.value(schema)} {lark.text(CALL_END)}"


_SCRIPT = one_by_one(CALL, (ALL, ALL_END), read)
_MARKS = (ALL, ALL_END, CALL, CALL_END, SEPARATOR)
DIALECT = Dialect(name="deepseek", tells=((SEPARATOR, "```"),), script=_SCRIPT, form=form, marks=_MARKS,
                  ends=(ALL, CALL), openings=(ALL, CALL), before=ALL, between="\n", after=ALL_END)
BARE = Dialect(name="deepseek_bare", tells=((SEPARATOR,),), script=_SCRIPT, form=form_bare, marks=_MARKS,
               ends=(ALL, CALL), openings=(ALL, CALL), before=ALL, after=ALL_END)
