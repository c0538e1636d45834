"""Feed-forward blocks: one gated MLP, or a mixture of them."""
from __future__ import annotations

from zonda.kernels.ops import Activation, Array, Experts, Norm
from zonda.nn.linear import Linear, Matrix
from zonda.nn.module import Module


class GatedMLP(Module):
    """activation(x gateᵀ) · (x upᵀ), brought back by `down` onto the residual."""

    def __init__(self, dim: int, ffn_dim: int, *, activation: Activation = "silu") -> None:
        self.gate = Linear(dim, ffn_dim)
        self.up = Linear(dim, ffn_dim)
        self.down = Linear(ffn_dim, dim)
        self.activation = activation

    def __call__(self, x: Array, *, norm: Norm | None, post_norm: Norm | None = None) -> Array:
        hidden = self.ops.gated(x, self.gate.weight, self.up.weight, activation=self.activation, norm=norm)
        return self.ops.output(hidden, self.down.weight, self.down.bias, residual=x, norm=post_norm)


class MoE(Module):
    """The `top` of `experts` gated MLPs that a softmax router prefers, weighted by its probabilities.

    `normalize` makes the weights of the chosen sum to one.
    """

    def __init__(self, dim: int, ffn_dim: int, *, experts: int, top: int, normalize: bool = True,
                 activation: Activation = "silu") -> None:
        self.router = Linear(dim, experts)
        self.gate = Matrix(experts, ffn_dim, dim)
        self.up = Matrix(experts, ffn_dim, dim)
        self.down = Matrix(experts, dim, ffn_dim)
        self.top = top
        self.normalize = normalize
        self.activation = activation

    @property
    def experts(self) -> Experts:
        return Experts(self.router.weight, self.gate.weight, self.up.weight, self.down.weight, top=self.top,
                       normalize=self.normalize, activation=self.activation)

    def __call__(self, x: Array, *, norm: Norm | None, post_norm: Norm | None = None) -> Array:
        assert post_norm is None, "a norm after experts is not part of Ops.experts"
        return self.ops.experts(x, self.experts, residual=x, norm=norm)
