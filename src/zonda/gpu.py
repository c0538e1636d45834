"""Models on a GPU: which device, how much of its memory is left, and the runner there. torch is imported when asked."""
from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from zonda.engine.runner import Runner
from zonda.errors import InvalidRequest, OutOfMemory
from zonda.kernels import sample
from zonda.memory import mb
from zonda.options import EngineOptions, ModelOptions, cache_folder, keep_triton_kernels
from zonda.weights.load import Convert
from zonda.weights.source import Source

if TYPE_CHECKING:
    from zonda.nn.decoder import Decoder

Progress = Callable[[str, int, int], None]
_WORKSPACE = 3 << 30  # bytes of a GPU that kernels need while they run


def device_of(model: ModelOptions) -> str:
    """The device that the options name, or that this machine has: `cpu`, or `cuda` with a number."""
    if model.cpu or model.device == "cpu" or model.kernels == "plain":
        return "cpu"
    if model.device == "auto" and not (Path("/proc/driver/nvidia").exists() and find_spec("torch")
                                       and find_spec("triton")):
        return "cpu"
    import torch

    if model.device == "auto":
        return "cuda:0" if torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0) else "cpu"
    try:
        device = torch.device(model.device)
        torch.cuda.get_device_properties(device)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise InvalidRequest(f"there is no device {model.device!r} here: {error}", param="device",
                             hint="try cpu, or `zonda doctor` to see what is here") from None
    return f"cuda:{device.index or 0}"


def cache_bytes(model: ModelOptions) -> int:
    """Bytes of a number in a GPU's cache."""
    return 1 if model.kv_dtype == "fp8" else 4 if model.compute_dtype == "f32" else 2


def left_on(device: str, decoder: Decoder, weight_bytes: int) -> int:
    """Bytes of the device that weights and kernels leave; raises `OutOfMemory` when the weights do not fit."""
    import torch

    free = torch.cuda.mem_get_info(device)[0]
    shapes = (shape for _, block in decoder.walk() for shape in block.parameters().values())
    sixteen = 2 * sum(math.prod(shape) for shape in shapes)
    weights = min(weight_bytes or sixteen, sixteen)
    left = free - weights - _WORKSPACE
    if left <= 0:
        raise OutOfMemory(f"the weights take {mb(weights)} and kernels {mb(_WORKSPACE)}, but {mb(free)} of {device} "
                          "are free", hint="choose a smaller file, perhaps by --quant 4 or --isq q4k, or --cpu")
    return left


def on_gpu(device: str, decoder: Decoder, source: Source, options: EngineOptions, model: ModelOptions, *, max_len: int,
           kv_bytes: int, convert: Convert | None, tell: Progress) -> tuple[Runner, sample.Kernel]:
    """The runner of a GPU, and the kernel that draws on the processor what the GPU cannot."""
    import torch

    from zonda.engine.torch_runner import TorchRunner
    from zonda.kernels.cuda.ops import CUDAOps

    assert options.max_seqs and options.max_num_batched_tokens
    keep_triton_kernels()
    tell("loading", 0, 0)
    torch.cuda.set_device(device)
    types = {"auto": torch.bfloat16, "bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}
    cache = torch.float8_e4m3fn if model.kv_dtype == "fp8" else None
    ops = CUDAOps(torch.device(device), types[model.compute_dtype], cache_dtype=cache)
    with ThreadPoolExecutor(1) as beside:
        draw = beside.submit(_compilers, decoder.vocab)
        runner = TorchRunner(decoder, source, ops, max_len=max_len, kv_bytes=kv_bytes,
                             max_rows=options.max_num_batched_tokens, max_seqs=options.max_seqs, convert=convert,
                             progress=lambda done, total: tell("loading", done, total))
        number = count(1)
        tell("preparing kernels", 0, 0)
        runner.compile(lambda: tell("preparing kernels", next(number), 0))
        tell("capturing steps", 0, 0)
        runner.warm(all=model.capture == "all")
        return runner, draw.result()


def _compilers(vocab: int) -> sample.Kernel:
    """What compilers need time for while weights load: the kernel that draws, and Triton to hash itself."""
    from zonda.kernels.cpu.draws import CompiledDraw
    from zonda.kernels.cpu.library import Library
    from zonda.kernels.cuda.launch import triton_key

    triton_key()
    return CompiledDraw(Library(cache_folder()), vocab=vocab)
