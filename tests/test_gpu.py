"""Which kernels compute where, and why."""
from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from zonda import gpu
from zonda.cli import main
from zonda.errors import InvalidRequest, OutOfMemory, Unsupported
from zonda.kernels import choose
from zonda.kernels.torch.ops import TorchOps
from zonda.machine import _compiler, _device
from zonda.model import load_model
from zonda.models import build
from zonda.options import EngineOptions, ModelOptions
from zonda.weights.random import RandomSource

CONFIG = {"architectures": ["LlamaForCausalLM"], "hidden_size": 1024, "num_hidden_layers": 2, "num_attention_heads": 8,
          "num_key_value_heads": 8, "intermediate_size": 4096, "vocab_size": 32768, "max_position_embeddings": 4096,
          "rms_norm_eps": 1e-5, "rope_theta": 1e4, "tie_word_embeddings": True}


@pytest.fixture
def old_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda self: True)
    for name, value in {"is_available": True, "get_device_capability": (7, 5), "get_device_name": "An old card",
                        "is_bf16_supported": False}.items():
        monkeypatch.setattr(torch.cuda, name, lambda *given, value=value: value)


def test_a_card_that_is_too_old_is_left_alone_unless_it_is_named(old_card: None) -> None:
    assert gpu.automatic() == ("cpu", "An old card has compute capability 7.5, kernels need 8.0")
    assert gpu.device_of(ModelOptions()) == "cpu"


def test_a_card_that_is_too_old_computes_by_plain_torch_in_a_type_that_it_has(
        old_card: None, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        ops = gpu._ops("cuda:0", ModelOptions(device="cuda"), {})
    assert type(ops) is TorchOps and ops.dtype == torch.float16 and not ops.captures
    assert "by plain torch: An old card has compute capability 7.5" in caplog.text
    assert gpu._ops("cuda:0", ModelOptions(device="cuda", compute_dtype="f32"), {}).dtype == torch.float32


def test_without_triton_nothing_is_captured(old_card: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert gpu.automatic()[0] == "cuda:0"
    monkeypatch.setattr(gpu, "find_spec", lambda name: None if name == "triton" else object())
    assert gpu.automatic() == ("cpu", "triton not installed, which a GPU needs")
    assert gpu.kernels_on("cuda:0") == ("torch", "triton is not installed")


def test_doctor_tells_what_a_card_without_eight_bit_floats_does(
        old_card: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for able, told in (((8, 6), True), ((8, 9), False)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, able=able: able)
        check = _device()
        assert check.status == "ok" and ("takes compute capability 8.9" in check.message) == told


@pytest.fixture
def card(old_card: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))


def test_doctor_tells_whose_kernels_do_what_and_why(card: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                                    capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("ZONDA_CACHE", "HF_HUB_CACHE"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setattr(choose, "_there", lambda package: "not installed" if package == "flash-attn-4" else None)
    choose.flash_on.cache_clear()
    assert main.call(["doctor", "--json"]) == 0
    found = {each["kernels"]: each["status"] for each in json.loads(capsys.readouterr().out)["kernels"]
             if each["work"] == "attention of prompts"}
    assert found == {"Triton": "chosen", "FlashAttention 4": "not installed", "flashinfer": "not used",
                     "cuDNN": "not used", "FlashAttention 2": "not used"}
    assert main.call(["doctor"]) == 0
    assert "not used  cuDNN for attention of prompts: reads no pages" in capsys.readouterr().out


@pytest.mark.parametrize(("found", "status"), [(None, "warning"), ("/usr/bin/gcc", "ok")])
def test_doctor_warns_where_triton_finds_no_compiler(card: None, monkeypatch: pytest.MonkeyPatch, found: str | None,
                                                     status: str) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: found if name == "gcc" else None)
    assert _compiler().status == status


def test_kernels_that_cannot_be_made_are_told_with_what_to_do() -> None:
    with pytest.raises(Unsupported, match="RuntimeError: Failed to find C compiler") as caught, gpu._made("cuda:0"):
        raise RuntimeError("Failed to find C compiler. Please specify via CC environment variable.")
    assert caught.value.hint and "zonda doctor" in caught.value.hint
    with pytest.raises(OutOfMemory), gpu._made("cuda:0"):
        raise OutOfMemory("cuda:0 has no memory left for this step")


@pytest.mark.parametrize(("metadata", "dtype"), [
    ({"general.architecture": "llama"}, "f16"), ({"general.architecture": "gemma3"}, "f16"),
    ({"general.architecture": "qwen3"}, "bf16"),
    ({"torch_dtype": "float16"}, "f16"), ({"torch_dtype": "bfloat16"}, "bf16"), ({"dtype": "float16"}, "f16"),
    ({}, "bf16")])
def test_numbers_are_fine_where_the_model_stays_in_range_and_wide_elsewhere(
        metadata: dict[str, str], dtype: str) -> None:
    assert gpu.sixteen(metadata) == dtype


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"),
                                   RuntimeError("CUDA error: out of memory")])
def test_memory_that_runs_short_while_loading_is_told_with_what_to_change(
        error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (5 << 20, 80 << 30))
    with pytest.raises(OutOfMemory, match="cuda:1 has no memory left for the model: 5") as caught, \
            gpu._short("cuda:1"):
        raise error
    assert caught.value.hint and "--kv-memory-mb" in caught.value.hint
    with pytest.raises(RuntimeError, match="illegal"), gpu._short("cuda:1"):
        raise RuntimeError("an illegal instruction was encountered")


def test_what_a_model_that_is_gone_had_counts_as_free(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, kept = build(RandomSource(CONFIG, "bf16"))[1], [1 << 30]
    monkeypatch.setattr(torch.cuda, "empty_cache", kept.clear)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: ((7 << 30) - sum(kept), 80 << 30))
    assert gpu.left_on("cuda:1", decoder, 3 << 30, ModelOptions(), {}) == (7 << 30) - gpu._WORKSPACE - 2 * 67_113_984


def test_a_model_that_does_not_fit_a_card_is_refused_with_the_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    source = RandomSource(CONFIG, "bf16")
    decoder = build(source)[1]
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (7 << 30, 80 << 30))
    assert gpu.left_on("cuda:1", decoder, 3 << 30, ModelOptions(), {}) == (7 << 30) - gpu._WORKSPACE - 2 * 67_113_984
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3 << 30, 80 << 30))
    needs = "the weights take 129 MB and kernels 3,072 MB, but 3,072 MB of cuda:1 are free"
    with pytest.raises(OutOfMemory, match=needs) as caught:
        gpu.left_on("cuda:1", decoder, 0, ModelOptions(), {})
    assert caught.value.hint and "--isq q4k" in caught.value.hint


