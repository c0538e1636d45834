"""Random weights of any shape and format, packed from the start, for measuring without a checkpoint."""
from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from zonda.errors import InvalidModel, InvalidRequest
from zonda.nn.module import Module, join
from zonda.weights.formats.dense import STORAGE, Dense
from zonda.weights.formats.float8 import Float8, encode
from zonda.weights.formats.ggml import CODECS, SMALLER_BLOCKS, codec
from zonda.weights.formats.group_int import Codec, GroupInt
from zonda.weights.formats.repeated import Repeated
from zonda.weights.source import Weight

# codec -> where a block holds float16 scales, and each one's value for weights of standard deviation 1
SCALES: dict[str, tuple[tuple[int, float], ...]] = {
    "q4_0": ((0, 1 / 4.6),), "q4_1": ((0, 1 / 4.6), (2, -7.5 / 4.6)),
    "q5_0": ((0, 1 / 9.2),), "q5_1": ((0, 1 / 9.2), (2, -15.5 / 9.2)), "q8_0": ((0, 1 / 74),),
    "q2_k": ((80, 1 / 13.9), (82, 1.5 / 13.9)), "q3_k": ((108, 1 / 43),), "q4_k": ((0, 1 / 258), (2, 7.5 / 258)),
    "q5_k": ((0, 1 / 527), (2, 15.5 / 527)), "q6_k": ((208, 1 / 1369),),
}
MIXES = {"q3_k_m": ("q3_k", "q5_k"), "q4_k_m": ("q4_k", "q6_k"), "q5_k_m": ("q5_k", "q6_k")}
"""A mix's usual format, and that of its more sensitive matrices."""
POOL = 1 << 22
"""Bytes of distinct random numbers, if they were float32; larger matrices repeat their rows."""


class RandomSource:
    """A `Source` that makes up every weight as it is read, of the format that `dtype` names.

    `repeated` leaves it to the device to repeat their rows, which takes the host little time.
    """

    def __init__(self, config: Mapping[str, Any], dtype: str, *, repeated: bool = False) -> None:
        known = {*STORAGE, *MIXES, "fp8", *(one.name for one in CODECS.values())}
        if dtype not in known:
            raise InvalidRequest(f"dtype {dtype!r} is not known", hint=f"known: {', '.join(sorted(known))}")
        self.metadata = dict(config)
        self._dtype = dtype
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._repeated = repeated
        self._parts: dict[tuple[object, ...], Weight] = {}

    def shape_of(self, decoder: Module) -> None:
        """Have the names and shapes that a decoder wants."""
        self._shapes = {join(name, part): shape for name, block in decoder.walk()
                        for part, shape in block.parameters().items()}

    def names(self) -> set[str]:
        return set(self._shapes)

    def read(self, name: str) -> Weight:
        if name not in self._shapes:
            raise InvalidModel(f"no weight {name}")
        shape = self._shapes[name]
        if len(shape) == 1:
            return Dense.of(np.zeros(shape) if name.endswith("bias") else np.ones(shape))
        weight = self._rows("f32" if name.endswith("router") else self._kind(name), *shape)
        return weight if self._repeated else weight.whole()

    def _rows(self, kind: str, *shape: int) -> Repeated:
        *stack, count, cols = shape
        key = (kind, *stack, cols)
        if key not in self._parts:
            size = max(1, math.prod(stack) * cols)  # of one row, in weights
            make = _float8 if kind == "fp8" else _dense if kind in STORAGE else _packed
            self._parts[key] = make(kind, (*stack, max(1, POOL // 4 // size), cols))
        return Repeated(self._parts[key], count)

    def _kind(self, name: str) -> str:
        usual, sensitive = MIXES.get(self._dtype, (self._dtype, self._dtype))
        if usual == "fp8" and name in ("head", "embed"):
            return "bf16"
        if name == ("head" if "head" in self._shapes else "embed"):
            return usual if usual in {*STORAGE, "q8_0"} else "q6_k"
        return sensitive if name.endswith(("attn.v", "ffn.down")) and self._precious(name) else usual

    def _precious(self, name: str) -> bool:
        """Whether a layer is among the first or last eighth, or a third of those between."""
        layers = 1 + max(int(each.split(".")[1]) for each in self._shapes if each.startswith("layers."))
        layer, eighth = int(name.split(".")[1]), layers // 8
        return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def _dense(kind: str, shape: tuple[int, ...]) -> Weight:
    values = np.random.default_rng(0).standard_normal(shape, np.float32) / np.float32(shape[-1] ** 0.5)
    stored: np.ndarray = values.view(np.uint32) >> 16 if kind == "bf16" else values
    return Dense(stored.astype(STORAGE[kind]), kind)  # type: ignore[arg-type]


def _float8(kind: str, shape: tuple[int, ...]) -> Weight:
    values = np.random.default_rng(0).standard_normal(shape, np.float32) * np.float32(100)
    return Float8(encode(values), np.full((*shape[:-1], 1), 0.01 / shape[-1] ** 0.5, np.float32), 1, True)


def _packed(kind: str, shape: tuple[int, ...]) -> Weight:
    chosen = _fitting(kind, shape[-1])
    packed = np.random.default_rng(0).integers(0, 256, (*shape[:-1], chosen.row_bytes(shape[-1])), np.uint8)
    blocks = packed.reshape(-1, chosen.block_bytes)
    for at, value in SCALES[chosen.name]:
        blocks[:, at:at + 2] = np.array([value / shape[-1] ** 0.5], "<f2").view(np.uint8)
    return GroupInt(chosen, packed, shape)


def _fitting(kind: str, cols: int) -> Codec:
    """The format, or its neighbour of shorter blocks where rows are not whole blocks."""
    chosen = codec(kind)
    chosen = codec(SMALLER_BLOCKS.get(kind, kind)) if cols % chosen.block else chosen
    if cols % chosen.block:
        raise InvalidRequest(f"rows of {cols} weights are not whole blocks of {chosen.block}", param="dtype",
                             hint="choose f16, bf16 or f32")
    return chosen
