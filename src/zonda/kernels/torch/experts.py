"""A mixture of experts in plain torch: what the fused kernels are measured by."""
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from zonda.kernels.ops import Experts, Norm

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": functional.silu, "gelu": functional.gelu, "relu": torch.relu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh")}


def normalize(x: Tensor, norm: Norm | None) -> Tensor:
    """RMS norm in the type of x."""
    if norm is None:
        return x
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + norm.eps) * norm.weight.to(x.dtype)


def choose(logits: Tensor, top: int, *, normalize: bool) -> tuple[Tensor, Tensor]:
    """The `top` likeliest experts of each row, the first of equals before the others, and their shares."""
    weights = logits.softmax(-1)
    order = torch.sort(weights, dim=-1, descending=True, stable=True).indices[:, :top]
    shares = weights.gather(-1, order)
    return order, shares / shares.sum(-1, keepdim=True) if normalize else shares


def experts(x: Tensor, experts: Experts, residual: Tensor, norm: Norm | None, *,
            dtype: torch.dtype = torch.float32) -> Tensor:
    """residual + the weighted sum of the chosen experts on norm(x), in `dtype` arithmetic."""
    x = normalize(x.to(dtype), norm)
    chosen, shares = choose(x @ experts.router.dense(dtype).T, experts.top, normalize=experts.normalize)
    gate, up, down = (stack.dense(dtype) for stack in (experts.gate, experts.up, experts.down))
    out = residual.to(dtype).clone()
    for k in range(experts.top):
        for expert in range(gate.shape[0]):
            rows = (chosen[:, k] == expert).nonzero()[:, 0]
            if len(rows):
                hidden = ACTIVATIONS[experts.activation](x[rows] @ gate[expert].T) * (x[rows] @ up[expert].T)
                out[rows] += shares[rows, k, None] * (hidden @ down[expert].T)
    return out
