"""The GPU's measurements, as far as they need none: floors, shares of time, repeats, and the checkpoint on the disk."""
from __future__ import annotations

import importlib
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from zonda.models import build
from zonda.weights.safetensors import SafetensorsSource

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
gpu, gpu_files, gpu_floor, gpu_load = map(importlib.import_module, ("gpu", "gpu_files", "gpu_floor", "gpu_load"))
MOST = gpu_floor.Ceilings(copy=3e12, matrix=8e14, bus=5e10)


@pytest.mark.parametrize(("dtype", "gb"), [("bf16", 15.0), ("fp8", 8.0), ("q4_k", 4.4)])
def test_a_lone_stream_takes_the_copy_of_all_weights(dtype, gb):
    outline = gpu_floor.Outline.of("llama-3.1-8b", dtype)
    assert outline.weight_bytes == pytest.approx(gb * 1e9, rel=0.01)
    assert outline.decode(1, 0, MOST) == outline.weight_bytes / MOST.copy


def test_long_prompts_take_more_than_their_share_and_many_rows_the_operations():
    outline = gpu_floor.Outline.of("llama-3.2-1b", "bf16")
    assert outline.prefill(1, 4096, MOST) > 4 * outline.prefill(1, 1024, MOST)
    assert outline.decode(10_000, 0, MOST) == 2 * 10_000 * (outline.layers + outline.head) / MOST.matrix


def test_kernels_that_wait_for_the_one_before_count_from_its_end():
    found = gpu_floor.shares([("few_dense", 0.0, 4.0), ("single", 1.0, 5.0), ("sm90_gemm_bf16", 7.0, 8.0),
                              ("Memcpy DtoH", 7.5, 7.8)])
    assert found == pytest.approx({"products": 4 + 0.2, "attention": 1.0, "others": 0.3})


def test_runs_in_which_something_was_compiled_do_not_count():
    compiled: list[str] = []
    runs = iter(range(100))

    def run() -> int:
        number = next(runs)
        compiled.extend(["kernel"] * (number in (0, 2)))
        return number

    assert gpu_load.steady(run, compiled, 3) == [1, 3, 4]
    with pytest.raises(RuntimeError, match="still compiled after"):
        gpu_load.steady(lambda: compiled.append("another"), compiled)


def test_the_checkpoint_on_the_disk_is_a_model(tmp_path):
    size = gpu_files.write_checkpoint(tmp_path / "model", "smollm2-135m")
    source = SafetensorsSource(tmp_path / "model")
    config, decoder = build(source)
    assert size > 2 * config.vocab * config.dim
    assert source.read("layers.29.attn.q").shape == (576, 576)
    assert abs(source.read("layers.3.ffn.up").dense()).max() < 0.2
    assert (source.read("norm").dense() == 1).all()
    assert {name for name, block in decoder.walk() if block.parameters()} <= {
        part for name in source.names() for part in (name, name.rpartition(".")[0])}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_case_that_fails_says_so_in_a_row(tmp_path, capsys):
    gpu.run("1b", 60, tmp_path / "rows")
    assert '"failed with status 1"' in capsys.readouterr().out
    assert (tmp_path / "rows").read_text().count("\n") == 1


def test_stages_are_listed_longest_first():
    spent = gpu.rounded({"a": 0.001, "b": 0.5, "c": 0.25})
    assert spent == {"b": 500, "c": 250, "a": 1}
    assert all(first >= second for first, second in pairwise(spent.values()))
