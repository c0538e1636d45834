"""`Ops` by our own kernels: fused products for few rows, the tensor cores for many."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from zonda.kernels.cuda import float8, linear, rows
from zonda.kernels.cuda.attention import Attention
from zonda.kernels.cuda.experts import experts as mixture
from zonda.kernels.cuda.float8 import Halves, Rounded
from zonda.kernels.cuda.launch import compiling, early
from zonda.kernels.cuda.shapes import has_eights, power
from zonda.kernels.ops import Activation, Attend, Experts, Norm
from zonda.kernels.torch.float8 import Float8Matrix
from zonda.kernels.torch.matrix import DenseMatrix, Matrix
from zonda.kernels.torch.ops import TorchOps, cap
from zonda.kernels.torch.step import Step
from zonda.weights.source import Weight

CHUNK = 4096
"""Logits that one program looks at."""


@dataclass(slots=True, eq=False)
class Stream:
    """The residual stream (rows, dim), float32, and what is still to be added to it, through a norm perhaps."""

    x: Tensor
    y: Tensor | None = None
    norm: Norm | None = None


class CUDAOps(TorchOps):
    """The plain operations of `TorchOps`, each in a kernel or a few."""

    captures = tells = True

    def __init__(self, device: torch.device, dtype: torch.dtype, *, cache_dtype: torch.dtype | None = None) -> None:
        self._eights = has_eights(device)
        super().__init__(device, dtype, cache_dtype=cache_dtype if self._eights else None)
        self._attention = Attention(device, dtype)

    def compiling(self, told: Callable[[], None]) -> AbstractContextManager[None]:
        return compiling(self.device, told)

    def prepare(self, weight: Weight, *others: Weight) -> Matrix:
        """Eight-bit floats become floats of the compute type where the device cannot compute with them."""
        matrix = super().prepare(weight, *others)
        unpacked = isinstance(matrix, Float8Matrix) and not self._eights
        return DenseMatrix(matrix.dense(self.dtype)) if unpacked else matrix

    def embed(self, table: Matrix, step: Step, *, scale: float = 1.0) -> Stream:  # type: ignore[override]
        if isinstance(table, Float8Matrix):
            return Stream(super().embed(table, step, scale=scale))
        out = torch.empty(step.rows, table.ins, dtype=torch.float32, device=self.device)
        grid = (step.rows, triton.cdiv(table.ins, 1024))
        if isinstance(table, DenseMatrix):
            rows.embed[grid](step.tokens, step.last, table.values, out, scale, table.ins, BLOCK=1024)
        else:
            rows.embed_packed[grid](step.tokens, step.last, *linear.tensors(table), out, scale, table.outs,
                                    INS=table.ins, BLOCK=1024, **linear.layout(table))  # type: ignore[arg-type]
        return Stream(out)

    def _settled(self, stream: Stream, norm: Norm | None = None, *matrices: Matrix) -> Tensor | Rounded | None:
        """Add what is to be added; the norm of the stream, if one is given, as the matrices take it."""
        x, y, before = stream.x, stream.y, stream.norm
        if y is None and norm is None:
            return None
        count, dim = x.shape
        eights = norm is not None and matrices and float8.rounds(count, matrices)
        options: dict[str, Any] = {"given": 0.0, "GROUP": 0, "GIVEN": False}
        out = torch.empty(x.shape, dtype=self.dtype, device=self.device) if norm and not eights else x
        codes = scales = out
        if eights:
            found, options = float8.blank(count, matrices, self.dtype)  # type: ignore[arg-type]
            codes, scales = found.codes, found.scales
        block = max(128, power(dim))
        rows.settle[(count,)](
            x, x if y is None else y, before.weight if before else x, norm.weight if norm else x,
            before.eps if before else 0.0, norm.eps if norm else 0.0, codes, scales, DIM=dim, BLOCK=block,
            ADD=y is not None, BEFORE=before is not None, AFTER=norm is not None,
            num_warps=min(16, max(1, block // 512)), **options, **early(self.device))
        stream.y = stream.norm = None
        return Rounded(codes, scales, self.dtype) if eights else out

    def project(self, x: Stream, weights: Sequence[Matrix], biases: Sequence[Tensor | None], *,  # type: ignore[override]
                norm: Norm | None = None) -> Tensor:
        assert norm is not None
        if linear.fused(x.x, weights):
            self._settled(x)
            return linear.project(x.x, weights, biases, norm=norm, dtype=self.dtype)
        h = self._settled(x, norm, *weights)
        parts = [linear.matmul(h, w, b) for w, b in zip(weights, biases)]  # type: ignore[arg-type]
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)

    def attend(self, qkv: Tensor, layer: Attend, step: Step) -> Tensor:
        return self._attention(qkv, layer, step, self.caches[layer.index])

    def sampled(self, x: Any, step: Step) -> Any:
        if step.alone or isinstance(x, Tensor):
            return super().sampled(x, step)
        self._settled(x)
        return Stream(super().sampled(x.x, step))

    def gated(self, x: Stream, gate: Matrix, up: Matrix, *, activation: Activation = "silu",  # type: ignore[override]
              norm: Norm | None = None) -> Tensor | Halves:
        if linear.fused(x.x, [gate, up]):
            self._settled(x)
            return linear.gated(x.x, gate, up, activation, norm=norm, dtype=self.dtype)
        h = self._settled(x, norm, gate, up)
        return linear.matmul_gated(h, gate, up, activation)  # type: ignore[arg-type]

    def output(self, x: Tensor | Halves, weight: Matrix, bias: Tensor | None, *, residual: Stream,  # type: ignore[override]
               norm: Norm | None = None) -> Stream:
        few = isinstance(x, Tensor) and linear.fused(x, [weight])
        if norm is None and isinstance(x, Tensor) and (few or (bias is None and linear.adds(x, weight))):
            self._settled(residual)
            return Stream(linear.output(x, weight, bias, residual.x) if few else linear.add(x, weight, residual.x))
        if few:
            y = linear.project(x, [weight], [bias], dtype=self.dtype)  # type: ignore[arg-type]
        else:
            y = linear.matmul(x, weight, bias)
        self._settled(residual)
        return Stream(residual.x, y, norm)

    def experts(self, x: Stream, experts: Experts, *, residual: Stream, norm: Norm | None = None  # type: ignore[override]
                ) -> Stream:
        self._settled(residual)
        return Stream(mixture(residual.x, experts, residual.x, norm, dtype=self.dtype))

    def logits(self, x: Stream, head: Matrix, *, norm: Norm | None = None,  # type: ignore[override]
               softcap: float = 0.0, scale: float = 1.0) -> Tensor:
        if linear.fused(x.x, [head]):
            self._settled(x)
            found = linear.logits(x.x, head, norm=norm, dtype=self.dtype)
        else:
            found = linear.many_logits(self._settled(x, norm), head)  # type: ignore[arg-type]
        return found if scale == 1.0 and not softcap else cap(found * scale, softcap)

    def draw(self, logits: Tensor, step: Step, *, greedy: bool) -> None:
        """The token of each row of logits into `step.last` and `step.drawn`, -1 where there is none."""
        count, vocab = logits.shape
        chunks = triton.cdiv(vocab, CHUNK)
        values = torch.empty(count, chunks, dtype=torch.float32, device=self.device)
        places = torch.empty(count, chunks, dtype=torch.int32, device=self.device)
        floor = values
        if not greedy:
            floor = torch.empty(count, dtype=torch.float32, device=self.device)
            rows.floors[(count,)](logits, step.temperature, step.top_k, step.top_p, step.min_p, floor, vocab,
                                  BLOCK=4096, num_warps=16)
        rows.best[(count, chunks)](logits, floor, step.temperature, step.key, step.number, values, places, vocab,
                                   chunks, BLOCK=CHUNK, SAMPLED=not greedy, **early(self.device))
        told = step.last if step.drawn is None else step.drawn
        rows.choose[(count,)](values, places, step.last, told, step.head, chunks, told.stride(0), BLOCK=power(chunks),
                              TOLD=step.drawn is not None, **early(self.device))
