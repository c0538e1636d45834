"""As much of a terminal as the command line's output asks for: what is on the screen, and what has scrolled off it."""
from __future__ import annotations

import codecs
import os
import re
import select
import struct
import subprocess
import time
from contextlib import suppress

PATIENCE = 60  # seconds
_ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[a-zA-Z~]|[=>]|\][^\x07]*\x07)")
_PIECES = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|\x1b[=>78]|\x1b\][^\x07]*\x07|.", re.DOTALL)
_UNFINISHED = re.compile(r"\x1b(\[[0-9;?]*|\][^\x07]*)?$")


class Screen:
    """A grid of characters and a cursor, which waits at the margin after the last column, as terminals do."""

    def __init__(self, width: int, height: int = 24) -> None:
        self.width = width
        self.height = height
        self.rows = [[" "] * width for _ in range(height)]
        self.gone: list[str] = []
        """Rows that have scrolled off the top."""
        self.x = self.y = 0
        self._cut = ""
        self.cursor = True
        """Whether the cursor is shown."""

    def feed(self, text: str) -> None:
        """Take what a program writes; a command that is cut off goes on with the next call."""
        text, self._cut = self._cut + text, ""
        if unfinished := _UNFINISHED.search(text):
            text, self._cut = text[:unfinished.start()], unfinished[0]
        for piece in _PIECES.finditer(text):
            if piece[2]:
                self._command(piece[2], [int(each) for each in re.findall(r"\d+", piece[1])])
            elif piece[0] == "\r":
                self.x = 0
            elif piece[0] == "\b":
                self.x = max(0, min(self.x, self.width - 1) - 1)
            elif piece[0] == "\n":
                self._down()
            elif piece[0] >= " ":
                self._put(piece[0])

    def _put(self, letter: str) -> None:
        if self.x == self.width:
            self.x = 0
            self._down()
        self.rows[self.y][self.x] = letter
        self.x += 1

    def _down(self) -> None:
        if self.y + 1 < self.height:
            self.y += 1
            return
        self.gone.append("".join(self.rows.pop(0)).rstrip())
        self.rows.append([" "] * self.width)

    def _command(self, name: str, numbers: list[int]) -> None:
        count = max(1, numbers[0] if numbers else 1)
        if name == "A":
            self.y = max(0, self.y - count)
        elif name == "B":
            self.y = min(self.height - 1, self.y + count)
        elif name == "C":
            self.x = min(self.width - 1, self.x + count)
        elif name == "D":
            self.x = max(0, min(self.x, self.width - 1) - count)
        elif name == "G":
            self.x = count - 1
        elif name == "H":
            self.y, self.x = count - 1, (numbers[1] if len(numbers) > 1 else 1) - 1
        elif name in "hl" and numbers == [25]:
            self.cursor = name == "h"
        elif name in "JK":
            self._erase(name, numbers[0] if numbers else 0)

    def _erase(self, name: str, how: int) -> None:
        row = self.rows[self.y]
        if how == 0:
            row[self.x:] = [" "] * len(row[self.x:])
        else:
            row[:] = [" "] * self.width
        if name == "J":
            for below in self.rows[self.y + 1:]:
                below[:] = [" "] * self.width

    @property
    def lines(self) -> list[str]:
        """All that can be seen, scrolling up included, without what is empty at the end."""
        shown = [*self.gone, *("".join(row).rstrip() for row in self.rows)]
        while shown and not shown[-1]:
            shown.pop()
        return shown


class Terminal:
    """A program on a pseudo terminal: type to it, wait for what it shows; `screen` is how that looks."""

    def __init__(self, command: list[str], env: dict[str, str] | None = None, *, width: int = 100) -> None:
        import fcntl
        import pty
        import termios

        self.own, other = pty.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
        self.program = subprocess.Popen(command, stdin=other, stdout=other, stderr=other, env=env,
                                        start_new_session=True, preexec_fn=_take_terminal)
        os.close(other)
        self.screen = Screen(width)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._shown = ""

    def type(self, text: str) -> None:
        self._shown = ""
        os.write(self.own, text.encode())

    def wait(self, text: str) -> str:
        """Everything shown since the last typing, once `text` is among it."""
        end = time.monotonic() + PATIENCE
        while text not in self._shown:
            ready, _, _ = select.select([self.own], [], [], max(0, end - time.monotonic()))
            assert ready, f"no {text!r} in {self._shown[-500:]!r}"
            written = self._decoder.decode(os.read(self.own, 4096))
            self.screen.feed(written)
            self._shown += _ESCAPES.sub("", written)
        return self._shown

    def drain(self) -> None:
        """Take what a program that has ended has shown."""
        with suppress(OSError):  # Linux tells so that nobody writes any more
            while written := os.read(self.own, 4096):
                self.screen.feed(self._decoder.decode(written))

    def close(self) -> None:
        self.program.kill()
        self.program.wait()
        os.close(self.own)


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
