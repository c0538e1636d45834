from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from files import CONFIG
from safetensors.torch import save_file

from zonda.errors import InvalidModel, Unsupported
from zonda.weights.formats import pile
from zonda.weights.formats.float8 import VALUES, Float8, encode
from zonda.weights.safetensors import SafetensorsSource

FP8 = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
NAME = "model.layers.0.mlp.up_proj"


def random(*shape: int, height: int = 1, whole: bool = True, seed: int = 0) -> Float8:
    rng = np.random.default_rng(seed)
    codes = encode(rng.normal(0, 50, shape).astype(np.float32))
    blocks = (-(-shape[-2] // height), 1 if whole else -(-shape[-1] // 128))
    return Float8(codes, rng.uniform(0.5, 2, (*shape[:-2], *blocks)).astype(np.float32), height, whole)


KINDS = {"row": {}, "block": {"height": 128, "whole": False}, "row of blocks": {"whole": False}}


def checkpoint(folder: Path, tensors: dict[str, torch.Tensor], quantization: object = FP8) -> SafetensorsSource:
    folder.mkdir(exist_ok=True)
    config = CONFIG if quantization is None else {**CONFIG, "quantization_config": quantization}
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")
    return SafetensorsSource(folder)


def codes(*shape: int) -> torch.Tensor:
    return (torch.randn(*shape, generator=torch.Generator().manual_seed(0)) * 50).to(torch.float8_e4m3fn)


def test_every_code_has_the_value_that_torch_gives_it():
    expected = torch.arange(256).to(torch.uint8).view(torch.float8_e4m3fn).float().numpy()
    assert np.array_equal(VALUES, expected, equal_nan=True)


def test_rounding_to_codes_is_that_of_torch():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0, scale, 5000) for scale in (1e-3, 0.01, 1, 100)]).astype(np.float32)
    halves = ((VALUES[:126] + VALUES[1:127]) / 2).astype(np.float32)
    values = np.concatenate([values, halves, -halves, VALUES[:127], np.zeros(1, np.float32)]).clip(-448, 448)
    expected = torch.from_numpy(values).to(torch.float8_e4m3fn).view(torch.uint8).numpy()
    assert np.array_equal(encode(values), expected)


def test_what_is_too_large_becomes_the_largest_and_what_is_no_number_stays_none():
    assert VALUES[encode(np.array([1e9, -np.inf, 449], np.float32))].tolist() == [448, -448, 448]
    assert np.isnan(VALUES[encode(np.array([np.nan], np.float32))]).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(300, 400), (2, 300, 400)], ids=str)
@pytest.mark.parametrize("index", [slice(128, 256), slice(256, None), slice(5, 200), slice(9, 3),
                                   np.array([299, 0, 7])], ids=str)
def test_taking_rows_commutes_with_unpacking(kind, shape, index):
    one = random(*shape, **KINDS[kind])
    taken = one.rows(index)
    assert np.array_equal(taken.dense(), one.dense()[..., index, :]) and taken.shape == taken.dense().shape


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(300, 400), (2, 300, 400)], ids=str)
@pytest.mark.parametrize("index", [slice(128, 256), slice(256, None), slice(384, 0)], ids=str)
def test_taking_columns_commutes_with_unpacking(kind, shape, index):
    one = random(*shape, **KINDS[kind])
    taken = one.cols(index)
    assert np.array_equal(taken.dense(), one.dense()[..., index]) and taken.shape == taken.dense().shape


def test_columns_that_split_a_block_are_refused():
    with pytest.raises(InvalidModel, match="split a block of 128 float8"):
        random(256, 256, **KINDS["block"]).cols(slice(0, 100))
    assert random(256, 256).cols(slice(0, 100)).shape == (256, 100)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [(128, 256, 100), (100, 128, 128)], ids=str)
def test_stacking_concatenates_rows(kind, rows):
    first, *others = (random(count, 256, **KINDS[kind], seed=count) for count in rows)
    assert all(map(first.can_stack, others))
    stacked = first.stack(others)
    assert np.array_equal(stacked.dense(), np.concatenate([each.dense() for each in (first, *others)]))


def test_rows_with_scales_of_blocks_and_rows_with_their_own_do_not_stack():
    assert not random(128, 256).can_stack(random(128, 256, **KINDS["block"]))
    assert not random(128, 256).can_stack(random(128, 384))


@pytest.mark.parametrize("kind", KINDS)
def test_matrices_pile_up(kind):
    parts = [random(130, 256, **KINDS[kind], seed=seed) for seed in range(3)]
    parts[1] = parts[1].rows(np.arange(130))
    assert np.array_equal(pile("experts", parts).dense(), np.stack([part.dense() for part in parts]))


@pytest.mark.parametrize("kind", KINDS)
def test_values_rounded_to_bfloat16_are_within_its_precision(kind):
    one = random(2, 130, 300, **KINDS[kind])
    rounded = (one.rounded().astype(np.uint32) << 16).view(np.float32)
    assert np.abs(rounded - one.dense()).max() <= np.abs(one.dense()).max() * 2.0**-8
    assert np.allclose(rounded, one.dense(), rtol=2.0**-8)


def test_large_weights_unpack_in_pieces_to_the_same_values(monkeypatch):
    one = random(2, 300, 400, **KINDS["block"])
    whole = one.dense()
    monkeypatch.setattr("zonda.weights.formats.float8.CHUNK", 1000)
    assert np.array_equal(one.dense(), whole)


