"""Checked access to a checkpoint's hyper-parameters: one vocabulary over two sets of keys; errors name the key."""
from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np

from zonda.errors import InvalidModel

# field -> key, or the keys that it has had, divided by "|"
HUGGING_FACE = {
    "dim": "hidden_size", "layers": "num_hidden_layers", "ffn_dim": "intermediate_size", "vocab": "vocab_size",
    "q_heads": "num_attention_heads", "kv_heads": "num_key_value_heads", "head_dim": "head_dim",
    "eps": "rms_norm_eps", "activation": "hidden_act", "attention_bias": "attention_bias", "mlp_bias": "mlp_bias",
    "tied": "tie_word_embeddings", "eos": "eos_token_id", "context": "max_position_embeddings",
    "query_scalar": "query_pre_attn_scalar", "softcap": "attn_logit_softcapping",
    "logit_softcap": "final_logit_softcapping", "bidirectional": "use_bidirectional_attention",
    "window": "sliding_window", "windowed": "use_sliding_window", "window_start": "max_window_layers",
    "window_pattern": "sliding_window_pattern", "layer_types": "layer_types",
    "experts": "num_experts|num_local_experts", "experts_used": "num_experts_per_tok",
    "expert_dim": "moe_intermediate_size", "normalize": "norm_topk_prob", "sparse_step": "decoder_sparse_step",
    "dense_layers": "mlp_only_layers",
    "theta": "rope_theta", "theta_local": "rope_local_base_freq", "fraction": "partial_rotary_factor",
    "original": "original_max_position_embeddings", "factor": "factor", "attention": "attention_factor",
    "low": "low_freq_factor", "high": "high_freq_factor", "long": "long_factor", "short": "short_factor",
    "fast": "beta_fast", "slow": "beta_slow", "mscale": "mscale", "mscale_all": "mscale_all_dim",
    "truncate": "truncate",
}

GGUF = {
    "dim": "embedding_length", "layers": "block_count", "ffn_dim": "feed_forward_length",
    "q_heads": "attention.head_count", "kv_heads": "attention.head_count_kv", "head_dim": "attention.key_length",
    "value_dim": "attention.value_length", "eps": "attention.layer_norm_rms_epsilon", "context": "context_length",
    "softcap": "attn_logit_softcapping", "logit_softcap": "final_logit_softcapping",
    "window": "attention.sliding_window", "window_pattern": "attention.sliding_window_pattern",
    "experts": "expert_count", "experts_used": "expert_used_count", "expert_dim": "expert_feed_forward_length",
    "normalize": "expert_weights_norm",
    "theta": "rope.freq_base", "theta_local": "rope.freq_base_swa", "rotary_dim": "rope.dimension_count",
    "original": "rope.scaling.original_context_length", "scaling": "rope.scaling.type",
    "factor": "rope.scaling.factor|rope.scale_linear", "attention_scale": "rope.scaling.attn_factor",
    "fast": "rope.scaling.yarn_beta_fast", "slow": "rope.scaling.yarn_beta_slow",
}

LONGEST = 1 << 20
"""Entries that a list of hyper-parameters may have."""


class Fields:
    """Values of `raw` under Zonda's own names. A field without a `default` is required, unless `fallbacks` has it."""

    def __init__(self, raw: Mapping[str, Any], keys: Mapping[str, str], *, prefix: str = "",
                 fallbacks: Mapping[str, Any] | None = None) -> None:
        self.raw = raw
        self.keys = keys
        self.prefix = prefix
        self.fallbacks = fallbacks or {}

    def key(self, name: str) -> str:
        return self.prefix + self.keys.get(name, name).split("|")[0]

    def get(self, name: str) -> Any:
        """The value as the file has it; None if it is absent or null."""
        for key in self.keys[name].split("|") if name in self.keys else ():
            if (value := self.raw.get(self.prefix + key)) is not None:
                return value
        return self.fallbacks.get(name)

    def integer(self, name: str, default: int | None = None, *, low: int = 1, high: int = 1 << 20) -> int:
        value = _uniform(self.get(name))
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, Integral) or not low <= int(value) <= high:
            raise self.error(name, value, f"an integer from {low} to {high}")
        return int(value)

    def number(self, name: str, default: float | None = None, *, low: float = 0.0, high: float = 1e30) -> float:
        value = _uniform(self.get(name))
        if value is None and default is not None:
            return default
        if not _is_number(value) or not low <= float(value) <= high:
            raise self.error(name, value, f"a number from {low:g} to {high:g}")
        return float(value)

    def positive(self, name: str, default: float | None = None) -> float:
        return self.number(name, default, low=1e-30)

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.get(name)
        if value is not None and not isinstance(value, bool):
            raise self.error(name, value, "true or false")
        return default if value is None else value

    def text(self, name: str, default: str) -> str:
        value = self.get(name)
        if value is not None and not isinstance(value, str):
            raise self.error(name, value, "a string")
        return default if value is None else value

    def positives(self, name: str, length: int) -> tuple[float, ...]:
        values = self.get(name)
        expected = f"a list of {length} positive numbers"
        if not _is_list(values) or len(values) != length:
            raise self.error(name, values, expected)
        if not all(_is_number(value) and value > 0 for value in values):
            raise self.error(name, values, expected)
        return tuple(float(value) for value in values)

    def integers(self, name: str) -> tuple[int, ...]:
        """A list of whole numbers, or a single one, or nothing."""
        values = self.get(name)
        values = [] if values is None else values if _is_list(values) else [values]
        if len(values) > LONGEST or not all(isinstance(v, Integral) and not isinstance(v, bool) for v in values):
            raise self.error(name, values, "an integer or a list of integers")
        return tuple(int(value) for value in values)

    def error(self, name: str, value: Any, expected: str) -> InvalidModel:
        found = "missing" if value is None else _short(value)
        return InvalidModel(f"the model's {self.key(name)} is {found}, expected {expected}")


def _is_number(value: Any) -> bool:
    try:
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number that no float holds
        return False


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim == 1)


def _uniform(value: Any) -> Any:
    """The one value of a list that repeats it for every layer."""
    if _is_list(value) and 0 < len(value) <= LONGEST and all(item == value[0] for item in value):
        return value[0]
    return value


def _short(value: Any) -> str:
    if _is_list(value):
        return f"a list of {len(value)}"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
