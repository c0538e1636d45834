"""A checkpoint of random weights on the disk, to measure how a model is loaded."""
from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

LAYERS_A_FILE = 4
NAMES = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn.q": "self_attn.q_proj",
         "attn.k": "self_attn.k_proj", "attn.v": "self_attn.v_proj", "attn.o": "self_attn.o_proj",
         "ffn.gate": "mlp.gate_proj", "ffn.up": "mlp.up_proj", "ffn.down": "mlp.down_proj",
         "embed": "model.embed_tokens", "norm": "model.norm", "head": "lm_head"}
"""Names of a Llama's parts in a checkpoint of Hugging Face."""
_POOL = 1 << 22


def write_checkpoint(folder: Path, shape: str) -> int:
    """Write a Llama of that shape in bf16, in several safetensors files; returns their bytes."""
    from zonda.model import shape_config
    from zonda.models import build
    from zonda.nn.module import join
    from zonda.weights.random import RandomSource

    folder.mkdir(parents=True)
    config = shape_config(shape)
    (folder / "config.json").write_text(json.dumps(config))
    files: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, block in build(RandomSource(config, "bf16"))[1].walk():
        for part, size in block.parameters().items():
            layer, stored = _place(join(name, part))
            files.setdefault(f"model-{layer // LAYERS_A_FILE + 1:02}.safetensors", {})[stored] = size
    index = {"weight_map": {name: file for file, tensors in files.items() for name in tensors}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return sum(_write(folder / file, tensors) for file, tensors in files.items())


def _place(name: str) -> tuple[int, str]:
    """The layer of a parameter, and its name in a file."""
    if not name.startswith("layers."):
        return 0, f"{NAMES[name]}.weight"
    _, layer, part = name.split(".", 2)
    return int(layer), f"model.layers.{layer}.{NAMES[part]}.weight"


def _write(path: Path, tensors: dict[str, tuple[int, ...]]) -> int:
    header: dict[str, Any] = {}
    at = 0
    for name, shape in tensors.items():
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    told = json.dumps(header).encode()
    told += b" " * (-len(told) % 8)
    numbers = np.random.default_rng(0).standard_normal(_POOL, np.float32) / np.float32(64)
    random = (numbers.view(np.uint32) >> 16).astype(np.uint16)
    ones = np.full(1 << 16, 0x3F80, np.uint16)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(told)) + told)
        for shape in tensors.values():
            _fill(file, random if len(shape) > 1 else ones, int(np.prod(shape)))
    return path.stat().st_size


def _fill(file: BinaryIO, pool: np.ndarray, count: int) -> None:
    """So many numbers, out of a pool that repeats."""
    for start in range(0, count, len(pool)):
        file.write(pool[:count - start])
