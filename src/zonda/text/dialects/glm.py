"""GLM 4.5 and later: `<tool_call>NAME<arg_key>K</arg_key><arg_value>V</arg_value></tool_call>`."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zonda.text.dialects.calls import NAME, Members
from zonda.text.dialects.dialect import Dialect
from zonda.text.dialects.lark import Lark, members
from zonda.text.dialects.tools import Tools
from zonda.text.reader import Marks, Reader, Steps, spoken
from zonda.text.writer import Writer

OPEN, CLOSE = "<tool_call>", "</tool_call>"
KEY, KEY_END, VALUE, VALUE_END = "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"
_END = Marks(VALUE_END)
_KEY_END = Marks(KEY_END)


def read(reader: Reader, writer: Writer, tools: Tools) -> Steps[None]:
    """Calls between marks."""
    while (yield from spoken(reader, writer, OPEN)):
        reader.record(OPEN)
        yield from reader.space()
        name = yield from reader.word(NAME)
        yield from reader.space()
        if name and (found := (yield from reader.literal(KEY, CLOSE))):
            reader.recorded()
            yield from _arguments(reader, Members(reader, writer, tools, name), found)
        else:
            writer.text(reader.recorded())


def _arguments(reader: Reader, call: Members, found: str) -> Steps[None]:
    while found == KEY:
        key = list[str]()
        yield from reader.until(_KEY_END, key.append)
        yield from reader.space()
        if not (yield from reader.literal(VALUE)):
            break
        if not (yield from call.read("".join(key).strip(), _END)):
            return
        yield from reader.space()
        found = yield from reader.literal(KEY, CLOSE)
    if not reader.ended or found:
        call.close()


def form(lark: Lark, name: str, schema: Mapping[str, Any]) -> str:
    """A call with keys and values on lines of their own."""
    def one(key: str, value: Mapping[str, Any]) -> str:
        head = lark.text(f"{KEY}{key}{KEY_END}\n{VALUE}")
        if value.get("type") == "string":
            return f"{head} {lark.until(VALUE_END)} {lark.text(chr(10))}"
        return f"{head} {lark.value(value)} {lark.text(VALUE_END + chr(10))}"

    return f"{lark.text(OPEN + name + chr(10))} {members(lark, schema, one)} {lark.text(CLOSE)}"


DIALECT = Dialect(name="glm", tells=((KEY,),), script=read, form=form,
                  marks=(OPEN, CLOSE, KEY, KEY_END, VALUE, VALUE_END), between="\n")
