"""Hyper-parameters from both kinds of file: what they mean, and what is refused."""
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zonda.errors import InvalidModel, Unsupported, ZondaError
from zonda.kernels.ops import Heads
from zonda.models import ARCHITECTURES, build
from zonda.models.config import Config
from zonda.models.fields import GGUF, HUGGING_FACE
from zonda.nn.rope import LinearScaling
from zonda.weights.formats.dense import Dense

PLAIN = {"architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4,
         "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 80, "max_position_embeddings": 128,
         "rms_norm_eps": 1e-5, "tie_word_embeddings": False}
PACKED = {"general.architecture": "llama", "llama.embedding_length": 64, "llama.feed_forward_length": 96,
          "llama.block_count": 4, "llama.attention.head_count": 4, "llama.attention.head_count_kv": 2,
          "llama.context_length": 128, "llama.attention.layer_norm_rms_epsilon": 1e-5,
          "tokenizer.ggml.eos_token_id": 7}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}


class Only:
    """A source of metadata and a few tensors."""

    def __init__(self, metadata, **tensors):
        self.metadata = metadata
        self.tensors = {"embed": np.zeros((80, 64)), **{name.replace("_", "."): t for name, t in tensors.items()}}

    def names(self):
        return set(self.tensors)

    def read(self, name):
        return Dense.of(self.tensors[name])


def plain(**changes):
    return Config.of(Only({**PLAIN, **changes}))


def packed(changes=None, **tensors):
    return Config.of(Only({**PACKED, **(changes or {})}, **tensors))


def test_both_vocabularies_give_one_config():
    one, other = plain(eos_token_id=7, tie_word_embeddings=True), packed()
    assert one == other
    assert one.heads == Heads(4, 2, 16) and one.eos == {7} and one.max_len == 128


def test_code_that_a_checkpoint_names_is_ignored():
    code = {"AutoConfig": "configuration_evil.EvilConfig", "AutoModelForCausalLM": "somebody/else--modeling.Evil"}
    assert plain(auto_map=code) == plain()
    with pytest.raises(Unsupported, match="EvilForCausalLM"):
        build(Only({**PLAIN, "architectures": ["EvilForCausalLM"], "auto_map": code}))


@pytest.mark.parametrize("key", ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                                 "vocab_size", "max_position_embeddings"])
@pytest.mark.parametrize("value", [None, -1, 0, 1 << 40, "64", 6.5, True, [1, 2], {}])
def test_a_hostile_size_is_refused_by_its_key(key, value):
    with pytest.raises(InvalidModel, match=key):
        plain(**{key: value})


@pytest.mark.parametrize("key", ["embedding_length", "feed_forward_length", "block_count", "attention.head_count",
                                 "context_length"])
@pytest.mark.parametrize("value", [-1, 0, 1 << 40, "64", 6.5, True, np.array([1, 2])])
def test_a_hostile_size_in_gguf_metadata_is_refused_by_its_key(key, value):
    with pytest.raises(InvalidModel, match=f"llama.{key}"):
        packed({f"llama.{key}": value})


