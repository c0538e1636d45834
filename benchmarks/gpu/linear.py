"""Products with matrices on a GPU: times of every candidate shape.

    python benchmarks/gpu/linear.py [one] [few] [many] [dense]

`one` is one row, `few` 2 and 4 rows, `many` 8 to 2048 rows on packed weights, `dense` 8 to 8192 rows on floats, beside
cuBLAS. Candidates are compiled by several processes first.
"""
from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context

import torch
from replay import seconds
from torch import Tensor

from zonda.kernels.cuda import linear, shapes
from zonda.kernels.cuda.shapes import Few, Many, Tiled
from zonda.kernels.ops import Norm
from zonda.kernels.torch.matrix import DenseMatrix, GroupIntMatrix
from zonda.kernels.torch.packed import LAYOUTS, WORDS, Planes

MEMORY, TENSOR = 3.0e12, 776e12  # bytes and bf16 operations a second that the card reaches
BEYOND_CACHE = 200e6
Matrix = DenseMatrix | GroupIntMatrix


@dataclass(frozen=True)
class Case:
    """One product: `kind` is project (with norm), gated (with norm), output (with residual), logits or matmul.

    From three rows on, packed weights are multiplied without norm and residual. `gates` and `head` are the gated
    product and the logits of many rows, `cublas gates` and `cublas` a product by the library.
    """

    kind: str
    format: str
    rows: int
    outs: int
    ins: int
    shape: Few | Many | Tiled | None = None

    @property
    def twice(self) -> bool:
        """Whether there are two matrices."""
        return "gate" in self.kind

    def __str__(self) -> str:
        return f"{self.kind:8} {self.format:5} {self.rows:5} rows {self.outs:6} x {self.ins:<6}{_shown(self.shape)}"


ONE_BILLION = (("project", 3072, 2048), ("output", 2048, 2048), ("gated", 8192, 2048), ("output", 2048, 8192),
               ("logits", 128256, 2048))
EIGHT_BILLION = (("project", 6144, 4096), ("output", 4096, 4096), ("gated", 14336, 4096), ("output", 4096, 14336),
                 ("logits", 128256, 4096))
PLAN = {"one": [("bf16", ONE_BILLION), ("bf16", EIGHT_BILLION), ("q4_k", EIGHT_BILLION), ("q4_0", EIGHT_BILLION[:4]),
                ("q8_0", EIGHT_BILLION[:4]), ("q4_k", ONE_BILLION[:4]), ("q6_k", (EIGHT_BILLION[3], EIGHT_BILLION[4]))]}


def _shown(shape: Few | Many | Tiled | None) -> str:
    if isinstance(shape, Few):
        return f" block {shape.block} warps {shape.warps:2} programs {shape.programs}"
    if isinstance(shape, Many):
        return (f" tile {shape.rows} x {shape.outs} x {shape.words} words, warps {shape.warps} stages {shape.stages}"
                f" splits {shape.splits}{' bulk' if shape.bulk else ''}")
    if isinstance(shape, Tiled):
        return (f" tile {shape.rows} x {shape.outs} x {shape.columns}, warps {shape.warps} stages {shape.stages}"
                f" band {shape.band}")
    return ""


