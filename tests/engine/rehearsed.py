"""Prints kernels that an engine called for and that its rehearsal had not: run without Triton's interpreter.

There need be no GPU: kernels are told apart as for an H100, and none is compiled or run.
"""
from __future__ import annotations

import sys

import torch
from fakerunner import Collector, request
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver

from zonda.engine.engine import Engine
from zonda.engine.torch_runner import TorchRunner
from zonda.kernels.cuda import attention, float8, shapes
from zonda.kernels.cuda.ops import CUDAOps
from zonda.models import build
from zonda.options import EngineOptions
from zonda.weights.random import RandomSource

LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 256, "intermediate_size": 512,
         "num_hidden_layers": 8, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 160,
         "max_position_embeddings": 1024, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": True}
MIXTURE = LLAMA | {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "num_experts": 16,
                   "num_experts_per_tok": 4, "moe_intermediate_size": 256, "head_dim": 64}
WINDOWS = LLAMA | {"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "head_dim": 64,
                   "num_hidden_layers": 4, "sliding_window": 128, "sliding_window_pattern": 2,
                   "query_pre_attn_scalar": 64, "rope_local_base_freq": 10000.0,
                   "hidden_activation": "gelu_pytorch_tanh"}
BIASES = LLAMA | {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "num_hidden_layers": 2}
SHORT = LLAMA | {"num_hidden_layers": 2}  # all layers have one format, and plain torch is slow with it
CASES = {"dense": (LLAMA, "bf16"), "packed": (LLAMA, "q4_k_m"), "float8": (SHORT, "fp8"), "mixture": (MIXTURE, "q4_k"),
         "windows": (WINDOWS, "bf16"), "biases": (BIASES, "q8_0")}


class Device:
    """What Triton asks of a driver to tell kernels apart."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def runner(config: dict, dtype: str) -> TorchRunner:
    source = RandomSource(config, dtype)
    decoder = build(source)[1]
    source.shape_of(decoder)
    return TorchRunner(decoder, source, CUDAOps(torch.device("cpu"), torch.bfloat16), max_len=1024, kv_bytes=1 << 26,
                       max_rows=1024, max_seqs=40)


def serve(made: TorchRunner) -> None:
    """Requests of many lengths, alone and together, greedy and drawn."""
    engine, collector = Engine(made, EngineOptions(max_seqs=40, max_num_batched_tokens=1024)), Collector()
    for count in (1, 2, 3, 5, 17, 40):
        names = [f"{count}-{i}" for i in range(count)]
        for i, name in enumerate(names):
            prompt = [1 + i] * (1 + (i * 37 + count * 61) % 700)
            engine.submit(request(name, prompt, max_tokens=4 + i % 5, temperature=float(i % 3 == 2), top_k=i % 7),
                          collector)
        collector.wait(*names, timeout=300)
    engine.close()


def main() -> None:
    driver.set_active(Device())
    attention.processors = shapes.processors = float8.processors = lambda device: 132
    config, dtype = CASES[sys.argv[1]]
    made = runner(config, dtype)
    called: set[str] = set()
    knobs.runtime.jit_cache_hook = lambda repr, key, **_: called.add(f"{repr} {key}") or True
    made.compile()
    rehearsed = set(called)
    called.clear()
    serve(made)
    print(len(rehearsed), "rehearsed,", len(called), "called for")
    print(*sorted(called - rehearsed), sep="\n")


if __name__ == "__main__":
    main()
