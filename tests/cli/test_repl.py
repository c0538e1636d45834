"""The conversation on a real (pseudo) terminal."""
from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("no pseudo terminals", allow_module_level=True)

PATIENCE = 60  # seconds
_ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[a-zA-Z~]|[=>]|\][^\x07]*\x07)")


class Terminal:
    """A program on a pseudo terminal: type to it, wait for what it shows."""

    def __init__(self, command: list[str], env: dict[str, str]) -> None:
        import pty

        self._own, other = pty.openpty()
        self.program = subprocess.Popen(command, stdin=other, stdout=other, stderr=other, env=env,
                                        start_new_session=True, preexec_fn=_take_terminal)
        os.close(other)
        self._shown = ""

    def type(self, text: str) -> None:
        self._shown = ""
        os.write(self._own, text.encode())

    def wait(self, text: str) -> str:
        """Everything shown since the last typing, once `text` is among it."""
        end = time.monotonic() + PATIENCE
        while text not in self._shown:
            ready, _, _ = select.select([self._own], [], [], max(0, end - time.monotonic()))
            assert ready, f"no {text!r} in {self._shown!r}"
            self._shown += _ESCAPES.sub("", os.read(self._own, 4096).decode(errors="replace"))
        return self._shown

    def close(self) -> None:
        self.program.kill()
        self.program.wait()
        os.close(self._own)


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    env = {**os.environ, "ZONDA_CONFIG": str(tmp_path), "PROMPT_TOOLKIT_NO_CPR": "1", "TERM": "xterm", "COLUMNS": "100"}
    terminal = Terminal([sys.executable, str(Path(__file__).with_name("conversation.py"))], env)
    try:
        terminal.wait(">")
        yield terminal
    finally:
        terminal.close()


def test_a_conversation_answers_takes_commands_and_leaves(terminal: Terminal, tmp_path: Path) -> None:
    terminal.type("v\r")
    assert "wxyz" in terminal.wait("tok/s")
    terminal.type("/topk 3\r")
    terminal.wait("top_k = 3")
    terminal.type("/system\r")
    terminal.wait("no system message")
    terminal.type("/exit\r")
    terminal.wait("left")
    assert terminal.program.wait(PATIENCE) == 0
    assert "+v" in (tmp_path / "history.txt").read_text()


def test_an_interrupt_stops_the_answer_and_not_the_program(terminal: Terminal) -> None:
    terminal.type("a\r")
    terminal.wait("bc")
    terminal.type("\x03")
    shown = terminal.wait("stopped")
    assert "z" not in shown
    terminal.wait(">")
    terminal.type("/clear\r")
    terminal.wait("forgotten")
    terminal.type("x\r")
    assert "yz" in terminal.wait("tok/s")


def test_commands_are_completed(terminal: Terminal) -> None:
    terminal.type("/he\t")
    terminal.wait("lp")
    terminal.type("\r")
    terminal.wait("Alt-Enter")


def test_the_end_of_input_leaves(terminal: Terminal) -> None:
    terminal.type("\x04")
    terminal.wait("left")
    assert terminal.program.wait(PATIENCE) == 0


def test_a_backslash_or_alt_enter_begins_another_line(terminal: Terminal) -> None:
    terminal.type("A\\\r")
    terminal.wait("A")
    terminal.type("B\x1b\r")
    terminal.wait("B")
    terminal.type("w\r")
    assert "prompt 5 tokens" in terminal.wait("tok/s, ") + terminal.wait("first after")
