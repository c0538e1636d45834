"""Whose kernels do which work on a GPU, and why not another's."""
from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from zonda.kernels.cuda.shapes import DENSE_ROWS, UNPACKED_ROWS

ATTENTION = {"flashinfer": "flashinfer-python", "FlashAttention 2": "flash-attn", "FlashAttention 3": "flash-attn-3",
             "FlashAttention 4": "flash-attn-4"}
"""Others' kernels for attention over pages, by the package that has them."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One candidate for a kind of work."""

    work: str
    kernels: str
    status: Literal["chosen", "not used", "not installed"]
    why: str


def choices() -> list[Choice]:
    """Every candidate, on a GPU where Triton's kernels run. Measured is what docs/performance.md has."""
    return [
        Choice("products of few rows", "Triton", "chosen",
               f"up to {DENSE_ROWS} rows by floats, {UNPACKED_ROWS} by packed weights, which cuBLAS cannot read"),
        Choice("gated products, logits", "Triton", "chosen",
               "with the activation, on cards of compute capability 9 where tiles end together; up to 17 % less time "
               "than cuBLAS on an H100"),
        Choice("products of many rows", "cuBLAS", "chosen",
               "packed weights are made floats first; 700 of 776 TFLOP/s on an H100"),
        Choice("attention", "Triton", "chosen",
               "reads the cache's pages; single rows at 0.95 of copy speed on an H100, prompts at 454 TFLOP/s"),
        Choice("attention", "cuDNN", "not used",
               "reads no pages, and plans 66 ms for every new length; 423 TFLOP/s for whole prompts on an H100"),
        Choice("attention", "torch's FlashAttention 2", "not used", "218 TFLOP/s for whole prompts on an H100"),
        *(_other(name, package) for name, package in ATTENTION.items()),
    ]


def _other(name: str, package: str) -> Choice:
    try:
        return Choice("attention", name, "not used",
                      f"{package} {version(package)} is installed, but nothing here calls it, and it was not measured")
    except PackageNotFoundError:
        return Choice("attention", name, "not installed", f"there is no {package}; nothing here calls it")
