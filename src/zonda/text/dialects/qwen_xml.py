"""Qwen3-Coder: `<tool_call><function=NAME><parameter=KEY>VALUE</parameter></function></tool_call>`."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zonda.text.dialects.calls import elements
from zonda.text.dialects.dialect import Dialect
from zonda.text.dialects.lark import Lark, members
from zonda.text.dialects.tools import Tools
from zonda.text.reader import Reader, Steps, spoken
from zonda.text.writer import Writer

OPEN, CLOSE = "<tool_call>", "</tool_call>"
FUNCTION, FUNCTION_END, PARAMETER, VALUE_END = "<function=", "</function>", "<parameter=", "</parameter>"
_VALUE_END = f"\n{VALUE_END}"
_NEVER = (f"\n{PARAMETER}", f"\n{FUNCTION_END}", VALUE_END)


def read(reader: Reader, writer: Writer, tools: Tools) -> Steps[None]:
    """Calls in their elements; some models leave the outer one out."""
    while True:
        mark = yield from spoken(reader, writer, OPEN, FUNCTION)
        if mark == OPEN and not (yield from element(reader, writer, tools, OPEN)):
            writer.text(reader.recorded())
        elif mark == FUNCTION:
            reader.record(FUNCTION)
            yield from function(reader, writer, tools)
        elif not mark:
            return


def element(reader: Reader, writer: Writer, tools: Tools, mark: str) -> Steps[bool]:
    """Read a function's element behind a mark; if another thing comes, false, and it is recorded what was read."""
    reader.record(mark)
    yield from reader.space()
    if not (yield from reader.literal(FUNCTION)):
        return False
    yield from function(reader, writer, tools)
    return True


def function(reader: Reader, writer: Writer, tools: Tools) -> Steps[None]:
    """Read from the name to the end of the element."""
    if not (yield from elements(reader, writer, tools, PARAMETER, VALUE_END, FUNCTION_END)):
        return
    reader.record()
    yield from reader.space()
    if (yield from reader.literal(CLOSE)):
        reader.recorded()
    else:
        writer.text(reader.recorded())


def form(lark: Lark, name: str, schema: Mapping[str, Any]) -> str:
    """A call with each argument in an element of its own."""
    def one(key: str, value: Mapping[str, Any]) -> str:
        return f"{lark.text(f'{PARAMETER}{key}>{chr(10)}')} {lark.element(value, _VALUE_END, chr(10), _NEVER)}"

    head = lark.text(f"{OPEN}\n{FUNCTION}{name}>\n")
    return f"{head} {members(lark, schema, one)} {lark.text(f'{FUNCTION_END}{chr(10)}{CLOSE}')}"


DIALECT = Dialect(name="qwen_xml", tells=((FUNCTION, PARAMETER),), script=read, form=form, marks=(OPEN, CLOSE),
                  openings=(OPEN, FUNCTION), between="\n")
