"""A mixture of experts on a GPU: times of every candidate.

The layer is that of Qwen3 30B-A3B: 128 experts of 768 units on 2048 columns, 8 for each row.
"""
from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import Any

import torch
from linear import random_matrix
from replay import BF16, MEMORY, Found, seconds, show
from torch import Tensor

from zonda.kernels.cuda import experts as fused
from zonda.kernels.cuda.experts import LONE, Blocks, Shape, blocks_for
from zonda.kernels.ops import Experts, Norm
from zonda.kernels.torch.float8 import Float8Matrix
from zonda.kernels.torch.matrix import DenseMatrix, GroupIntMatrix, Matrix
from zonda.kernels.torch.packed import Planes

DIM, FFN, COUNT, TOP = 2048, 768, 128, 8
INPUTS = 12
"""Different inputs that are timed in turn, so that other experts are chosen each time."""


@dataclass(frozen=True)
class Case:
    """So many rows; `way` is few or many."""

    format: str
    rows: int
    way: str
    blocks: Blocks
    rule: bool = False

    def __str__(self) -> str:
        shown = " ".join(f"{name} {each.slots}x{each.outs}x{each.cols} w{each.warps} s{each.stages}"
                         for name, each in (("gated", self.blocks.gated), ("down", self.blocks.down)))
        return f"{self.format:5} {self.rows:5} rows {self.way:4} {'rule ' if self.rule else ''}{shown}"


def stack(format: str, outs: int, ins: int, count: int = COUNT) -> Matrix:
    """A random stack of matrices; fp8 has scales of rows, fp8b of blocks."""
    if format in ("fp8", "fp8b"):
        codes = (torch.randn(count, outs, ins, device="cuda") * 50).to(torch.float8_e4m3fn).view(torch.uint8)
        height, shape = (1, (count, outs, 1)) if format == "fp8" else (128, (count, -(-outs // 128), -(-ins // 128)))
        scales = (torch.rand(shape, device="cuda") + 0.5) / 50 / ins**0.5
        return Float8Matrix(codes, scales, height, format == "fp8")
    made = random_matrix(format, count * outs, ins)
    if isinstance(made, DenseMatrix):
        return DenseMatrix(made.values.reshape(count, outs, ins))
    parts = [None if each is None else each.reshape(count, outs, -1) for each in made.planes.tensors()]
    return GroupIntMatrix(made.layout, Planes(*parts), (count, outs, ins))  # type: ignore[arg-type]


def mixture(format: str, count: int = COUNT) -> Experts:
    router = DenseMatrix(torch.randn(count, DIM, device="cuda", dtype=torch.bfloat16) * 2 / DIM**0.5)
    return Experts(router, stack(format, FFN, DIM, count), stack(format, FFN, DIM, count),
                   stack(format, DIM, FFN, count), top=TOP, normalize=True)


def rows_of(count: int) -> Tensor:
    return torch.randn(count, DIM, device="cuda")


def norm() -> Norm:
    return Norm(torch.rand(DIM, device="cuda") + 0.5, 1e-6)


def candidates(format: str, *, all: bool = True) -> Iterator[Case]:
    """The rule's blocks for each number of rows, and with `all` others."""
    for rows in (1, 8):
        yield Case(format, rows, "few", LONE, rule=True)
        if not all:
            continue
        for outs, cols, warps in ((2, 2048, 4), (4, 512, 4), (8, 512, 4), (8, 1024, 8), (16, 256, 4)):
            yield Case(format, rows, "few", replace(LONE, gated=Shape(1, outs, cols, warps)))
        for outs, cols, warps in ((4, 1024, 4), (8, 512, 4), (16, 256, 4), (16, 256, 8), (32, 128, 4)):
            yield Case(format, rows, "few", replace(LONE, down=Shape(1, outs, cols, warps)))
    for rows in (8, 64, 256, 4096):
        rule = blocks_for(rows * TOP, COUNT)
        yield Case(format, rows, "many", rule, rule=True)
        for shape in _tiles(rule.gated.slots) if all else ():
            yield Case(format, rows, "many", replace(rule, gated=shape))
            yield Case(format, rows, "many", replace(rule, down=shape))


def _tiles(height: int) -> tuple[Shape, ...]:
    if height < 128:
        return (Shape(height, 32, 128, 4, 4), Shape(height, 64, 64, 4, 5), Shape(height, 128, 64, 4, 4),
                Shape(height, 128, 128, 8, 3))
    return Shape(128, 128, 64, 8, 3), Shape(128, 64, 64, 8, 4), Shape(64, 128, 64, 4, 4), Shape(128, 256, 64, 8, 3)


def launch(case: Case, made: Experts, x: Tensor, residual: Tensor, own: Norm) -> Tensor:
    way = fused.few if case.way == "few" else fused.many
    return way(x, made, residual, own, torch.bfloat16, case.blocks)


def times(formats: tuple[str, ...] = ("bf16", "fp8", "fp8b", "q4_k")) -> Found:
    """(case, microseconds, share of what the memory or the tensor cores allow)."""
    cases = [case for format in formats for case in candidates(format, all=format in ("bf16", "fp8"))]
    with ProcessPoolExecutor(14, mp_context=get_context("spawn")) as pool:
        list(pool.map(_compile, cases, chunksize=4))
    found: Found = []
    for format in formats:
        made, own = mixture(format), norm()
        size = sum(_bytes(each) for each in (made.gate, made.up, made.down))
        for case in (each for each in cases if each.format == format):
            found += _timed(case, made, own, size)
        del made
    return found


def _timed(case: Case, made: Experts, own: Norm, size: int) -> Found:
    inputs = [rows_of(case.rows) for _ in range(INPUTS if case.rows < 64 else 2)]
    residual = torch.randn_like(inputs[0])
    try:
        elapsed = seconds([lambda x=x: launch(case, made, x, residual, own) for x in inputs])  # type: ignore[misc]
    except Exception as error:
        print(case, type(error).__name__, str(error)[:80])
        return []
    used = COUNT * (1 - (1 - TOP / COUNT) ** case.rows)  # experts that are chosen at all, about
    floor = max(size * used / COUNT / MEMORY, 6 * case.rows * TOP * FFN * DIM / BF16)
    return [(str(case), elapsed * 1e6, floor / elapsed)]


def _bytes(matrix: Any) -> int:
    if isinstance(matrix, GroupIntMatrix):
        return sum(each.nbytes for each in matrix.planes.tensors() if each is not None)
    return matrix.codes.nbytes if isinstance(matrix, Float8Matrix) else matrix.values.nbytes


def _compile(case: Case) -> None:
    try:
        x = rows_of(case.rows)
        launch(case, mixture(case.format), x, x.clone(), norm())
        torch.cuda.synchronize()
    except Exception as error:
        print(case, type(error).__name__, str(error)[:80])


if __name__ == "__main__":
    show(times())
