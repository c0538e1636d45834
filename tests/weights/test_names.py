from __future__ import annotations

import numpy as np
import pytest
from files import CONFIG, write_gguf, write_safetensors
from packing import random_packed

from zonda.errors import InvalidModel
from zonda.weights.gguf import GGUFSource
from zonda.weights.names import GGUF, HUGGING_FACE, Facts, Row, Tensors
from zonda.weights.safetensors import SafetensorsSource

LAYER = {"attn_norm", "attn.q", "attn.k", "attn.v", "attn.o", "ffn_norm", "ffn.gate", "ffn.up", "ffn.down"}


def values(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def hugging_face(tmp_path, tensors, **config) -> SafetensorsSource:
    return SafetensorsSource(write_safetensors(tmp_path, tensors, {**CONFIG, **config}))


def test_hugging_face_names_lead_to_canonical_names(tmp_path):
    layer = ("input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
             "post_attention_layernorm", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
    tensors = {f"model.layers.{n}.{name}.weight": values(2) for n in (0, 11) for name in layer}
    tensors |= {"model.embed_tokens.weight": values(2), "model.norm.weight": values(2), "lm_head.weight": values(2),
                "model.layers.11.self_attn.q_proj.bias": values(2)}
    wanted = {f"layers.{n}.{name}" for n in (0, 11) for name in LAYER}
    assert hugging_face(tmp_path, tensors).names() == wanted | {"embed", "norm", "head", "layers.11.attn.q.bias"}


def test_the_files_of_a_model_without_its_head_may_leave_out_the_prefix(tmp_path):
    tensors = {"embed_tokens.weight": values(2), "layers.3.mlp.up_proj.weight": values(2), "norm.weight": values(2)}
    assert hugging_face(tmp_path, tensors).names() == {"embed", "layers.3.ffn.up", "norm"}


def test_gguf_names_lead_to_canonical_names(tmp_path):
    layer = ("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down")
    extra = {"attn_q_norm": "attn.q_norm", "attn_k_norm": "attn.k_norm", "post_attention_norm": "attn_post_norm",
             "post_ffw_norm": "ffn_post_norm", "ffn_gate_inp": "ffn.router"}
    tensors = {f"blk.7.{name}.weight": values(2) for name in (*layer, *extra)}
    tensors |= {f"{name}.weight": values(2) for name in ("token_embd", "output_norm", "output", "rope_freqs",
                                                         "rope_factors_long", "rope_factors_short")}
    source = GGUFSource(write_gguf(tmp_path / "a.gguf", tensors, architecture="qwen3moe"))
    top = {"embed", "norm", "head", "rope.factors", "rope.long", "rope.short"}
    assert source.names() == top | {f"layers.7.{name}" for name in {*LAYER, *extra.values()}}


def test_rotary_buffers_do_not_count(tmp_path):
    tensors = {"model.layers.0.self_attn.rotary_emb.inv_freq": values(2), "model.rotary_emb.inv_freq": values(2),
               "model.norm.weight": values(2)}
    assert hugging_face(tmp_path, tensors).names() == {"norm"}


def test_unknown_tensors_keep_their_names(tmp_path):
    odd = {"model.layers.0.self_attn.sinks", "model.layers.#.self_attn.q_proj.weight",
           "model.layers.007.mlp.up_proj.weight", "model.layers.1234567.mlp.up_proj.weight",
           "model.layers.².mlp.up_proj.weight"}
    assert hugging_face(tmp_path, {name: values(2) for name in odd}).names() == odd


def test_norms_of_gemma_get_their_one(tmp_path):
    norms = {"input_layernorm": "attn_norm", "post_attention_layernorm": "attn_post_norm",
             "pre_feedforward_layernorm": "ffn_norm", "post_feedforward_layernorm": "ffn_post_norm",
             "self_attn.q_norm": "attn.q_norm", "self_attn.k_norm": "attn.k_norm"}
    tensors = {f"model.layers.0.{name}.weight": values(4) for name in norms} | {"model.norm.weight": values(4)}
    source = hugging_face(tmp_path, tensors, architectures=["Gemma3ForCausalLM"])
    assert source.names() == {f"layers.0.{name}" for name in norms.values()} | {"norm"}
    assert all(np.array_equal(source.read(name).dense(), values(4) + np.float32(1)) for name in source.names())


def test_the_text_part_of_a_vision_model_is_found(tmp_path):
    tensors = {"language_model.model.layers.0.self_attn.q_norm.weight": values(4),
               "language_model.lm_head.weight": values(2),
               "model.language_model.embed_tokens.weight": values(2), "vision_tower.x.weight": values(2),
               "multi_modal_projector.y": values(1)}
    source = hugging_face(tmp_path, tensors, architectures=["Gemma3ForConditionalGeneration"])
    assert source.names() == {"layers.0.attn.q_norm", "head", "embed"}
    assert np.array_equal(source.read("layers.0.attn.q_norm").dense(), values(4) + np.float32(1))


def test_fused_projections_are_slices_of_the_file(tmp_path):
    qkv, gate_up = values(128, 64), values(96, 64)
    tensors = {"model.layers.0.self_attn.qkv_proj.weight": qkv,
               "model.layers.0.self_attn.qkv_proj.bias": qkv[:, 0].copy(),
               "model.layers.0.mlp.gate_up_proj.weight": gate_up}
    source = hugging_face(tmp_path, tensors)
    for name, part in zip("qkv", np.split(qkv, [64, 96])):
        weight = source.read(f"layers.0.attn.{name}")
        assert np.array_equal(weight.dense(), part) and not weight.dense().flags.owndata
        assert np.array_equal(source.read(f"layers.0.attn.{name}.bias").dense(), part[:, 0])
    assert np.array_equal(source.read("layers.0.ffn.gate").dense(), gate_up[:48])
    assert np.array_equal(source.read("layers.0.ffn.up").dense(), gate_up[48:])


def test_a_head_width_of_its_own_decides_the_slices(tmp_path):
    source = hugging_face(tmp_path, {"model.layers.0.self_attn.qkv_proj.weight": values(256, 64)}, head_dim=32)
    assert [source.read(f"layers.0.attn.{name}").shape[0] for name in "qkv"] == [128, 64, 64]


def test_experts_in_tensors_of_their_own_are_piled_in_order(tmp_path):
    experts = values(12, 4, 8)
    tensors = {f"model.layers.3.mlp.experts.{n}.gate_proj.weight": experts[n].copy() for n in (11, *range(11))}
    source = hugging_face(tmp_path, {**tensors, "model.layers.3.mlp.gate.weight": values(12, 8)})
    assert source.names() == {"layers.3.ffn.gate", "layers.3.ffn.router"}
    assert np.array_equal(source.read("layers.3.ffn.gate").dense(), experts)


def test_experts_in_one_fused_tensor_are_taken_apart(tmp_path):
    gate_up, down = values(3, 8, 4), values(3, 4, 4)
    source = hugging_face(tmp_path, {"model.layers.0.mlp.experts.gate_up_proj": gate_up,
                                     "model.layers.0.mlp.experts.down_proj": down})
    assert np.array_equal(source.read("layers.0.ffn.gate").dense(), gate_up[:, :4])
    assert np.array_equal(source.read("layers.0.ffn.up").dense(), gate_up[:, 4:])
    assert np.array_equal(source.read("layers.0.ffn.down").dense(), down)


def test_packed_matrices_pile_too():
    packed = [random_packed("q4_0", 4, 64, seed=n) for n in range(3)]
    named = Tensors([f"model.layers.0.mlp.experts.{n}.up_proj.weight" for n in range(3)], HUGGING_FACE,
                    Facts.of_hugging_face(CONFIG))
    stack = named.read("layers.0.ffn.up", lambda name: packed[int(name.split(".")[5])])
    assert stack.shape == (3, 4, 64) and np.array_equal(stack.dense(), np.stack([one.dense() for one in packed]))


def test_a_missing_expert_is_named(tmp_path):
    tensors = {f"model.layers.0.mlp.experts.{n}.up_proj.weight": values(4, 8) for n in (0, 1, 3)}
    with pytest.raises(InvalidModel, match=r"layers\.0\.ffn\.up has 3 matrices, but number 2 is missing"):
        hugging_face(tmp_path, tensors).read("layers.0.ffn.up")


def test_experts_of_unequal_shapes_are_refused(tmp_path):
    tensors = {f"model.layers.0.mlp.experts.{n}.up_proj.weight": values(4 + n, 8) for n in range(2)}
    with pytest.raises(InvalidModel, match="differ in shape or format"):
        hugging_face(tmp_path, tensors).read("layers.0.ffn.up")


def test_two_tensors_of_one_name_are_refused(tmp_path):
    tensors = {f"model.layers.0.mlp.{name}.weight": values(4, 8) for name in ("experts.0.up_proj", "up_proj")}
    with pytest.raises(InvalidModel, match=r"are both layers\.0\.ffn\.up"):
        hugging_face(tmp_path, tensors)


@pytest.mark.parametrize("config", [{"num_attention_heads": None}, {"num_attention_heads": "4"},
                                    {"num_attention_heads": -1}, {"num_attention_heads": True}, {"head_dim": 0}])
def test_an_operation_that_needs_a_wrong_hyper_parameter_names_it(tmp_path, config):
    source = hugging_face(tmp_path, {"model.layers.0.self_attn.qkv_proj.weight": values(128, 64)}, **config)
    with pytest.raises(InvalidModel, match=next(iter(config))):
        source.read("layers.0.attn.q")


@pytest.mark.parametrize(("name", "shape"), [("self_attn.qkv_proj", (130, 4)), ("mlp.gate_up_proj", (5, 4)),
                                             ("self_attn.qkv_proj", ())])
def test_fused_tensors_of_the_wrong_size_are_refused(tmp_path, name, shape):
    tensors = {f"model.layers.0.{name}.weight": np.ones(shape, np.float32)}
    source = hugging_face(tmp_path, tensors)
    with pytest.raises(InvalidModel, match="expected"):
        source.read(min(source.names()))


def test_tables_can_be_given_rows_in_place_of_their_own():
    changed = GGUF.having([Row("output", "other"), Row("token_embd", None)])
    assert [name for name, *_ in changed.find("output.weight")] == ["other"]
    assert changed.find("token_embd.weight") == [] and GGUF.find("token_embd.weight") == [("embed", -1, None)]
