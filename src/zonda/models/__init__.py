"""Which architectures Zonda runs, and how a checkpoint becomes a decoder."""
from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from zonda.errors import InvalidModel, InvalidRequest, Unsupported
from zonda.models.arch import gemma3, llama, qwen2, qwen3, qwen3_moe
from zonda.models.config import Config
from zonda.nn import Decoder, MoE
from zonda.weights.source import Source

ARCHITECTURES: dict[str, ModuleType] = {
    # classes that config.json names
    "LlamaForCausalLM": llama,
    "MistralForCausalLM": llama,
    "Qwen2ForCausalLM": qwen2,
    "Qwen3ForCausalLM": qwen3,
    "Qwen3MoeForCausalLM": qwen3_moe,
    "Gemma3ForCausalLM": gemma3,
    "Gemma3ForConditionalGeneration": gemma3,
    "Phi3ForCausalLM": llama,
    # general.architecture of GGUF files
    "llama": llama,
    "qwen2": qwen2,
    "qwen3": qwen3,
    "qwen3moe": qwen3_moe,
    "gemma3": gemma3,
    "phi3": llama,
}


def architecture(metadata: Mapping[str, Any]) -> str:
    """The name under which a checkpoint's architecture stands in `ARCHITECTURES`."""
    name = metadata.get("general.architecture")
    if name is None:
        names = metadata.get("architectures")
        if not isinstance(names, list) or len(names) != 1:
            raise InvalidModel(f"the model's architectures is {names!r:.60}, expected a list of one name")
        name = names[0]
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise Unsupported(f"architecture {name!r:.60} is not supported", hint=f"supported: {', '.join(ARCHITECTURES)}")
    return name


def named(arch: str) -> str:
    """The class in `ARCHITECTURES` that a user means by its name, or by a short one such as llama or qwen3moe."""
    short = {name.lower().removesuffix("forcausallm"): name for name in ARCHITECTURES if name.endswith("ForCausalLM")}
    known = {**short, **{name.lower(): name for name in short.values()}}
    if arch.lower() not in known:
        raise InvalidRequest(f"`arch` is {arch!r:.40}, expected one of {', '.join(short)}", param="arch")
    return known[arch.lower()]


def build(source: Source, *, max_len: int | None = None) -> tuple[Config, Decoder]:
    """A checkpoint's hyper-parameters and its decoder, without weights yet; `max_len` as in `Config.of`."""
    name = architecture(source.metadata)
    module = ARCHITECTURES[name]
    config = Config.of(source, max_len=max_len, defaults=getattr(module, "DEFAULTS", None))
    decoder = module.build(config)
    if any(map(config.sparse, range(config.layers))) and not any(isinstance(part, MoE) for _, part in decoder.walk()):
        raise Unsupported(f"architecture {name!r} with experts is not supported")
    return config, decoder
