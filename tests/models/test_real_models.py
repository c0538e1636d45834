"""Real quantized files, through the reference, against transformers with the same weights dequantized."""
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from steps import run
from transformers.initialization import no_init_weights

from zonda.models import build
from zonda.models.config import Config
from zonda.weights.gguf import GGUFSource

HUGGING_FACE = {"attn.q": "self_attn.q_proj", "attn.k": "self_attn.k_proj", "attn.v": "self_attn.v_proj",
                "attn.o": "self_attn.o_proj", "ffn.gate": "mlp.gate_proj", "ffn.up": "mlp.up_proj",
                "ffn.down": "mlp.down_proj", "attn_norm": "input_layernorm"}
LLAMA = {**HUGGING_FACE, "ffn_norm": "post_attention_layernorm"}
GEMMA = {**HUGGING_FACE, "attn.q_norm": "self_attn.q_norm", "attn.k_norm": "self_attn.k_norm",
         "attn_post_norm": "post_attention_layernorm", "ffn_norm": "pre_feedforward_layernorm",
         "ffn_post_norm": "post_feedforward_layernorm"}


def find(name: str) -> Path:
    folder = os.environ.get("ZONDA_TEST_MODELS")
    if not folder:
        pytest.skip("ZONDA_TEST_MODELS does not name a folder of models")
    path = next(Path(folder).rglob(name), None)
    if path is None:
        pytest.skip(f"{name} is not under ZONDA_TEST_MODELS")
    return path


def sizes(c: Config) -> dict[str, Any]:
    return {"hidden_size": c.dim, "intermediate_size": c.ffn_dim, "num_hidden_layers": c.layers, "vocab_size": c.vocab,
            "num_attention_heads": c.heads.q, "num_key_value_heads": c.heads.kv, "head_dim": c.heads.dim,
            "rms_norm_eps": c.eps, "max_position_embeddings": c.context, "tie_word_embeddings": True,
            "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}


def logits(model: Any, source: GGUFSource, table: dict[str, str], tokens: np.ndarray, *, less: float) -> np.ndarray:
    """Logits of a transformers model with a source's weights; `less` is taken from norms."""
    for name in sorted(source.names()):
        values = source.read(name).dense()
        if name.startswith("layers."):
            _, layer, part = name.split(".", 2)
            place = f"model.layers.{layer}.{table[part]}"
        else:
            place = {"embed": "model.embed_tokens", "norm": "model.norm"}[name]
        model.get_submodule(place).weight.data = torch.tensor(values - less if name.endswith("norm") else values)
    model.tie_weights()
    with torch.no_grad():
        return model(input_ids=torch.tensor(tokens[None].astype(np.int64))).logits[0].numpy()


@pytest.mark.e2e
@pytest.mark.parametrize(("file", "kind", "table", "less", "options"), [
    ("SmolLM2-135M-Instruct.Q4_1.gguf", "Llama", LLAMA, 0.0, {"rope_parameters": {"rope_theta": 100_000.0}}),
    ("gemma-3-270m-q4_k_m.gguf", "Gemma3", GEMMA, 1.0, {"sliding_window": 512, "query_pre_attn_scalar": 256}),
], ids=["smollm2", "gemma3"])
def test_a_real_file_gives_the_logits_of_its_dequantized_weights(file, kind, table, less, options, backend):
    source = GGUFSource(find(file))
    config, _ = build(source)
    tokens = np.random.default_rng(0).integers(3, 5000, 24).astype(np.int32)
    got = run(backend.runner_for(source, 64), [tokens], "chunks")[0]
    settings = getattr(transformers, f"{kind}TextConfig" if kind == "Gemma3" else f"{kind}Config")
    with no_init_weights():
        model = getattr(transformers, f"{kind}ForCausalLM")(settings(**sizes(config), **options)).eval()
    wanted = logits(model, source, table, tokens, less=less)
    assert np.abs(got - wanted).max() <= backend.packed_tolerance * np.abs(wanted).max()