def random_matrix(format: str, outs: int, ins: int) -> Matrix:
    """Random floats, or random bits with small scales."""
    if format in ("bf16", "f16", "f32"):
        kind = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}[format]
        return DenseMatrix(torch.randn(outs, ins, device="cuda", dtype=kind) / ins ** 0.5)
    layout = LAYOUTS[format]

    def words(count: int) -> Tensor:
        return torch.randint(-2**31, 2**31 - 1, (outs, count), dtype=torch.int32, device="cuda")

    def halves(count: int) -> Tensor:
        size = 2 if layout.mins else 1
        values = (torch.rand(outs, count, size, device="cuda") * 0.01 + 0.001).half()
        return values.view(torch.int32)[..., 0].contiguous() if layout.mins else values[..., 0].contiguous()

    units, groups = ins // layout.unit, ins // layout.group
    scales, heads = halves(groups), None
    if layout.two_level:
        kind = torch.int16 if layout.mins else torch.int8
        limits = torch.iinfo(kind)
        scales = torch.randint(limits.min, limits.max, (outs, groups), dtype=kind, device="cuda")
        heads = halves(ins // 256) if layout.mins else halves(ins // 256).float()
    high = words(units * layout.high_words) if layout.high else None
    return GroupIntMatrix(layout, Planes(words(units * WORDS), high, scales, heads), (outs, ins))


def size(matrix: Matrix) -> int:
    tensors = [matrix.values] if isinstance(matrix, DenseMatrix) else matrix.planes.tensors()
    return sum(each.nbytes for each in tensors if each is not None)


def launch(case: Case, matrices: list[Matrix], x: Tensor, out: Tensor, norm: Norm) -> None:
    """What is timed, once."""
    rule = {"dot": torch.bfloat16, "shape": case.shape}
    if isinstance(case.shape, Tiled):
        linear.tiled(x, matrices[0].values, out, case.shape, up=matrices[1].values if case.twice else None)
    elif case.kind == "gates":
        linear.matmul_gated(x, *matrices, "silu")
    elif case.kind == "head":
        linear.many_logits(x, matrices[0])
    elif case.kind == "cublas gates":
        linear.combine(torch.mm(x, matrices[0].values.T), torch.mm(x, matrices[1].values.T), "silu", out)
    elif case.kind == "matmul":
        linear.matmul(x, matrices[0]) if case.shape is None else linear.multiply(x, matrices[0], out, **rule)
    elif case.kind == "gated":
        linear.multiply(x, matrices[0], out, norm=norm, up=matrices[1], **rule)
    elif case.kind == "output":
        linear.multiply(x, matrices[0], out, residual=out, **rule)
    elif case.kind == "cublas":
        torch.mm(x, matrices[0].values.T)
    else:
        linear.multiply(x, matrices[0], out, norm=norm, **rule)


def arrays(case: Case) -> tuple[Tensor, Tensor, Norm]:
    kind = torch.float32 if case.kind in ("project", "gated", "logits") else torch.bfloat16
    x = torch.randn(case.rows, case.ins, device="cuda", dtype=kind)
    made = torch.float32 if case.kind in ("output", "logits", "head") else torch.bfloat16
    out = torch.full((case.rows, case.outs), float("nan"), device="cuda", dtype=made)
    return x, out, Norm(torch.rand(case.ins, device="cuda") + 0.5, 1e-5)


def candidates(kind: str, format: str, rows: int, outs: int, ins: int) -> Iterator[Case]:
    """Shapes worth a try, the rule's first."""
    matrix = _outline(format, outs, ins)
    gated = kind == "gated"
    tried: set[Few | Many | Tiled | None] = set()
    limit = shapes.DENSE_ROWS if format == "bf16" else shapes.PACKED_ROWS
    options: list[Few | Many | Tiled | None] = []
    if kind in ("gates", "head"):
        half, high = 1 + (kind == "gates"), 64 if rows <= 64 else 128
        options = [None, *(Tiled(high, wide // half, columns, wide // 32, stages, band)
                           for wide in ((128, 256) if rows > 64 else (64, 128)) for columns in (64, 128)
                           for stages in (3, 4) for band in ((8, 16) if rows > 1024 else (8,))
                           if (high + wide) * columns * stages <= 110_000)]
    elif rows <= limit:
        rule = shapes.few(matrix, rows, gated=gated)
        options = [rule]
        for warps in sorted({max(4, rule.warps // 2), rule.warps, min(16, rule.warps * 2)}):
            for block in (rule.block // 2, rule.block, rule.block * 2):
                if block and block <= 16:
                    options.append(shapes.even(matrix, block, warps))
        options += [Few(block, rule.warps, -(-outs // block)) for block in (rule.block, rule.block * 2)]
    else:
        rule = shapes.many(matrix, rows, gated=gated)
        block = next(size for size in (8, 32, 64, 128) if size >= min(rows, 128))
        options = [rule, *(Many(block, n, words, n // 16, stages, splits, bulk) for n in (64, 128) for words in (16, 32)
                           for stages in (2, 3) for splits in (1, 2, 4, 8) for bulk in (False, True))]
    for shape in options:
        if shape not in tried:
            tried.add(shape)
            yield Case(kind, format, rows, outs, ins, shape)


def _outline(format: str, outs: int, ins: int) -> Matrix:
    """A matrix without memory, for the rules."""
    none = torch.empty(1, device="cuda").expand(outs, ins)
    if format == "bf16":
        return DenseMatrix(none)
    return GroupIntMatrix(LAYOUTS[format], Planes(none, None, none, None), (outs, ins))


def plan(part: str) -> list[Case]:
    """All that is timed for one, few or many rows."""
    if part == "one":
        return [case for format, matrices in PLAN["one"] for kind, outs, ins in matrices
                for case in candidates(kind, format, 1, outs, ins)]
    if part == "few":
        return [case for format, matrices in (("bf16", (ONE_BILLION[0], ONE_BILLION[3], *EIGHT_BILLION[1:4])),
                                              ("q4_k", EIGHT_BILLION[1:4]))
                for kind, outs, ins in matrices for rows in ((2, 4) if format == "bf16" else (2,))
                for case in candidates(kind, format, rows, outs, ins)]
    if part == "dense":
        gates, heads = ((14336, 4096), (8192, 2048), (9728, 2560)), ((128256, 4096), (128256, 2048))
        return [case for kind, library, shapes_, most in (("gates", "cublas gates", gates, 8192),
                                                          ("head", "cublas", heads, 256))
                for outs, ins in shapes_ for rows in (8, 32, 64, 128, 256, 1024, 8192) if rows <= most
                for case in (Case(library, "bf16", rows, outs, ins), *candidates(kind, "bf16", rows, outs, ins))]
    wide = [(4096, 4096), (14336, 4096)]
    cases = [Case("cublas", "bf16", rows, outs, ins) for outs, ins in wide for rows in (8, 32, 64, 128, 256, 2048)]
    for format in ("q4_k", "q8_0"):
        for outs, ins in wide:
            cases += [case for rows in (8, 32, 64, 128, 256) for case in candidates("matmul", format, rows, outs, ins)]
            cases += [Case("matmul", format, rows, outs, ins) for rows in (512, 2048)]
    return cases


def compile_all(cases: list[Case]) -> None:
    """Fill Triton's cache from several processes."""
    with ProcessPoolExecutor(14, mp_context=get_context("spawn")) as pool:
        list(pool.map(_compile, [case for case in cases if "cublas" not in case.kind], chunksize=4))


def _compile(case: Case) -> None:
    try:
        launch(case, _matrices(case), *arrays(case))
        torch.cuda.synchronize()
    except Exception as error:
        print(case, type(error).__name__, str(error)[:80])


def _matrices(case: Case) -> list[Matrix]:
    return [random_matrix(case.format, case.outs, case.ins) for _ in range(1 + case.twice)]


def times(part: str = "one") -> list[tuple[str, float, float]]:
    """(case, microseconds, share of what the memory or the tensor cores allow)."""
    cases = plan(part)
    compile_all(cases)
    found, weights, key = [], [], None
    for case in cases:
        if (case.format, case.outs, case.ins, case.twice) != key:
            key = (case.format, case.outs, case.ins, case.twice)
            first = _matrices(case)
            count = max(2, int(BEYOND_CACHE / sum(map(size, first))) + 1)
            weights = [first, *(_matrices(case) for _ in range(count - 1))]
        try:
            elapsed = _time(case, weights)
        except Exception as error:
            print(case, type(error).__name__, str(error)[:80])
            continue
        operations = 2 * case.rows * case.outs * case.ins * len(weights[0])
        floor = max(sum(map(size, weights[0])) / MEMORY, operations / TENSOR)
        found.append((str(case), elapsed * 1e6, floor / elapsed))
    return found


def _time(case: Case, weights: list[list[Matrix]], repeats: int = 5) -> float:
    """Seconds a launch, in a graph that goes through all weights."""
    x, out, norm = arrays(case)
    work = [partial(launch, case, each, x, out, norm) for each in weights]
    return seconds(work, turns=max(1, 24 // len(weights) // (1 + case.rows // 1024)), repeats=repeats)


def show(found: list[tuple[str, float, float]]) -> None:
    """One line a product: the rule's time first, then the best three; a share of 1 is the ceiling."""
    products: dict[str, list[tuple[str, float, float]]] = {}
    for name, micros, share in found:
        product, _, shape = name.partition(" block") if " block" in name else name.partition(" tile")
        products.setdefault(product, []).append((shape, micros, share))
    for product, entries in products.items():
        best = sorted(entries, key=lambda entry: entry[1])[:3]
        print(f"{product} rule {entries[0][1]:7.1f} us {entries[0][2]:.2f} |",
              " | ".join(f"{micros:.1f} us {share:.2f}{shape}" for shape, micros, share in best))


PARTS: dict[str, Callable[[], None]] = {part: (lambda part=part: show(times(part)))  # type: ignore[misc]
                                        for part in ("one", "few", "many", "dense")}


def main() -> None:
    for part in sys.argv[1:] or PARTS:
        PARTS[part]()


if __name__ == "__main__":
    main()
