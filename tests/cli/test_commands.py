"""`pull`, `cache`, `serve` and `bench`, over files and engines that stand in for real ones."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from letters import LettersRunner, LettersTokenizer, letters_engine

from zonda import AsyncLLM
from zonda.cli import main
from zonda.cli.cache import size


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache that holds one small model."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("ZONDA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    place = tmp_path / "hub" / "models--org--tiny"
    snapshot = place / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("0" * 40)
    (snapshot / "tiny.Q4_0.gguf").write_bytes(b"x" * 2500)
    return place


def test_pull_prints_where_the_weights_lie(hub: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.call(["pull", "org/tiny"]) == 0
    assert capsys.readouterr().out == f"{hub / 'snapshots' / ('0' * 40) / 'tiny.Q4_0.gguf'}\n"


def test_pull_says_what_is_not_there(hub: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.call(["pull", "org/other"]) == 1
    assert "org/other" in capsys.readouterr().err


def test_the_cache_is_listed_and_models_deleted(hub: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.call(["cache", "list"]) == 0
    out, err = capsys.readouterr()
    assert out.split()[0] in {"2", "3"} and out.endswith("org/tiny\n") and err.startswith("1 models, ")
    assert main.call(["cache", "delete", "-m", "org/tiny"]) == 0
    assert capsys.readouterr().err == "freed 3 KB\n" and not hub.exists()
    assert main.call(["cache", "delete", "-m", "org/tiny"]) == 1


@pytest.mark.parametrize(("count", "shown"), [
    (0, "0 B"), (999, "999 B"), (1500, "2 KB"), (98e6, "98 MB"), (2.5e9, "2.5 GB")])
def test_sizes_are_short(count: float, shown: str) -> None:
    assert size(count) == shown


@pytest.fixture
def alphabet(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every command's model is the alphabet; holds the options that they were loaded with."""
    seen: list[Any] = []

    def load(*groups: Any, progress: Any) -> AsyncLLM:
        seen.extend(groups)
        tokenizer: Any = LettersTokenizer()
        runner = LettersRunner()
        options = groups[1]
        engine = letters_engine(runner, max_seqs=options.max_seqs, prefix_cache=options.prefix_cache)
        return AsyncLLM.from_parts(engine, tokenizer, name="letters")

    monkeypatch.setattr(AsyncLLM, "from_options", load)
    return seen


Capture = pytest.CaptureFixture[str]
KEYS = ["case", "prompt_len", "gen_len", "depth", "concurrency", "tok_s", "min", "max"]


def test_bench_prints_one_object_a_line_and_a_table_beside(alphabet: list[Any], capsys: Capture) -> None:
    line = ["bench", "-m", "x", "--prompt-len", "8,16", "--gen-len", "5", "--concurrency", "3", "--json"]
    assert main.call(line) == 0
    out, err = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    assert [list(row) for row in rows] == [KEYS] * 4
    assert [(row["case"], row["prompt_len"], row["depth"], row["concurrency"]) for row in rows] == [
        ("prefill", 8, 0, 1), ("prefill", 16, 0, 1), ("decode", 4, 4, 1), ("serve", 4, 4, 3)]
    assert all(0 < row["min"] <= row["tok_s"] <= row["max"] for row in rows)
    assert "tok/s" in err


def test_bench_reuses_no_prefix_and_lets_every_stream_run(alphabet: list[Any], capsys: Capture) -> None:
    assert main.call(["bench", "-m", "x", "--prompt-len", "0", "--gen-len", "2", "--concurrency", "40"]) == 0
    assert not alphabet[1].prefix_cache and alphabet[1].max_seqs == 40
    assert capsys.readouterr().out == ""


def test_bench_drives_streams_over_http(alphabet: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    line = ["bench", "-m", "x", "--prompt-len", "0", "--gen-len", "4", "--concurrency", "2", "--http", "--json",
            "--iterations", "1"]
    assert main.call(line) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["case"], row["concurrency"]) for row in rows] == [("decode", 1), ("serve", 2)]


def test_bench_refuses_what_exceeds_the_context(alphabet: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.call(["bench", "-m", "x", "--prompt-len", "600"]) == 1
    assert "exceed the context of 64" in capsys.readouterr().err


def test_bench_says_when_there_is_nothing_to_measure(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.call(["bench", "-m", "x", "--prompt-len", "0", "--gen-len", "1"]) == 1
    assert "nothing to measure" in capsys.readouterr().err


def test_serve_hands_its_options_to_the_server(alphabet: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[Any] = []

    def listen(models: Any, options: Any, *, default: str | None) -> None:
        served.extend([models[0].load(lambda *stage: None), options, models[0]])
        served[0].engine.close()

    monkeypatch.setattr("zonda.server.listen.serve", listen)
    assert main.call(["serve", "-m", "x", "-p", "4321", "--max-seqs", "2", "--alias", "y", "--alias", "z"]) == 0
    assert (served[0].name, served[1].port, alphabet[0].model, alphabet[1].max_seqs) == ("letters", 4321, "x", 2)
    assert (served[2].name, served[2].aliases, served[2].preload) == ("x", ("y", "z"), True)


def test_a_configuration_file_serves(alphabet: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ports: list[int] = []
    monkeypatch.setattr("zonda.server.listen.serve", lambda models, options, default: ports.append(options.port))
    (tmp_path / "z.toml").write_text('command = "serve"\n[model]\nmodel = "x"\n[server]\nport = 5\n')
    assert main.call(["from-config", str(tmp_path / "z.toml")]) == 0
    assert ports == [5]
