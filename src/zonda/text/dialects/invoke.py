"""MiniMax, Muse, DeepSeek from V3.2 on: `<invoke name="NAME"><parameter name="K">V</parameter></invoke>`.

MiniCPM5 calls the elements `function` and `param`, and has none around them.
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zonda.text.dialects.calls import DATA, elements, one_by_one
from zonda.text.dialects.dialect import Dialect
from zonda.text.dialects.lark import Lark, members
from zonda.text.dialects.tools import Tools, kinds_of
from zonda.text.reader import Reader, Steps
from zonda.text.writer import Writer


def dialect(name: str, around: str, tag: str = "", *, typed: bool = False, tells: tuple[tuple[str, ...], ...] = (),
            words: tuple[str, str] = ("invoke", "parameter"), line: str = "\n") -> Dialect:
    """The form with a prefix of its tags, inside an element if one is named.

    `typed` says that values tell whether they are texts; `words` name the elements, and `line` parts them.
    """
    open_, close = (f"<{around}>", f"</{around}>") if around else ("", "")
    invoke, end = f"<{tag}{words[0]} name=", f"</{tag}{words[0]}>"
    parameter, value_end = f"<{tag}{words[1]} name=", f"</{tag}{words[1]}>"
    never = (f"\n{parameter}", f"\n{end}", *(() if around else (DATA,)))

    def read(reader: Reader, writer: Writer, tools: Tools) -> Steps[bool]:
        return elements(reader, writer, tools, parameter, value_end, end, typed=typed, data=not around)

    def form(lark: Lark, name: str, schema: Mapping[str, Any]) -> str:
        def one(key: str, value: Mapping[str, Any]) -> str:
            string = kinds_of(value) == ("string",)
            kind = f' string="{str(string).lower()}"' if typed else ""
            head = lark.text(f'{parameter}"{key}"{kind}>')
            return f"{head} {lark.element(value, value_end, line, never)}"

        head = lark.text(f'{invoke}"{name}">{line}')
        return f"{head} {members(lark, schema, one)} {lark.text(end)}"

    return Dialect(name=name, tells=tells or ((open_, invoke),),
                   script=one_by_one(invoke, (open_, close) if around else (), read), form=form,
                   marks=(open_, close) if around else (), ends=(open_ or invoke,),
                   openings=(open_, invoke) if around else (invoke,),
                   before=f"{open_}\n" if around else "", between=line, after=f"\n{close}" if around else "")


MINIMAX = dialect("minimax", "minimax:tool_call")
MINICPM = dialect("minicpm", "", words=("function", "param"), line="",
                  tells=(('<function name="', '<param name="'),))
ATEM = dialect("atem", "atem:function_calls", "atem:")
_DSML = "\uff5cDSML\uff5c"  # templates put the tags together from it
DEEPSEEK = dialect("dsml", f"{_DSML}function_calls", _DSML, typed=True, tells=((_DSML, "function_calls>"),))
DEEPSEEK4 = dialect("dsml4", f"{_DSML}tool_calls", _DSML, typed=True, tells=((_DSML,),))
