from __future__ import annotations

import gguf
import numpy as np
import pytest
from packing import HALVES, random_packed

from zonda.errors import InvalidModel
from zonda.weights.formats.dense import Dense
from zonda.weights.formats.ggml import CODECS, DENSE, OTHERS, codec
from zonda.weights.formats.group_int import GroupInt

FORMATS = sorted(HALVES)
SHAPES = [(6, 512), (3, 6, 512)]


def oracle(weight: GroupInt) -> np.ndarray:
    kind = gguf.GGMLQuantizationType[weight.codec.name.upper()]
    return gguf.dequantize(weight.packed, kind).reshape(weight.shape)


def dense_weight(dtype: str, *shape: int) -> Dense:
    values = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    if dtype == "bf16":
        return Dense((values.view(np.uint32) >> 16).astype(np.uint16), "bf16")
    return Dense(values.astype({"f32": np.float32, "f16": np.float16}[dtype]), dtype)  # type: ignore[arg-type]


def weight(name: str, *shape: int, seed: int = 0):
    return random_packed(name, *shape, seed=seed) if name in HALVES else dense_weight(name, *shape)


def test_every_type_number_and_block_size_agrees_with_the_format_definition():
    for number, one in CODECS.items():
        kind = gguf.GGMLQuantizationType(number)
        assert (kind.name.lower(), gguf.GGML_QUANT_SIZES[kind]) == (one.name, (one.block, one.block_bytes))
    for number, name in {**DENSE, **OTHERS}.items():
        assert gguf.GGMLQuantizationType(number).name.lower() == name


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_packed_values_equal_the_oracle(name, shape):
    packed = random_packed(name, *shape)
    assert np.array_equal(packed.dense(), oracle(packed))


@pytest.mark.parametrize("name", [f for f in FORMATS if not f.endswith("k")])
def test_values_that_another_tool_packed_are_read_back(name):
    values = np.random.default_rng(2).normal(size=(5, 256)).astype(np.float32)
    packed = gguf.quantize(values, gguf.GGMLQuantizationType[name.upper()])
    one = GroupInt(codec(name), packed, values.shape)
    assert np.abs(one.dense() - values).max() < 4.5 * 2.0 ** (1 - codec(name).bits)


@pytest.mark.parametrize("name", FORMATS)
def test_unpack_gives_codes_in_range_and_one_scale_a_group(name):
    one = random_packed(name, 4, 512)
    codes, scales, mins = one.codec.unpack(one.packed)
    assert codes.dtype == np.uint8 and codes.shape == (4, 512) and codes.max() < 2 ** one.codec.bits
    assert scales.dtype == np.float32 and scales.shape == (4, 512 // one.codec.group)
    assert (mins is not None) == one.codec.has_min
    if mins is not None:
        assert mins.dtype == np.float32 and mins.shape == scales.shape and one.codec.offset == 0


@pytest.mark.parametrize("name", [*FORMATS, "f32", "f16", "bf16"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("index", [slice(1, 4), np.array([4, 0, 0, 5]), slice(0, 0)], ids=str)
def test_taking_rows_commutes_with_unpacking(name, shape, index):
    one = weight(name, *shape)
    taken = one.rows(index)
    assert np.array_equal(taken.dense(), one.dense()[..., index, :])
    assert taken.shape == taken.dense().shape


@pytest.mark.parametrize("name", [*FORMATS, "f32", "f16", "bf16"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("index", [slice(0, 256), slice(256, None), slice(256, 0)], ids=str)
def test_taking_columns_commutes_with_unpacking(name, shape, index):
    one = weight(name, *shape)
    taken = one.cols(index)
    assert np.array_equal(taken.dense(), one.dense()[..., index])
    assert taken.shape == taken.dense().shape


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("index", [slice(1, 256), slice(0, 255), slice(0, 512, 2)], ids=str)
def test_columns_that_split_a_block_are_refused(name, index):
    with pytest.raises(InvalidModel, match="split a block"):
        random_packed(name, 2, 512).cols(index)


@pytest.mark.parametrize("name", [*FORMATS, "f32", "f16", "bf16"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_stacking_concatenates_rows(name, shape):
    one, other = weight(name, *shape), weight(name, *shape, seed=7).rows(slice(0, 2))
    assert one.can_stack(other)
    stacked = one.stack([other, one])
    assert np.array_equal(stacked.dense(), np.concatenate([one.dense(), other.dense(), one.dense()], axis=-2))
    assert stacked.shape == stacked.dense().shape


def test_weights_of_other_formats_or_other_widths_do_not_stack():
    one = random_packed("q4_0", 2, 256)
    assert not one.can_stack(random_packed("q4_1", 2, 256))
    assert not one.can_stack(random_packed("q4_0", 2, 512))
    assert not one.can_stack(random_packed("q4_0", 3, 2, 256))
    assert not random_packed("q4_0", 3, 2, 256).can_stack(random_packed("q4_0", 2, 2, 256))
    assert not one.can_stack(dense_weight("f32", 2, 256)) and not dense_weight("f32", 2, 256).can_stack(one)
    assert not dense_weight("f32", 2, 256).can_stack(dense_weight("f16", 2, 256))
    assert not dense_weight("f32", 2, 256).can_stack(dense_weight("f32", 2, 128))


def test_vectors_have_rows_and_stack():
    one, other = dense_weight("f32", 6), dense_weight("f32", 4)
    assert np.array_equal(one.rows(np.array([5, 0])).dense(), one.dense()[[5, 0]])
    assert one.can_stack(other) and one.stack([other]).shape == (10,)


def test_slices_of_rows_share_the_bytes_of_the_file():
    one = random_packed("q4_k", 6, 512)
    assert np.shares_memory(one.rows(slice(2, 4)).packed, one.packed)
    assert np.shares_memory(dense_weight("f32", 6, 4).array, dense_weight("f32", 6, 4).array) is False


def test_float32_weights_are_dense_without_a_copy():
    one = dense_weight("f32", 2, 4)
    assert one.dense() is one.array


def test_large_weights_unpack_in_pieces_to_the_same_values(monkeypatch):
    one = random_packed("q6_k", 9, 512)
    whole = one.dense()
    monkeypatch.setattr("zonda.weights.formats.group_int.CHUNK", 1024)
    assert np.array_equal(one.dense(), whole)
