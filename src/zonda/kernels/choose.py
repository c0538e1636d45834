"""Whose kernels do which work on a GPU, and why not another's. Decided once, when a model is loaded."""
from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Literal

from zonda.kernels.cuda.shapes import DENSE_ROWS, UNPACKED_ROWS

LONG = 2048
"""Positions of the longest sequence of a step from which FlashAttention 4 was measured faster."""
_MEASURED = 9, 0  # compute capability of the cards on which attention was compared


@dataclass(frozen=True, slots=True)
class Choice:
    """One candidate for a kind of work."""

    work: str
    kernels: str
    status: Literal["chosen", "not used", "not installed"]
    why: str


def choices(capability: tuple[int, int]) -> list[Choice]:
    """Every candidate, on a GPU where Triton's kernels run. Measured is what docs/performance.md has."""
    return [
        Choice("products of few rows", "Triton", "chosen",
               f"up to {DENSE_ROWS} rows by floats, {UNPACKED_ROWS} by packed weights, which cuBLAS cannot read"),
        Choice("gated products, logits", "Triton", "chosen",
               "with the activation, on cards of compute capability 9 where tiles end together; up to 17 % less time "
               "than cuBLAS on an H100"),
        Choice("products of many rows", "cuBLAS", "chosen",
               "packed weights are made floats first; 700 of 776 TFLOP/s on an H100"),
        Choice("attention of single rows", "Triton", "chosen",
               "0.95 to 0.99 of copy speed on an H100; FlashAttention 4 and flashinfer take as long, or up to half "
               "as long again"),
        Choice("attention of prompts", "Triton", "chosen", "423 to 506 TFLOP/s on an H100"),
        _flash(capability),
        Choice("attention of prompts", "flashinfer", _there("flashinfer-python") or "not used",
               "its kernel of FlashAttention 3 reaches 443 to 605 TFLOP/s, less than FlashAttention 4, and plans each "
               "step for 0.7 to 2.3 ms"),
        Choice("attention of prompts", "cuDNN", "not used",
               "reads no pages, and plans 66 ms for every new length; 423 TFLOP/s for whole prompts"),
        Choice("attention of prompts", "FlashAttention 2", "not used",
               "288 to 330 TFLOP/s as flashinfer has it, 218 as torch has it"),
    ]


@cache
def flash_on(capability: tuple[int, int]) -> bool:
    """Whether FlashAttention 4 is to compute where it was measured faster."""
    return capability == _MEASURED and not _there("flash-attn-4") and find_spec("flash_attn") is not None


def _flash(capability: tuple[int, int]) -> Choice:
    status = _there("flash-attn-4") or ("chosen" if flash_on(capability) else "not used")
    why = (f"where a step looks back on {LONG} positions or more, by heads of 128 numbers in 16 bits without window, "
           "cap and sinks: 460 to 606 TFLOP/s on an H100, 8 to 16 % less time than Triton")
    return Choice("attention of prompts", "FlashAttention 4", status,
                  why if capability == _MEASURED else "measured on compute capability 9.0 alone")


def _there(package: str) -> Literal["not installed"] | None:
    try:
        version(package)
    except PackageNotFoundError:
        return "not installed"
    return None
