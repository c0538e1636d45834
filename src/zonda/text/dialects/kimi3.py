"""Kimi K3: channels of reasoning, of the answer and of calls, made of three tokens.

A call is `<|open|>call tool="NAME" index="1"<|sep|>`, for each argument `<|open|>argument key="KEY" type="TYPE"<|sep|>`
with its value and `<|close|>argument<|sep|>`, then `<|close|>call<|sep|>`. Texts are written as they stand, the rest as
JSON; instead of arguments there may be one `json` with the whole object.
"""
from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from html import escape, unescape
from typing import Any

from zonda.text.dialects.calls import Members, one_by_one
from zonda.text.dialects.dialect import Dialect, one_of
from zonda.text.dialects.free import Calls
from zonda.text.dialects.json import value
from zonda.text.dialects.lark import Lark, either, members
from zonda.text.dialects.tools import Tools, kinds_of
from zonda.text.reader import Marks, Reader, Steps
from zonda.text.writer import Writer

OPEN, CLOSE, SEP = "<|open|>", "<|close|>", "<|sep|>"
RESPONSE, RESPONSE_END = f"{OPEN}response{SEP}", f"{CLOSE}response{SEP}"
CALLS, CALLS_END = f"{OPEN}tools{SEP}", f"{CLOSE}tools{SEP}"
CALL, CALL_END = f"{OPEN}call", f"{CLOSE}call{SEP}"
ARGUMENT, ARGUMENT_END = f"{OPEN}argument", f"{CLOSE}argument{SEP}"
OBJECT = f"{OPEN}json"
_AROUND = (RESPONSE, RESPONSE_END, CALLS, CALLS_END, f"{CLOSE}message{SEP}")
_ATTRIBUTE = re.compile(r'(\w+)="([^"]*)"')
_TYPES = {"string": "string", "integer": "number", "number": "number", "boolean": "boolean", "null": "null",
          "object": "object", "array": "array"}


def read(reader: Reader, writer: Writer, tools: Tools) -> Steps[None]:
    """One call; without a name it is text."""
    name = (yield from _attributes(reader)).get("tool")
    if not name:
        writer.text(reader.recorded())
        return
    reader.recorded()
    yield from reader.space()
    if (yield from reader.literal(OBJECT)):
        yield from _attributes(reader)
        writer.start(name)
        whole = yield from value(reader, writer.arguments)
        yield from reader.until(Marks(CALL_END), (lambda text: None) if whole else writer.arguments)
    else:
        yield from _arguments(reader, Members(reader, writer, tools, name))


def _arguments(reader: Reader, call: Members) -> Steps[None]:
    """The arguments and the call's end; a call that is cut short stays open."""
    while (yield from reader.literal(ARGUMENT)):
        said = yield from _attributes(reader)
        if not (yield from call.read(said.get("key", ""), Marks(ARGUMENT_END), string=said.get("type") == "string",
                                     framed=False)):
            return
        yield from reader.space()
    if (yield from reader.literal(CALL_END)) or not reader.ended:
        call.close()


def _attributes(reader: Reader) -> Steps[dict[str, str]]:
    """Read the attributes of a tag, and its end."""
    pieces: list[str] = []
    yield from reader.until(Marks(SEP), pieces.append)
    return {found[1]: unescape(found[2]) for found in _ATTRIBUTE.finditer("".join(pieces))}


def form(lark: Lark, name: str, schema: Mapping[str, Any]) -> str:
    """A call, the first of them behind what ends the answer's text and begins the calls."""
    head = f"(({lark.text(RESPONSE)})? {lark.text(RESPONSE_END)})? {lark.text(CALLS)}"
    return f"({head})? {_alone(lark, name, schema)}"


def _alone(lark: Lark, name: str, schema: Mapping[str, Any]) -> str:
    begin, end = lark.text(f'{CALL} tool="{escape(name)}" index="'), lark.text(f'"{SEP}')
    given = members(lark, schema, partial(_argument, lark))
    return f"{begin} /[1-9][0-9]?/ {end} {given} {lark.text(CALL_END)}"


def finds(lark: Lark, tools: Tools) -> Calls:
    """A call behind its mark, be there an element around it or not."""
    return Calls(marks=[(CALL, one_of(lark, tools, _alone, CALL))], frames=(RESPONSE, CALLS))


def _argument(lark: Lark, key: str, schema: Mapping[str, Any]) -> str:
    kinds = kinds_of(schema)
    types = sorted({_TYPES[kind] for kind in kinds} if kinds == ("string",) else
                   {_TYPES[kind] for kind in kinds or tuple(_TYPES)} - {"string"} or {"object"})
    heads = either(lark.text(f'{ARGUMENT} key="{escape(key)}" type="{each}"{SEP}') for each in types)
    return f"{heads} {lark.element(schema, ARGUMENT_END)}"


DIALECT = Dialect(name="kimi3", tells=((OPEN, CLOSE, SEP),), script=one_by_one(CALL, _AROUND, read), form=form,
                  marks=(OPEN, CLOSE, SEP), ends=(CALLS,), after=CALLS_END, style="kimi3",
                  finds=finds)
