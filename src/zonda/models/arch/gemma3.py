"""Gemma 3: norms around both blocks, query and key norms, windows in most layers with a rotation of their own."""
from zonda.models.config import Config
from zonda.nn import Attention, Block, Decoder, Embedding, GatedMLP, Linear, Mask, RMSNorm, Rope

DEFAULTS = {"q_heads": 8, "kv_heads": 4, "head_dim": 256, "vocab": 262_208, "context": 131_072, "window": 4096,
            "window_pattern": 6, "theta": 1e6, "theta_local": 1e4}


def build(c: Config) -> Decoder:
    # not every checkpoint states the scale; the 62-layer model alone departs from 1/√dim of a head
    scale = c.scale or (c.dim / c.heads.q if c.layers == 62 else c.heads.dim) ** -0.5
    everywhere, nearby = Rope(c.heads.dim, **c.rope()), Rope(c.heads.dim, **c.rope(local=True))

    def layer(i: int) -> Block:
        return Block(
            attn_norm=RMSNorm(c.dim, c.eps),
            attn=Attention(c.dim, c.heads, rope=nearby if c.windows[i] else everywhere, mask=Mask(window=c.windows[i]),
                           q_norm=RMSNorm(c.heads.dim, c.eps), k_norm=RMSNorm(c.heads.dim, c.eps), scale=scale,
                           softcap=c.softcap),
            attn_post_norm=RMSNorm(c.dim, c.eps),
            ffn_norm=RMSNorm(c.dim, c.eps),
            ffn=GatedMLP(c.dim, c.ffn_dim, activation="gelu_tanh"),
            ffn_post_norm=RMSNorm(c.dim, c.eps))

    return Decoder(embed=Embedding(c.vocab, c.dim, scale=c.dim**0.5), layers=map(layer, range(c.layers)),
                   norm=RMSNorm(c.dim, c.eps), head=None if c.tied else Linear(c.dim, c.vocab), softcap=c.logit_softcap)
