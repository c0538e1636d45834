"""Safetensors checkpoints in the layout of Hugging Face: one file or several, beside a `config.json`."""
from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from zonda.errors import InvalidModel, ModelNotFound, Unsupported
from zonda.weights import names, scaled
from zonda.weights.choose import PICKLES, whole
from zonda.weights.formats.dense import STORAGE, Dense, DenseType
from zonda.weights.mapped import Mapped
from zonda.weights.source import Weight
from zonda.weights.stored import Stored

LARGEST_HEADER = 100_000_000
LARGEST_INDEX = 1 << 26
LARGEST_CONFIG = 1 << 24
LARGEST_ENTRY = 1 << 12
MOST_TENSORS = 1 << 17
MOST_PAIRS = 1 << 20
"""Colons in a header: four for each tensor, and some in the free text of its metadata."""
MOST_DIMENSIONS = 8
SINGLE, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
AGAIN = "the download is incomplete or damaged: download the model again"
DENSE: dict[str, DenseType] = {"F32": "f32", "F16": "f16", "BF16": "bf16"}
SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2,
         "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "C64": 8}


class Entry(msgspec.Struct, frozen=True):
    """One tensor in a header; its offsets count from the end of the header."""

    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


class Index(msgspec.Struct, frozen=True):
    """Which file each tensor is in."""

    weight_map: dict[str, str]


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where a tensor lies: `offset` from the start of the file."""

    dtype: str
    shape: tuple[int, ...]
    offset: int


def parse(file: Mapped) -> dict[str, Tensor]:
    """The tensors of one file; raises `InvalidModel` naming the tensor that is wrong."""
    name = file.path.name
    if len(file) < 8:
        raise InvalidModel(f"{name} has {len(file)} bytes, too few for the length of a header", hint=AGAIN)
    length = int.from_bytes(file.buffer[:8], "little")
    if not 2 <= length <= min(LARGEST_HEADER, len(file) - 8):
        raise InvalidModel(f"{name}: the length of the header is {length}, expected at most {LARGEST_HEADER} "
                           f"and within the file of {len(file)} bytes", hint=AGAIN)
    entries = _entries(name, file.buffer[8:8 + length])
    _check_cover(name, entries, len(file) - 8 - length)
    return {key: Tensor(one.dtype, tuple(one.shape), 8 + length + one.data_offsets[0]) for key, one in entries.items()}


def _entries(name: str, header: bytes) -> dict[str, Entry]:
    if header.count(b":") > MOST_PAIRS:
        raise InvalidModel(f"{name}: the header describes too much, expected at most {MOST_TENSORS} tensors")
    try:
        raw = msgspec.json.decode(header, type=dict[str, msgspec.Raw])
        msgspec.json.decode(raw.pop("__metadata__", b"{}"), type=dict[str, str])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidModel(f"{name}: the header is no table of tensors: {error}") from None
    if len(raw) > MOST_TENSORS:
        raise InvalidModel(f"{name}: the header describes {len(raw)} tensors, expected at most {MOST_TENSORS}")
    return {key: _entry(f"{name}: tensor {key!r:.100}", key, value) for key, value in raw.items()}


def _entry(field: str, key: str, raw: msgspec.Raw) -> Entry:
    if len(raw) + len(key) > LARGEST_ENTRY or not key.isprintable():
        raise InvalidModel(f"{field} takes {len(raw) + len(key)} bytes to describe, expected at most {LARGEST_ENTRY} "
                           "and a printable name")
    try:
        entry = msgspec.json.decode(raw, type=Entry)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidModel(f"{field} is described wrongly: {error}") from None
    (start, end), size = entry.data_offsets, SIZES.get(entry.dtype)
    if len(entry.shape) > MOST_DIMENSIONS or min(entry.shape, default=0) < 0:
        raise InvalidModel(f"{field} has shape {entry.shape!s:.60}, expected up to {MOST_DIMENSIONS} sizes from 0")
    if not 0 <= start <= end:
        raise InvalidModel(f"{field} has data_offsets [{start}, {end}], expected a start no later than its end")
    if size is not None and math.prod(entry.shape) * size != end - start:
        raise InvalidModel(f"{field} has {end - start} bytes, which is not what shape {entry.shape!s:.100} "
                           f"of {entry.dtype} takes")
    return entry


def _check_cover(name: str, entries: Mapping[str, Entry], size: int) -> None:
    """Tensors lie one after the other and fill the file: then none overlap, and none is there twice."""
    at = 0
    for key, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        start, end = entry.data_offsets
        if start != at:
            raise InvalidModel(f"{name}: tensor {key!r:.100} begins at {start}, expected {at}, where the last one ends")
        at = end
    if at != size:
        raise InvalidModel(f"{name}: the tensors end at {at}, but the file has {size} bytes of data",
                           hint=AGAIN)


class SafetensorsSource(Stored[Tensor]):
    """A folder with `config.json`, the metadata, and safetensors files, or one such file in its folder.

    `architecture` replaces the class that config.json names.
    """

    def __init__(self, path: str | Path, *, architecture: str | None = None) -> None:
        path = Path(path)
        folder, paths = (path.parent, [path]) if path.suffix == ".safetensors" else (path, weight_files(path))
        metadata = read_object(folder / CONFIG) | ({"architectures": [architecture]} if architecture else {})
        super().__init__(metadata, ((file, parse(file)) for file in map(Mapped, paths)))
        scaled.check(self.metadata)
        apart = scaled.companions({name: tensor.dtype for name, (_, tensor) in self._tensors.items()})
        facts = names.Facts.of_hugging_face(self.metadata)
        table = names.HUGGING_FACE.having(names.HUGGING_FACE_ODD.get(facts.architecture, ()))
        self._named = names.Tensors((name for name in self._tensors if name not in apart), table, facts)
        if path == folder and (folder / INDEX).is_file() and not (folder / SINGLE).is_file():
            self._check_index(index_of(folder))

    def _check_index(self, index: Mapping[str, str]) -> None:
        for name, file in index.items():
            if name not in self._tensors or self._tensors[name][0].path.name != file:
                raise InvalidModel(f"{INDEX} names tensor {name!r:.100} in {file}, which does not have it", hint=AGAIN)

    def _fetch(self, name: str) -> Weight:
        file, tensor = self._tensors[name]
        if tensor.dtype == "F64":
            return Dense.of(file.array(np.dtype("<f8"), tensor.offset, tensor.shape))
        if tensor.dtype == "F8_E4M3":
            codes = file.array(np.dtype(np.uint8), tensor.offset, tensor.shape)
            return scaled.read(name, codes, self._tensors, lambda other: self._fetch(other).dense(),
                               declared=self.metadata.get(scaled.CONFIG) is not None)
        if tensor.dtype not in DENSE:
            raise Unsupported(f"tensor {name!r} in {file.path.name} is of type {tensor.dtype}",
                              hint=f"supported are {', '.join(DENSE)}, F64 and F8_E4M3")
        dtype = DENSE[tensor.dtype]
        return Dense(file.array(STORAGE[dtype], tensor.offset, tensor.shape), dtype)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder: the single one, or those that the index names."""
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if (folder / INDEX).is_file():
        wanted = sorted(set(index_of(folder).values()))
        missing = [name for name in wanted if not (folder / name).is_file()]
        if missing or not wanted:
            raise InvalidModel(f"{INDEX} names {len(wanted)} files, of which {len(missing)} are absent: {missing[:1]}",
                               hint=AGAIN)
        return [folder / name for name in wanted]
    found = whole([path.name for path in folder.glob("*.safetensors")])
    if len(found) == 1 and not re.search(r"-of-(?!00001)", found[0]):
        return [folder / found[0]]
    raise _no_weights(folder, found)


