"""Models on a GPU: which device, how much of its memory is left, and the runner there. torch is imported when asked."""
from __future__ import annotations

import gc
import logging
import math
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zonda.engine.runner import Runner
from zonda.environment import cache_folder, keep_gpu_kernels
from zonda.errors import InvalidRequest, OutOfMemory, Unsupported, ZondaError
from zonda.kernels import sample
from zonda.memory import mb
from zonda.options import EngineOptions, ModelOptions, given
from zonda.types import Progress
from zonda.weights.load import Convert
from zonda.weights.scaled import CONFIG
from zonda.weights.source import Source

if TYPE_CHECKING:
    from zonda.kernels.choose import Choice
    from zonda.kernels.torch.ops import TorchOps
    from zonda.nn.decoder import Decoder

_log = logging.getLogger("zonda")
_ON_GPU = ("compute_dtype", "kv_dtype", "capture")  # options
_OLDEST = 8, 0  # compute capability
_WORKSPACE = 3 << 30  # bytes of a GPU that kernels need while they run
_PACKED = 1.9  # bytes a weight up to which most are taken to be stored in formats that stay on the device


def device_of(model: ModelOptions) -> str:
    """The device that the options name, or that this machine has: `cpu`, or `cuda` with a number.

    Raises `InvalidRequest` for options that the device cannot follow.
    """
    if model.cpu and model.device.startswith("cuda"):
        raise InvalidRequest(f"`cpu` and `device` {model.device} exclude each other", param="device")
    if model.cpu or model.device == "cpu":
        device, why = "cpu", "as asked for"
    elif model.kernels == "plain":
        device, why = "cpu", "where plain kernels are"
    else:
        device, why = automatic() if model.device == "auto" else (_named(model.device), "")
    asked = [name for name in given(model) if name in _ON_GPU] if device == "cpu" else []
    if asked:
        raise InvalidRequest(f"`{asked[0]}` is for a GPU, but the model runs on the processor: {why}", param=asked[0],
                             hint=f"leave {asked[0]} out; `zonda doctor` tells what this machine offers")
    return device


def _named(device: str) -> str:
    if not re.fullmatch(r"cuda(:\d{1,3})?", device):
        raise InvalidRequest(f"`device` is {device!r:.40}, expected cpu, cuda, cuda:1 or auto", param="device")
    if not find_spec("torch"):
        raise InvalidRequest(f"torch is not installed, which {device} needs", param="device",
                             hint="install zonda[cuda]")
    import torch

    try:
        found = torch.device(device)
        torch.cuda.get_device_properties(found)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise InvalidRequest(f"there is no device {device!r} here: {error}", param="device",
                             hint="try cpu, or `zonda doctor` to see what is here") from None
    return f"cuda:{found.index or 0}"


def automatic() -> tuple[str, str]:
    """The device that models run on unless one is named, and why."""
    if not Path("/proc/driver/nvidia").exists():
        return "cpu", "there is no NVIDIA driver"
    if missing := [name for name in ("torch", "triton") if not find_spec(name)]:
        return "cpu", f"{' and '.join(missing)} not installed, which a GPU needs"
    import torch

    if not torch.cuda.is_available():
        return "cpu", "torch sees no GPU"
    kernels, why = kernels_on("cuda:0")
    return ("cuda:0", why) if kernels == "triton" else ("cpu", why)


def choices() -> list[Choice]:
    """Whose kernels do which work, if models run on a GPU unless another device is named."""
    device, _ = automatic()
    if device == "cpu":
        return []
    import torch

    from zonda.kernels.choose import choices

    return choices(torch.cuda.get_device_capability(device))


def kernels_on(device: str) -> tuple[str, str]:
    """Whose kernels compute on a GPU, `triton` or, slowly, `torch`, and why."""
    import torch

    if not find_spec("triton"):
        return "torch", "triton is not installed"
    found, name = torch.cuda.get_device_capability(device), torch.cuda.get_device_name(device)
    if found < _OLDEST:
        return "torch", f"{name} has compute capability {found[0]}.{found[1]}, kernels need {_OLDEST[0]}.{_OLDEST[1]}"
    return "triton", f"{name}, compute capability {found[0]}.{found[1]}"


def cache_bytes(model: ModelOptions, device: str) -> int:
    """Bytes of a number in a GPU's cache."""
    return 1 if model.kv_dtype == "fp8" and _eights(device) else _float_bytes(model)


def _float_bytes(model: ModelOptions) -> int:
    return 4 if model.compute_dtype == "f32" else 2


def _eights(device: str) -> bool:
    """Whether eight-bit floats stay such there: plain torch keeps them, kernels where the card has instructions."""
    from zonda.kernels.cuda.shapes import has_eights

    return kernels_on(device)[0] == "torch" or has_eights(device)


