"""Qwen2: pre-norm grouped-query attention with biased queries, keys and values, and a gated MLP."""
from zonda.models.config import Config
from zonda.nn import Attention, Block, Decoder, Embedding, GatedMLP, Linear, Mask, RMSNorm, Rope

DEFAULTS = {"windowed": False}


def build(c: Config) -> Decoder:
    rope = Rope(c.heads.dim, **c.rope())

    def layer(i: int) -> Block:
        return Block(
            attn_norm=RMSNorm(c.dim, c.eps),
            attn=Attention(c.dim, c.heads, rope=rope, mask=Mask(window=c.windows[i]), bias=True),
            ffn_norm=RMSNorm(c.dim, c.eps),
            ffn=GatedMLP(c.dim, c.ffn_dim, activation=c.activation))

    return Decoder(embed=Embedding(c.vocab, c.dim), layers=map(layer, range(c.layers)), norm=RMSNorm(c.dim, c.eps),
                   head=None if c.tied else Linear(c.dim, c.vocab))
