"""Small GGUF and safetensors files for tests."""
from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from safetensors.numpy import save_file

from zonda.weights.formats.group_int import GroupInt

LLAMA = {"llama.attention.head_count": 4, "llama.attention.head_count_kv": 2, "llama.embedding_length": 64}
CONFIG = {"architectures": ["LlamaForCausalLM"], "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 64}


def write_gguf(path: Path, tensors: Mapping[str, np.ndarray | GroupInt], metadata: Mapping[str, Any] | None = None, *,
               architecture: str = "llama", endian: gguf.GGUFEndian = gguf.GGUFEndian.LITTLE) -> Path:
    """A file by another tool's writer; integers become uint32, floats float32."""
    writer = gguf.GGUFWriter(path, architecture, endianess=endian)
    for key, value in (metadata or {}).items():
        if isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        else:
            writer.add_array(key, value)
    for name, tensor in tensors.items():
        if isinstance(tensor, GroupInt):
            kind = gguf.GGMLQuantizationType[tensor.codec.name.upper()]
            writer.add_tensor(name, tensor.packed, raw_shape=tensor.packed.shape, raw_dtype=kind)
        else:
            writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def raw_gguf(*parts: bytes, version: int = 3, tensors: int = 0, entries: int = 0) -> bytes:
    """The bytes of a GGUF file whose counts may lie."""
    return b"GGUF" + struct.pack("<IQQ", version, tensors, entries) + b"".join(parts)


def text(value: str | bytes, length: int | None = None) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data) if length is None else length) + data


def entry(key: str | bytes, type: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", type) + value


def tensor(name: str | bytes, shape: tuple[int, ...], type: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, type, offset)


def write_safetensors(folder: Path, tensors: Mapping[str, np.ndarray], config: Mapping[str, Any] | None = None,
                      file: str = "model.safetensors") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG if config is None else config))
    save_file(dict(tensors), folder / file, metadata={"format": "pt"})
    return folder


def raw_safetensors(header: bytes | Mapping[str, Any], data: bytes = b"", *, length: int | None = None) -> bytes:
    """The bytes of a safetensors file whose header may lie."""
    packed = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(packed) if length is None else length) + packed + data