def left_on(device: str, decoder: Decoder, weight_bytes: int, model: ModelOptions, metadata: Mapping[str, Any]) -> int:
    """Bytes of the device that weights and kernels leave; raises `OutOfMemory` when the weights do not fit."""
    import torch

    gc.collect()
    torch.cuda.empty_cache()  # what a model that is no more had would count as taken
    free = torch.cuda.mem_get_info(device)[0]
    numbers = sum(math.prod(shape) for _, block in decoder.walk() for shape in block.parameters().values())
    floats = _float_bytes(model) * numbers
    packed = 0 < weight_bytes < _PACKED * numbers and not (CONFIG in metadata and not _eights(device))
    weights = weight_bytes if packed else floats
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

    assert options.max_seqs and options.max_num_batched_tokens
    keep_gpu_kernels()
    tell("loading", 0, 0)
    torch.cuda.set_device(device)
    ops = _ops(device, model, source.metadata)
    with ThreadPoolExecutor(1) as beside, _short(device):
        draw = beside.submit(_compilers, decoder.vocab)
        runner = TorchRunner(decoder, source, ops, max_len=max_len, kv_bytes=kv_bytes,
                             max_rows=options.max_num_batched_tokens, max_seqs=options.max_seqs, convert=convert,
                             progress=lambda done, total: tell("loading", done, total))
        _compare(runner, device, max_len, asked=options.max_seq_len is not None)
        if ops.captures:
            number = count(1)
            tell("preparing kernels", 0, 0)
            with _made(device):
                runner.compile(lambda: tell("preparing kernels", next(number), 0))
            tell("capturing steps", 0, 0)
            runner.warm(all=model.capture == "all")
        return runner, draw.result()


def _compare(runner: Runner, device: str, max_len: int, *, asked: bool) -> None:
    """Tell of a context that is shorter than planned, by more than a page: there was less memory left by then."""
    if runner.max_len + runner.page_size > max_len:
        return
    short = f"{device} has memory left for {runner.max_len} positions, not the planned {max_len}"
    if asked:
        raise OutOfMemory(short, hint=f"ask for at most {runner.max_len} by --max-seq-len, or see what else uses the "
                                      "device")
    _log.warning("%s", short)


@contextmanager
def _made(device: str) -> Iterator[None]:
    """Tell of kernels that cannot be made what they need."""
    try:
        yield
    except ZondaError:
        raise
    except Exception as error:
        raise Unsupported(f"Triton cannot make the kernels for {device}: {type(error).__name__}: {error!s:.500}",
                          hint="`zonda doctor` tells what they need; on the processor, by --cpu, there are others"
                          ) from error


@contextmanager
def _short(device: str) -> Iterator[None]:
    """Tell of memory that runs short while a model is loaded as of any other."""
    import torch

    from zonda.engine.torch_runner import no_memory

    try:
        yield
    except RuntimeError as error:
        if not no_memory(error):
            raise
        raise OutOfMemory(f"{device} has no memory left for the model: {mb(torch.cuda.mem_get_info(device)[0])} are "
                          "free", hint="choose a smaller file, perhaps by --quant 4 or --isq q4k, give the cache less "
                                       "by --kv-memory-mb, or see what else uses the device") from error


def sixteen(metadata: Mapping[str, Any]) -> str:
    """`f16` where the model is known to stay within its range, as its numbers are eight times finer; else `bf16`.

    Those are checkpoints stored in it, and GGUF files of the Llama family and of Gemma 3, whose large numbers are all
    in the residual stream, which is float32.
    """
    stored = metadata.get("torch_dtype", metadata.get("dtype"))
    return "f16" if stored == "float16" or metadata.get("general.architecture") in ("llama", "gemma3") else "bf16"


def _ops(device: str, model: ModelOptions, metadata: Mapping[str, Any]) -> TorchOps:
    """Triton's kernels where they run, else plain torch."""
    import torch

    from zonda.kernels.torch.ops import TorchOps

    kernels, why = kernels_on(device)
    types = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}
    wide = kernels == "triton" or torch.cuda.is_bf16_supported(False)
    dtype = types[(sixteen(metadata) if wide else "f16") if model.compute_dtype == "auto" else model.compute_dtype]
    cache = torch.float8_e4m3fn if model.kv_dtype == "fp8" else None
    if kernels == "torch":
        _log.warning("computing slowly, by plain torch: %s", why)
        return TorchOps(torch.device(device), dtype, cache_dtype=cache)
    from zonda.kernels.cuda.ops import CUDAOps

    return CUDAOps(torch.device(device), dtype, cache_dtype=cache)


def _compilers(vocab: int) -> sample.Kernel:
    """What compilers need time for while weights load: the kernel that draws, and Triton to hash itself."""
    from zonda.kernels.cpu.draws import CompiledDraw
    from zonda.kernels.cpu.library import Library

    if find_spec("triton"):
        from zonda.kernels.cuda.launch import triton_key

        triton_key()
    return CompiledDraw(Library(cache_folder()), vocab=vocab)
