from __future__ import annotations

import gguf
import numpy as np
import pytest
from files import LLAMA, write_gguf
from packing import HALVES, random_packed

from zonda.errors import InvalidModel, ModelNotFound, Unsupported
from zonda.weights.formats.dense import Dense
from zonda.weights.formats.group_int import GroupInt
from zonda.weights.gguf import GGUFSource

REAL = ("smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "gemma3-270m/gemma-3-270m-q4_k_m.gguf")


def values(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_metadata_comes_back_as_python_values(tmp_path):
    plain = {"a": 7, "b": 0.5, "c": True, "d": "grüße", "words": ["x", "", "yz"]}
    path = write_gguf(tmp_path / "a.gguf", {"output_norm.weight": values(4)},
                      {**plain, "ints": [1, 2, 3], "floats": [0.5, 1.5]})
    found = GGUFSource(path).metadata
    assert found["general.architecture"] == "llama"
    assert {key: found[key] for key in plain} == plain
    assert isinstance(found["ints"], np.ndarray) and found["ints"].tolist() == [1, 2, 3]
    assert found["floats"].dtype == np.float32 and found["floats"].tolist() == [0.5, 1.5]


@pytest.mark.parametrize("name", sorted(HALVES))
def test_packed_tensors_come_back_byte_for_byte(tmp_path, name):
    packed = random_packed(name, 6, 256)
    weight = GGUFSource(write_gguf(tmp_path / "a.gguf", {"blk.0.ffn_up.weight": packed})).read("layers.0.ffn.up")
    assert isinstance(weight, GroupInt) and weight.codec is packed.codec and weight.shape == (6, 256)
    assert np.array_equal(weight.packed, packed.packed)


def test_experts_are_stacks_of_matrices(tmp_path):
    packed = random_packed("q4_k", 3, 8, 512)
    path = write_gguf(tmp_path / "a.gguf", {"blk.5.ffn_down_exps.weight": packed})
    weight = GGUFSource(path).read("layers.5.ffn.down")
    assert weight.shape == (3, 8, 512) and np.array_equal(weight.dense(), packed.dense())


def test_floating_point_tensors_keep_their_type_and_stay_in_the_file(tmp_path):
    half, brain = values(2, 32).astype(np.float16), gguf.quantize(values(3, 32), gguf.GGMLQuantizationType.BF16)
    writer_input = {"output_norm.weight": values(4), "blk.0.ffn_up.weight": half}
    path = tmp_path / "a.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    for name, array in writer_input.items():
        writer.add_tensor(name, array)
    writer.add_tensor("output.weight", brain, raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    source = GGUFSource(path)
    read = {name: source.read(name) for name in ("norm", "layers.0.ffn.up", "head")}
    assert [one.dtype for one in read.values() if isinstance(one, Dense)] == ["f32", "f16", "bf16"]
    assert np.array_equal(read["norm"].dense(), values(4)) and np.array_equal(read["layers.0.ffn.up"].dense(), half)
    assert np.abs(read["head"].dense() - values(3, 32)).max() < 0.02
    flags = [one.array.flags for one in read.values() if isinstance(one, Dense)]
    assert not any(flag.owndata or flag.writeable for flag in flags)


def test_query_and_key_rows_of_llama_files_become_half_split(tmp_path):
    original = values(64, 64)

    def interleave(rows: np.ndarray, heads: int) -> np.ndarray:
        return rows.reshape(heads, 2, -1, rows.shape[-1]).swapaxes(1, 2).reshape(rows.shape)

    tensors = {"blk.0.attn_q.weight": interleave(original, 4), "blk.0.attn_k.weight": interleave(original[:32], 2),
               "blk.0.attn_v.weight": original[:32], "blk.0.attn_q.bias": interleave(original[:, :1], 4).ravel()}
    source = GGUFSource(write_gguf(tmp_path / "a.gguf", tensors, LLAMA))
    assert np.array_equal(source.read("layers.0.attn.q").dense(), original)
    assert np.array_equal(source.read("layers.0.attn.k").dense(), original[:32])
    assert np.array_equal(source.read("layers.0.attn.v").dense(), original[:32])
    assert np.array_equal(source.read("layers.0.attn.q.bias").dense(), original[:, 0])


def test_other_architectures_keep_the_order_of_their_rows(tmp_path):
    path = write_gguf(tmp_path / "a.gguf", {"blk.0.attn_q.weight": values(64, 64)}, architecture="qwen2")
    assert np.array_equal(GGUFSource(path).read("layers.0.attn.q").dense(), values(64, 64))


def test_fused_projections_of_phi3_are_taken_apart(tmp_path):
    metadata = {"phi3.attention.head_count": 4, "phi3.attention.head_count_kv": 2, "phi3.embedding_length": 64}
    qkv, gate_up = random_packed("q4_0", 128, 64), random_packed("q8_0", 96, 64)
    path = write_gguf(tmp_path / "a.gguf", {"blk.0.attn_qkv.weight": qkv, "blk.0.ffn_up.weight": gate_up}, metadata,
                      architecture="phi3")
    source = GGUFSource(path)
    assert source.names() == {f"layers.0.{name}" for name in ("attn.q", "attn.k", "attn.v", "ffn.gate", "ffn.up")}
    parts = np.split(qkv.dense(), [64, 96])
    for name, part in zip("qkv", parts):
        assert np.array_equal(source.read(f"layers.0.attn.{name}").dense(), part)
    assert np.array_equal(source.read("layers.0.ffn.gate").dense(), gate_up.dense()[:48])
    assert np.array_equal(source.read("layers.0.ffn.up").dense(), gate_up.dense()[48:])


def test_shards_are_found_beside_the_one_that_is_named_and_read_as_one(tmp_path):
    paths = [tmp_path / f"m-{number:05}-of-00003.gguf" for number in (1, 2, 3)]
    for number, path in enumerate(paths):
        write_gguf(path, {f"blk.{number}.ffn_up.weight": values(2, 4) + number},
                   {"split.count": 3, "split.tensors.count": 3} if number == 0 else {})
    for given in (paths[0], paths[2], list(reversed(paths))):
        source = GGUFSource(given)
        assert source.names() == {f"layers.{number}.ffn.up" for number in range(3)}
        assert source.metadata["split.count"] == 3
        assert np.array_equal(source.read("layers.2.ffn.up").dense(), values(2, 4) + 2)


def test_an_absent_shard_is_named(tmp_path):
    path = write_gguf(tmp_path / "m-00002-of-00003.gguf", {"output_norm.weight": values(4)})
    with pytest.raises(InvalidModel, match=r"2 of 3 shards are absent.*m-00001-of-00003\.gguf"):
        GGUFSource(path)


def test_a_renamed_first_shard_alone_is_refused(tmp_path):
    path = write_gguf(tmp_path / "m.gguf", {"output_norm.weight": values(4)}, {"split.count": 2})
    with pytest.raises(InvalidModel, match=r"split\.count is 2, but 1 files were given"):
        GGUFSource(path)


def test_a_tensor_in_two_shards_is_refused(tmp_path):
    paths = [write_gguf(tmp_path / f"{n}.gguf", {"output_norm.weight": values(4)}) for n in "ab"]
    with pytest.raises(InvalidModel, match=r"'output_norm.weight' is both in a\.gguf and in b\.gguf"):
        GGUFSource(paths)


def test_a_type_that_cannot_be_read_is_an_error_only_when_its_tensor_is_read(tmp_path):
    path = tmp_path / "a.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("output.weight", np.zeros((2, 66), np.uint8), raw_dtype=gguf.GGMLQuantizationType.IQ2_XXS)
    writer.add_tensor("output_norm.weight", values(4))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    source = GGUFSource(path)
    assert np.array_equal(source.read("norm").dense(), values(4))
    with pytest.raises(Unsupported, match=r"(?s)'output.weight' in a\.gguf is of type iq2_xxs.*f32, f16, bf16, q4_0"):
        source.read("head")


def test_a_missing_name_is_an_error_that_names_it(tmp_path):
    source = GGUFSource(write_gguf(tmp_path / "a.gguf", {"output_norm.weight": values(4)}))
    with pytest.raises(InvalidModel, match=r"no tensor for layers\.0\.attn\.q"):
        source.read("layers.0.attn.q")


def test_big_endian_files_are_refused_by_that_name(tmp_path):
    path = write_gguf(tmp_path / "a.gguf", {"output_norm.weight": values(4)}, endian=gguf.GGUFEndian.BIG)
    with pytest.raises(Unsupported, match="big-endian"):
        GGUFSource(path)


def test_an_absent_file_is_not_found(tmp_path):
    with pytest.raises(ModelNotFound, match="cannot read"):
        GGUFSource(tmp_path / "a.gguf")


def test_released_pages_are_read_again(tmp_path):
    source = GGUFSource(write_gguf(tmp_path / "a.gguf", {"output_norm.weight": values(4096)}))
    weight = source.read("norm")
    before = weight.dense().copy()
    source.release()
    assert np.array_equal(weight.dense(), before)


@pytest.mark.e2e
@pytest.mark.parametrize("name", REAL)
def test_every_tensor_and_every_value_of_a_real_file_equals_the_oracle(real_model, name):
    path = real_model(name)
    source, reader = GGUFSource(path), gguf.GGUFReader(path)
    assert len(source.names()) == len(reader.tensors)
    for tensor in reader.tensors:
        weight = source._fetch(tensor.name)
        assert weight.shape == tuple(tensor.shape.tolist())[::-1]
        some = weight.rows(slice(0, 64))
        assert np.array_equal(some.dense(), gguf.dequantize(tensor.data[:64], tensor.tensor_type))
    fields = {key: field for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    assert source.metadata.keys() == fields.keys()
    for key, value in source.metadata.items():
        if isinstance(value, np.ndarray | list):
            assert len(value) == len(fields[key].data)
            assert list(value[-300:]) == fields[key].contents(slice(-300, None))
        else:
            assert value == fields[key].contents()
