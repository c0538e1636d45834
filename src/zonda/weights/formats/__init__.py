"""The layouts that weights are executed in."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from zonda.errors import InvalidModel
from zonda.weights.formats.dense import Dense
from zonda.weights.formats.float8 import Float8, largest
from zonda.weights.formats.group_int import GroupInt
from zonda.weights.source import Weight


def pile(name: str, matrices: Sequence[Weight]) -> Weight:
    """One stack (n, rows, cols) of n matrices of one format and shape; `name` is for the error."""
    first = matrices[0]
    for one in matrices:
        if one.shape != first.shape or not first.can_stack(one):
            raise InvalidModel(f"{name}: matrices of shapes {first.shape} and {one.shape} differ in shape or format")
    if isinstance(first, GroupInt):
        packed = np.stack([one.packed for one in matrices if isinstance(one, GroupInt)])
        return GroupInt(first.codec, packed, (len(matrices), *first.shape))
    if isinstance(first, Float8):
        return _pile_float8([one for one in matrices if isinstance(one, Float8)])
    assert isinstance(first, Dense)
    return Dense(np.stack([one.array for one in matrices if isinstance(one, Dense)]), first.dtype)


def _pile_float8(matrices: list[Float8]) -> Float8:
    if len({one.height for one in matrices}) > 1:
        matrices = [one.by_rows() for one in matrices]
    first = matrices[0]
    return Float8(np.stack([one.codes for one in matrices]), np.stack([one.scales for one in matrices]), first.height,
                  first.whole, largest([one.input_scale for one in matrices]))
