"""GLM 4.5 and later: `<tool_call>NAME<arg_key>K</arg_key><arg_value>V</arg_value></tool_call>`.

Hy3 writes the same with longer tags.
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zonda.text.dialects.calls import NAME, Members
from zonda.text.dialects.dialect import Dialect
from zonda.text.dialects.lark import Lark, members
from zonda.text.dialects.tools import Tools
from zonda.text.reader import Marks, Reader, Steps, spoken
from zonda.text.writer import Writer


def dialect(name: str, *, tells: tuple[tuple[str, ...], ...], suffix: str = "", around: bool = False) -> Dialect:
    """The form with a suffix to its tags; with `around` an element is around all calls, and a tag behind a name."""
    def tags(word: str) -> tuple[str, str]:
        return f"<{word}{suffix}>", f"</{word}{suffix}>"

    open_, close = tags("tool_call")
    (key, key_end), (value, value_end) = tags("arg_key"), tags("arg_value")
    all_, all_end = tags("tool_calls")
    separator = tags("tool_sep")[0] if around else ""
    key_ends, value_ends = Marks(key_end), Marks(value_end)

    def read(reader: Reader, writer: Writer, tools: Tools) -> Steps[None]:
        """Calls between marks."""
        while mark := (yield from spoken(reader, writer, open_, *((all_, all_end) if around else ()))):
            if mark != open_:
                continue
            reader.record(mark)
            yield from reader.space()
            called = yield from reader.word(NAME)
            yield from reader.space()
            if called and separator:
                yield from reader.literal(separator)
                yield from reader.space()
            if called and (found := (yield from reader.literal(key, close))):
                reader.recorded()
                yield from arguments(reader, Members(reader, writer, tools, called), found)
            else:
                writer.text(reader.recorded())

    def arguments(reader: Reader, call: Members, found: str) -> Steps[None]:
        while found == key:
            word = list[str]()
            yield from reader.until(key_ends, word.append)
            yield from reader.space()
            if not (yield from reader.literal(value)):
                break
            if not (yield from call.read("".join(word).strip(), value_ends)):
                return
            yield from reader.space()
            found = yield from reader.literal(key, close)
        if not reader.ended or found:
            call.close()

    def form(lark: Lark, called: str, schema: Mapping[str, Any]) -> str:
        """A call with keys and values on lines of their own."""
        def one(word: str, kind: Mapping[str, Any]) -> str:
            head = lark.text(f"{key}{word}{key_end}\n{value}")
            return f"{head} {lark.element(kind, value_end, chr(10))}"

        return f"{lark.text(open_ + called + separator + chr(10))} {members(lark, schema, one)} {lark.text(close)}"

    marks = (open_, close, key, key_end, value, value_end)
    return Dialect(name=name, tells=tells, script=read, form=form, between="\n",
                   openings=(all_, open_) if around else (open_,),
                   marks=(*marks, all_, all_end, separator) if around else marks,
                   before=f"{all_}\n" if around else "", after=f"\n{all_end}" if around else "")


DIALECT = dialect("glm", tells=(("<arg_key>",),))
HY3 = dialect("hy3", suffix=":opensource", around=True,
              tells=(("<arg_key{}>", ":opensource"), ("<arg_key:opensource>",)))
