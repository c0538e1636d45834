"""Reasoning before an answer: how models mark it, and how it is told from the answer."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from zonda.errors import InvalidRequest
from zonda.text.reader import Marks, Reader, Steps
from zonda.text.writer import Writer

_LAST = 64  # characters at the end of a prompt in which a template may have opened the reasoning


@dataclass(frozen=True, slots=True)
class Reasoning:
    """What opens reasoning and what closes it. `title` may follow the opening, `wrap` may surround the answer; `before`
    and `after` are what models write around the closing."""

    name: str
    open: str
    close: str
    title: str = ""
    wrap: tuple[tuple[str, str], ...] = ()
    before: str = ""
    after: str = ""

    @property
    def marks(self) -> tuple[str, ...]:
        """Tokens that must stay visible."""
        return (self.open, self.close, *(mark for pair in self.wrap for mark in pair))

    def opened(self, prompt: str) -> bool:
        """Whether a prompt ends with the beginning of reasoning."""
        end = prompt[-_LAST:].rstrip()
        return end.endswith(self.open) or bool(self.title and end.endswith(self.open + self.title))


_WRAPS = (("<answer>", "</answer>"), ("<response>", "</response>"))
STYLES = (
    Reasoning("seed", "<seed:think>", "</seed:think>"),
    Reasoning("magistral", "[THINK]", "[/THINK]"),
    Reasoning("command", "<|START_THINKING|>", "<|END_THINKING|>", wrap=(("<|START_RESPONSE|>", "<|END_RESPONSE|>"),)),
    Reasoning("gemma", "<|channel>", "<channel|>", title="thought"),
    Reasoning("medgemma", "<unused94>", "<unused95>", title="thought"),
    Reasoning("apertus", "<|inner_prefix|>", "<|inner_suffix|>"),
    Reasoning("kimi", "\u25c1think\u25b7", "\u25c1/think\u25b7"),
    Reasoning("kimi3", "<|open|>think<|sep|>", "<|close|>think<|sep|>"),
    Reasoning("minimax3", "<mm:think>", "</mm:think>"),
    Reasoning("hy3", "<think:opensource>", "</think:opensource>"),
    Reasoning("exaone", "<thought>", "</thought>", before="\n", after="\n\n"),
    Reasoning("granite", "Here is my thought process:", "Here is my response:", before="\n\n", after="\n\n"),
    Reasoning("think", "<think>", "</think>", wrap=_WRAPS, before="\n", after="\n\n"),
)
"""In the order in which they are looked for in a template."""
NONE = "none"
NAMES = (*(each.name for each in STYLES), "harmony", NONE)


def find(template: str, token: Callable[[str], int | None]) -> Reasoning | None:
    """The way of reasoning that a template shows, or a vocabulary that has both marks as tokens."""
    known = (each for each in STYLES if each.open in template or each.close in template
             or (token(each.open) is not None and token(each.close) is not None and each.name != "medgemma"))
    return next(known, None)


def named(name: str) -> Reasoning | None:
    """The way of reasoning of this name; None for `none` and for `harmony`, which is a dialect of its own."""
    if name not in NAMES:
        raise InvalidRequest(f"no reasoning format {name!r}", hint=f"known: {', '.join(NAMES)}", param="reasoning")
    return next((each for each in STYLES if each.name == name), None)


def think(reader: Reader, writer: Writer, style: Reasoning, *, opened: bool, ends: tuple[str, ...]) -> Steps[None]:
    """Read the reasoning at the beginning, if there is any; a mark of `ends` ends it too, and is read again."""
    reader.record()
    yield from reader.space()
    found = yield from reader.literal(style.open)  # also where the prompt has opened it: some models say it again
    begun = reader.recorded()
    if not found and not opened:
        writer.text(begun)
        return
    writer.think()
    yield from reader.space()
    if style.title:
        yield from reader.literal(style.title)
    mark = yield from reader.until(Marks(style.close, *ends), writer.thought)
    if not mark and reader.ended:
        return
    writer.speak()
    if mark in ends:
        reader.unread(mark)
        return
    yield from reader.space()
    yield from reader.literal(style.close)  # again, as models write it after an end that was not their own
    yield from _unwrap(reader, writer, style)


def _unwrap(reader: Reader, writer: Writer, style: Reasoning) -> Steps[None]:
    yield from reader.space()
    opening = yield from reader.literal(*(pair[0] for pair in style.wrap))
    reader.ignored = tuple(pair[1] for pair in style.wrap if pair[0] == opening)
