"""Calls as Python writes them, `[name(key=value), ...]`: Llama 4, and Liquid between its marks."""
from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from zonda.text.dialects.calls import NAME, objects
from zonda.text.dialects.dialect import Dialect
from zonda.text.dialects.free import SPACE, Calls
from zonda.text.dialects.json import value
from zonda.text.dialects.lark import Lark, members
from zonda.text.dialects.tools import Tools, written
from zonda.text.reader import Marks, Reader, Steps, rest, spoken
from zonda.text.regular import exactly
from zonda.text.writer import Writer


def read(reader: Reader, writer: Writer, tools: Tools) -> Steps[None]:
    """An answer that is a list of calls of known tools from its beginning on, or one that is text."""
    reader.record()
    yield from reader.space()
    python = yield from reader.literal("<|python_start|>")
    if (yield from calls(reader, writer, reader.recorded(), "<|python_end|>" if python else "", known=tools)):
        yield from reader.literal("<|python_end|>")
    yield from rest(reader, writer.text)


def calls(reader: Reader, writer: Writer, mark: str, close: str = "", *, known: Tools | None = None) -> Steps[bool]:
    """Read calls behind a mark; what is none becomes text. Tells whether there was one."""
    reader.record(mark)
    yield from reader.space()
    listed = yield from reader.literal("[")
    made = False
    while listed or not made:
        yield from reader.space()
        name = yield from reader.word(NAME)
        if not name or not (yield from reader.literal("(")) or (known is not None and name not in known):
            break
        reader.recorded()
        made = True
        writer.start(name)
        if not (yield from _arguments(reader, writer)):
            yield from (reader.until(Marks(close), writer.arguments) if close else rest(reader, writer.arguments))
            return True
        reader.record()
        yield from reader.space()
        if not (yield from reader.literal(",")):
            break
    if not made:
        writer.text(reader.recorded())
        return False
    if listed:
        yield from reader.literal("]")
    yield from reader.space()
    left = reader.recorded()
    writer.text(left.lstrip(" ,]\n"))
    return made


def _arguments(reader: Reader, writer: Writer) -> Steps[bool]:
    """Read `key=value, ...)`."""
    writer.arguments("{")
    count = 0
    while True:
        yield from reader.space()
        if (yield from reader.literal(")")):
            writer.arguments("}")
            return True
        key = yield from reader.word(NAME)
        yield from reader.space()
        if not key or not (yield from reader.literal("=")):
            writer.arguments(key)
            return False
        writer.arguments((", " if count else "") + written(key) + ": ")
        count += 1
        if not (yield from value(reader, writer.arguments)):
            return False
        yield from reader.space()
        yield from reader.literal(",")


def liquid(reader: Reader, writer: Writer, tools: Tools) -> Steps[None]:
    """Calls between marks, as Python or as JSON."""
    while (yield from spoken(reader, writer, OPEN)):
        reader.record(OPEN)
        yield from reader.space()
        yield from reader.literal("[")
        yield from reader.space()
        as_json = (yield from reader.peek()) == "{"
        before = reader.recorded()
        if as_json:
            yield from objects(reader, writer, before, _END)
        elif (yield from _listed(reader, writer, before)):
            yield from reader.literal(CLOSE)


def _listed(reader: Reader, writer: Writer, before: str) -> Steps[bool]:
    if "[" in before:
        reader.unread("[")
        before = before[:before.rindex("[")]
    return (yield from calls(reader, writer, before, CLOSE))


def form(lark: Lark, name: str, schema: Mapping[str, Any]) -> str:
    """A call with the arguments by name."""
    def one(key: str, value: Mapping[str, Any]) -> str:
        return f"{lark.text(key + '=')} {lark.value(value)}"

    return f"{lark.text(name + '(')} {members(lark, schema, one, between=', ')} {lark.text(')')}"


def finds(lark: Lark, tools: Tools) -> Calls:
    """Calls of the tools, alone or in a list, at the beginning of an answer alone."""
    heads, more = list[tuple[str, str]](), f"({lark.text(', ')} {DIALECT.one(lark, tools)})* {lark.text(']')}"
    for name, schema in ((name, tools.schema(name)) for name in tools.functions):
        rest = lark.behind(f"{name}(", partial(form, lark, name, schema))
        heads += [(f"/{SPACE}*{exactly(name)}\\(/", rest),
                  (f"/{SPACE}*\\[{SPACE}*{exactly(name)}\\(/", f"{rest} {more}")]
    return Calls(marks=[], heads=heads, leads=("<|python_start|>",))


OPEN, CLOSE = "<|tool_call_start|>", "<|tool_call_end|>"
_END = Marks(CLOSE)
DIALECT = Dialect(name="pythonic", tells=(("<|header_start|>",), ("[func_name1(params_name1=",), ("[func_name(",)),
                  script=read, form=form, marks=("<|python_start|>", "<|python_end|>"), before="[", between=", ",
                  after="]", finds=finds)
LIQUID = Dialect(name="liquid", tells=((OPEN,), ("<|tool_list_start|>",)), script=liquid, form=form,
                 marks=(OPEN, CLOSE), ends=(OPEN,), openings=(OPEN,), before=f"{OPEN}[", between=", ",
                 after=f"]{CLOSE}")
