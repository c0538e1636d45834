"""What a model would take, told before anything is loaded, and true once it is."""
from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import zonda.model
from zonda.cli import main
from zonda.cli.from_config import read
from zonda.model import start
from zonda.models import build
from zonda.options import EngineOptions, ModelOptions
from zonda.weights.random import RandomSource
from zonda.weights.safetensors import SafetensorsSource

CONFIG = {"architectures": ["LlamaForCausalLM"], "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
          "num_key_value_heads": 1, "head_dim": 32, "intermediate_size": 64, "vocab_size": 64, "rms_norm_eps": 1e-5,
          "max_position_embeddings": 4096, "rope_theta": 1e4, "tie_word_embeddings": True}
POSITION = 2 * 2 * 32 * 2  # bytes: layers, keys and values, head_dim, float16


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A checkpoint of 40 MB whose weights nobody may read."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    save_file({"model.embed_tokens.weight": np.zeros((10 << 10, 1 << 10), np.float32)}, tmp_path / "model.safetensors")
    monkeypatch.setattr(SafetensorsSource, "read", lambda *given: pytest.fail("weights were read"))
    return str(tmp_path)


def planned(capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, int]:
    assert main.call(["plan", "--cpu", "--json", *args]) == 0
    return json.loads(capsys.readouterr().out)  # type: ignore[no-any-return]


def test_a_plan_has_the_weights_the_cache_and_the_context(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = planned(capsys, "-m", folder, "--kv-memory-mb", "1")
    assert 40 << 20 <= found["weights"] < 41 << 20
    assert (found["cache"], found["position"], found["positions"]) == (1 << 20, POSITION, (1 << 20) // POSITION)
    assert (found["context"], found["max_seq_len"], found["max_seqs"]) == (4096, 4096, 32)
    assert planned(capsys, "-m", folder, "--max-seq-len", "100")["max_seq_len"] == 100
    assert planned(capsys, "-m", folder, "--isq", "q4_0")["weights"] < 20 << 20


def test_the_plan_is_a_table_for_people(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.call(["plan", "--cpu", "-m", folder]) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()] == ["weights", "free", "cache", "max_seq_len", "max_seqs"]
    assert "0.2 KB" in out and "the model's own context" in out


def test_what_does_not_fit_is_told_with_what_to_change(folder: str, capsys: pytest.CaptureFixture[str],
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    assert main.call(["plan", "--cpu", "-m", folder, "--max-seq-len", "4096", "--kv-memory-mb", "1"]) == 0
    monkeypatch.setattr(zonda.model, "available", lambda: 41 << 20)
    assert main.call(["plan", "--cpu", "-m", folder, "--max-seq-len", "4096", "--kv-memory-fraction", "0.1"]) == 1
    assert "--max-seq-len" in capsys.readouterr().err
    monkeypatch.setattr(zonda.model, "available", lambda: 39 << 20)
    assert main.call(["plan", "--cpu", "-m", folder]) == 1
    assert "take 41 MB, but 39 MB are free" in capsys.readouterr().err


def test_a_checkpoint_is_taken_for_the_architecture_that_is_named(
        folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["plan", "--cpu", "-m", folder]
    (Path(folder) / "config.json").write_text(json.dumps({**CONFIG, "architectures": ["OurOwnForCausalLM"]}))
    assert main.call(line) == 1 and "'OurOwnForCausalLM' is not supported" in capsys.readouterr().err
    for name in ("llama", "LlamaForCausalLM"):
        assert main.call([*line, "--arch", name]) == 0
    assert main.call([*line, "-a", "gpt7"]) == 1
    assert "`arch` is 'gpt7', expected one of llama, mistral, qwen2" in capsys.readouterr().err


def test_the_best_format_that_fits_is_recommended(folder: str, capsys: pytest.CaptureFixture[str],
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    def tuned(*args: str) -> dict[str, Any]:
        assert main.call(["tune", "-m", folder, "--cpu", "--max-seq-len", "100", "--json", *args]) == 0
        return json.loads(capsys.readouterr().out)  # type: ignore[no-any-return]

    best = {profile: tuned("--profile", profile)["recommended_isq"] for profile in ("quality", "balanced", "fast")}
    assert best == {"quality": "q8_0", "balanced": "q6k", "fast": "q4k"}
    monkeypatch.setattr(zonda.model, "available", lambda: 16 << 20)
    found = tuned()
    status = {each["isq"]: each["fit_status"] for each in found["candidates"]}
    assert status == {None: "too-large", "q8_0": "too-large", "q6k": "too-large", "q5k": "fits", "q4k": "fits",
                      "q3k": "fits", "q2k": "fits"}
    assert [each["isq"] for each in found["candidates"] if each["recommended"]] == ["q5k"]
    assert found["recommended_command"] == f"zonda serve -m {folder} --isq q5k --cpu --max-seq-len 100"
    sizes = [each["estimated_size_bytes"] for each in found["candidates"] if each["fit_status"] == "fits"]
    assert sizes == sorted(sizes, reverse=True) and found["total_bytes"] == 16 << 20


def test_what_is_recommended_becomes_a_table_and_a_configuration_file(
        folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "z.toml"
    assert main.call(["tune", "-m", folder, "--cpu", "--max-seqs", "3", "--emit-config", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"q6k +17 MB +[\d.]+ % +4,096 +near-lossless +<- recommended", lines[3])
    command, ((wanted,), _, _) = read(path)
    assert (command, wanted.model.model, wanted.model.isq, wanted.model.cpu) == ("serve", folder, "q6k", True)
    assert wanted.engine.max_seqs == 3


def test_where_nothing_fits_that_is_an_error(folder: str, capsys: pytest.CaptureFixture[str],
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zonda.model, "available", lambda: 1 << 20)
    assert main.call(["tune", "-m", folder, "--cpu"]) == 1
    out, err = capsys.readouterr()
    assert out.count("too large") == 7 and "no format of the profile fits" in err


@pytest.mark.parametrize(("args", "told"), [
    (["--isq", "q4k"], "leave them out"), (["--emit-config", "."], "cannot be written")])
def test_what_cannot_be_tuned_is_told(args: list[str], told: str, folder: str,
                                      capsys: pytest.CaptureFixture[str]) -> None:
    assert main.call(["tune", "-m", folder, "--cpu", *args]) == 1
    assert told in capsys.readouterr().err


def test_an_engine_is_as_planned() -> None:
    source = RandomSource(CONFIG, "q4_0")
    source.shape_of(build(source)[1])
    model, options = ModelOptions(cpu=True, threads=1), EngineOptions(kv_memory_mb=1, max_seq_len=3000)
    sized = zonda.model.size(source, model, options)
    engine = start(source, model, options)
    stats = engine.stats()
    engine.close()
    assert engine.max_len == sized.cache.max_len == 3000
    assert stats.pages_total * 32 * POSITION == sized.cache.kv_bytes
