"""Solar Open: messages of reasoning, of calls and of the answer.

A call is `<|tool_call:begin|>ID<|tool_call:name|>NAME<|tool_call:args|>{...}<|tool_call:end|>`.
"""
from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from zonda.text.dialects.calls import NAME
from zonda.text.dialects.dialect import Dialect, one_of
from zonda.text.dialects.free import Calls
from zonda.text.dialects.json import value
from zonda.text.dialects.lark import Lark
from zonda.text.dialects.tools import Tools
from zonda.text.reader import Marks, Reader, Steps
from zonda.text.reasoning import Reasoning
from zonda.text.writer import Writer

BEGIN, END = "<|begin|>", "<|end|>"
THINK, CONTENT, CALLS, CALLS_END = "<|think|>", "<|content|>", "<|tool_calls|>", "<|calls|>"
CALL, CALLED, ARGUMENTS, CALL_END = (f"<|tool_call:{word}|>" for word in ("begin", "name", "args", "end"))
_HEADS = (THINK, CONTENT, CALLS, CALL)
_HEAD = Marks(*_HEADS)
_BODY = Marks(BEGIN, END, *_HEADS)
_ENDS = Marks(CALL_END, CALLS_END, BEGIN)
_ID = re.compile(r"[\w-]")


def read(reader: Reader, writer: Writer, tools: Tools) -> Steps[None]:
    """Messages one after another, each behind a mark that says what it is; one without a mark is the answer."""
    head = yield from reader.literal(*_HEADS, BEGIN)
    if not head:
        head = yield from reader.until(_BODY, writer.text)
    while head:
        if head == CALL:
            yield from _call(reader, writer)
        elif head in (THINK, CONTENT):
            head = yield from _body(reader, writer, thinking=head == THINK)
            if head in _HEADS:
                continue
        head = yield from reader.until(_HEAD, lambda text: None)


def _body(reader: Reader, writer: Writer, *, thinking: bool) -> Steps[str]:
    """Pass a message on; returns what ends it."""
    if thinking:
        writer.think()
    else:
        writer.speak()
    end = yield from reader.until(_BODY, writer.thought if thinking else writer.text)
    writer.thinking = thinking and not end
    return end


def _call(reader: Reader, writer: Writer) -> Steps[None]:
    """One call; without a name it is nothing."""
    id = yield from reader.word(_ID)
    if not (yield from reader.literal(CALLED)):
        return
    name = yield from reader.word(NAME)
    if name and (yield from reader.literal(ARGUMENTS)):
        writer.start(name, id or None)
        whole = yield from value(reader, writer.arguments)
        yield from reader.until(_ENDS, (lambda text: None) if whole else writer.arguments)


def form(lark: Lark, name: str, schema: Mapping[str, Any]) -> str:
    """A call, the first after reasoning or at once."""
    think = lark.rule(f"{lark.text(THINK)} {lark.until(END)} {lark.text(f'{BEGIN}assistant')}")
    return f"({think}? {lark.text(CALLS)})? {_alone(lark, name, schema)}"


def _alone(lark: Lark, name: str, schema: Mapping[str, Any]) -> str:
    head = f"{lark.text(CALL)} {lark.rule('/[a-z0-9]{10}/')} {lark.text(f'{CALLED}{name}{ARGUMENTS}')}"
    return f"{head} {lark.value(schema)} {lark.text(CALL_END)}"


def finds(lark: Lark, tools: Tools) -> Calls:
    """A call behind its mark, in whatever message."""
    return Calls(marks=[(CALL, one_of(lark, tools, _alone, CALL))])


DIALECT = Dialect(name="solar", tells=((CALL, CALLED),), script=read, form=form, reasons=True, text_head=CONTENT,
                  own=Reasoning("solar", THINK, END, after=f"{BEGIN}assistant"),
                  marks=(BEGIN, END, THINK, CONTENT, CALLS, CALLS_END, CALL, CALLED, ARGUMENTS, CALL_END),
                  after=CALLS_END, finds=finds)
