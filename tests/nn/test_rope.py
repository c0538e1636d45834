"""Rotary frequencies and factors against transformers."""
from types import SimpleNamespace

import numpy as np
import pytest
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from zonda.models.config import Config
from zonda.nn import Rope

PAIRS = 32
LONG, SHORT = [1.0 + i / 4 for i in range(PAIRS)], [1.0 + i / 100 for i in range(PAIRS)]
SCALINGS = {
    "linear": {"rope_type": "linear", "factor": 4.0},
    "llama3": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 512},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024},
    "yarn with its own limits": {"rope_type": "yarn", "factor": 40.0, "original_max_position_embeddings": 256,
                                 "beta_fast": 16.0, "beta_slow": 2.0, "attention_factor": 0.7},
    "yarn with two scales": {"rope_type": "yarn", "factor": 40.0, "original_max_position_embeddings": 1024,
                             "mscale": 0.7, "mscale_all_dim": 1.3},
    "yarn not truncated": {"rope_type": "yarn", "factor": 32.0, "original_max_position_embeddings": 4096,
                           "truncate": False},
    "longrope": {"rope_type": "longrope", "long_factor": LONG, "short_factor": SHORT, "factor": 4.0,
                 "original_max_position_embeddings": 1024},
    "longrope with its own factor": {"rope_type": "longrope", "long_factor": LONG, "short_factor": SHORT, "factor": 4.0,
                                     "attention_factor": 1.5, "original_max_position_embeddings": 1024},
    "partial": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 512, "partial_rotary_factor": 0.5},
}


def ours(parameters, max_len=None):
    raw = {"architectures": ["LlamaForCausalLM"], "hidden_size": 256, "intermediate_size": 64, "num_hidden_layers": 1,
           "num_attention_heads": 4, "vocab_size": 8, "max_position_embeddings": 4096, "rope_theta": 500_000.0,
           "rope_scaling": parameters}
    config = Config.of(SimpleNamespace(metadata=raw, names=set), max_len=max_len)
    return Rope(config.heads.dim, **config.rope())


def theirs(parameters, **options):
    config = LlamaConfig(hidden_size=256, num_attention_heads=4, max_position_embeddings=4096,
                         rope_parameters={"rope_theta": 500_000.0, **parameters})
    frequencies, factor = ROPE_INIT_FUNCTIONS[parameters["rope_type"]](config, "cpu", **options)
    return frequencies.numpy(), factor


@pytest.mark.parametrize("name", SCALINGS)
def test_a_scaling_has_the_frequencies_of_transformers(name):
    rope, (frequencies, factor) = ours(SCALINGS[name]), theirs(SCALINGS[name], seq_len=4096)
    np.testing.assert_allclose(rope.frequencies, frequencies, rtol=2e-6)
    assert rope.factor == pytest.approx(factor, rel=1e-6)


def test_no_scaling_gives_powers_of_the_base():
    np.testing.assert_allclose(Rope(4, theta=100.0).frequencies, [1.0, 0.1])


def test_long_factors_are_chosen_when_a_sequence_may_exceed_the_original_context():
    long, short = ours(SCALINGS["longrope"], max_len=1025), ours(SCALINGS["longrope"], max_len=1024)
    np.testing.assert_allclose(short.frequencies / long.frequencies, np.array(LONG) / np.array(SHORT))
    assert long.factor == short.factor


@pytest.mark.parametrize("max_len", [4096, 16_384])
def test_dynamic_scaling_stretches_for_the_longest_sequence(max_len):
    parameters = {"rope_type": "dynamic", "factor": 3.0}
    frequencies, _ = theirs(parameters, seq_len=max_len)
    np.testing.assert_allclose(ours(parameters, max_len=max_len).frequencies, frequencies, rtol=2e-6)


def test_older_names_of_long_factors_are_understood():
    lists = {"long_factor": LONG, "short_factor": SHORT, "original_max_position_embeddings": 1024}
    for kind in ("su", "yarn", "longrope"):
        rope = ours({"type": kind, **lists})
        np.testing.assert_allclose(rope.frequencies, Rope(64, theta=500_000.0).frequencies / LONG)
