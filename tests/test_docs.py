"""What the README and docs/ show: Python that runs, command lines that are understood, options that exist."""
from __future__ import annotations

import re
import runpy
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydantic
import pytest

import zonda
from zonda import LLM
from zonda.cli.commands import COMMANDS, cli

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LOADS = re.compile(r'\b(LLM|AsyncLLM\.load)\("[^"]*"(?:, max_seq_len=\d+)?\)')
PROMPT = re.compile(r"zonda (.*?)(?:\s+#.*)?")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")


def blocks(language: str) -> list[Any]:
    found = [(page.name, block) for page in PAGES
             for block in re.findall(rf"```{language}\n(.*?)```", page.read_text("utf-8"), re.DOTALL)]
    return [pytest.param(block, id=f"{name}-{index}") for index, (name, block) in enumerate(found)]


@pytest.mark.e2e
@pytest.mark.parametrize("block", blocks("python"))
def test_the_python_runs(block: str, real_model: Callable[[str], Path], tmp_path: Path,
                         capsys: pytest.CaptureFixture[str]) -> None:
    model = str(real_model("smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"))
    page = tmp_path / "page.py"
    page.write_text(LOADS.sub(rf'\1("{model}", max_seq_len=512)', block), "utf-8")
    if "as llm" in block:
        runpy.run_path(str(page))
        assert capsys.readouterr().out.strip()
        return
    with LLM(model, max_seq_len=512) as llm:  # a part of something larger
        runpy.run_path(str(page), {"zonda": zonda, "pydantic": pydantic, "llm": llm})


def commands() -> list[str]:
    lines = [line for each in blocks("sh") for line in each.values[0].splitlines()]
    texts = [span for page in PAGES for span in re.findall(r"`(zonda [^`]+)`", page.read_text("utf-8"))]
    found = [match[1] for text in [*lines, *texts] for part in re.split(r"&&|;", text)
             if (match := PROMPT.fullmatch(part.strip()))]
    return sorted({each.strip() for each in found})


@pytest.mark.parametrize("line", commands())
def test_the_command_lines_are_understood(line: str) -> None:
    name, *arguments = shlex.split(line)
    command = cli.get_command(None, name)  # type: ignore[arg-type]
    assert command, name
    if "--help" not in arguments and "|" not in line:
        command.make_context(name, [*arguments], resilient_parsing=name == "cache")


def test_the_options_exist() -> None:
    known = {flag for name in COMMANDS for each in cli.get_command(None, name).params  # type: ignore[arg-type, union-attr]
             for flag in (*each.opts, *each.secondary_opts)}
    beside = [*(ROOT / "benchmarks").glob("*.py"), ROOT / "tests" / "clients" / "clients.py"]
    known |= {flag for path in beside for flag in OPTION.findall(path.read_text("utf-8"))} | {"--help", "--version"}
    told = {(page.name, flag) for page in PAGES for span in re.findall(r"`[^`]+`", page.read_text("utf-8"))
            for flag in OPTION.findall(span) if not span.startswith(("`docker", "`systemd"))}
    assert {each for each in told if each[1] not in known} == set()
