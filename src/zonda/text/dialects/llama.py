"""Llama 3: `{"name": ..., "parameters": ...}` as the whole answer, with or without `<|python_tag|>`."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zonda.text.dialects import generic
from zonda.text.dialects.calls import FIRST, MORE, objects, openings
from zonda.text.dialects.dialect import Dialect
from zonda.text.dialects.free import Calls
from zonda.text.dialects.lark import Lark, either, object_of
from zonda.text.dialects.tools import Tools
from zonda.text.reader import Reader, Steps, spoken
from zonda.text.writer import Writer

TAG = "<|python_tag|>"


def read(reader: Reader, writer: Writer, tools: Tools) -> Steps[None]:
    """A call at the beginning of the answer if its tool is known, and calls behind the tag."""
    yield from generic.bare(reader, writer, tools)
    while (yield from spoken(reader, writer, TAG)):
        yield from objects(reader, writer, TAG, None, tools if tools.held else None)


def form(lark: Lark, name: str, schema: Mapping[str, Any]) -> str:
    """A call whose arguments are named parameters."""
    return lark.value(object_of(name, schema, arguments="parameters"))


def finds(lark: Lark, tools: Tools) -> Calls:
    """Calls at the beginning, or behind the tag."""
    tagged = either(f"{lark.lazy(head)} {rest}" for head, rest in openings(lark, tools, ""))
    return Calls(marks=[(TAG, lark.rule(tagged))], heads=openings(lark, tools, FIRST),
                 more=openings(lark, tools, MORE))


DIALECT = Dialect(name="llama", tells=((TAG,), ("<|start_header_id|>", '"parameters"'),
                                       ("<|start_header_id|>ipython",)),
                  script=read, form=form, marks=(TAG,), between="; ", finds=finds)
