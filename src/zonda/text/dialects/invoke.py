"""MiniMax, Muse, DeepSeek from V3.2 on: `<invoke name="NAME"><parameter name="K">V</parameter></invoke>`."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zonda.text.dialects.calls import elements, one_by_one
from zonda.text.dialects.dialect import Dialect
from zonda.text.dialects.lark import Lark, members
from zonda.text.dialects.tools import Tools
from zonda.text.reader import Reader, Steps
from zonda.text.writer import Writer


def dialect(name: str, around: str, tag: str = "", *, typed: bool = False,
            tells: tuple[tuple[str, ...], ...] = ()) -> Dialect:
    """The form with a prefix of its tags, inside an element; `typed` says that values tell whether they are texts."""
    open_, close = f"<{around}>", f"</{around}>"
    invoke, end = f"<{tag}invoke name=", f"</{tag}invoke>"
    parameter, value_end = f"<{tag}parameter name=", f"</{tag}parameter>"

    def read(reader: Reader, writer: Writer, tools: Tools) -> Steps[bool]:
        return elements(reader, writer, tools, parameter, value_end, end, typed=typed)

    def form(lark: Lark, name: str, schema: Mapping[str, Any]) -> str:
        def one(key: str, value: Mapping[str, Any]) -> str:
            string = value.get("type") == "string"
            kind = f' string="{str(string).lower()}"' if typed else ""
            head = lark.text(f'{parameter}"{key}"{kind}>')
            if string:
                return f"{head} {lark.until(value_end)} {lark.text(chr(10))}"
            return f"{head} {lark.value(value)} {lark.text(value_end + chr(10))}"

        head = lark.text(f'{invoke}"{name}">' + chr(10))
        return f"{head} {members(lark, schema, one)} {lark.text(end)}"

    return Dialect(name=name, tells=tells or ((open_, invoke),),
                   script=one_by_one(invoke, (open_, close), read), form=form,
                   marks=(open_, close), ends=(open_,), before=f"{open_}\n", between="\n", after=f"\n{close}")


MINIMAX = dialect("minimax", "minimax:tool_call")
ATEM = dialect("atem", "atem:function_calls", "atem:")
_DSML = "\uff5cDSML\uff5c"  # templates put the tags together from it
DEEPSEEK = dialect("dsml", f"{_DSML}function_calls", _DSML, typed=True, tells=((_DSML, "function_calls>"),))
DEEPSEEK4 = dialect("dsml4", f"{_DSML}tool_calls", _DSML, typed=True, tells=((_DSML,),))
