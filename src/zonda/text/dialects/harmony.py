"""Harmony (gpt-oss): channels for reasoning, calls and the answer."""
from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from zonda.text.dialects.dialect import Dialect
from zonda.text.dialects.free import Move, State, ranges, walk
from zonda.text.dialects.json import value
from zonda.text.dialects.lark import Lark, either
from zonda.text.dialects.tools import Tools
from zonda.text.reader import Marks, Reader, Steps
from zonda.text.reasoning import Reasoning
from zonda.text.regular import exactly
from zonda.text.writer import Writer

START, CHANNEL, MESSAGE, CONSTRAIN = "<|start|>", "<|channel|>", "<|message|>", "<|constrain|>"
ENDS = ("<|end|>", "<|call|>", "<|return|>")
_MESSAGE = Marks(MESSAGE, *ENDS)
_BODY = Marks(START, *ENDS)
_TOOL = re.compile(r"to=(?:functions\.)?([\w.-]+)")
_OTHER = r"[^\w.\-](?s:.*)"
_LONGEST_HEAD = 512


def read(reader: Reader, writer: Writer, tools: Tools) -> Steps[None]:
    """Messages one after another, each with a head that says what it is."""
    first = True
    while (yield from reader.peek()):
        if first and not (yield from reader.literal(START, CHANNEL)):
            yield from reader.until(_BODY, writer.text)  # no head at all: the answer itself
        else:
            yield from _message(reader, writer)
        first = False


def _message(reader: Reader, writer: Writer) -> Steps[None]:
    head = list[str]()
    writer.thinking = True
    if (yield from reader.until(_MESSAGE, head.append)) != MESSAGE:
        writer.thinking = False
        return
    words = "".join(head)[:_LONGEST_HEAD]
    tool = _TOOL.search(words)
    if tool:
        yield from _call(reader, writer, tool[1])
        return
    thinking = "analysis" in words
    if thinking:
        writer.think()
    else:
        writer.speak()
    yield from reader.until(_BODY, writer.thought if thinking else writer.text)


def _call(reader: Reader, writer: Writer, name: str) -> Steps[None]:
    writer.thinking = False
    writer.start(name)
    if not (yield from value(reader, writer.arguments)):
        yield from reader.until(_BODY, writer.arguments)
    else:
        yield from reader.until(_BODY, lambda text: None)


def form(lark: Lark, name: str, schema: Mapping[str, Any]) -> str:
    """A call, after reasoning or at once."""
    think = lark.rule(f"{lark.text(CHANNEL + 'analysis' + MESSAGE)} {lark.until('<|end|>')} "
                      f"{lark.text(START + 'assistant')}")
    head = lark.text(f"{CHANNEL}commentary to=functions.{name} {CONSTRAIN}json{MESSAGE}")
    return f"{think}? {head} {lark.value(schema)}"


def free(lark: Lark, tools: Tools, special: Iterable[int]) -> str:
    """Answers whose calls, which are messages to somebody, are to one of the tools."""
    ends = [Move(mark, "", "head") for mark in (START, *ENDS)]
    begins = Move(CHANNEL if lark.parted(CHANNEL)[1] is not None else f"/{exactly(CHANNEL)}/", "", "head", first=True)
    called = either(f"{lark.text(name)} {_behind(lark, special)} {lark.value(tools.schema(name))}"
                    for name in tools.functions)
    head = [Move("to=", f'"functions."? {called}', "body"), Move(MESSAGE, "", "body"), *ends]
    states = {"begun": State([*ends, begins], "body"), "body": State(ends, "body"), "head": State(head, "head")}
    return walk(lark, states, "begun", special)


def _behind(lark: Lark, special: Iterable[int]) -> str:
    """The rest of a head behind a name."""
    kept = {lark.parted(mark)[1] for mark in (START, MESSAGE, *ENDS)}
    if None in kept:
        return lark.lazy(f"/({_OTHER})?{exactly(MESSAGE)}/ & ~/(?s:.*)({'|'.join(map(exactly, ENDS))})(?s:.*)/")
    others = f"(<[{ranges(token for token in special if token not in kept)}]> {lark.terminal('/(?s:.+)/')}?)*"
    return f"{lark.terminal(f'/{_OTHER}/')}? {others} {lark.text(MESSAGE)}"


DIALECT = Dialect(name="harmony", tells=((CHANNEL, MESSAGE),), script=read, form=form,
                  marks=(START, CHANNEL, MESSAGE, CONSTRAIN, *ENDS), reasons=True, text_head=f"{CHANNEL}final{MESSAGE}",
                  own=Reasoning("harmony", f"{CHANNEL}analysis{MESSAGE}", "<|end|>", after=f"{START}assistant"),
                  between=f"<|call|>{START}assistant", free=free)
