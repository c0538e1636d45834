"""Tiny random checkpoints of both kinds of file, and the logits that transformers computes from them."""
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
import transformers
from families import SIZES, Family
from safetensors.numpy import load_file

VISION = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
          "image_size": 28, "patch_size": 14}


def make(family: Family) -> Any:
    """A model of random weights, norms and biases included."""
    options = {**SIZES, **family.options}
    if family.config == "Gemma3Config":
        options = {"text_config": options, "vision_config": VISION}
    config = getattr(transformers, family.config)(**options)
    torch.manual_seed(0)
    model = getattr(transformers, family.model)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.3)
            else:
                parameter.normal_(0.0, parameter.shape[-1] ** -0.5)
    return model


def sequences(family: Family) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.integers(3, SIZES["vocab_size"], length).astype(np.int32) for length in family.lengths]


@torch.no_grad()
def expected(model: Any, tokens: np.ndarray) -> np.ndarray:
    """Logits of every position."""
    return model(input_ids=torch.tensor(tokens[None], dtype=torch.long), use_cache=False).logits[0].numpy()


def convert(folder: Path, family: Family, config: Any) -> Path:
    """Write a folder's safetensors file as GGUF, in the layout of llama.cpp's converter."""
    assert family.gguf
    path = folder / "model.gguf"
    writer = gguf.GGUFWriter(path, family.gguf)
    add_metadata(writer, family.gguf, config)
    for name, array in tensors(family.gguf, config, load_file(folder / "model.safetensors")).items():
        writer.add_tensor(name, np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def head_dim(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def rope_of(config: Any) -> dict[str, Any]:
    return config.rope_parameters.get("full_attention", config.rope_parameters)


def add_metadata(writer: gguf.GGUFWriter, arch: str, config: Any) -> None:
    rope = rope_of(config)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(rope["rope_theta"])
    if arch in ("llama", "phi3"):
        writer.add_rope_dimension_count(int(head_dim(config) * rope.get("partial_rotary_factor", 1.0)))
    if arch != "phi3":
        writer.add_key_length(head_dim(config))
        writer.add_value_length(head_dim(config))
    if arch in ("gemma3", "phi3"):
        writer.add_sliding_window(config.sliding_window or 0)
    if getattr(config, "final_logit_softcapping", None):
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    if arch == "qwen3moe":
        writer.add_expert_count(config.num_experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
        writer.add_expert_feed_forward_length(config.moe_intermediate_size)
    add_scaling(writer, config, rope)


def add_scaling(writer: gguf.GGUFWriter, config: Any, rope: dict[str, Any]) -> None:
    kind = rope["rope_type"]
    if kind in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(kind))
        writer.add_rope_scaling_factor(rope["factor"])
    if kind in ("yarn", "longrope"):
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if kind == "longrope":
        original = rope["original_max_position_embeddings"]
        stretch = config.max_position_embeddings / original
        writer.add_rope_scaling_attn_factors(float(np.sqrt(1 + np.log(stretch) / np.log(original))))


def tensors(arch: str, config: Any, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Names and contents as the converter writes them."""
    table = gguf.get_tensor_name_map(next(k for k, v in gguf.MODEL_ARCH_NAMES.items() if v == arch),
                                     config.num_hidden_layers)
    named = {}
    for name, array in stack_experts(arrays).items():
        if arch == "gemma3" and name.endswith("norm.weight"):
            array = array + 1
        if arch == "llama" and ".q_proj." in name:
            array = interleave(array, config.num_attention_heads)
        if arch == "llama" and ".k_proj." in name:
            array = interleave(array, config.num_key_value_heads)
        named[table.get_name(name, try_suffixes=(".weight", ".bias"))] = array
    return {**named, **rope_tensors(config)}


def stack_experts(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    stacked: dict[str, list[np.ndarray]] = {}
    for name in sorted(arrays):
        if ".experts." in name:
            before, after = name.split(".experts.")
            stacked.setdefault(f"{before}.experts.{after.partition('.')[2]}", []).append(arrays[name])
    plain = {name: array for name, array in arrays.items() if ".experts." not in name}
    return {**plain, **{name: np.stack(experts) for name, experts in stacked.items()}}


def interleave(array: np.ndarray, heads: int) -> np.ndarray:
    """Rows (head, half, pair) to (head, pair, half)."""
    return array.reshape(heads, 2, len(array) // heads // 2, -1).swapaxes(1, 2).reshape(array.shape)


def rope_tensors(config: Any) -> dict[str, np.ndarray]:
    rope = rope_of(config)
    if rope["rope_type"] == "longrope":
        lists = {kind: np.array(rope[f"{kind}_factor"], np.float32) for kind in ("long", "short")}
        return {f"rope_factors_{kind}.weight": factors for kind, factors in lists.items()}
    return {"rope_freqs.weight": llama3_factors(rope, head_dim(config))} if rope["rope_type"] == "llama3" else {}


def llama3_factors(rope: dict[str, Any], dim: int) -> np.ndarray:
    factors = []
    for wavelength in 2 * np.pi * rope["rope_theta"] ** (np.arange(0, dim, 2) / dim):
        turns = rope["original_max_position_embeddings"] / wavelength
        smooth = (turns - rope["low_freq_factor"]) / (rope["high_freq_factor"] - rope["low_freq_factor"])
        smooth = min(max(smooth, 0.0), 1.0)
        factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(factors, np.float32)
