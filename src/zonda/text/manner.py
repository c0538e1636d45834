"""How a model writes its answers: what is text in them, what reasoning, and what a tool call."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zonda.text import dialects, reasoning
from zonda.text.dialects.dialect import Dialect
from zonda.text.dialects.lark import Lark
from zonda.text.dialects.tools import Tools
from zonda.text.parts import Parser, Part, Text
from zonda.text.reader import Reader, Reading, Steps, spoken
from zonda.text.reasoning import Reasoning
from zonda.text.writer import Writer

Find = Callable[[str], int | None]
"""From a token's text to its id."""


class Plain:
    """The parser of answers that are text alone."""

    thinking = False

    def feed(self, text: str) -> Sequence[Part]:
        return (Text(text),) if text else ()

    def finish(self, *, cut: bool = False) -> Sequence[Part]:
        return ()


@dataclass(frozen=True, slots=True)
class Manner:
    """The way of one model."""

    dialect: Dialect
    reasoning: Reasoning | None
    thinks: bool = False
    """The template has a switch for reasoning, and the model reasons unless it is off."""

    @property
    def reasons(self) -> bool:
        """Whether there may be reasoning before an answer."""
        return bool(self.reasoning or self.dialect.reasons)

    @property
    def style(self) -> Reasoning | None:
        """How it reasons."""
        return self.dialect.own or self.reasoning

    @property
    def _always(self) -> bool:
        """Whether the dialect has a say in answers without tools."""
        return self.dialect.reasons or bool(self.dialect.style)

    def marks(self, *, tools: bool) -> tuple[str, ...]:
        """Special tokens that belong to the text."""
        calls = self.dialect.marks if tools or self._always else ()
        return (*calls, *(self.reasoning.marks if self.reasoning else ()))

    def parser(self, prompt: str, tools: Tools) -> Parser:
        """A parser of one answer to a prompt, of which the end counts."""
        if not tools and not self.reasons and not self._always:
            return Plain()
        opened = bool(self.reasoning and self.reasoning.opened(prompt))

        def script(reader: Reader, writer: Writer) -> Steps[None]:
            if self.reasoning:
                yield from reasoning.think(reader, writer, self.reasoning, opened=opened,
                                           ends=self.dialect.ends if tools else ())
            if tools or self._always:
                yield from self.dialect.script(reader, writer, tools)
            yield from spoken(reader, writer)

        reading = Reading(script)
        reading.writer.thinking = opened
        return reading

    def lead(self, prompt: str, *, formed: bool, silent: bool = False) -> str:
        """What the answer to a prompt begins with where a grammar holds it; `formed` says that it is the text's form.

        A grammar begins after the reasoning, which is therefore opened for a model that would open it itself, unless
        it is asked to be `silent`.
        """
        if self.dialect.reasons:
            return self.dialect.text_head if formed else ""
        if silent or not (self.reasoning and self.thinks) or self.reasoning.opened(prompt):
            return ""
        return "" if prompt.rstrip().endswith(self.reasoning.close) else f"{self.reasoning.open}\n"

    def head(self, prompt: str) -> str:
        """What goes between a prompt and an answer's text, with no reasoning before it."""
        if self.dialect.reasons:
            return self.dialect.text_head
        return f"{self.reasoning.close}\n\n" if self.reasoning and self.reasoning.opened(prompt) else ""

    def closing(self, prompt: str, token: Find) -> int | str | None:
        """The token, or else the text, that ends the reasoning which a prompt has opened; None where it has not."""
        if not self.reasoning or not self.reasoning.opened(prompt):
            return None
        found = token(self.reasoning.close)
        return self.reasoning.close if found is None else found

    def closings(self, *, tools: bool, bound: bool) -> tuple[str, ...]:
        """What ends reasoning that has become too long: at first, and when it has begun again nonetheless.

        `bound` says that a grammar holds what follows. Where tools may be called, the end leaves that open at first.
        """
        if self.style is None:
            return ()
        end = self.style.before + self.style.close
        if bound:
            return (end,)
        end += self.style.after
        head = self.dialect.text_head
        return (end, end + head) if tools and head else (end + head,)

    def held(self, tools: Tools, special: Find, tokens: Iterable[int], prompt: str) -> str:
        """A Lark grammar of free answers to a prompt, in which calls fit the tools that hold to their schemas.

        `tokens` are all special tokens.
        """
        style = self.reasoning
        lark = Lark((*self.dialect.marks, *(style.marks if style else ())), special)
        return self.dialect.held(lark, tools, tokens, style, opened=bool(style and style.opened(prompt)))

    def forced(self, tools: Tools, special: Find, *, many: bool, form: Mapping[str, Any] | None = None) -> str:
        """A Lark grammar of answers that call tools, or are JSON of the schema `form`."""
        return self.dialect.grammar(Lark(self.dialect.marks, special), tools, many=many, form=form)


def find(sources: Mapping[str, str], token: Find, *, dialect: str | None = None,
         style: str | None = None) -> Manner:
    """The manner that a model's chat templates show, but for what is named."""
    template = "\n".join(sources.values())
    chosen = dialects.named(dialect) if dialect else dialects.find(template)
    style = style or chosen.style
    found = reasoning.named(style) if style else reasoning.find(template, token)
    return Manner(chosen, None if chosen.reasons else found, thinks="enable_thinking" in template)
