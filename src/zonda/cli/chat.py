"""A conversation at the prompt: its messages, its settings and the commands that change them. No IO."""
from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from zonda.types import Sampling

HELP = """\
/help               this list
/clear              forget the conversation
/system TEXT        set the system message; alone, remove it
/temperature X      0 to 2; alone, tell it
/topk N             0 for all
/topp X             above 0, up to 1
/exit               leave, as Ctrl-D does
Enter sends; Alt-Enter, or a backslash at the line's end, begins another line.
Ctrl-C stops the answer and keeps the conversation. A space before a slash makes it part of a message."""


class Chat:
    """Messages so far, and how the next answer is drawn. Commands return what to tell the user."""

    def __init__(self, sampling: Sampling, *, system: str | None = None) -> None:
        self.sampling = sampling
        self.left = False
        self._system = system
        self._turns: list[dict[str, Any]] = []

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The conversation, with its system message first."""
        head = [{"role": "system", "content": self._system}] if self._system else []
        return [*head, *self._turns]

    def ask(self, text: str) -> None:
        """Add what the user says."""
        self._turns.append({"role": "user", "content": text})

    def answered(self, text: str) -> None:
        """Add what the model said; an answer stopped before its first word takes the question with it."""
        if text:
            self._turns.append({"role": "assistant", "content": text})
        else:
            self._turns.pop()

    def command(self, line: str) -> str:
        """Carry out a line that begins with a slash."""
        word, _, rest = line[1:].partition(" ")
        if word not in COMMANDS:
            return f"unknown command /{word}; /help lists them, and a space before the slash makes it a message"
        return COMMANDS[word](self, rest.strip())

    def _help(self, rest: str) -> str:
        return HELP

    def _clear(self, rest: str) -> str:
        self._turns.clear()
        return "forgotten"

    def _exit(self, rest: str) -> str:
        self.left = True
        return ""

    def _set_system(self, rest: str) -> str:
        self._system = rest or None
        return "system message set" if rest else "no system message"

    def _temperature(self, rest: str) -> str:
        return self._set("temperature", rest, float, lambda x: 0 <= x <= 2, "a number from 0 to 2")

    def _topk(self, rest: str) -> str:
        return self._set("top_k", rest, int, lambda x: x >= 0, "a whole number, 0 for all")

    def _topp(self, rest: str) -> str:
        return self._set("top_p", rest, float, lambda x: 0 < x <= 1, "a number above 0, up to 1")

    def _set(self, name: str, text: str, kind: Callable[[str], Any], valid: Callable[[Any], bool],
             expected: str) -> str:
        if not text:
            return f"{name} = {getattr(self.sampling, name)}"
        try:
            value = kind(text)
            if not valid(value):
                raise ValueError
        except ValueError:
            return f"expected {expected}"
        self.sampling = dataclasses.replace(self.sampling, **{name: value})
        return f"{name} = {value}"


COMMANDS: Mapping[str, Callable[[Chat, str], str]] = {
    "help": Chat._help, "clear": Chat._clear, "system": Chat._set_system, "temperature": Chat._temperature,
    "topk": Chat._topk, "topp": Chat._topp, "exit": Chat._exit}