@pytest.mark.parametrize(("changes", "named"), [
    ({"num_key_value_heads": 3}, "key heads"), ({"num_key_value_heads": 8}, "num_key_value_heads"),
    ({"rms_norm_eps": 10**400}, "rms_norm_eps"),
    ({"head_dim": 15}, "even"), ({"head_dim": "16"}, "head_dim"), ({"rms_norm_eps": float("nan")}, "rms_norm_eps"),
    ({"rms_norm_eps": -1e-6}, "rms_norm_eps"), ({"rope_theta": float("inf")}, "rope_theta"),
    ({"rope_theta": 0}, "rope_theta"), ({"rope_theta": "many"}, "rope_theta"), ({"rope_scaling": [1]}, "rope_scaling"),
    ({"partial_rotary_factor": 2.0}, "partial_rotary"), ({"partial_rotary_factor": 0.07}, "partial_rotary_factor"),
    ({"sliding_window": -5}, "sliding_window"), ({"tie_word_embeddings": "yes"}, "tie_word_embeddings"),
    ({"sliding_window": 8, "layer_types": ["full_attention"]}, "layer_types"),
    ({"sliding_window": 8, "layer_types": ["linear_attention"] * 4}, "layer_types"),
    ({"eos_token_id": "</s>"}, "eos_token_id"), ({"eos_token_id": [1, None]}, "eos_token_id"),
    ({"hidden_act": 3}, "hidden_act"), ({"text_config": 3}, "text_config"),
    ({"rope_scaling": {"rope_type": "linear"}}, "factor"),
    ({"rope_scaling": {"rope_type": "linear", "factor": 0}}, "factor"),
    ({"rope_scaling": {**LLAMA3, "high_freq_factor": 0.5}}, "high_freq_factor"),
    ({"rope_scaling": {**LLAMA3, "original_max_position_embeddings": -1}}, "original_max_position_embeddings"),
    ({"rope_scaling": {"long_factor": [1.0] * 7, "short_factor": [1.0] * 8}}, "long_factor"),
    ({"rope_scaling": {"long_factor": [1.0] * 8, "short_factor": [0.0] * 8}}, "short_factor"),
    ({"rope_scaling": {"long_factor": [1.0] * 8, "short_factor": "1" * 8}}, "short_factor"),
])
def test_an_inconsistent_value_is_refused_by_its_key(changes, named):
    with pytest.raises(InvalidModel, match=named):
        plain(**changes)


@pytest.mark.parametrize(("changes", "named"), [
    ({"rope_scaling": {"rope_type": "spiral", "factor": 2.0}}, "spiral.*\n.*longrope"),
    ({"rope_scaling": {"rope_type": ["linear"]}}, "linear"), ({"hidden_act": "maxout"}, "maxout.*\n.*silu"),
    ({"mlp_bias": True}, "biases in the MLP"), ({"use_bidirectional_attention": True}, "bidirectional"),
])
def test_what_is_valid_but_not_run_says_so(changes, named):
    with pytest.raises(Unsupported, match=named):
        plain(**changes)


@pytest.mark.parametrize("metadata", [{"architectures": ["MambaForCausalLM"]}, {"general.architecture": "mamba"}])
def test_an_unknown_architecture_lists_those_that_run(metadata):
    with pytest.raises(Unsupported, match=r"(?i)mamba.*\n.*LlamaForCausalLM.*qwen3moe"):
        build(Only({**PLAIN, **metadata}))


@pytest.mark.parametrize("names", [None, [], "LlamaForCausalLM", ["A", "B"]])
def test_a_checkpoint_must_name_one_architecture(names):
    with pytest.raises(InvalidModel, match="architectures"):
        build(Only({**PLAIN, "architectures": names}))


def test_windows_follow_layer_types_a_pattern_or_a_first_layer():
    kinds = ["sliding_attention", "full_attention"] * 2
    assert plain(sliding_window=8, layer_types=kinds).windows == (8, 0, 8, 0)
    assert plain(sliding_window=8, sliding_window_pattern=3).windows == (8, 8, 0, 8)
    assert plain(sliding_window=8, max_window_layers=3).windows == (0, 0, 0, 8)
    assert plain(sliding_window=8).windows == (8, 8, 8, 8)
    assert plain(sliding_window=8, use_sliding_window=False).windows == (0, 0, 0, 0)
    key, pattern = "llama.attention.sliding_window", np.array([True, False] * 2)
    assert packed({key: 8, f"{key}_pattern": pattern}).windows == (8, 0, 8, 0)


