"""What stays on a terminal, however narrow, of what is drawn on it anew and vanishes."""
from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable, Iterator

import pytest
from emulator import Screen, Terminal
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.console import Console

from zonda.cli.markdown import Markdown

if sys.platform == "win32":
    pytest.skip("no pseudo terminals", allow_module_level=True)

LOADS = """
import logging, time
from zonda.cli import main, progress
from zonda.terminal import lines

logging.basicConfig(handlers=[lines()], level="INFO", format="%(message)s")
main.GRACE = 60
print("$ begin", flush=True)
progress._DELAY = 0.0

def call():
    with progress.Bars() as bars:
        for done in range(10**9):
            bars("compiling kernels, once", done % 100, 100)
            if done == 10:
                logging.info("a line of a log")
            time.sleep(0.02)

main.call = call
try:
    main.main()
finally:
    print("end", flush=True)
"""
PULLS = """
import time
from zonda.cli import main
from zonda.weights.progress import bar

main.GRACE = 60
print("$ begin", flush=True)

def call():
    with bar("Downloading smollm2", 98_362_432) as update:
        try:
            for done in range(10**9):
                update(done * 20_000_000)
                time.sleep(0.02)
        except SystemExit:
            raise

main.call = call
try:
    main.main()
finally:
    print("end", flush=True)
"""
STUCK = PULLS.replace("GRACE = 60", "GRACE = 0.1").replace("raise", "time.sleep(60)")
WIDTHS = [20, 32, 80]


@pytest.fixture
def opened() -> Iterator[Callable[..., Terminal]]:
    """Starts a program on a terminal of some width, where a shell says that it is wider."""
    terminals: list[Terminal] = []

    def start(program: str, width: int = 100) -> Terminal:
        env = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "50"}
        terminals.append(Terminal([sys.executable, "-c", program], env, width=width))
        return terminals[-1]

    yield start
    for each in terminals:
        each.close()


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_left_of_a_bar_that_is_interrupted(opened: Callable[..., Terminal], width: int) -> None:
    terminal = opened(LOADS, width)
    terminal.wait("a line of a log")
    for _ in range(2):  # the first time it may be behind the line, within a write that is not over
        terminal.type("typed\r")
        terminal.wait("compiling")
    terminal.type("\x03")
    terminal.wait("end")
    assert terminal.screen.lines == ["$ begin", "a line of a log", "end"]
    assert terminal.program.wait() == 130


@pytest.mark.parametrize("width", WIDTHS)
def test_a_bar_takes_one_line_and_tells_how_much_is_done(opened: Callable[..., Terminal], width: int) -> None:
    terminal = opened(PULLS, width)
    terminal.wait("100%" if width < 60 else "98.4/98.4 MB")
    (line,) = terminal.screen.lines[1:]
    assert line.startswith("Downloading sm") and len(line) <= width
    terminal.type("\x03")
    terminal.wait("end")
    assert terminal.screen.lines == ["$ begin", "end"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_the_terminal_as_it_was(opened: Callable[..., Terminal], number: int) -> None:
    import termios

    terminal = opened(LOADS)
    terminal.wait("$ begin")
    before = termios.tcgetattr(terminal.own)
    terminal.wait("compiling")
    assert termios.tcgetattr(terminal.own) != before
    terminal.program.send_signal(number)
    terminal.wait("end")
    terminal.program.wait()
    assert termios.tcgetattr(terminal.own) == before


def test_a_command_that_has_to_be_cut_off_leaves_the_terminal_as_it_was(opened: Callable[..., Terminal]) -> None:
    import termios

    terminal = opened(STUCK, 40)
    terminal.wait("$ begin")
    before = termios.tcgetattr(terminal.own)
    terminal.wait("100%")
    terminal.type("\x03")
    assert terminal.program.wait() == 130
    terminal.drain()
    assert terminal.screen.lines == ["$ begin"] and terminal.screen.cursor
    assert termios.tcgetattr(terminal.own) == before


PIECES = ["word ", "longerwordthanusual ", "**bold** ", "`code` ", "\n", "\n\n", "- item\n", "# Head\n", "> quote\n",
          "```py\n", "x = 1\n", "```\n", "| a | b |\n|---|---|\n| 1 | some words |\n", "\t", "x" * 50, "---\n"]


@settings(max_examples=30, deadline=None)
@example(20, 5, ["word ", "longerwordthanusual "], PIECES)
@given(st.integers(20, 40), st.sampled_from([5, 24]), st.lists(st.sampled_from(PIECES[:6]), max_size=6),
       st.lists(st.sampled_from(PIECES), max_size=20))
def test_an_answer_that_grew_looks_as_if_it_had_come_at_once(width: int, height: int, thoughts: list[str],
                                                            pieces: list[str]) -> None:
    def drawn(*, lively: bool) -> list[str]:
        out, screen = io.StringIO(), Screen(width, height)
        markdown = Markdown(Console(file=out, width=width, height=height, force_terminal=lively, color_system=None))
        markdown._live.auto_refresh = False
        with markdown:
            for take, texts in ((markdown.think, thoughts), (markdown.write, pieces)):
                for text in texts:
                    take(text)
                    if lively:
                        markdown._live.refresh()
        screen.feed(out.getvalue().replace("\n", "\r\n"))
        return screen.lines

    assert drawn(lively=True) == drawn(lively=False)