def _no_weights(folder: Path, found: tuple[str, ...]) -> Exception:
    if found:
        return InvalidModel(f"{folder} has {len(found)} safetensors files and no {INDEX}",
                            hint="name one of them, or download the model again")
    pickles = sorted(path.name for path in folder.glob("*") if path.suffix in PICKLES)
    if pickles:
        return Unsupported(f"{folder} has its weights as pickle ({pickles[0]}), which can run code when it is read",
                           hint="convert the model to safetensors, or choose a repository that has them")
    return ModelNotFound(f"{folder} has no safetensors file", hint="name a folder that has one, or a .gguf file")


def index_of(folder: Path) -> dict[str, str]:
    """Tensor name -> file name, as the index says; no file lies outside the folder."""
    try:
        index = msgspec.json.decode(_bytes(folder / INDEX, LARGEST_INDEX), type=Index).weight_map
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidModel(f"{INDEX} is no index: {error}") from None
    for tensor, file in index.items():
        if not file.endswith(".safetensors") or any(c in file for c in "/\\:\0"):
            raise InvalidModel(f"weight_map[{tensor!r:.60}] in {INDEX} is {file!r:.60}, expected the name of a "
                               "safetensors file in the same folder")
    return index


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object from a file of limited size."""
    try:
        found = json.loads(_bytes(path, LARGEST_CONFIG))
    except (ValueError, RecursionError) as error:
        raise InvalidModel(f"{path.name} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise InvalidModel(f"{path.name} holds {type(found).__name__}, expected an object")
    return found


def _bytes(path: Path, largest: int) -> bytes:
    try:
        size = path.stat().st_size
        if size > largest:
            raise InvalidModel(f"{path.name} has {size} bytes, expected at most {largest}")
        return path.read_bytes()
    except OSError:
        raise ModelNotFound(f"there is no readable {path.name} in {path.parent}", hint=AGAIN) from None
