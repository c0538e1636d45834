"""`zonda run` with one prompt, over a model that knows the alphabet."""
from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from letters import LettersRunner, LettersTemplate, LettersTokenizer, letters_engine

from zonda import LLM, ModelNotFound
from zonda.cli import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def runners(monkeypatch: pytest.MonkeyPatch) -> list[LettersRunner]:
    """The runners below the models that commands have loaded."""
    runners: list[LettersRunner] = []

    def load(*options: Any) -> LLM:
        runners.append(LettersRunner())
        texts: Any = LettersTokenizer(), LettersTemplate()
        return LLM.from_parts(letters_engine(runners[-1]), *texts, name="letters")

    monkeypatch.setattr("zonda.cli.run.load", load)
    return runners


@pytest.fixture
def run(runners: list[LettersRunner], capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*args: str) -> tuple[int, str, str]:
        code = main.call(["run", "-m", "letters", *args])
        return code, *capsys.readouterr()

    return call


def test_the_answer_goes_to_standard_output_and_its_speed_to_standard_error(run: Run) -> None:
    code, out, err = run("-i", "w")
    assert (code, out) == (0, "xyz\n")
    assert err.startswith("4 tokens, ") and "tok/s" in err and "prompt 1 tokens" in err


def test_the_model_is_closed_after_the_answer(run: Run, runners: list[LettersRunner]) -> None:
    run("-i", "w")
    assert [runner.closed for runner in runners] == [True]


def test_standard_input_is_the_prompt_without_another(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"x")))
    assert run()[1] == "yz\n"


def test_an_input_that_is_no_text_is_told_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a\xff"), "utf-8", "surrogateescape"))
    code, _, err = run("-i", "-")
    assert code == 1 and "error: standard input is no text in utf-8: invalid start byte at byte 1" in err


def test_a_dash_reads_standard_input(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"x")))
    assert run("-i", "-")[1] == "yz\n"


def test_empty_standard_input_is_an_error(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\n")))
    code, out, err = run()
    assert (code, out) == (1, "") and "hint: give it with `-i TEXT`" in err


def test_sampling_flags_reach_the_request(run: Run) -> None:
    assert run("-i", "a", "--max-tokens", "3")[1] == "bcd\n"
    assert run("-i", "a", "--stop", "de")[1] == "bc\n"


def test_a_system_message_goes_before_the_prompt(run: Run) -> None:
    assert "prompt 3 tokens" in run("-i", "w", "--system", "AB")[2]


def test_raw_text_is_continued_without_the_template(run: Run) -> None:
    assert "prompt 2 tokens" in run("-i", "w", "--raw")[2]


def test_thinking_is_told_to_the_template(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    plain = LettersTemplate.render

    def render(self: LettersTemplate, messages: Any, **kwargs: Any) -> str:
        seen.append((kwargs.get("enable_thinking"), kwargs.get("reasoning_effort") or kwargs.get("thinking_budget")))
        return plain(self, messages)

    monkeypatch.setattr(LettersTemplate, "render", render)
    low = "--reasoning-effort", "low"
    for flags in ((), ("--thinking",), ("--no-thinking",), low, ("--reasoning-effort", "off"), ("--no-thinking", *low),
                  ("--thinking-budget", "9"), ("--thinking-budget", "0")):
        run("-i", "w", *flags)
    assert seen == [(None, None), (True, None), (False, None), (True, "low"), (False, None), (False, "low"), (None, 9),
                    (False, 0)]
    assert "contradict" in run("-i", "w", "--thinking", "--reasoning-effort", "off")[2]


def test_an_interrupt_ends_the_line_and_the_program(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: Any) -> Iterator[Any]:
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(LLM, "_chunks", interrupted)
    code, out, _ = run("-i", "w")
    assert (code, out) == (130, "\n")


def test_what_is_asked_and_answered_is_added_to_a_log(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    for text in ("w", "x"):
        run("-i", text, "--log", str(path))
    first, second = (json.loads(line) for line in path.read_text().splitlines())
    assert (first["model"], first["messages"]) == ("letters", [{"role": "user", "content": "w"}])
    assert (first["answer"], first["completion_tokens"], second["answer"]) == ("xyz", 4, "yz")


def test_a_log_that_cannot_be_written_is_told_before_the_model_is_loaded(
        run: Run, runners: list[LettersRunner], tmp_path: Path) -> None:
    code, out, err = run("-i", "w", "-l", str(tmp_path))
    assert (code, out, runners) == (1, "", []) and "cannot be written: Is a directory" in err


def test_a_schema_that_is_not_there_is_told_before_the_model_is_loaded(run: Run, runners: list[LettersRunner]) -> None:
    code, out, err = run("-i", "w", "--json-schema", "absent.json")
    assert code and not out and "absent.json cannot be read" in err and not runners


def test_a_model_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def load(*options: Any) -> LLM:
        raise ModelNotFound("no model 'x'", hint="look for it")

    monkeypatch.setattr("zonda.cli.run.load", load)
    assert main.call(["run", "-m", "x", "-i", "hi"]) == 1
    assert capsys.readouterr().err == "error: no model 'x'\nhint: look for it\n"
