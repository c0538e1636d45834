"""MiniMax M3: tags behind a token of their own, one for each argument, and within it for each item and member."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zonda.text.dialects.calls import Members, name_in, one_by_one
from zonda.text.dialects.dialect import Dialect
from zonda.text.dialects.lark import Lark, members, repeated, values
from zonda.text.dialects.tools import Tools, coerced, kinds_of, plain, referred, target, within, written
from zonda.text.reader import Marks, Reader, Steps
from zonda.text.writer import Writer

TAG = "]<]minimax[>["
OPEN, CLOSE = f"{TAG}<tool_call>", f"{TAG}</tool_call>"
INVOKE, END = f"{TAG}<invoke name=", f"{TAG}</invoke>"
MAX_DEPTH = 32
"""Levels of values in values that are read as such."""


def read(reader: Reader, writer: Writer, tools: Tools) -> Steps[None]:
    """One call."""
    name = yield from name_in(reader, ">")
    if not name:
        writer.text(reader.recorded())
        return
    reader.recorded()
    call, schema = Members(reader, writer, tools, name), tools.schema(name)
    while True:
        yield from reader.space()
        if (yield from reader.literal(END)):
            break
        key = (yield from name_in(reader, ">")) if (yield from reader.literal(f"{TAG}<")) else ""
        if not key or not (yield from _argument(reader, call, key, _within(schema, key))):
            if reader.ended:
                return
            break
    call.close()


def _argument(reader: Reader, call: Members, key: str, schema: Mapping[str, Any]) -> Steps[bool]:
    end = f"{TAG}</{key}>"
    if (yield from reader.literal(end)):
        call.put(key, _empty(schema))
    elif (yield from reader.literal(f"{TAG}<")):
        call.put(key, (yield from _inner(reader, end, schema, 1)))
    else:
        return bool((yield from call.read(key, Marks(end))))
    return not reader.ended or not reader.cut


def _value(reader: Reader, tag: str, schema: Mapping[str, Any], depth: int) -> Steps[str]:
    """The JSON of a value within another, up to and over its end."""
    end = f"{TAG}</{tag}>"
    if (yield from reader.literal(end)):
        return _empty(schema)
    if depth < MAX_DEPTH and (yield from reader.literal(f"{TAG}<")):
        return (yield from _inner(reader, end, schema, depth + 1))
    pieces: list[str] = []
    yield from reader.until(Marks(end), pieces.append)
    return coerced("".join(pieces), kinds_of(schema))


def _inner(reader: Reader, end: str, schema: Mapping[str, Any], depth: int) -> Steps[str]:
    """The JSON of a list or an object, from behind the beginning of its first tag."""
    found: list[tuple[str, str]] = []
    while tag := (yield from name_in(reader, ">")):
        found.append((tag, (yield from _value(reader, tag, _within(schema, tag), depth))))
        yield from reader.space()
        if (yield from reader.literal(end)) or not (yield from reader.literal(f"{TAG}<")):
            break
    if "object" not in kinds_of(schema) and all(tag == "item" for tag, _ in found):
        return f"[{', '.join(value for _, value in found)}]"
    return f"{{{', '.join(f'{written(tag)}: {value}' for tag, value in found)}}}"


def _within(schema: Mapping[str, Any], tag: str) -> Mapping[str, Any]:
    """The schema of a member, or of the items of a list."""
    schema = target(schema)
    known = schema.get("properties")
    found = known.get(tag) if isinstance(known, Mapping) else schema.get("items") if tag == "item" else None
    return within(schema, found) if isinstance(found, Mapping) else {}


def _empty(schema: Mapping[str, Any]) -> str:
    kinds = kinds_of(schema)
    return "[]" if "array" in kinds else "{}" if "object" in kinds else '""'


def form(lark: Lark, name: str, schema: Mapping[str, Any]) -> str:
    """A call, with its values as elements."""
    head = lark.text(f'{INVOKE}"{name}">')
    return f"{head} {members(lark, schema, lambda key, each: _element(lark, key, each))} {lark.text(END)}"


def _element(lark: Lark, key: str, schema: Mapping[str, Any], depth: int = 1) -> str:
    def inside(tag: str, each: Mapping[str, Any]) -> str:
        return _element(lark, tag, each, depth + 1)

    if (found := referred(schema)) is not None:
        return lark.named((key, id(found)), lambda: _element(lark, key, within(schema, found), depth))
    head, end = lark.text(f"{TAG}<{key}>"), f"{TAG}</{key}>"
    kind, items = schema.get("type") if plain(schema) and values(schema) is None else "", schema.get("items")
    if kind == "array" and isinstance(items, Mapping) and depth < MAX_DEPTH:
        return f"{head} {repeated(lark.rule(inside('item', within(schema, items))), schema)} {lark.text(end)}"
    if kind == "object" and schema.get("properties") and depth < MAX_DEPTH:
        return f"{head} {members(lark, schema, inside)} {lark.text(end)}"
    return f"{head} {lark.element(schema, end)}"


DIALECT = Dialect(name="minimax3", tells=((TAG,),), script=one_by_one(INVOKE, (OPEN, CLOSE), read), form=form,
                  marks=(TAG,), ends=(OPEN,), openings=(OPEN, INVOKE), before=f"{OPEN}\n", between="\n",
                  after=f"\n{CLOSE}")
