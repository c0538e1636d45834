"""Random packed weights for tests."""
from __future__ import annotations

import numpy as np

from zonda.weights.formats.ggml import codec
from zonda.weights.formats.group_int import GroupInt

HALVES = {"q4_0": (0,), "q4_1": (0, 2), "q5_0": (0,), "q5_1": (0, 2), "q8_0": (0,), "q2_k": (80, 82), "q3_k": (108,),
          "q4_k": (0, 2), "q5_k": (0, 2), "q6_k": (208,)}
"""Where the float16 numbers of a block lie."""


def random_packed(name: str, *shape: int, seed: int = 0) -> GroupInt:
    """Random codes and finite scales of that logical shape."""
    rng, format = np.random.default_rng(seed), codec(name)
    packed = rng.integers(0, 256, (*shape[:-1], shape[-1] // format.block, format.block_bytes), dtype=np.uint8)
    for at in HALVES[name]:
        scales = rng.normal(0, 0.1, packed.shape[:-1]).astype("<f2")
        packed[..., at:at + 2] = scales[..., None].view(np.uint8)
    return GroupInt(format, packed.reshape(*shape[:-1], -1), shape)
