"""A format in which models write tool calls, as data: how it is found, read, forced, and held to the tools."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from zonda.text.dialects.free import Calls, answers
from zonda.text.dialects.lark import Lark, either
from zonda.text.dialects.tools import Tools
from zonda.text.reader import Reader, Steps
from zonda.text.reasoning import Reasoning
from zonda.text.writer import Writer

MOST = 16
"""Calls that a forced answer may make: a small model would go on until its answer is cut."""
Script = Callable[[Reader, Writer, Tools], Steps[None]]
Form = Callable[[Lark, str, Mapping[str, Any]], str]
"""The Lark expression of one call, from the tool's name and its arguments' schema."""
Find = Callable[[Lark, Tools], Calls]
"""Where calls begin in a text that is free, and what follows."""


def one_of(lark: Lark, tools: Tools, form: Form, mark: str = "") -> str:
    """An expression of a call of one of the tools in this form, behind this mark of it."""
    calls = (lark.behind(mark, partial(form, lark, name, tools.schema(name))) for name in tools.functions)
    return lark.rule(either(map(lark.rule, calls)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One format.

    `tells` are texts of which one in a template shows the format, each a tuple of what must all be there. `marks` are
    the special tokens that it is read by; those of `ends` also end reasoning. A forced answer is `before`, calls with
    `between` them, `after`. In a free answer each of `openings` begins a call, or calls between `before` and `after`
    if it is in `before`; where that is not all, `finds` tells what begins calls, or `free` makes the whole grammar.
    `reasons` says that its script reads the whole answer, reasoning of the form `own` as well;
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
    openings: tuple[str, ...] = ()
    finds: Find | None = None
    free: Callable[[Lark, Tools, Iterable[int]], str] | None = None
    reasons: bool = False
    own: Reasoning | None = None
    text_head: str = ""
    style: str = ""

    def fits(self, template: str) -> bool:
        """Whether a chat template shows this format."""
        return any(all(text in template for text in texts) for texts in self.tells)

    def grammar(self, lark: Lark, tools: Tools, *, many: bool, form: Mapping[str, Any] | None = None) -> str:
        """A Lark grammar of answers that call one of the tools, or several, or are JSON of the schema `form`."""
        calls = self.calls(lark, tools, f"{{0,{MOST - 1}}}" if many else "")
        called = " ".join(filter(None, (lark.text(self.before), calls, lark.text(self.after))))
        said = "" if form is None else f" | {lark.text(self.text_head)} {lark.value(form)}"
        return "\n".join([f"start: {called}{said}", *lark.rules])

    def calls(self, lark: Lark, tools: Tools, more: str = "*") -> str:
        """An expression of calls, a first one and others as often as `more` says."""
        one = self.one(lark, tools)
        return f"{one} ({lark.text(self.between)} {one}){more}" if more else one

    def one(self, lark: Lark, tools: Tools, mark: str = "") -> str:
        """An expression of a call of one of the tools, behind this mark of it."""
        return one_of(lark, tools, self.form, mark)

    def held(self, lark: Lark, tools: Tools, special: Iterable[int], style: Reasoning | None = None, *,
             opened: bool = False) -> str:
        """A Lark grammar of answers that are free, but for calls, which have the arguments that `tools` hold to.

        There may be reasoning of a style, which the prompt may have `opened`. `special` are all special tokens.
        """
        loose = tools.loosened()
        if self.free:
            return self.free(lark, loose, special)
        calls = self.finds(lark, loose) if self.finds else self.found(lark, loose)
        return answers(lark, calls, special, style, ends=self.ends, opened=opened)

    def found(self, lark: Lark, tools: Tools) -> Calls:
        """Where calls begin by the openings."""
        return Calls(marks=[(mark, self._opened(lark, tools, mark)) for mark in self.openings])

    def _opened(self, lark: Lark, tools: Tools, mark: str) -> str:
        """What must follow an opening."""
        if mark not in self.before:
            return self.one(lark, tools, mark)
        before = lark.behind(mark, lambda: lark.text(self.before))
        return f"{before} {self.calls(lark, tools)} {lark.text(self.after)}"
