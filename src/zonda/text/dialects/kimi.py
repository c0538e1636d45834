"""Kimi K2: `<|tool_call_begin|>functions.NAME:0<|tool_call_argument_begin|>{...}<|tool_call_end|>`."""
from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from zonda.text.dialects.calls import one_by_one
from zonda.text.dialects.dialect import Dialect
from zonda.text.dialects.json import value
from zonda.text.dialects.lark import Lark
from zonda.text.dialects.tools import Tools
from zonda.text.reader import Marks, Reader, Steps
from zonda.text.writer import Writer

ALL, ALL_END = "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"
CALL, ARGUMENTS, CALL_END = "<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>"
_ID = re.compile(r"[\w.:-]")
_END = Marks(CALL_END)


def read(reader: Reader, writer: Writer, tools: Tools) -> Steps[None]:
    """One call; the model gives it an id with the tool's name in it, which the template wants back."""
    yield from reader.space()
    id = yield from reader.word(_ID)
    yield from reader.space()
    name = id.removeprefix("functions.").partition(":")[0]
    if name and (yield from reader.literal(ARGUMENTS)):
        yield from reader.space()
        if (yield from reader.peek()) == "{":
            reader.recorded()
            writer.start(name, id)
            if (yield from value(reader, writer.arguments)):
                yield from reader.space()
                yield from reader.literal(CALL_END)
            else:
                yield from reader.until(_END, writer.arguments)
            return
    writer.text(reader.recorded())


def form(lark: Lark, name: str, schema: Mapping[str, Any]) -> str:
    """A call with a number behind its name."""
    number = lark.rule("/[0-9]{1,3}/")
    return f"{lark.text(CALL + f'functions.{name}:')} {number} {lark.text(ARGUMENTS)} {lark.value(schema)} " \
        f"{lark.text(CALL_END)}"


DIALECT = Dialect(name="kimi", tells=((CALL,), (ALL,)), script=one_by_one(CALL, (ALL, ALL_END), read), form=form,
                  marks=(ALL, ALL_END, CALL, ARGUMENTS, CALL_END), ends=(ALL,), openings=(ALL, CALL), before=ALL,
                  after=ALL_END)
