"""Random weights: right shapes, right formats, a sane spread."""
import numpy as np
import pytest

from zonda.errors import InvalidRequest
from zonda.models import build
from zonda.weights.formats.float8 import Float8
from zonda.weights.formats.ggml import CODECS
from zonda.weights.formats.group_int import GroupInt
from zonda.weights.load import load
from zonda.weights.random import RandomSource
from zonda.weights.shapes import SHAPES

TINY = {**SHAPES["llama-3.2-1b"], "hidden_size": 256, "num_hidden_layers": 8, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 512, "vocab_size": 64}


def source(dtype: str, config: dict = TINY) -> RandomSource:
    made = RandomSource(config, dtype)
    made.shape_of(build(made)[1])
    return made


def format_of(source: RandomSource, name: str) -> str:
    weight = source.read(name)
    if isinstance(weight, Float8):
        return "fp8"
    return weight.codec.name if isinstance(weight, GroupInt) else weight.dtype  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", SHAPES)
def test_every_known_shape_is_a_model(name: str) -> None:
    assert "layers.0.attn.q" in source("q4_0", SHAPES[name]).names()


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16", "fp8", *(codec.name for codec in CODECS.values())])
def test_weights_spread_as_a_trained_models_would(dtype: str) -> None:
    made = source(dtype)
    values = made.read("layers.0.ffn.gate").dense()
    assert values.shape == (512, 256) and np.isfinite(values).all()
    assert abs(values.std() * 16 - 1) < 0.2 and abs(values.mean() * 16) < 0.15
    assert format_of(made, "layers.0.ffn.gate") == dtype


def test_a_mix_gives_sensitive_matrices_more_bits() -> None:
    made = source("q4_k_m")
    downs = [format_of(made, f"layers.{i}.ffn.down") for i in range(8)]
    assert downs == ["q6_k", "q4_k", "q4_k", "q6_k", "q4_k", "q4_k", "q6_k", "q6_k"]
    assert (format_of(made, "embed"), format_of(made, "layers.0.attn.q")) == ("q6_k", "q4_k")


def test_rows_that_are_not_whole_blocks_take_shorter_ones() -> None:
    config = {**TINY, "hidden_size": 96, "head_dim": 16, "intermediate_size": 256}
    assert format_of(source("q4_k", config), "layers.0.attn.q") == "q5_0"


def test_rows_that_fit_no_block_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="whole blocks"):
        source("q4_0", {**TINY, "hidden_size": 24, "head_dim": 8}).read("layers.0.attn.q")


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="q3_9"):
        RandomSource(TINY, "q3_9")


def test_norms_are_ones_and_routers_stay_dense() -> None:
    experts = {**SHAPES["qwen3-30b-a3b"], "hidden_size": 64, "num_hidden_layers": 1, "num_experts": 4, "vocab_size": 64,
               "num_experts_per_tok": 2, "moe_intermediate_size": 32, "num_attention_heads": 2,
               "num_key_value_heads": 1, "head_dim": 32}
    made = source("q8_0", experts)
    assert (made.read("norm").dense() == 1).all() and format_of(made, "layers.0.ffn.router") == "f32"
    assert made.read("layers.0.ffn.down").shape == (4, 64, 32)


def test_a_decoder_takes_all_of_them() -> None:
    from zonda.kernels.reference import ReferenceOps

    made = source("q4_k_m")
    _, decoder = build(made)
    load(decoder, made, ReferenceOps())


def test_beside_eight_bit_floats_the_head_and_the_embeddings_keep_sixteen_bits() -> None:
    made = source("fp8", {**TINY, "tie_word_embeddings": False})
    assert format_of(made, "head") == format_of(made, "embed") == "bf16"


@pytest.mark.parametrize("dtype", ["bf16", "fp8", "q4_k_m"])
def test_rows_that_are_left_to_a_device_are_the_same(dtype: str) -> None:
    whole, left = source(dtype), RandomSource(TINY, dtype, repeated=True)
    left.shape_of(build(left)[1])
    for name in ("embed", "layers.0.attn.q", "layers.1.ffn.down"):
        np.testing.assert_array_equal(left.read(name).dense(), whole.read(name).dense())
