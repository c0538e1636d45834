"""A format in which models write tool calls, as data: how it is found, read and forced."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from zonda.text.dialects.lark import Lark
from zonda.text.dialects.tools import Tools
from zonda.text.reader import Reader, Steps
from zonda.text.reasoning import Reasoning
from zonda.text.writer import Writer

MOST = 16
"""Calls that a forced answer may make: a small model would go on until its answer is cut."""
Script = Callable[[Reader, Writer, Tools], Steps[None]]
Form = Callable[[Lark, str, Mapping[str, Any]], str]
"""The Lark expression of one call, from the tool's name and its arguments' schema."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One format.

    `tells` are texts of which one in a template shows the format, each a tuple of what must all be there. `marks` are
    the special tokens that it is read by; those of `ends` also end reasoning. A forced answer is `before`, calls with
    `between` them, `after`. `reasons` says that its script reads the whole answer, reasoning of the form `own` as well;
    then `text_head` goes before an answer that is text alone. `style` is the format of reasoning that belongs to it;
    then answers without tools are read by it too.
    """

    name: str
    tells: tuple[tuple[str, ...], ...]
    script: Script
    form: Form
    marks: tuple[str, ...] = ()
    ends: tuple[str, ...] = ()
    before: str = ""
    between: str = ""
    after: str = ""
    reasons: bool = False
    own: Reasoning | None = None
    text_head: str = ""
    style: str = ""

    def fits(self, template: str) -> bool:
        """Whether a chat template shows this format."""
        return any(all(text in template for text in texts) for texts in self.tells)

    def grammar(self, lark: Lark, tools: Tools, *, many: bool, form: Mapping[str, Any] | None = None) -> str:
        """A Lark grammar of answers that call one of the tools, or several, or are JSON of the schema `form`."""
        names = list(tools.functions)
        calls = [f"call{index}: {self.form(lark, name, tools.schema(name))}" for index, name in enumerate(names)]
        more = f"more{{0,{MOST - 1}}}" if many else ""
        calls += [f"more: {lark.text(self.between)} call"] if many else []
        called = " ".join(filter(None, (lark.text(self.before), "call", more, lark.text(self.after))))
        said = "" if form is None else f" | {lark.text(self.text_head)} {lark.value(form)}"
        one = " | ".join(f"call{index}" for index in range(len(names)))
        return "\n".join([f"start: {called}{said}", f"call: {one}", *calls, *lark.rules])
