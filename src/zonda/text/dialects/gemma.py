"""Gemma 4 and FunctionGemma: `call:NAME{key:value}` between marks, texts between marks of their own."""
from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from zonda.text.dialects.calls import NAME
from zonda.text.dialects.dialect import Dialect
from zonda.text.dialects.json import nested, scalar
from zonda.text.dialects.lark import Lark, either, expressions, members, repeated, values
from zonda.text.dialects.tools import Tools, branches, plain, referred, told, within, written
from zonda.text.reader import Marks, Reader, Sink, Steps, spoken
from zonda.text.writer import Writer

_ANY = ["string", "number", "boolean", "null"]
_KEY = re.compile(r"[^:\s{}\[\],]")


def dialect(name: str, open_: str, close: str, quote: str) -> Dialect:
    """The form with these marks."""
    def read(reader: Reader, writer: Writer, tools: Tools) -> Steps[None]:
        while (yield from spoken(reader, writer, open_)):
            reader.record(open_)
            yield from reader.space()
            yield from reader.literal("call:", ":")
            called = yield from reader.word(NAME)
            if not called or (yield from reader.peek()) != "{":
                writer.text(reader.recorded())
                continue
            reader.recorded()
            writer.start(called)
            if (yield from value(reader, writer.arguments, quote)):
                yield from reader.literal(close)
            else:
                yield from reader.until(Marks(close), writer.arguments)

    def form(lark: Lark, name: str, schema: Mapping[str, Any]) -> str:
        return f"{lark.text(f'{open_}call:{name}{{')} {_members(lark, schema, quote)} {lark.text('}' + close)}"

    return Dialect(name=name, tells=((open_,),), script=read, form=form, marks=(open_, close, quote), ends=(open_,),
                   openings=(open_,))


def value(reader: Reader, sink: Sink, quote: str) -> Steps[bool]:
    """Read a value, whose names have no quotes and whose texts have their own marks; it goes to `sink` as JSON."""
    return nested(reader, sink, partial(_key, quote=quote), partial(_scalar, quote=quote))


def _key(reader: Reader, sink: Sink, quote: str) -> Steps[bool]:
    quoted = yield from reader.literal(quote, '"')
    key = yield from reader.word(_KEY)
    if quoted:
        key = key.removesuffix(quoted)
    sink(written(key) + ":")
    found = yield from reader.literal(":")
    yield from reader.space()
    return bool(key and found)


def _scalar(reader: Reader, sink: Sink, quote: str) -> Steps[bool]:
    if not (yield from reader.literal(quote)):
        return (yield from scalar(reader, sink))
    sink('"')
    found = yield from reader.until(Marks(quote), lambda piece: sink(written(piece)[1:-1]))
    sink('"' if found else "")
    return bool(found)


def _members(lark: Lark, schema: Mapping[str, Any], quote: str) -> str:
    def one(key: str, value: Mapping[str, Any]) -> str:
        return f"{lark.text(key + ':')} {_form(lark, value, quote)}"

    return members(lark, schema, one, between=",")


def _form(lark: Lark, schema: Mapping[str, Any], quote: str) -> str:
    found = referred(schema)
    if found is not None:
        return lark.named(id(found), lambda: _form(lark, within(schema, found), quote))
    return _written(lark, schema, quote)


def _written(lark: Lark, schema: Mapping[str, Any], quote: str) -> str:
    """A value of a schema that is no reference; as JSON where it is no plain one."""
    known = values(schema)
    if known:
        return either(lark.text(f"{quote}{each}{quote}") if isinstance(each, str) else lark.value({"const": each})
                      for each in known)
    if told(schema) == {"anyOf"} and (parts := branches(schema)):
        return either(_form(lark, each, quote) for each in parts)
    kind = schema.get("type") or ("object" if "properties" in schema else _ANY)
    if isinstance(kind, list) and plain(schema):
        return either(_form(lark, {**schema, "type": each}, quote) for each in dict.fromkeys(map(str, kind)))
    if kind == "string":
        return f"{lark.text(quote)} {lark.until(quote, expressions(schema))}"
    if kind == "array" and plain(schema):
        items = schema.get("items")
        inner = within(schema, items if isinstance(items, Mapping) else {})
        return f'"[" {repeated(lark.rule(_form(lark, inner, quote)), schema, lark.text(","))} "]"'
    if kind == "object" and plain(schema) and schema.get("properties"):
        return f'"{{" {_members(lark, schema, quote)} "}}"'
    return lark.value(schema)


GEMMA4 = dialect("gemma", "<|tool_call>", "<tool_call|>", '<|"|>')
FUNCTION = dialect("functiongemma", "<start_function_call>", "<end_function_call>", "<escape>")
