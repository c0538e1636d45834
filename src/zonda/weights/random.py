"""Random weights of any shape and format, packed from the start, for measuring without a checkpoint."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from zonda.errors import InvalidModel, InvalidRequest
from zonda.nn.module import Module, join
from zonda.weights.formats.dense import STORAGE, Dense
from zonda.weights.formats.float8 import Float8, encode
from zonda.weights.formats.ggml import CODECS, SMALLER_BLOCKS, codec
from zonda.weights.formats.group_int import Codec, GroupInt
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
"""Bytes of distinct random blocks; larger matrices repeat them."""


class RandomSource:
    """A `Source` that makes up every weight as it is read, of the format that `dtype` names."""

    def __init__(self, config: Mapping[str, Any], dtype: str) -> None:
        known = {*STORAGE, *MIXES, "fp8", *(one.name for one in CODECS.values())}
        if dtype not in known:
            raise InvalidRequest(f"dtype {dtype!r} is not known", hint=f"known: {', '.join(sorted(known))}")
        self.metadata = dict(config)
        self._dtype = dtype
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._pools: dict[str, np.ndarray] = {}

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
        kind = "f32" if name.endswith("router") else self._kind(name)
        if kind == "fp8":
            return self._float8(shape)
        return self._dense(shape, kind) if kind in STORAGE else self._packed(shape, _fitting(kind, shape[-1]))

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

    def _dense(self, shape: tuple[int, ...], kind: str) -> Dense:
        values = np.random.default_rng(0).standard_normal(POOL // 4, np.float32) / np.float32(shape[-1] ** 0.5)
        stored: np.ndarray = values.view(np.uint32) >> 16 if kind == "bf16" else values
        stored = stored.astype(STORAGE[kind])
        return Dense(np.resize(stored, shape), kind)  # type: ignore[arg-type]

    def _float8(self, shape: tuple[int, ...]) -> Float8:
        values = np.random.default_rng(0).standard_normal(POOL, np.float32) * np.float32(100)
        scales = np.full((*shape[:-1], 1), 0.01 / shape[-1] ** 0.5, np.float32)
        return Float8(np.resize(encode(values), shape), scales, 1, True)

    def _packed(self, shape: tuple[int, ...], chosen: Codec) -> GroupInt:
        if chosen.name not in self._pools:
            self._pools[chosen.name] = np.random.default_rng(0).integers(
                0, 256, (POOL // chosen.block_bytes, chosen.block_bytes), np.uint8)
        blocks = self._pools[chosen.name]
        for at, value in SCALES[chosen.name]:
            blocks[:, at:at + 2] = np.array([value / shape[-1] ** 0.5], "<f2").view(np.uint8)
        return GroupInt(chosen, np.resize(blocks, (*shape[:-1], chosen.row_bytes(shape[-1]))), shape)


def _fitting(kind: str, cols: int) -> Codec:
    """The format, or its neighbour of shorter blocks where rows are not whole blocks."""
    chosen = codec(kind)
    chosen = codec(SMALLER_BLOCKS.get(kind, kind)) if cols % chosen.block else chosen
    if cols % chosen.block:
        raise InvalidRequest(f"rows of {cols} weights are not whole blocks of {chosen.block}", param="dtype",
                             hint="choose f16, bf16 or f32")
    return chosen
