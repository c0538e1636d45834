"""Shapes of known models, as their config.json has them, for measuring without a checkpoint."""
from __future__ import annotations

from typing import Any


def _llama(dim: int, layers: int, heads: int, kv_heads: int, ffn: int, vocab: int, **more: Any) -> dict[str, Any]:
    return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": dim,
            "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
            "intermediate_size": ffn, "vocab_size": vocab, "rms_norm_eps": 1e-5,
            "hidden_act": "silu", "max_position_embeddings": 8192, "rope_theta": 500_000.0,
            "tie_word_embeddings": True, **more}


def _qwen(kind: str, name: str, **more: Any) -> dict[str, Any]:
    return {"architectures": [name], "model_type": kind, "rms_norm_eps": 1e-6, "hidden_act": "silu",
            "rope_theta": 1_000_000.0, "max_position_embeddings": 32_768, "vocab_size": 151_936, **more}


SHAPES: dict[str, dict[str, Any]] = {
    "smollm2-135m": _llama(576, 30, 9, 3, 1536, 49_152, rope_theta=100_000.0),
    "llama-3.2-1b": _llama(2048, 16, 32, 8, 8192, 128_256, head_dim=64, max_position_embeddings=131_072),
    "llama-3.2-1b-49k": _llama(2048, 16, 32, 8, 8192, 49_152, head_dim=64, max_position_embeddings=131_072),
    "llama-3.2-3b": _llama(3072, 28, 24, 8, 8192, 128_256, head_dim=128, max_position_embeddings=131_072),
    "llama-3.1-8b": _llama(4096, 32, 32, 8, 14_336, 128_256, max_position_embeddings=131_072,
                           tie_word_embeddings=False),
    "mistral-7b": _llama(4096, 32, 32, 8, 14_336, 32_768, max_position_embeddings=32_768, tie_word_embeddings=False),
    "qwen2.5-0.5b": _qwen("qwen2", "Qwen2ForCausalLM", hidden_size=896, num_hidden_layers=24, num_attention_heads=14,
                          num_key_value_heads=2, intermediate_size=4864, tie_word_embeddings=True),
    "qwen3-0.6b": _qwen("qwen3", "Qwen3ForCausalLM", hidden_size=1024, num_hidden_layers=28, num_attention_heads=16,
                        num_key_value_heads=8, head_dim=128, intermediate_size=3072, tie_word_embeddings=True),
    "qwen3-4b": _qwen("qwen3", "Qwen3ForCausalLM", hidden_size=2560, num_hidden_layers=36, num_attention_heads=32,
                      num_key_value_heads=8, head_dim=128, intermediate_size=9728, tie_word_embeddings=True),
    "qwen3-30b-a3b": _qwen("qwen3_moe", "Qwen3MoeForCausalLM", hidden_size=2048, num_hidden_layers=48,
                           num_attention_heads=32, num_key_value_heads=4, head_dim=128, intermediate_size=6144,
                           moe_intermediate_size=768, num_experts=128, num_experts_per_tok=8, norm_topk_prob=True,
                           decoder_sparse_step=1, mlp_only_layers=[], tie_word_embeddings=False),
    "gemma-3-270m": {"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "hidden_size": 640,
                     "num_hidden_layers": 18, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256,
                     "intermediate_size": 2048, "vocab_size": 262_144, "rms_norm_eps": 1e-6,
                     "hidden_activation": "gelu_pytorch_tanh", "max_position_embeddings": 32_768,
                     "rope_theta": 1_000_000.0, "rope_local_base_freq": 10_000.0, "sliding_window": 512,
                     "sliding_window_pattern": 6, "query_pre_attn_scalar": 256, "tie_word_embeddings": True},
}
