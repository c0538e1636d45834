"""What a GPU can do at most, measured, and how long a step must take at least by that."""
from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

HEAD = {"bf16": 2.0, "fp8": 2.0}  # bytes a weight of the last matrix; of packed models it is of q6_k
_COPIED, _SIDE = 1 << 31, 8192


@dataclass(frozen=True)
class Ceilings:
    """Bytes a second, read and written, of a copy on the device; operations a second of products; bytes to it."""

    copy: float
    matrix: float
    bus: float


def ceilings(dtype: str) -> Ceilings:
    """Measure them; for fp8 models, of products with eight bits."""
    import torch

    source = torch.empty(_COPIED, dtype=torch.uint8, device="cuda").random_()
    target = torch.empty_like(source)
    pinned = torch.empty(_COPIED, dtype=torch.uint8, pin_memory=True).fill_(7)
    return Ceilings(2 * _COPIED / seconds(lambda: target.copy_(source)), 2 * _SIDE**3 / seconds(_product(dtype)),
                    _COPIED / seconds(lambda: target.copy_(pinned, non_blocking=True), 3))


def _product(dtype: str) -> Callable[[], Any]:
    import torch

    one, other = (torch.randn(_SIDE, _SIDE, device="cuda").bfloat16() for _ in range(2))
    if dtype != "fp8":
        return lambda: torch.mm(one, other.t())
    scales = torch.ones(_SIDE, 1, device="cuda")
    left, right = one.to(torch.float8_e4m3fn), other.to(torch.float8_e4m3fn).t()
    return lambda: torch._scaled_mm(left, right, scale_a=scales, scale_b=scales.t(), out_dtype=torch.bfloat16)


def seconds(work: Callable[[], object], repeats: int = 10) -> float:
    """The median, by the device's clock."""
    import torch

    found = []
    for _ in range(repeats + 2):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        work()
        end.record()
        end.synchronize()
        found.append(begin.elapsed_time(end) / 1e3)
    return statistics.median(found[2:])


@dataclass(frozen=True)
class Outline:
    """A dense model in numbers: weights of layers and of the head, their bytes, and what attention takes."""

    layers: int
    head: int
    weight_bytes: float
    position_bytes: int
    width: int
    """Query dimensions of all layers."""

    @classmethod
    def of(cls, shape: str, dtype: str) -> Outline:
        from zonda.model import shape_config
        from zonda.models import build
        from zonda.weights.quantize import bytes_a_weight
        from zonda.weights.random import RandomSource

        decoder = build(RandomSource(shape_config(shape), dtype))[1]
        layers = sum(prod(each) for name, block in decoder.walk() if name.startswith("layers.")
                     for each in block.parameters().values())
        head = prod(decoder.embed.shape)
        size = layers * (2.0 if dtype == "bf16" else bytes_a_weight(dtype)) + head * _head_bytes(dtype)
        width = sum(each.heads.q * each.heads.dim for each in decoder.caches)
        return cls(layers, head, size, sum(each.position_bytes(2) for each in decoder.caches), width)

    def decode(self, rows: int, depth: float, most: Ceilings) -> float:
        """Seconds of a step of so many sequences, each of `depth` positions."""
        moved = self.weight_bytes + rows * depth * self.position_bytes
        return max(moved / most.copy, 2 * rows * (self.layers + self.head) / most.matrix)

    def prefill(self, rows: int, length: int, most: Ceilings) -> float:
        """Seconds of prompts of `length` tokens, each until its first token."""
        attention = 2 * rows * length**2 * self.width
        return (2 * rows * (length * self.layers + self.head) + attention) / most.matrix


def _head_bytes(dtype: str) -> float:
    from zonda.weights.quantize import bytes_a_weight

    return HEAD[dtype] if dtype in HEAD else bytes_a_weight("q6_k")


KINDS = {"attention": ("single", "whole", "tiles", "place"), "draw": ("best", "choose", "floors"),
         "rows": ("embed", "embed_packed", "settle", "combined", "round_rows", "end"),
         "products": ("few", "few_dense", "few_packed", "many", "tiled", "unpack", "some", "by_blocks")}
"""Our kernels by what they do."""


def kind_of(kernel: str) -> str:
    """What a kernel does, by its name in a profile."""
    for kind, names in KINDS.items():
        if kernel in names:
            return kind
    library = ("gemm", "gemv", "nvjet", "cutlass", "splitk")
    return "products" if any(word in kernel.lower() for word in library) else "others"


def shares(kernels: Sequence[tuple[str, float, float]]) -> dict[str, float]:
    """Seconds that each kind of (name, start, end) keeps the device busy.

    A kernel that starts before the one before it has ended counts from that end: until then it waits.
    """
    found: dict[str, float] = {}
    before = float("-inf")
    for name, start, end in sorted(kernels, key=lambda each: each[2]):
        found[kind_of(name)] = found.get(kind_of(name), 0.0) + max(0.0, end - max(start, before))
        before = max(before, end)
    return found
