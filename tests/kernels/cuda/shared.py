"""Compiles the largest tiles for a card with little shared memory, and prints what each takes: run without Triton's
interpreter. There need be no GPU, as nothing runs.
"""
from __future__ import annotations

from types import SimpleNamespace

import torch
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver

from tests.packing import random_packed
from zonda.kernels.cuda import attention, experts, float8, launch, linear, shapes
from zonda.kernels.ops import Attend, Experts, Heads, Rotary
from zonda.kernels.torch.float8 import Float8Matrix
from zonda.kernels.torch.matrix import DenseMatrix, Matrix, prepare

HALF = torch.bfloat16
ROOM = 101376
"""Bytes of a program on cards of capability 8.6, 8.9 and 12.0."""


class Card:
    """What Triton asks of a driver to compile."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 89, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def pretend() -> None:
    """That tensors are on such a card, where kernels are compiled and not run."""
    driver.set_active(Card())
    torch.Tensor.is_cuda = property(lambda self: True)  # type: ignore[assignment]
    torch.cuda.get_device_capability = lambda device=None: (8, 9)
    torch.mm = lambda *given, **named: None  # type: ignore[assignment]
    attention.processors = shapes.processors = float8.processors = lambda device: 128
    attention.room = shapes.room = lambda device: ROOM
    shapes.in_turn = lambda device: True
    run = launch.Kernel.run

    def compiled(self: launch.Kernel, *given: object, warmup: bool, **options: object) -> object:
        made = run(self, *given, warmup=True, **options)
        print(self.fn.__name__, made.metadata.shared, flush=True)
        return made

    launch.Kernel.run = compiled  # type: ignore[method-assign]


def rows(count: int, dim: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.zeros(count, dim, dtype=dtype)


def floats(*shape: int) -> DenseMatrix:
    return DenseMatrix(torch.zeros(shape, dtype=HALF))


def eights(outs: int, ins: int) -> Float8Matrix:
    return Float8Matrix(torch.zeros(outs, ins, dtype=torch.uint8), torch.zeros(outs // 128, ins // 128), 128, False)


def products() -> None:
    x = rows(256, 1024)
    for name in ("q8_0", "q6_k", "q2_k"):
        matrix = prepare(random_packed(name, 256, 1024), "cpu", HALF)
        for count in (8, 32, 64, 256):
            linear.multiply(x[:count], matrix, rows(count, 256, HALF), dot=HALF)
            linear.multiply(x[:count], matrix, rows(count, 256, HALF), dot=HALF, up=matrix)
    float8.multiply(x[:64], eights(256, 1024), rows(64, 256, HALF), dot=HALF)


def mixtures() -> None:
    stacks: list[Matrix] = [floats(2, 256, 1024), floats(2, 256, 1024), floats(2, 1024, 256)]
    experts.experts(rows(300, 1024), Experts(floats(2, 1024), *stacks, top=1, normalize=True, activation="silu"),
                    rows(300, 1024), None, dtype=HALF)


def runs() -> None:
    made = attention.Attention(torch.device("cpu"), HALF)
    made._dot = tl.bfloat16
    layer = Attend(0, Heads(2, 1, 256), 0.3, Rotary(torch.ones(128), 256))
    words = torch.zeros(70, dtype=torch.int32)
    step = SimpleNamespace(rows=70, items=words[:8].view(2, 4), sizes=SimpleNamespace(items=2, seqs=0), positions=words,
                           owners=words, starts=words, head=words, table=words)
    cache = torch.zeros(1, 1, 64, 256, dtype=HALF)
    made(rows(70, 1024, HALF), layer, step, (cache, cache))  # type: ignore[arg-type]


if __name__ == "__main__":
    pretend()
    products()
    mixtures()
    runs()
