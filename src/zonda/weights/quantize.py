"""Quantization while a model is loaded: a rule that gives each matrix its format, some rows at a time."""
from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from zonda.errors import InvalidRequest
from zonda.weights.formats import Float8, GroupInt
from zonda.weights.formats.float8 import LARGEST, encode
from zonda.weights.formats.ggml import SMALLER_BLOCKS, codec
from zonda.weights.quantizers import PACKED, packer
from zonda.weights.source import Weight

FLOAT8 = "fp8"
WIDTHS = {"2": "q2_k", "3": "q3_k", "4": "q4_k", "5": "q5_k", "6": "q6_k", "8": "q8_0"}
"""Bit width -> the format that stands for it."""
FINER = {**dict.fromkeys(("q2_k", "q3_k", "q4_k", "q4_0", "q4_1"), "q6_k"),
         **dict.fromkeys(("q5_k", "q6_k", "q5_0", "q5_1", "q8_0"), "q8_0")}
"""Format -> that of the head and the embeddings, where an error shows in every token."""
ENDS = ("head", "embed")
EXACT = ".router"
CHUNK = 1 << 17
"""Weights that one thread quantizes at a time."""
_log = logging.getLogger("zonda")


def format_of(name: str) -> str:
    """The format that a user names, such as `Q4K`, `q4_k_m` or `4`; raises `InvalidRequest` listing the known ones."""
    plain = re.sub("_[sml]$", "", name.lower())
    for kind in (*PACKED, FLOAT8):
        if plain in (kind, kind.replace("_k", "k")) or WIDTHS.get(plain) == kind:
            return kind
    known = ", ".join(kind.replace("_k", "k") for kind in (*PACKED, FLOAT8))
    raise InvalidRequest(f"quantization to {name!r:.40} is not supported", param="isq",
                         hint=f"supported: {known}, or a width in bits: {', '.join(WIDTHS)}")


def bytes_a_weight(kind: str) -> float:
    """What one weight takes in that format."""
    return 1.0 if kind == FLOAT8 else codec(kind).block_bytes / codec(kind).block


@dataclass(frozen=True, slots=True)
class InSitu:
    """The rule (name, weight) -> weight of a model that is quantized to `kind` while it is loaded.

    Vectors and routers stay as they are, and the embeddings unless `embeddings`. What has no more bits than `kind`
    stays too, as does a matrix whose rows are not whole blocks, of 32 at least.
    """

    kind: str
    embeddings: bool = False
    threads: int | None = None
    _told: set[str] = field(default_factory=set)

    def __call__(self, name: str, weight: Weight) -> Weight:
        if len(weight.shape) < 2 or name.endswith(EXACT) or (name == "embed" and not self.embeddings):
            return weight
        kind = self._fitting(FINER.get(self.kind, self.kind) if name in ENDS else self.kind, weight.shape[-1])
        if kind is None or bits(weight) <= bits_of(kind):
            return weight
        return quantize(weight, kind, self.threads)

    def _fitting(self, kind: str, cols: int) -> str | None:
        """The format, or its neighbour of smaller blocks where rows are not whole blocks, or none."""
        chosen: str | None = kind
        if kind != FLOAT8 and cols % codec(kind).block:
            chosen = SMALLER_BLOCKS.get(kind, kind)
            chosen = None if cols % codec(chosen).block else chosen
        if chosen != kind and kind not in self._told:
            self._told.add(kind)
            _log.warning("rows of %d weights are not whole blocks of %s: they are %s", cols, kind,
                         chosen or "left as they are")
        return chosen


def bits_of(kind: str) -> int:
    return 8 if kind == FLOAT8 else codec(kind).bits


def bits(weight: Weight) -> int:
    """Bits of a weight's numbers as they are stored."""
    if isinstance(weight, GroupInt):
        return weight.codec.bits
    return 8 if isinstance(weight, Float8) else 16


def quantize(weight: Weight, kind: str, threads: int | None = None) -> Weight:
    """A matrix or a stack of matrices in that format, by several threads; rows must be whole blocks of it."""
    return _to_float8(weight, threads) if kind == FLOAT8 else _to_integers(weight, kind, threads)


def _to_integers(weight: Weight, kind: str, threads: int | None) -> GroupInt:
    chosen, pack = codec(kind), packer(kind)
    *outer, cols = weight.shape
    packed = np.empty((*outer, chosen.row_bytes(cols)), np.uint8)

    def work(rows: slice) -> None:
        values = weight.rows(rows).dense()
        target = packed[..., rows, :]
        target[:] = pack(values.reshape(-1, cols)).reshape(target.shape)

    _in_pieces(weight, work, threads)
    return GroupInt(chosen, packed, tuple(weight.shape))


def _to_float8(weight: Weight, threads: int | None) -> Float8:
    codes = np.empty(weight.shape, np.uint8)
    scales = np.empty((*weight.shape[:-1], 1), np.float32)

    def work(rows: slice) -> None:
        values = weight.rows(rows).dense()
        largest = np.abs(values).max(-1, keepdims=True, initial=0)
        scale = np.where(largest > 0, largest, LARGEST) / np.float32(LARGEST)
        scales[..., rows, :] = scale
        with np.errstate(invalid="ignore"):
            codes[..., rows, :] = encode(values / scale)

    _in_pieces(weight, work, threads)
    return Float8(codes, scales, 1, True)


def _in_pieces(weight: Weight, work: Callable[[slice], None], threads: int | None) -> None:
    """work(rows) on all rows, some at a time."""
    rows = weight.shape[-2]
    step = max(1, CHUNK // max(1, math.prod(weight.shape) // max(1, rows)))
    pieces = [slice(start, min(rows, start + step)) for start in range(0, rows, step)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, pieces))
