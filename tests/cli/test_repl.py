"""The conversation on a real (pseudo) terminal."""
from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from emulator import PATIENCE, Terminal

if sys.platform == "win32":
    pytest.skip("no pseudo terminals", allow_module_level=True)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    env = {**os.environ, "ZONDA_CONFIG": str(tmp_path), "PROMPT_TOOLKIT_NO_CPR": "1", "TERM": "xterm"}
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


def test_a_file_gets_the_answers_alone(tmp_path: Path) -> None:
    program, said = Path(__file__).with_name("conversation.py"), tmp_path / "said.txt"
    env = {**os.environ, "ZONDA_CONFIG": str(tmp_path), "PROMPT_TOOLKIT_NO_CPR": "1", "TERM": "xterm"}
    terminal = Terminal(["sh", "-c", f"{sys.executable} {program} > {said}"], env)
    try:
        terminal.wait(">")
        terminal.type("v\r")
        terminal.wait("tok/s")
        terminal.type("\x04")
        assert terminal.program.wait(PATIENCE) == 0
    finally:
        terminal.close()
    assert said.read_text() == "wxyz\nleft\n"


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
