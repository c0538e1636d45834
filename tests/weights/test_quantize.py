"""Quantization while loading: rounding as good as it can be, and a rule for which matrix becomes what."""
from __future__ import annotations

import logging

import gguf
import numpy as np
import pytest

from zonda.engine.batch import Batch
from zonda.errors import InvalidRequest
from zonda.kernels.reference import ReferenceOps
from zonda.models import build
from zonda.weights.formats import Dense, Float8, GroupInt
from zonda.weights.formats.ggml import codec
from zonda.weights.load import load
from zonda.weights.quantize import FLOAT8, InSitu, bits, format_of, quantize
from zonda.weights.quantizers import PACKED, packer
from zonda.weights.random import RandomSource
from zonda.weights.shapes import SHAPES
from zonda.weights.source import Weight

SIMPLE = [name for name in PACKED if not name.endswith("k")]
KINDS = (*PACKED, FLOAT8)
SPREADS = {"normal": lambda rng, shape: rng.standard_normal(shape),
           "heavy": lambda rng, shape: rng.standard_t(4, shape),
           "shifted": lambda rng, shape: 0.5 + rng.standard_normal(shape)}
TINY = {**SHAPES["llama-3.2-1b"], "hidden_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 512, "vocab_size": 64, "tie_word_embeddings": False}


def values(*shape: int, spread: str = "normal") -> np.ndarray:
    return (SPREADS[spread](np.random.default_rng(3), shape) * 0.02).astype(np.float32)


def error(weight: Weight, exact: np.ndarray) -> float:
    return float(np.linalg.norm(weight.dense() - exact) / np.linalg.norm(exact))


def naive(name: str, exact: np.ndarray) -> float:
    """The error of evenly spaced codes between the extremes of each group, with scales as exact as can be."""
    one = codec(name)
    groups = exact.reshape(-1, one.group)
    if one.has_min:
        low = np.minimum(groups.min(1, keepdims=True), 0)
        step = (groups.max(1, keepdims=True) - low) / (2**one.bits - 1)
        rounded = np.rint((groups - low) / step) * step + low
    else:
        step = np.abs(groups).max(1, keepdims=True) / (2 ** (one.bits - 1) - 1)
        rounded = np.rint(groups / step) * step
    return float(np.linalg.norm(rounded - groups) / np.linalg.norm(groups))


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("name", SIMPLE)
def test_simple_types_are_rounded_to_the_bytes_that_ggml_writes(name: str, spread: str) -> None:
    exact = values(40, 512, spread=spread)
    exact[3, :32], exact[4, :32] = 0, 0.25
    expected = gguf.quantize(exact, gguf.GGMLQuantizationType[name.upper()])
    np.testing.assert_array_equal(packer(name)(exact), expected)


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("name", PACKED)
def test_the_error_is_no_worse_than_that_of_even_steps_with_exact_scales(name: str, spread: str) -> None:
    exact = values(64, 512, spread=spread)
    packed = quantize(Dense.of(exact), name)
    assert isinstance(packed, GroupInt) and packed.codec.name == name
    margin = 1.001 if name in SIMPLE else 0.97
    assert error(packed, exact) <= margin * naive(name, exact)


@pytest.mark.parametrize("name", [name for name in PACKED if name not in SIMPLE])
def test_another_reader_finds_the_same_values(name: str) -> None:
    packed = quantize(Dense.of(values(8, 512)), name)
    assert isinstance(packed, GroupInt)
    read = gguf.dequantize(packed.packed, gguf.GGMLQuantizationType[name.upper()])
    np.testing.assert_array_equal(read, packed.dense())


def test_eight_bit_floats_have_a_scale_for_each_row() -> None:
    exact = values(64, 512)
    exact[5] *= 1000
    packed = quantize(Dense.of(exact), FLOAT8)
    assert isinstance(packed, Float8) and packed.scales.shape == (64, 1)
    assert error(packed, exact) < 0.03 and abs(packed.dense()[5] / exact[5] - 1).max() < 0.07


@pytest.mark.parametrize("name", KINDS)
def test_rows_without_a_spread_stay_what_they_are(name: str) -> None:
    exact = np.zeros((4, 256), np.float32)
    exact[1], exact[2], exact[3, 7] = 0.5, -0.25, 1e-30
    np.testing.assert_allclose(quantize(Dense.of(exact), name).dense(), exact, rtol=2e-2, atol=1e-7)


@pytest.mark.parametrize("name", KINDS)
def test_a_stack_is_quantized_matrix_by_matrix_in_pieces_of_any_size(name: str, monkeypatch) -> None:
    exact = values(3, 20, 512)
    stack = quantize(Dense.of(exact), name)
    monkeypatch.setattr("zonda.weights.quantize.CHUNK", 2000)
    one = quantize(Dense.of(exact[1]), name)
    assert stack.shape == (3, 20, 512)
    np.testing.assert_array_equal(stack.dense()[1], one.dense())
    np.testing.assert_array_equal(quantize(Dense.of(exact), name).dense(), stack.dense())


@pytest.mark.parametrize(("name", "kind"), [("Q4K", "q4_k"), ("q4_k", "q4_k"), ("4", "q4_k"), ("8", "q8_0"),
                                            ("FP8", "fp8"), ("q5_1", "q5_1")])
def test_formats_are_named_in_any_case_or_by_their_width(name: str, kind: str) -> None:
    assert format_of(name) == kind


@pytest.mark.parametrize("name", ["q8k", "afq4", "7", "", "q4"])
def test_an_unknown_format_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(InvalidRequest, match="not supported") as caught:
        format_of(name)
    assert caught.value.param == "isq" and "q4_0, q4_1" in str(caught.value.hint) and "q6k, fp8" in str(
        caught.value.hint)


def kind(weight: Weight) -> str:
    return weight.codec.name if isinstance(weight, GroupInt) else "fp8" if isinstance(weight, Float8) else "dense"


@pytest.mark.parametrize(("rule", "name", "expected"), [
    (InSitu("q4_k"), "layers.0.attn.q", "q4_k"), (InSitu("q4_k"), "head", "q6_k"), (InSitu("q5_0"), "head", "q8_0"),
    (InSitu("q4_k"), "embed", "dense"), (InSitu("q4_k", embeddings=True), "embed", "q6_k"),
    (InSitu("q4_k"), "layers.0.ffn.router", "dense"), (InSitu("fp8"), "head", "fp8"), (InSitu("q8_0"), "head", "q8_0"),
])
def test_each_matrix_becomes_what_it_bears(rule: InSitu, name: str, expected: str) -> None:
    assert kind(rule(name, Dense.of(values(8, 256)))) == expected


def test_norms_and_biases_stay() -> None:
    assert kind(InSitu("q8_0")("layers.0.attn.q.bias", Dense.of(values(256)))) == "dense"


def test_rows_that_are_not_whole_blocks_get_smaller_ones_or_stay_and_that_is_told_once(caplog) -> None:
    rule = InSitu("q4_k")
    with caplog.at_level(logging.WARNING):
        assert [kind(rule("a", Dense.of(values(8, cols)))) for cols in (288, 288, 40)] == ["q5_0", "q5_0", "dense"]
    assert [record.message for record in caplog.records] == [
        "rows of 288 weights are not whole blocks of q4_k: they are q5_0"]


def test_packed_weights_are_packed_again_only_into_fewer_bits() -> None:
    eight = quantize(Dense.of(values(8, 256)), "q8_0")
    assert bits(InSitu("q4_k")("a", eight)) == 4
    assert InSitu("q8_0")("a", eight) is eight and InSitu("fp8")("a", eight) is eight
    four = quantize(Dense.of(values(8, 256)), "q4_0")
    assert InSitu("q6_k")("a", four) is four


def logits(kind: str | None) -> np.ndarray:
    """Of a tiny model's last token."""
    source = RandomSource(TINY, "f32")
    _, decoder = build(source)
    source.shape_of(decoder)
    load(decoder, source, ReferenceOps(), convert=InSitu(kind) if kind else None)
    tokens = np.arange(5, dtype=np.int32)
    return decoder(Batch(tokens, tokens, np.array([0, 5], np.int32), np.array([5], np.int32),
                         np.zeros((1, 1), np.int32), tokens[-1:]))[0]


@pytest.mark.parametrize("name", KINDS)
def test_a_quantized_model_says_about_what_the_model_says(name: str) -> None:
    exact, rounded = logits(None), logits(name)
    likeness = exact @ rounded / np.linalg.norm(exact) / np.linalg.norm(rounded)
    assert likeness > {2: 0.8, 3: 0.93}.get(8 if name == FLOAT8 else codec(name).bits, 0.98)
    assert not np.array_equal(exact, rounded)
