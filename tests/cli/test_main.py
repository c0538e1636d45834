"""The command line as a whole: help, errors, exit codes."""
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

import zonda
from zonda.cli import commands, main
from zonda.cli.flags import flags
from zonda.cli.from_config import read
from zonda.errors import InvalidModel, InvalidRequest
from zonda.options import BenchOptions, EngineOptions, ModelOptions, SamplingOptions


def raising(error: BaseException) -> click.Command:
    @click.command()
    def command() -> None:
        raise error

    return command


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes `zonda doctor` raise."""
    def install(error: BaseException) -> None:
        monkeypatch.setattr("zonda.cli.doctor.doctor", raising(error))

    return install


def test_the_package_can_be_run() -> None:
    ran = subprocess.run([sys.executable, "-m", "zonda", "--version"], check=True, capture_output=True, text=True)
    assert ran.stdout.strip() == zonda.__version__


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.call(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in commands.COMMANDS)


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.call([name, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"Usage: zonda {name}")


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.call(["--version"]) == 0
    assert capsys.readouterr().out.strip()[0].isdigit()


def test_an_error_is_told_with_its_hint_on_standard_error(failing: Any, capsys: pytest.CaptureFixture[str]) -> None:
    failing(InvalidModel("the file is short", hint="fetch it again"))
    assert main.call(["doctor"]) == 1
    out, err = capsys.readouterr()
    assert (out, err) == ("", "error: the file is short\nhint: fetch it again\n")


def test_a_fault_is_told_without_a_traceback(failing: Any, capsys: pytest.CaptureFixture[str]) -> None:
    failing(KeyError("x"))
    assert main.call(["doctor"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: internal: KeyError: 'x'\nhint: ") and "Traceback" not in err


def test_what_the_system_refuses_is_no_fault_of_ours(failing: Any, capsys: pytest.CaptureFixture[str]) -> None:
    failing(PermissionError(13, "Permission denied", "/there/token"))
    assert main.call(["doctor"]) == 1
    assert capsys.readouterr().err == "error: /there/token: Permission denied\nhint: `-vv` shows where\n"


def test_twice_verbose_lets_errors_through(failing: Any) -> None:
    failing(InvalidModel("the file is short"))
    with pytest.raises(InvalidModel):
        main.call(["doctor", "-vv"])


def test_an_interrupt_ends_with_code_130(failing: Any) -> None:
    failing(KeyboardInterrupt())
    assert main.call(["doctor"]) == 130


@pytest.mark.parametrize("args", [["nonsense"], ["run", "--nonsense"], ["bench", "--depth", "x"],
                                  ["bench", "--iterations", "0"]])
def test_wrong_usage_ends_with_code_2(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.call(args) == 2
    assert "Error" in capsys.readouterr().err


def test_flags_become_options() -> None:
    seen: list[Any] = []

    @click.command()
    @flags(ModelOptions, EngineOptions, SamplingOptions, BenchOptions)
    def command(*groups: Any) -> None:
        seen.extend(groups)

    line = ["-m", "x", "-f", "a", "-f", "b", "--no-prefix-cache", "--stop", "s", "--depth", "4,8",
            "--temperature", "0.5"]
    result = CliRunner().invoke(command, line)
    assert result.exit_code == 0, result.output
    model, engine, sampling, bench = seen
    assert (model.model, model.file, engine.prefix_cache) == ("x", ("a", "b"), False)
    assert (sampling.stop, sampling.temperature, bench.depth, bench.prompt_len) == (("s",), 0.5, (4, 8), (512,))


def test_a_configuration_file_names_its_command_and_options(tmp_path: Path) -> None:
    path = tmp_path / "zonda.toml"
    path.write_text('command = "run"\n[model]\nmodel = "x"\n[engine]\nmax_seqs = 2\n[sampling]\nstop = ["a"]\n'
                    '[run]\ninput = "hi"\n')
    command, (model, run, sampling, engine) = read(path)
    assert (command, model.model, run.input, sampling.stop, engine.max_seqs) == ("run", "x", "hi", ("a",), 2)


@pytest.mark.parametrize(("text", "message"), [
    ("", "`command` is None"), ('command = "fly"', "'fly'"), ("command = ", "zonda.toml"),
    ('command = "run"\n[modle]\n', "did you mean `model`"),
    ('command = "run"\n[model]\nmodle = 1\n', "did you mean `model`"),
    ('command = "run"\nmodel = "x"\n', "expected a table"),
    ('command = "run"\n[engine]\nmax_seqs = "x"\n', "expected int"),
])
def test_a_wrong_configuration_file_is_explained(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "zonda.toml"
    path.write_text(text)
    with pytest.raises(InvalidRequest, match=message):
        read(path)


def test_a_missing_configuration_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="No such file"):
        read(tmp_path / "none.toml")


@pytest.mark.parametrize("shell", ["bash", "elvish", "fish", "powershell", "zsh"])
def test_completions_are_a_script_for_the_shell(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.call(["completions", shell]) == 0
    script = capsys.readouterr().out
    assert "_ZONDA_COMPLETE" in script and f"{shell}_complete" in script


@pytest.mark.parametrize(("shell", "words", "number"), [
    ("elvish", "zonda\n{}", 0), ("bash", "zonda {}", 1), ("powershell", "zonda {}", 1)])
def test_shells_are_told_what_a_word_may_become(shell: str, words: str, number: int) -> None:
    def completed(line: str) -> str:
        env = {**os.environ, "_ZONDA_COMPLETE": f"{shell}_complete", "COMP_CWORD": str(number + line.count(" ")),
               "COMP_WORDS": words.format(line.replace(" ", "\n") if shell == "elvish" else line)}
        ran = subprocess.run([sys.executable, "-m", "zonda"], env=env, capture_output=True, text=True, check=True)
        return ran.stdout

    assert "completions" in completed("comp") and "--kv-memory-mb" in completed("serve --kv-mem")
    assert "gguf" in completed("run --format ") and completed("run -m mod").startswith("file")


def test_elvish_is_told_a_candidate_a_line() -> None:
    env = {**os.environ, "_ZONDA_COMPLETE": "elvish_complete", "COMP_WORDS": "zonda\nrun\n--isq-"}
    ran = subprocess.run([sys.executable, "-m", "zonda"], env=env, capture_output=True, text=True, check=True)
    assert ran.stdout == "plain\t--isq-embeddings\twith --isq, quantize the table of token embeddings too\n"


def test_a_token_is_stored_for_its_owner_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "home" / "token"
    monkeypatch.setenv("HF_TOKEN_PATH", str(path))
    assert main.call(["login", "--token", " hf_abc "]) == 0
    assert path.read_text() == "hf_abc"
    assert os.name == "nt" or stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_token_may_come_on_standard_input(tmp_path: Path) -> None:
    path = tmp_path / "token"

    def stored(text: str) -> tuple[int, str]:
        env = {**os.environ, "HF_TOKEN_PATH": str(path)}
        command = [sys.executable, "-m", "zonda", "login"]
        ran = subprocess.run(command, env=env, input=text, capture_output=True, text=True)
        return ran.returncode, ran.stderr

    assert stored("hf_abc\n") == (0, f"stored in {path}\n") and path.read_text() == "hf_abc"
    assert stored("")[0] == 1


@pytest.mark.skipif(os.name == "nt", reason="shells there close no streams")
@pytest.mark.parametrize(("closed", "status", "told"), [
    ("<&-", 1, "error: standard input is empty, expected a prompt"), (">&-", 1, "there is no file no.gguf"),
    ("2>&-", 1, "")])
def test_closed_streams_are_as_good_as_empty_ones(closed: str, status: int, told: str) -> None:
    asked = "" if closed == "<&-" else "-i hi"
    command = f"{sys.executable} -m zonda run -m no.gguf {asked} {closed}"
    ran = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert ran.returncode == status and told in ran.stderr and "internal" not in ran.stderr


def test_a_token_of_another_kind_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.call(["login", "--token", "abc"]) == 1
    assert "hf_" in capsys.readouterr().err


def test_the_doctor_reports_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                    capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("ZONDA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    assert main.call(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    status = {check["name"]: check["status"] for check in report["checks"]}
    assert status["cache"] == status["hub_cache"] == status["packages"] == "ok" and status["hub"] == "skipped"
    assert report["system"]["cores"] >= 1


def test_the_doctor_fails_when_a_folder_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                          capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("ZONDA_CACHE", str(tmp_path / "file" / "cache"))
    assert main.call(["doctor"]) == 1
    assert "error  cache" in capsys.readouterr().out
