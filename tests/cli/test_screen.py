"""How answers appear."""
import io

import pytest
from rich.console import Console

from zonda.cli.screen import Markdown, Meter, Plain, finished_blocks
from zonda.types import Chunk, Usage


@pytest.mark.parametrize(("text", "done"), [
    ("", ""), ("one", ""), ("one\n", ""), ("one\n\n", "one\n\n"), ("one\n\ntwo", "one\n\n"),
    ("one\n  \ntwo", "one\n  \n"),
    ("a\n\n```\nb\n\nc", "a\n\n"), ("```\nb\n\n```\n\nc", "```\nb\n\n```\n\n"),
    ("~~~\n```\n\n~~~\n\nc", "~~~\n```\n\n~~~\n\n"),
    ("one\n\ntwo\n\nthree", "one\n\ntwo\n\n"),
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


def test_markdown_shows_each_block_once_at_the_end() -> None:
    out = io.StringIO()
    with Markdown(Console(file=out, width=40)) as screen:
        for piece in ("first ", "block\n", "\nsecond **bold**", " block"):
            screen.write(piece)
    assert out.getvalue().split() == ["first", "block", "second", "bold", "block"]


def test_the_meter_counts_tokens_and_keeps_the_text() -> None:
    meter = Meter()
    meter.add(Chunk(0, "a", (1,)))
    meter.add(Chunk(0, "b", (2, 3), usage=Usage(prompt_tokens=7)))
    assert meter.text == "ab"
    assert meter.line().startswith("3 tokens, ") and "prompt 7 tokens" in meter.line()


def test_an_empty_answer_has_no_speed() -> None:
    assert "tok/s" not in Meter().line()
