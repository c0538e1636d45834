"""From files to an engine: what memory the cache takes, what is too much, and what ends a text."""
from __future__ import annotations

import json
import logging
from pathlib import Path
from queue import Queue
from types import SimpleNamespace
from typing import Any

import pytest

import zonda.model
from zonda import memory
from zonda.engine.cpu_runner import CPURunner
from zonda.errors import InvalidModel, InvalidRequest, ModelNotFound, OutOfMemory
from zonda.kernels.cpu.library import Library
from zonda.kernels.cpu.ops import CPUOps
from zonda.kernels.ops import Heads
from zonda.model import in_situ, in_situ_bytes, load_model, plan, position_bytes, quantized, shape_config, start
from zonda.models import build
from zonda.nn import Pages
from zonda.options import EngineOptions, ModelOptions
from zonda.texts import Texts
from zonda.types import Event, Request, Sampling
from zonda.weights.quantize import InSitu
from zonda.weights.random import RandomSource
from zonda.weights.shapes import SHAPES
from zonda.weights.source import Weight

TOKEN = 2048  # bytes
GB = 1 << 30


def test_the_cache_holds_a_few_full_sequences_when_memory_is_plenty() -> None:
    sized = plan(TOKEN, 1024, EngineOptions(), free=8 * GB)
    assert sized.max_len == 1024 and 8 << 20 <= sized.kv_bytes <= 64 << 20


@pytest.mark.parametrize("dim", [64, 40])
def test_the_plan_counts_what_pages_take(dim: int, tmp_path: Path) -> None:
    decoder: Any = SimpleNamespace(caches=[Pages(Heads(4, 2, dim)), Pages(Heads(2, 1, dim))])
    ops = CPUOps(Library(tmp_path), threads=1, max_rows=1)
    assert position_bytes(decoder, "cpu", ModelOptions()) * CPURunner.page_size == ops.page_bytes(decoder.caches)


def test_the_cache_takes_no_more_than_half_of_free_memory() -> None:
    assert plan(TOKEN, 1 << 20, EngineOptions(), free=3 * GB).kv_bytes == 3 * GB // 2


def test_a_context_is_cut_by_memory() -> None:
    assert plan(TOKEN, 1 << 20, EngineOptions(), free=GB).max_len == GB // 2 // TOKEN


