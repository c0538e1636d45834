"""The blocks that architectures are composed of. They state mathematics and compute through `ops`."""
from zonda.kernels.ops import Heads
from zonda.nn.attention import Attention, Mask, Pages
from zonda.nn.decoder import Block, Decoder
from zonda.nn.linear import Embedding, Linear, Projection
from zonda.nn.mlp import GatedMLP, MoE
from zonda.nn.module import Module
from zonda.nn.norm import RMSNorm
from zonda.nn.rope import Rope

__all__ = ["Attention", "Block", "Decoder", "Embedding", "GatedMLP", "Heads", "Linear", "Mask", "MoE", "Module",
           "Pages", "Projection", "RMSNorm", "Rope"]
