"""How answers appear."""
import io
import signal

import pytest
from rich.console import Console

from zonda.cli.ask import show
from zonda.cli.markdown import Block, Markdown, finished_blocks, whole
from zonda.cli.screen import Meter, Plain
from zonda.text.parts import Text, Thought
from zonda.turns import Spoken
from zonda.types import Chunk, Usage


@pytest.mark.parametrize(("text", "done"), [
    ("", ""), ("one", ""), ("one\n", ""), ("one\n\n", "one\n\n"), ("one\n\ntwo", "one\n\n"),
    ("one\n  \ntwo", "one\n  \n"),
    ("a\n\n```\nb\n\nc", "a\n\n"), ("```\nb\n\n```\n\nc", "```\nb\n\n```\n\n"),
    ("~~~\n```\n\n~~~\n\nc", "~~~\n```\n\n~~~\n\n"),
    ("one\n\ntwo\n\nthree", "one\n\ntwo\n\n"),
    ("Here:\n```py\na\n\nb", "Here:\n"), ("- a\n  ```\n  b\n\n  c", ""),
    ("````\n```\n\n````\n\nc", "````\n```\n\n````\n\n"),
    ("```\n``` `\n\na", ""), ("a ``` b\n\nc", "a ``` b\n\n"),
])
def test_markdown_is_cut_after_its_last_finished_block(text: str, done: str) -> None:
    assert finished_blocks(text) == (done, text[len(done):])


def test_plain_text_is_written_as_it_is_and_ends_its_line() -> None:
    out = io.StringIO()
    with Plain(out) as screen:
        for piece in ("a", "", "*b*"):
            screen.write(piece)
    assert out.getvalue() == "a*b*\n"


def test_plain_text_that_ends_its_line_gets_no_other() -> None:
    out = io.StringIO()
    with Plain(out) as screen:
        screen.write("a\n")
    assert out.getvalue() == "a\n"


def test_nothing_is_written_where_an_error_came_before_the_first_word() -> None:
    for piece, written in (("", ""), ("a", "a\n")):
        out = io.StringIO()
        with pytest.raises(ValueError), Plain(out) as screen:
            screen.write(piece)
            raise ValueError
        assert out.getvalue() == written


def test_reasoning_without_an_answer_ends_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    with Plain() as screen:
        screen.think("Hm")
    assert capsys.readouterr() == ("\n", "Hm\n\n")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_model_cannot_command_the_terminal() -> None:
    text = "a\x1b]52;c;ZXZpbA==\x07b\x9b2Jc\rd\r\n\te"
    plain, piped, drawn = Terminal(), io.StringIO(), Terminal()
    with Plain(plain) as screen:
        screen.write(text)
    assert plain.getvalue() == "a\u241b]52;c;ZXZpbA==\u2407b\ufffd2Jcd\n\te\n"
    with Plain(piped) as screen:
        screen.write(text)
    assert piped.getvalue() == text + "\n"
    with Markdown(Console(file=drawn, width=80, force_terminal=False)) as screen:
        screen.think(text)
        screen.write(text)
    assert drawn.getvalue().count("\u241b]52") == 2 and not {"\x1b", "\x07", "\x9b", "\r"} & set(drawn.getvalue())


def test_markdown_shows_each_block_once_at_the_end() -> None:
    out = io.StringIO()
    with Markdown(Console(file=out, width=40)) as screen:
        for piece in ("first ", "block\n", "\nsecond **bold**", " block"):
            screen.write(piece)
    assert out.getvalue().split() == ["first", "block", "second", "bold", "block"]


def test_one_empty_line_is_between_blocks_and_headings_are_at_the_left() -> None:
    out = io.StringIO()
    with Markdown(Console(file=out, width=30)) as screen:
        screen.think("Well.\n")
        screen.write("# Title\n\none\n\n- two\n\n| a |\n|---|\n| b |\n\nthree [here](https://d.example)\n")
    assert [line.rstrip() for line in out.getvalue().splitlines()] == [
        "Well.", "", "Title", "", "one", "", " • two", "", " a", " ─", " b", "", "three here (https://d.example)"]


def test_of_code_that_is_taller_than_the_terminal_the_end_is_seen_while_it_grows() -> None:
    console = Console(file=io.StringIO(), width=30, height=8)
    text = "```py\n" + "".join(f"line {count}\n" for count in range(50))
    with console.capture() as shown:
        console.print(Block(text, apart=True, grows=True))
    lines = shown.get().split("\n")
    assert "line 49" in shown.get() and len(lines) <= 9
    with console.capture() as shown:
        console.print(Block(text, apart=False))
    assert shown.get().count("line") == 50


def test_an_interrupt_waits_until_what_is_drawn_is_whole() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), whole():
        signal.raise_signal(signal.SIGINT)
        done.append("drawn")
    assert done == ["drawn"]


def test_the_meter_counts_tokens_and_keeps_the_text() -> None:
    meter = Meter()
    meter.add(Chunk(0, "a", (1,)), "a")
    meter.add(Chunk(0, "b", (2, 3), usage=Usage(prompt_tokens=7)), "b")
    assert meter.text == "ab"
    assert meter.line().startswith("3 tokens, ") and "prompt 7 tokens" in meter.line()


def test_an_empty_answer_has_no_speed() -> None:
    assert "tok/s" not in Meter().line()


def test_reasoning_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with Plain() as screen:
        screen.think("Hm, ")
        screen.think("so.")
        screen.write("")
        screen.write("Yes")
    assert capsys.readouterr() == ("Yes\n", "Hm, so.\n\n")


def test_reasoning_is_dimmed_before_the_markdown() -> None:
    out = io.StringIO()
    with Markdown(Console(file=out, force_terminal=True, width=40)) as screen:
        screen.think("Hm\nso")
        screen.write("**Yes**")
    text = out.getvalue()
    assert "\x1b[2mHm\x1b[0m" in text and text.rindex("so") < text.rindex("Yes")


def test_an_answers_reasoning_is_shown_and_not_kept() -> None:
    class Recorder(Plain):
        def think(self, text: str) -> None:
            thoughts.append(text)

    thoughts: list[str] = []
    out, meter = io.StringIO(), Meter()
    spoken = (Spoken(0, (Thought("why"), Text("so")), Chunk(0, "<think>why</think>so", (1,))) for _ in range(1))
    show(spoken, Recorder(out), meter)
    assert (thoughts, out.getvalue(), meter.text) == (["why"], "so\n", "so")