@pytest.mark.parametrize("asked", [None, 32])
def test_a_context_that_is_cut_is_told_unless_it_was_asked_for(asked: int | None,
                                                               caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        start(tiny(), ModelOptions(kernels="plain"), EngineOptions(kv_tokens=32, max_seq_len=asked)).close()
    assert ("the context is 32 positions, not the model's" in caplog.text) == (asked is None)


def test_a_wanted_context_that_does_not_fit_is_refused_with_the_arithmetic() -> None:
    told = "600000 positions of 2 KB need 1,172 MB, but the cache has 512 MB of 1,024 MB free"
    with pytest.raises(OutOfMemory, match=told) as caught:
        plan(TOKEN, 1 << 20, EngineOptions(max_seq_len=600_000), free=GB)
    assert "262144" in (caught.value.hint or "")


@pytest.mark.parametrize(("options", "kv_bytes"), [
    (EngineOptions(kv_memory_mb=10), 10 << 20), (EngineOptions(kv_memory_fraction=0.25), GB // 4),
    (EngineOptions(kv_tokens=300), 300 * TOKEN)])
def test_the_cache_may_be_given_a_size_or_a_share(options: EngineOptions, kv_bytes: int) -> None:
    assert plan(TOKEN, 128, options, free=GB).kv_bytes == kv_bytes


def test_options_that_need_another_are_not_passed_over() -> None:
    with pytest.raises(InvalidRequest, match="`isq_embeddings` needs `isq`"):
        load_model(ModelOptions(model="no/such", isq_embeddings=True), EngineOptions())
    assert in_situ(ModelOptions(quant="4", isq_embeddings=True)) is None


def test_two_sizes_of_the_cache_exclude_each_other() -> None:
    with pytest.raises(InvalidRequest, match="kv_memory_mb and kv_tokens exclude each other"):
        plan(TOKEN, 128, EngineOptions(kv_memory_mb=10, kv_tokens=5), free=GB)


def test_a_wanted_context_is_taken_when_it_fits() -> None:
    assert plan(TOKEN, 1024, EngineOptions(max_seq_len=100), free=GB).max_len == 100


def tiny() -> RandomSource:
    source = RandomSource({**SHAPES["llama-3.2-1b"], "hidden_size": 32, "num_hidden_layers": 1, "vocab_size": 32,
                           "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "intermediate_size": 32,
                           "max_position_embeddings": 64, "eos_token_id": 3}, "f32")
    source.shape_of(build(source)[1])
    return source


def test_weights_that_do_not_fit_are_refused_before_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zonda.model, "available", lambda: 100 << 20)
    monkeypatch.setattr(RandomSource, "read", lambda *given: pytest.fail("read"))
    with pytest.raises(OutOfMemory, match="the weights take 300 MB, but 100 MB are free") as caught:
        start(tiny(), ModelOptions(), EngineOptions(), weight_bytes=300 << 20)
    assert "--quant" in (caught.value.hint or "")


def test_a_text_ends_at_every_token_that_any_file_calls_its_end() -> None:
    tokenizer: Any = SimpleNamespace(eos_ids=frozenset({4}), special_ids=frozenset())
    texts = Texts(tokenizer, None, {"eos_token_id": [5, 6]})
    engine = start(tiny(), ModelOptions(kernels="plain"), EngineOptions(), texts=lambda: texts)
    told: Queue[Event] = Queue()
    for token in range(3, 8):
        sampling = Sampling(temperature=0, max_tokens=3, logit_bias={token: 1e6})
        engine.submit(Request(f"{token}", (1,), sampling), lambda events: [told.put(each) for each in events])
    ends = [event for event in (told.get(timeout=60) for _ in range(4 + 3)) if event.finish]
    engine.close()
    assert {event.request: event.finish for event in ends} == {**dict.fromkeys("3456", "stop"), "7": "length"}


def test_an_unknown_format_to_quantize_to_is_refused_before_anything_is_fetched() -> None:
    with pytest.raises(InvalidRequest, match="'q9' is not supported"):
        load_model(ModelOptions(model="no/such", isq="q9"), EngineOptions())


def test_a_width_means_quantizing_where_there_are_no_files_to_choose_among() -> None:
    asked = ModelOptions(model="a/b", quant="4")
    assert quantized(asked, "safetensors").isq == "4" and quantized(asked, "gguf") == asked
    with pytest.raises(InvalidRequest, match="exclude each other"):
        quantized(ModelOptions(model="a/b", quant="4", isq="8"), "safetensors")


@pytest.mark.parametrize("kernels", ["compiled", "plain"])
def test_a_model_that_is_quantized_while_it_loads_answers(kernels: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    rule = InSitu.__call__

    def listening(self: InSitu, name: str, weight: Weight) -> Weight:
        asked.append(name)
        return rule(self, name, weight)

    monkeypatch.setattr(InSitu, "__call__", listening)
    model = ModelOptions(kernels=kernels, isq="q8_0", threads=1)
    engine = start(tiny(), model, EngineOptions(), convert=in_situ(model))
    told: Queue[Event] = Queue()
    engine.submit(Request("a", (1,), Sampling(temperature=0, max_tokens=2, ignore_eos=True)),
                  lambda events: [told.put(each) for each in events])
    assert [told.get(timeout=60).finish for _ in range(2)] == [None, "length"]
    engine.close()
    assert "layers.0.ffn.down" in asked


def test_memory_is_planned_for_what_quantized_weights_take() -> None:
    assert in_situ_bytes(1 << 20, ModelOptions(isq="q8_0")) == (1 << 20) * 34 // 64
    assert in_situ_bytes(1 << 20, ModelOptions()) == 1 << 20


def test_free_memory_is_what_the_machine_says(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:      7 kB\n")
    assert memory._machine(tmp_path / "meminfo") == 7 * 1024
    assert memory._machine(tmp_path / "none") is None


@pytest.mark.parametrize(("files", "left"), [
    ({"memory.max": "1000", "memory.current": "600", "memory.stat": "active_file 50\ninactive_file 100\n"}, 550),
    ({"memory.max": "max", "memory.current": "600", "memory.stat": ""}, None),
    ({"memory.limit_in_bytes": "1000", "memory.usage_in_bytes": "600", "memory.stat": "total_active_file 10\n"}, 410),
    ({}, None), ({"memory.max": "lots"}, None),
])
def test_a_control_group_limits_memory_but_not_its_file_cache(tmp_path: Path, files: dict[str, str],
                                                              left: int | None) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert memory._group(tmp_path) == left


def test_control_groups_are_found_with_those_around_them(tmp_path: Path) -> None:
    (tmp_path / "cgroup").write_text("4:memory:/a/b\n1:cpu:/c\n0::/d\n")
    assert memory._groups(tmp_path / "cgroup", tmp_path) == [
        tmp_path / "memory/a/b", tmp_path / "memory/a", tmp_path / "memory", tmp_path / "d", tmp_path]


def test_some_memory_is_free_here() -> None:
    assert memory.available() > 1 << 20


def test_a_shape_is_a_name_or_a_file_or_a_folder(tmp_path: Path) -> None:
    assert shape_config("smollm2-135m")["hidden_size"] == 576
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 8}))
    assert shape_config(str(tmp_path)) == shape_config(str(tmp_path / "config.json")) == {"hidden_size": 8}


def test_an_unknown_shape_lists_the_known_ones() -> None:
    with pytest.raises(ModelNotFound) as caught:
        shape_config("gpt-7")
    assert "llama-3.2-1b" in (caught.value.hint or "")


@pytest.mark.parametrize("text", ["{", "[1]", '"x"'])
def test_a_damaged_configuration_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InvalidModel, match=r"config\.json"):
        shape_config(str(tmp_path))
