from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from files import CONFIG, raw_safetensors, write_safetensors
from safetensors.torch import save_file

from zonda.errors import InvalidModel, ModelNotFound, Unsupported
from zonda.weights.formats.dense import Dense
from zonda.weights.safetensors import SafetensorsSource


def values(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def write_index(folder, weight_map) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def test_each_floating_point_type_comes_back_as_it_was(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    tensors = {str(kind): torch.randn(3, 8, dtype=kind) for kind in (torch.float32, torch.float16, torch.bfloat16)}
    save_file(tensors, tmp_path / "model.safetensors")
    source = SafetensorsSource(tmp_path)
    for (name, tensor), kind in zip(tensors.items(), ("f32", "f16", "bf16")):
        weight = source.read(name)
        assert isinstance(weight, Dense) and weight.dtype == kind and weight.shape == (3, 8)
        assert np.array_equal(weight.dense(), tensor.float().numpy())


def test_tensors_are_read_from_the_mapped_file_without_a_copy(tmp_path):
    source = SafetensorsSource(write_safetensors(tmp_path, {"model.norm.weight": values(8)}))
    weight = source.read("norm")
    assert isinstance(weight, Dense) and not weight.array.flags.owndata and not weight.array.flags.writeable


def test_tensors_at_odd_offsets_are_aligned(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    header = json.dumps({"norm": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    header += b" " * ((3 - len(header)) % 4)
    (tmp_path / "model.safetensors").write_bytes(raw_safetensors(header, values(2).tobytes()))
    weight = SafetensorsSource(tmp_path).read("norm")
    assert isinstance(weight, Dense) and weight.array.flags.aligned and np.array_equal(weight.array, values(2))


def test_double_precision_becomes_single(tmp_path):
    source = SafetensorsSource(write_safetensors(tmp_path, {"model.norm.weight": values(8).astype(np.float64)}))
    assert np.array_equal(source.read("norm").dense(), values(8))


def test_empty_tensors_are_read(tmp_path):
    source = SafetensorsSource(write_safetensors(tmp_path, {"a": values(0, 4), "model.norm.weight": values(1)}))
    assert source.read("a").shape == (0, 4)


def test_other_types_are_an_error_only_when_read(tmp_path):
    source = SafetensorsSource(write_safetensors(tmp_path, {"a": np.arange(4), "model.norm.weight": values(8)}))
    assert np.array_equal(source.read("norm").dense(), values(8))
    with pytest.raises(Unsupported, match=r"(?s)tensor 'a' in model\.safetensors is of type I64.*F32, F16, BF16"):
        source.read("a")


def test_the_files_of_an_index_are_read_as_one(tmp_path):
    for number, name in enumerate(("a", "b")):
        write_safetensors(tmp_path, {f"{name}.weight": values(2, 4) + number}, file=f"{name}.safetensors")
    write_index(tmp_path, {"a.weight": "a.safetensors", "b.weight": "b.safetensors"})
    source = SafetensorsSource(tmp_path)
    assert source.names() == {"a.weight", "b.weight"} and source.metadata == CONFIG
    assert np.array_equal(source.read("b.weight").dense(), values(2, 4) + 1)


def test_one_file_can_be_named(tmp_path):
    write_safetensors(tmp_path, {"model.norm.weight": values(4)}, file="other.safetensors")
    assert SafetensorsSource(tmp_path / "other.safetensors").names() == {"norm"}
    assert SafetensorsSource(tmp_path).names() == {"norm"}


def test_a_shard_that_the_index_names_and_the_folder_lacks_is_reported(tmp_path):
    write_safetensors(tmp_path, {"a": values(2)}, file="a.safetensors")
    write_index(tmp_path, {"a": "a.safetensors", "b": "b.safetensors"})
    with pytest.raises(InvalidModel, match=r"2 files, of which 1 are absent: \['b\.safetensors'\]"):
        SafetensorsSource(tmp_path)


@pytest.mark.parametrize("name", ["../a.safetensors", "/etc/a.safetensors", "x/a.safetensors", "..\\a.safetensors",
                                  "c:a.safetensors", "a.bin", "a\0.safetensors"])
def test_an_index_cannot_name_files_elsewhere(tmp_path, name):
    write_safetensors(tmp_path, {"a": values(2)}, file="a.safetensors")
    write_index(tmp_path, {"a": name})
    with pytest.raises(InvalidModel, match="expected the name of a safetensors file in the same folder"):
        SafetensorsSource(tmp_path)


def test_an_index_that_disagrees_with_its_files_is_refused(tmp_path):
    for name in ("a", "b"):
        write_safetensors(tmp_path, {name: values(2)}, file=f"{name}.safetensors")
    write_index(tmp_path, {"a": "a.safetensors", "b": "a.safetensors", "c": "b.safetensors"})
    with pytest.raises(InvalidModel, match=r"names tensor 'b' in a\.safetensors, which does not have it"):
        SafetensorsSource(tmp_path)


def test_several_files_without_an_index_are_ambiguous(tmp_path):
    for name in ("a", "b"):
        write_safetensors(tmp_path, {name: values(2)}, file=f"{name}.safetensors")
    with pytest.raises(InvalidModel, match="has 2 safetensors files"):
        SafetensorsSource(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.ckpt", "consolidated.00.pth"])
def test_pickled_weights_are_refused(tmp_path, name):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / name).write_bytes(b"\x80\x04N.")
    with pytest.raises(Unsupported, match=r"(?s)pickle.*convert the model to safetensors"):
        SafetensorsSource(tmp_path)


def test_a_folder_without_weights_or_configuration_is_not_found(tmp_path):
    with pytest.raises(ModelNotFound, match="no safetensors file"):
        SafetensorsSource(tmp_path)
    write_safetensors(tmp_path, {"a": values(2)})
    (tmp_path / "config.json").unlink()
    with pytest.raises(ModelNotFound, match=r"no readable config\.json"):
        SafetensorsSource(tmp_path)


@pytest.mark.parametrize("text", ["[1]", "{", "\xff", "[" * 100_000, "1" * 10_000])
def test_a_configuration_that_is_no_object_is_refused(tmp_path, text):
    write_safetensors(tmp_path, {"a": values(2)})
    (tmp_path / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(InvalidModel, match=r"config\.json"):
        SafetensorsSource(tmp_path)


def test_infinity_in_a_configuration_is_accepted(tmp_path):
    write_safetensors(tmp_path, {"a": values(2)})
    (tmp_path / "config.json").write_text('{"limit": Infinity}')
    assert SafetensorsSource(tmp_path).metadata == {"limit": float("inf")}
