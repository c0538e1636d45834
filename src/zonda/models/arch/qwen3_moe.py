"""Qwen3 MoE: Qwen3's attention, and in most layers a mixture of gated MLPs."""
from zonda.models.config import Config
from zonda.nn import Attention, Block, Decoder, Embedding, GatedMLP, Linear, Mask, MoE, RMSNorm, Rope

DEFAULTS = {"windowed": False}


def build(c: Config) -> Decoder:
    rope = Rope(c.heads.dim, **c.rope())

    def ffn(i: int) -> GatedMLP | MoE:
        if c.mixture is None or not c.sparse(i):
            return GatedMLP(c.dim, c.ffn_dim, activation=c.activation)
        return MoE(c.dim, c.mixture.dim, experts=c.mixture.experts, top=c.mixture.top, normalize=c.mixture.normalize,
                   activation=c.activation)

    def layer(i: int) -> Block:
        return Block(
            attn_norm=RMSNorm(c.dim, c.eps),
            attn=Attention(c.dim, c.heads, rope=rope, mask=Mask(window=c.windows[i]), bias=c.bias, out_bias=c.bias,
                           q_norm=RMSNorm(c.heads.dim, c.eps), k_norm=RMSNorm(c.heads.dim, c.eps)),
            ffn_norm=RMSNorm(c.dim, c.eps),
            ffn=ffn(i))

    return Decoder(embed=Embedding(c.vocab, c.dim), layers=map(layer, range(c.layers)), norm=RMSNorm(c.dim, c.eps),
                   head=None if c.tied else Linear(c.dim, c.vocab))
