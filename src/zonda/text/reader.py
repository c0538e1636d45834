"""Text that is read while it is written: a parser is a generator that yields where it needs more."""
from __future__ import annotations

import re
from collections.abc import Callable, Generator, Sequence
from functools import cached_property
from typing import TypeVar

from zonda.text.parts import Part
from zonda.text.writer import Writer

T = TypeVar("T")
Steps = Generator[None, None, T]
Sink = Callable[[str], None]
_SPACE = re.compile(r"\s*")
_ALL = re.compile("(?s).*")


class Marks:
    """Texts to look for. None may be found inside another."""

    def __init__(self, *texts: str) -> None:
        self.texts = texts
        self.longest = max(map(len, texts))

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        return re.compile("|".join(map(re.escape, self.texts)))

    def begun(self, text: str, start: int) -> int:
        """How many characters at the end of a text may begin a mark."""
        tail = text[max(start, len(text) - self.longest + 1):]
        return max((len(tail) - at for at in range(len(tail)) if any(t.startswith(tail[at:]) for t in self.texts)),
                   default=0)


class Reader:
    """The text so far, read from its beginning. What is read is kept while `record` asks for it."""

    def __init__(self) -> None:
        self.ended = False
        self.cut = False
        """Whether the end is not where the model would have ended."""
        self.ignored: tuple[str, ...] = ()
        """Marks in the answer that are no part of it."""
        self._text = ""
        self._at = 0
        self._log: list[str] | None = None
        self._marked = False

    def push(self, text: str) -> None:
        """Add text at the end."""
        self._text, self._at = self._text[self._at:] + text, 0

    def record(self, *before: str) -> None:
        """Keep what is read from here on, behind `before`."""
        self._log, self._marked = list(before), self._marked or any(before)

    def recorded(self) -> str:
        """What was read since `record`; ends the recording. Behind a mark, what was cut short is nothing."""
        log, self._log = self._log or [], None
        return "" if self.cut and self._marked and self._at >= len(self._text) else "".join(log)

    def take(self, count: int) -> str:
        """Read characters that are there."""
        piece = self._text[self._at:self._at + count]
        self._at += len(piece)
        if self._log is not None:
            self._log.append(piece)
        return piece

    def peek(self) -> Steps[str]:
        """The next character, unread; empty at the end."""
        while self._at >= len(self._text) and not self.ended:
            yield
        return self._text[self._at:self._at + 1]

    def run(self, pattern: re.Pattern[str]) -> str:
        """Read what is there of a run of characters; `pattern` must match any part of one."""
        found = pattern.match(self._text, self._at)
        return self.take(found.end() - self._at) if found else ""

    def word(self, pattern: re.Pattern[str]) -> Steps[str]:
        """Read a whole run of at most 256 characters that match one by one."""
        word = ""
        while len(word) < 256 and pattern.match((yield from self.peek())):
            word += self.take(1)
        return word

    def space(self) -> Steps[None]:
        """Read over white space."""
        while (yield from self.peek()).isspace():
            self.run(_SPACE)

    def literal(self, *texts: str) -> Steps[str]:
        """Read the first of these texts that comes next; empty, and nothing read, if none does."""
        while True:
            for text in texts:
                if self._text.startswith(text, self._at):
                    self.take(len(text))
                    return text
                if not self.ended and text.startswith(self._text[self._at:self._at + len(text)]):
                    break
            else:
                return self._drop(texts)
            yield

    def _drop(self, texts: Sequence[str]) -> str:
        """Read over the beginning of one of the texts if the answer was cut in it."""
        left = self._text[self._at:] if self.cut else ""
        self.take(len(left) if any(text.startswith(left) for text in texts) else 0)
        return ""

    def until(self, marks: Marks, sink: Sink) -> Steps[str]:
        """Read up to and over the first mark, which is returned, or to the end; the text before goes to `sink`."""
        while True:
            found = marks.pattern.search(self._text, self._at)
            if found:
                self._pass(found.start() - self._at, sink)
                return self.take(len(found[0]))
            begun = marks.begun(self._text, self._at)
            keep = begun if not self.ended or (self.cut and begun > 1) else 0
            self._pass(len(self._text) - self._at - keep, sink)
            if self.ended:
                self.take(keep)
                return ""
            yield

    def unread(self, text: str) -> None:
        """Put back what was read last."""
        self._text, self._at = text + self._text[self._at:], 0

    def _pass(self, count: int, sink: Sink) -> None:
        if count > 0:
            sink(self.take(count))


def spoken(reader: Reader, writer: Writer, *marks: str) -> Steps[str]:
    """Read the answer's text up to and over one of the marks, or to the end."""
    if not marks and not reader.ignored:
        yield from rest(reader, writer.text)
        return ""
    wanted = Marks(*marks, *reader.ignored)
    while True:
        mark = yield from reader.until(wanted, writer.text)
        if mark not in reader.ignored:
            return mark
        writer.trim()


def rest(reader: Reader, sink: Sink) -> Steps[None]:
    """Read to the end."""
    while (yield from reader.peek()):
        sink(reader.run(_ALL))


class Reading:
    """A `Parser` made of a generator that reads and writes."""

    def __init__(self, script: Callable[[Reader, Writer], Steps[None]]) -> None:
        self.reader, self.writer = Reader(), Writer()
        self._steps: Steps[None] | None = script(self.reader, self.writer)

    @property
    def thinking(self) -> bool:
        return self.writer.thinking

    def feed(self, text: str) -> Sequence[Part]:
        """Take in more text; returns what is now sure."""
        self.reader.push(text)
        self._step()
        return self.writer.taken()

    def finish(self, *, cut: bool = False) -> Sequence[Part]:
        """What was kept back, when no more text comes."""
        self.reader.ended, self.reader.cut = True, cut
        self._step()
        self.writer.close()
        return self.writer.taken()

    def _step(self) -> None:
        try:
            if self._steps is not None:
                next(self._steps)
        except StopIteration:
            self._steps = None