@pytest.mark.parametrize(("able", "stored", "options", "metadata", "each"), [
    ((8, 9), 2.0, {}, {}, 2), ((8, 9), 4.0, {}, {}, 2), ((8, 9), 0, {}, {}, 2), ((8, 9), 0.6, {}, {}, 0.6),
    ((8, 9), 2.0, {"compute_dtype": "f32"}, {}, 4), ((8, 9), 0.6, {"compute_dtype": "f32"}, {}, 0.6),
    ((8, 9), 1.0, {}, {"quantization_config": {}}, 1), ((8, 6), 1.0, {}, {"quantization_config": {}}, 2),
    ((7, 5), 1.0, {}, {"quantization_config": {}}, 1)])
def test_a_plan_counts_weights_as_the_card_will_hold_them(
        old_card: None, monkeypatch: pytest.MonkeyPatch, able: tuple[int, int], stored: float, options: dict[str, str],
        metadata: dict[str, Any], each: float) -> None:
    decoder, numbers = build(RandomSource(CONFIG, "bf16"))[1], 67_113_984
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: able)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (7 << 30, 80 << 30))
    left = gpu.left_on("cuda:0", decoder, int(stored * numbers), ModelOptions(**options), metadata)
    assert left == (7 << 30) - gpu._WORKSPACE - int(each * numbers)


@pytest.mark.parametrize(("able", "size"), [((8, 9), 1), ((8, 6), 2), ((7, 5), 1)])
def test_a_plan_counts_a_cache_of_eight_bits_as_the_card_will_hold_it(
        old_card: None, monkeypatch: pytest.MonkeyPatch, able: tuple[int, int], size: int) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: able)
    assert gpu.cache_bytes(ModelOptions(kv_dtype="fp8"), "cuda:0") == size


def test_a_context_that_is_cut_while_loading_is_told_or_refused_where_it_was_asked_for(
        caplog: pytest.LogCaptureFixture) -> None:
    runner: Any = SimpleNamespace(max_len=960, page_size=64)
    gpu._compare(runner, "cuda:0", 1000, asked=True)
    assert not caplog.text
    gpu._compare(runner, "cuda:0", 1024, asked=False)
    assert "cuda:0 has memory left for 960 positions, not the planned 1024" in caplog.text
    with pytest.raises(OutOfMemory, match="960 positions") as caught:
        gpu._compare(runner, "cuda:0", 1024, asked=True)
    assert caught.value.hint and "at most 960 by --max-seq-len" in caught.value.hint


def test_a_card_that_is_not_there_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(device: torch.device) -> None:
        raise AssertionError("Invalid device id")

    monkeypatch.setattr(torch.cuda, "get_device_properties", absent)
    with pytest.raises(InvalidRequest, match="there is no device 'cuda:7' here"):
        gpu.device_of(ModelOptions(device="cuda:7"))
    with pytest.raises(InvalidRequest, match="`device` is 'mps', expected cpu, cuda, cuda:1 or auto"):
        gpu.device_of(ModelOptions(device="mps"))
    monkeypatch.setattr(gpu, "find_spec", lambda name: None)
    with pytest.raises(InvalidRequest, match="torch is not installed, which cuda needs"):
        gpu.device_of(ModelOptions(device="cuda"))


@pytest.mark.parametrize(("options", "told"), [
    ({"cpu": True, "kv_dtype": "fp8"}, "`kv_dtype` is for a GPU, but the model runs on the processor: as asked for"),
    ({"kernels": "plain", "compute_dtype": "f32"}, "`compute_dtype` is for a GPU, .* where plain kernels are"),
    ({"device": "cpu", "capture": "all"}, "`capture` is for a GPU"),
    ({"cpu": True, "device": "cuda:1"}, "`cpu` and `device` cuda:1 exclude each other")])
def test_what_only_a_card_can_do_is_not_passed_over_on_the_processor(options: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidRequest, match=told):
        gpu.device_of(ModelOptions(**options))


def test_what_only_a_card_can_do_is_told_before_a_model_is_looked_for() -> None:
    with pytest.raises(InvalidRequest, match="`kv_dtype` is for a GPU"):
        load_model(ModelOptions(model="no/such", cpu=True, kv_dtype="fp8"), EngineOptions())
