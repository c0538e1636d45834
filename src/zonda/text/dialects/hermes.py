"""Hermes and Qwen: `<tool_call>{"name": ..., "arguments": ...}</tool_call>`."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zonda.text.dialects import qwen_xml
from zonda.text.dialects.calls import objects
from zonda.text.dialects.dialect import Dialect
from zonda.text.dialects.lark import Lark, object_of
from zonda.text.dialects.tools import Tools
from zonda.text.reader import Marks, Reader, Steps, spoken
from zonda.text.writer import Writer

OPEN, CLOSE = "<tool_call>", "</tool_call>"
_END = Marks(CLOSE)


def read(reader: Reader, writer: Writer, tools: Tools) -> Steps[None]:
    """Calls between marks, each an object or a list of them, or an XML element."""
    while (yield from spoken(reader, writer, OPEN)):
        if not (yield from qwen_xml.element(reader, writer, tools, OPEN)):
            yield from objects(reader, writer, reader.recorded(), _END)


def form(lark: Lark, name: str, schema: Mapping[str, Any]) -> str:
    """A call in its marks, on lines of its own."""
    return f"{lark.text(OPEN + chr(10))} {lark.value(object_of(name, schema))} {lark.text(chr(10) + CLOSE)}"


DIALECT = Dialect(name="hermes", tells=((OPEN,),), script=read, form=form, marks=(OPEN, CLOSE), openings=(OPEN,),
                  between="\n")