def test_gemma_leaves_out_what_its_family_has_in_common():
    text = {"hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34, "sliding_window": 1024,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0}}
    raw = {"architectures": ["Gemma3ForConditionalGeneration"], "eos_token_id": [1, 106], "text_config": text}
    config, decoder = build(Only(raw))
    assert config.heads == Heads(8, 4, 256) and config.vocab == 262_208 and config.context == 131_072
    assert config.windows[:7] == (1024,) * 5 + (0, 1024) and config.eos == {1, 106} and config.tied
    near, far = (decoder.layers[i].attn.rope for i in (0, 5))
    assert (near.theta, far.theta) == (1e4, 1e6)
    np.testing.assert_allclose(far.frequencies[0], 1 / 8)
    assert near.frequencies[0] == 1


def test_the_largest_gemma_in_gguf_scales_by_its_width_over_its_heads():
    sizes = {"embedding_length": 5376, "block_count": 62, "feed_forward_length": 8, "attention.head_count": 32,
             "attention.head_count_kv": 16, "attention.key_length": 128, "attention.sliding_window": 1024}
    _, decoder = build(Only({"general.architecture": "gemma3", **{f"gemma3.{key}": v for key, v in sizes.items()}}))
    assert decoder.attentions[0].scale == 168**-0.5


def test_a_gguf_file_without_a_window_has_none():
    sizes = {key.replace("llama", "gemma3"): value for key, value in PACKED.items()}
    config, decoder = build(Only({**sizes, "general.architecture": "gemma3", "gemma3.rope.freq_base": 1e6}))
    assert config.windows == (0, 0, 0, 0) and {layer.attn.rope.theta for layer in decoder.layers} == {1e6}


def test_a_list_that_repeats_one_value_for_each_layer_is_that_value():
    assert packed({"llama.attention.head_count_kv": np.array([2, 2, 2, 2])}).heads.kv == 2
    assert packed({"llama.feed_forward_length": [96] * 4}).ffn_dim == 96


def test_biases_and_tying_in_gguf_are_what_its_tensors_say():
    bias = {"layers.0.attn.q.bias": np.zeros(64), "head": np.zeros((80, 64))}
    source = Only(PACKED)
    source.tensors |= bias
    assert Config.of(source).bias and not Config.of(source).tied
    assert not packed().bias and packed().tied


@pytest.mark.parametrize("key", ["rope.scaling.factor", "rope.scale_linear"])
def test_a_factor_alone_in_gguf_divides_positions(key):
    assert packed({f"llama.{key}": 4.0}).rope()["scaling"] == LinearScaling(4.0)
    assert packed({f"llama.{key}": 4.0, "llama.rope.scaling.type": "none"}).rope()["scaling"] is None


def test_experts_are_refused_where_the_architecture_has_none():
    with pytest.raises(Unsupported, match="'llama' with experts"):
        build(Only({**PACKED, "llama.expert_count": 8, "llama.expert_used_count": 2}))


def test_factors_among_the_tensors_must_fit_the_rotated_width():
    assert packed(rope_factors=np.ones(8)).rope()["scaling"].factors == (1.0,) * 8
    for wrong in (np.ones(7), np.zeros(8), np.full(8, np.nan)):
        with pytest.raises(InvalidModel, match="factors"):
            packed(rope_factors=wrong)


def test_more_positions_than_the_context_are_refused_with_a_hint():
    with pytest.raises(Unsupported, match=r"4096 positions exceed .* 128\n.*at most 128"):
        Config.of(Only(PLAIN), max_len=4096)


def test_yarn_reaches_its_factor_times_the_original_context():
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
    assert plain(rope_scaling=yarn).context == 512


def test_dynamic_scaling_reaches_as_far_as_asked():
    raw = {**PLAIN, "rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}
    assert Config.of(Only(raw)).max_len == 128 and Config.of(Only(raw), max_len=999).max_len == 999


def test_every_architecture_states_its_mathematics_in_few_lines():
    for module in set(ARCHITECTURES.values()):
        with open(module.__file__) as file:
            assert len(file.readlines()) <= 36


KEYS = ["rope_scaling", "rope_parameters", "text_config", "architectures", "rope_type",
        *(key for keys in HUGGING_FACE.values() for key in keys.split("|"))]
LEAVES = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=5)
                      | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3), max_leaves=6)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6))
def test_any_json_gives_a_config_or_a_clear_error(changes):
    try:
        build(Only({**PLAIN, "num_hidden_layers": 1, **changes}))
    except ZondaError as error:
        assert len(error.message) < 400


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from([f"llama.{key}" for key in GGUF.values()]), VALUES, max_size=6))
def test_any_metadata_gives_a_config_or_a_clear_error(changes):
    try:
        build(Only({**PACKED, "llama.block_count": 1, **changes}))
    except ZondaError as error:
        assert len(error.message) < 400


def test_a_source_without_an_embedding_is_not_asked_for_one():
    assert Config.of(SimpleNamespace(metadata=PLAIN, names=set)).vocab == 80
