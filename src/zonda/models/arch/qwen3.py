"""Qwen3: pre-norm grouped-query attention with an RMS norm on each query and key head, and a gated MLP."""
from zonda.models.config import Config
from zonda.nn import Attention, Block, Decoder, Embedding, GatedMLP, Linear, Mask, RMSNorm, Rope

DEFAULTS = {"head_dim": 128, "windowed": False}


def build(c: Config) -> Decoder:
    rope = Rope(c.heads.dim, **c.rope())

    def layer(i: int) -> Block:
        return Block(
            attn_norm=RMSNorm(c.dim, c.eps),
            attn=Attention(c.dim, c.heads, rope=rope, mask=Mask(window=c.windows[i]), bias=c.bias, out_bias=c.bias,
                           q_norm=RMSNorm(c.heads.dim, c.eps), k_norm=RMSNorm(c.heads.dim, c.eps)),
            ffn_norm=RMSNorm(c.dim, c.eps),
            ffn=GatedMLP(c.dim, c.ffn_dim, activation=c.activation))

    return Decoder(embed=Embedding(c.vocab, c.dim), layers=map(layer, range(c.layers)), norm=RMSNorm(c.dim, c.eps),
                   head=None if c.tied else Linear(c.dim, c.vocab))
