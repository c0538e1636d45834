"""Products with eight-bit floats on a GPU: times of every candidate."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import torch
from replay import FP8, MEMORY, Found, seconds, show
from torch import Tensor

from zonda.kernels.cuda import float8
from zonda.kernels.cuda.float8 import Tile
from zonda.kernels.cuda.shapes import Few
from zonda.kernels.ops import Norm
from zonda.kernels.torch.float8 import Float8Matrix

BEYOND_CACHE = 200e6
SHAPES = (("project", 6144, 4096), ("output", 4096, 4096), ("gated", 14336, 4096), ("output", 4096, 14336))
"""Of Llama 3.1 8B."""


@dataclass(frozen=True)
class Case:
    """One product: `kind` is project, gated (both of few rows with a norm) or output (with residual).

    `by` is "rows" or "blocks" for scales, `how` a shape, "rule", or "eight bits" on both sides.
    """

    kind: str
    outs: int
    ins: int
    rows: int
    by: str = "rows"
    how: Few | Tile | str = "rule"

    def __str__(self) -> str:
        return f"{self.kind:8} {self.rows:5} rows {self.outs:6} x {self.ins:<6} scales of {self.by:6} {self.how}"


def random(case: Case) -> list[Float8Matrix]:
    """The matrix, or both of a gated product."""
    made = []
    for _ in range(2 if case.kind == "gated" else 1):
        codes = (torch.randn(case.outs, case.ins, device="cuda") * 50).to(torch.float8_e4m3fn).view(torch.uint8)
        shape = (case.outs, 1) if case.by == "rows" else (-(-case.outs // 128), -(-case.ins // 128))
        scales = (torch.rand(shape, device="cuda") + 0.5) / 50 / case.ins**0.5
        made.append(Float8Matrix(codes, scales, 1 if case.by == "rows" else 128, case.by == "rows"))
    return made


def arrays(case: Case) -> tuple[Tensor, Tensor, Norm]:
    """Input, poisoned output and norm."""
    kind = torch.bfloat16 if case.kind == "output" or case.rows > float8.FEW else torch.float32
    x = torch.randn(case.rows, case.ins, device="cuda").to(kind)
    out = torch.full((case.rows, case.outs), float("nan"), device="cuda", dtype=torch.bfloat16)
    if case.kind == "output":
        out = torch.randn(case.rows, case.outs, device="cuda")
    return x, out, Norm(torch.rand(case.ins, device="cuda") + 0.5, 1e-5)


def launch(case: Case, matrices: list[Float8Matrix], x: Tensor, out: Tensor, norm: Norm) -> None:
    if case.how == "eight bits":
        inputs = float8.rounded(x, matrices[:1], None if case.kind == "output" else norm)
        for each in matrices:
            float8.product(inputs, each)
        return
    float8.multiply(x, matrices[0], out, dot=torch.bfloat16, norm=norm if x.dtype == torch.float32 else None,
                    residual=out if case.kind == "output" else None, up=matrices[1] if case.kind == "gated" else None,
                    shape=None if isinstance(case.how, str) else case.how)


def candidates() -> Iterator[Case]:
    for kind, outs, ins in SHAPES:
        for rows in (1, 2):
            outline = Case(kind, outs, ins, rows)
            yield outline
            for numbers in (64, 128, 256):
                matrix = Float8Matrix(torch.empty(outs, ins, dtype=torch.uint8, device="cuda"), torch.empty(0), 1, True)
                yield Case(kind, outs, ins, rows, how=float8.walk(
                    matrix, rows, gated=kind == "gated", norm=kind != "output", numbers=numbers))
        yield Case(kind, outs, ins, 1, "blocks")
        for rows in (4, 16, 64):
            yield Case(kind, outs, ins, rows, how="eight bits")
            yield Case(kind, outs, ins, rows)
            for width, warps, stages in ((32, 2, 4), (64, 4, 4), (64, 4, 3), (128, 8, 3)):
                for splits in (1, 4, 8):
                    yield Case(kind, outs, ins, rows, how=Tile(max(8, rows), width, splits, warps, stages))
        for rows in (128, 256, 2048):
            yield Case(kind, outs, ins, rows)
            yield Case(kind, outs, ins, rows, "blocks")


def times() -> Found:
    """(case, microseconds, share of what the memory or the tensor cores allow)."""
    cases = list(candidates())
    with ProcessPoolExecutor(14, mp_context=get_context("spawn")) as pool:
        list(pool.map(_compile, cases, chunksize=4))
    found: Found = []
    weights: list[list[Float8Matrix]] = []
    key = None
    for case in cases:
        if (case.kind, case.outs, case.ins, case.by) != key:
            key = (case.kind, case.outs, case.ins, case.by)
            first = random(case)
            count = int(BEYOND_CACHE / sum(each.codes.nbytes for each in first)) + 1
            weights = [first, *(random(case) for _ in range(count))]
        found += _timed(case, weights)
    return found


def _timed(case: Case, weights: list[list[Float8Matrix]]) -> Found:
    x, out, norm = arrays(case)
    work: list[Callable[[], object]] = [lambda each=each: launch(case, each, x, out, norm)  # type: ignore[misc]
                                        for each in weights]
    try:
        elapsed = seconds(work, turns=max(1, 24 // len(work)))
    except Exception as error:
        print(case, type(error).__name__, str(error)[:80])
        return []
    size = sum(each.codes.nbytes for each in weights[0])
    floor = max(size / MEMORY, 2 * case.rows * size / FP8)
    return [(str(case), elapsed * 1e6, floor / elapsed)]


def _compile(case: Case) -> None:
    try:
        launch(case, random(case), *arrays(case))
        torch.cuda.synchronize()
    except Exception as error:
        print(case, type(error).__name__, str(error)[:80])


if __name__ == "__main__":
    show(times())
