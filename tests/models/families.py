"""One tiny configuration for each architecture and rotary scaling."""
from dataclasses import dataclass, field
from typing import Any

SIZES = {"vocab_size": 80, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
         "num_key_value_heads": 2, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2,
         "pad_token_id": 0, "tie_word_embeddings": False}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 16}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
LINEAR = {"rope_type": "linear", "factor": 4.0}
LONG = {"rope_type": "longrope", "rope_theta": 500.0, "long_factor": [1.0, 2.5, 4.0, 7.0, 9.0, 12.0],
        "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5], "partial_rotary_factor": 0.75}
EXPERTS = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "head_dim": 16}
GEMMA = {"head_dim": 16, "sliding_window": 6, "query_pre_attn_scalar": 16, "tie_word_embeddings": True,
         "num_hidden_layers": 7}


@dataclass(frozen=True)
class Family:
    """A model class of transformers with options over `SIZES`.

    `gguf` is the architecture's name in a GGUF file, None where such a file cannot state the options. `max_len` is
    asked of the loader; `lengths` are those of the sequences to compare.
    """

    model: str
    config: str
    gguf: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    max_len: int | None = None
    lengths: tuple[int, ...] = (19, 32, 23)


def family(name: str, gguf: str | None = None, *, max_len: int | None = None, lengths: tuple[int, ...] = (19, 32, 23),
           config: str = "", kind: str = "ForCausalLM", **options: Any) -> Family:
    return Family(f"{name}{kind}", config or f"{name}Config", gguf, options, max_len, lengths)


FAMILIES = {
    "llama": family("Llama", "llama"),
    "llama-tied": family("Llama", "llama", tie_word_embeddings=True, head_dim=24),
    "llama-bias": family("Llama", "llama", attention_bias=True),
    "llama-linear": family("Llama", "llama", rope_parameters={**LINEAR, "rope_theta": 500.0}),
    "llama-llama3": family("Llama", "llama", rope_parameters={**LLAMA3, "rope_theta": 500.0}),
    "llama-dynamic": family("Llama", rope_parameters={"rope_type": "dynamic", "factor": 2.0},
                            max_position_embeddings=16, max_len=24, lengths=(24, 24)),
    "mistral-window": family("Mistral", sliding_window=7, num_key_value_heads=1),
    "qwen2": family("Qwen2", "qwen2"),
    "qwen2-yarn": family("Qwen2", "qwen2", rope_parameters={**YARN, "rope_theta": 500.0}),
    "qwen2-window": family("Qwen2", use_sliding_window=True, sliding_window=5, max_window_layers=1),
    "qwen3": family("Qwen3", "qwen3", head_dim=32),
    "qwen3_moe": family("Qwen3Moe", "qwen3moe", **EXPERTS, norm_topk_prob=True),
    "qwen3_moe-dense": family("Qwen3Moe", **EXPERTS, mlp_only_layers=[1]),
    "gemma3": family("Gemma3", "gemma3", config="Gemma3TextConfig", **GEMMA),
    "gemma3-linear": family("Gemma3", "gemma3", config="Gemma3TextConfig", **GEMMA, final_logit_softcapping=3.0,
                            rope_parameters={"full_attention": {**LINEAR, "rope_theta": 1e6},
                                             "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}),
    "gemma3-vision": family("Gemma3", config="Gemma3Config", kind="ForConditionalGeneration", **GEMMA),
    "phi3": family("Phi3", "phi3", sliding_window=9, partial_rotary_factor=0.5),
    "phi3-long": family("Phi3", "phi3", rope_parameters=LONG, original_max_position_embeddings=16),
    "phi3-short": family("Phi3", "phi3", rope_parameters=LONG, original_max_position_embeddings=32, max_len=32),
}