@pytest.mark.parametrize(("scale", "spread"), [
    (torch.tensor(0.5), lambda s: s), (torch.rand(200), lambda s: s[:, None]), (torch.rand(200, 1), lambda s: s),
    (torch.rand(2, 3).bfloat16(), lambda s: s.float().repeat_interleave(128, 0).repeat_interleave(128, 1)[:200, :300]),
], ids=["tensor", "rows", "column", "blocks"])
@pytest.mark.parametrize("ending", ["_scale", "_scale_inv"])
def test_scales_of_every_shape_are_read_with_their_weight(tmp_path, scale, spread, ending):
    weight = codes(200, 300)
    source = checkpoint(tmp_path, {f"{NAME}.weight": weight, f"{NAME}.weight{ending}": scale})
    assert source.names() == {"layers.0.ffn.up"}
    read = source.read("layers.0.ffn.up")
    assert isinstance(read, Float8) and read.input_scale is None
    assert np.array_equal(read.dense(), (weight.float() * spread(scale)).numpy())


def test_codes_are_those_of_the_mapped_file(tmp_path):
    read = checkpoint(tmp_path, {f"{NAME}.weight": codes(8, 16), f"{NAME}.weight_scale": torch.ones(8)}).read(
        "layers.0.ffn.up")
    assert isinstance(read, Float8) and not read.codes.flags.owndata


def test_the_scale_of_inputs_is_read_and_the_largest_serves_a_stack(tmp_path):
    tensors = {}
    for name, scale in (("q", 0.25), ("k", 0.5)):
        base = f"model.layers.0.self_attn.{name}_proj"
        tensors |= {f"{base}.weight": codes(8, 16), f"{base}.weight_scale": torch.tensor([2.0]),
                    f"{base}.input_scale": torch.tensor([scale]), f"{base}.{name}_scale": torch.tensor(1.0)}
    source = checkpoint(tmp_path, tensors, {"quant_method": "compressed-tensors", "format": "float-quantized"})
    assert source.names() == {"layers.0.attn.q", "layers.0.attn.k"}
    q, k = source.read("layers.0.attn.q"), source.read("layers.0.attn.k")
    assert isinstance(q, Float8) and q.input_scale == 0.25 and q.stack([k]).input_scale == 0.5


def test_experts_of_their_own_scales_pile_up(tmp_path):
    weights = [codes(8, 16), codes(8, 16).flip(0)]
    tensors = {f"model.layers.0.mlp.experts.{i}.up_proj.weight": each for i, each in enumerate(weights)}
    tensors |= {f"model.layers.0.mlp.experts.{i}.up_proj.weight_scale": torch.tensor(i + 1.0) for i in range(2)}
    read = checkpoint(tmp_path, tensors).read("layers.0.ffn.up")
    assert np.array_equal(read.dense(), torch.stack([weights[0].float(), 2 * weights[1].float()]).numpy())


def test_a_stack_in_one_tensor_has_a_scale_for_each_matrix(tmp_path):
    weight, scale = codes(3, 8, 16), torch.tensor([1.0, 2.0, 4.0])
    name = "model.layers.0.mlp.experts.down_proj"
    read = checkpoint(tmp_path, {name: weight, f"{name}_scale": scale}).read("layers.0.ffn.down")
    assert np.array_equal(read.dense(), (weight.float() * scale[:, None, None]).numpy())


def test_codes_without_a_scale_stand_for_themselves_unless_the_configuration_says_that_they_are_scaled(tmp_path):
    tensors = {f"{NAME}.weight": codes(8, 16)}
    read = checkpoint(tmp_path / "plain", tensors, None).read("layers.0.ffn.up")
    assert np.array_equal(read.dense(), tensors[f"{NAME}.weight"].float().numpy())
    with pytest.raises(InvalidModel, match=r"no 'model.layers.0.mlp.up_proj.weight_scale'"):
        checkpoint(tmp_path / "scaled", tensors).read("layers.0.ffn.up")


@pytest.mark.parametrize("shape", [(2,), (3, 16), (1, 2, 8), (0,), (8, 2), (2, 3)], ids=str)
def test_scales_of_another_shape_are_refused(tmp_path, shape):
    source = checkpoint(tmp_path, {f"{NAME}.weight": codes(8, 16), f"{NAME}.weight_scale": torch.ones(shape)})
    with pytest.raises(InvalidModel, match="expected one scale"):
        source.read("layers.0.ffn.up")


def test_a_vector_of_codes_is_refused(tmp_path):
    with pytest.raises(Unsupported, match="expected a matrix"):
        checkpoint(tmp_path, {"model.norm.weight": codes(8)}).read("norm")


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_scales_of_inputs_are_positive(tmp_path, scale):
    source = checkpoint(tmp_path, {f"{NAME}.weight": codes(8, 16), f"{NAME}.weight_scale": torch.ones(1),
                                   f"{NAME}.input_scale": torch.tensor(scale)})
    with pytest.raises(InvalidModel, match="expected positive"):
        source.read("layers.0.ffn.up")


@pytest.mark.parametrize(("config", "message"), [
    ({"quant_method": "awq", "bits": 4}, "'awq'"), ({"quant_method": ["fp8"]}, "fp8"), ({}, "None"),
    ({"quant_method": "fp8", "fmt": "e5m2"}, "fmt 'e5m2'"),
    ({"quant_method": "compressed-tensors", "format": "pack-quantized"}, "format 'pack-quantized'"),
    ({**FP8, "weight_block_size": [64, 64]}, r"\[64, 64\]"),
])
def test_other_quantizations_are_refused_by_name(tmp_path, config, message):
    with pytest.raises(Unsupported, match=message):
        checkpoint(tmp_path, {"model.norm.weight": torch.ones(8)}, config)


def test_a_configuration_that_is_no_object_is_refused(tmp_path):
    with pytest.raises(InvalidModel, match="expected an object"):
        checkpoint(tmp_path, {"model.norm.weight": torch.ones(8)}, [1])
