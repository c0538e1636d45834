"""Functionary 3.2: `>>>NAME`, a line break and `{...}`; `>>>all` before text. The prompt ends with the first mark."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zonda.text.dialects.calls import NAME
from zonda.text.dialects.dialect import Dialect
from zonda.text.dialects.free import Calls
from zonda.text.dialects.json import value
from zonda.text.dialects.lark import Lark
from zonda.text.dialects.tools import Tools
from zonda.text.reader import Reader, Steps, spoken
from zonda.text.regular import exactly
from zonda.text.writer import Writer

MARK, EVERYBODY = ">>>", "all"


def read(reader: Reader, writer: Writer, tools: Tools) -> Steps[None]:
    """Texts and calls one after another; what is for nobody known is text."""
    mark = ""
    while True:
        reader.record(mark)
        name = yield from reader.word(NAME)
        if name == EVERYBODY and (yield from reader.literal("\n")):
            reader.recorded()
        elif name in tools and (yield from reader.literal("\n")) and (yield from reader.peek()) == "{":
            reader.recorded()
            writer.start(name)
            yield from value(reader, writer.arguments)
        else:
            writer.text(reader.recorded())
        mark = yield from spoken(reader, writer, MARK)
        if not mark:
            return


def form(lark: Lark, name: str, schema: Mapping[str, Any]) -> str:
    """A call, behind the mark that is there."""
    return f"{lark.text(name + chr(10))} {lark.value(schema)}"


def finds(lark: Lark, tools: Tools) -> Calls:
    """A call of a tool behind its name, at the beginning or behind the mark."""
    calls = [(f"{name}\n", lark.value(tools.schema(name))) for name in tools.functions]
    return Calls(marks=[(f"{MARK}{head}", rest) for head, rest in calls],
                 heads=[(f"/{exactly(head)}/", rest) for head, rest in calls])


DIALECT = Dialect(name="functionary", tells=((">>>${recipient}",), ("'>>>all\\n'",)), script=read, form=form,
                  reasons=True, text_head=f"{EVERYBODY}\n", between=MARK, finds=finds)
