"""GGUF files: a parser that trusts no number it reads, and the `Source` over one file or several shards."""
from __future__ import annotations

import math
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from zonda.errors import InvalidModel, Unsupported, ZondaError
from zonda.weights import names
from zonda.weights.formats.dense import STORAGE, Dense
from zonda.weights.formats.ggml import CODECS, DENSE, OTHERS
from zonda.weights.formats.group_int import GroupInt
from zonda.weights.mapped import Mapped
from zonda.weights.source import Weight
from zonda.weights.stored import Stored

MOST_ENTRIES = 1 << 14
MOST_TENSORS = 1 << 15
MOST_DIMENSIONS = 4
LONGEST_KEY = 256
LONGEST_NAME = 256
LONGEST_STRING = 1 << 20
LONGEST_VOCABULARY = 1 << 26
"""Bytes of one string under a `tokenizer.` key: some files hold a whole tokenizer.json."""
LONGEST_ARRAY = 1 << 24
MOST_STRINGS = 1 << 20
"""Strings in all arrays of a file; the largest vocabularies with their merges have 800,000."""
LARGEST_METADATA = 1 << 28
LARGEST_ALIGNMENT = 1 << 20

ALIGNMENT = "general.alignment"
SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")
UINT32, STRING, ARRAY, UINT64, BOOL = 4, 8, 9, 10, 7
LENGTH: Final = struct.Struct("<Q")
SCALARS = {number: struct.Struct(f"<{code}") for number, code in {
    0: "B", 1: "b", 2: "H", 3: "h", UINT32: "I", 5: "i", 6: "f", BOOL: "B", UINT64: "Q", 11: "q", 12: "d"}.items()}


class Truncated(InvalidModel):
    """A file that ends before its header does."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where a tensor lies: `offset` from the start of the file, `size` in bytes, None for types that cannot be read."""

    name: str
    shape: tuple[int, ...]
    type: int
    offset: int
    size: int | None


class Reader:
    """A place in a file; every read names the field that it is for, and fails rather than leave the file."""

    def __init__(self, file: Mapped) -> None:
        self.file = file
        self.at = 0
        self.end = min(len(file), LARGEST_METADATA)
        self.strings_left = MOST_STRINGS

    def fail(self, field: str, problem: str, kind: type[InvalidModel] = InvalidModel) -> InvalidModel:
        return kind(f"{self.file.path.name}: {field} {problem}", hint="the file is damaged, or no GGUF file")

    def take(self, size: int, field: str) -> int:
        """Step over `size` bytes; returns where they begin."""
        start = self.at
        if size > self.end - start:
            whole = self.end == len(self.file)
            limit = "the end of the file" if whole else f"{LARGEST_METADATA >> 20} MiB of metadata"
            raise self.fail(field, f"needs {size} bytes at offset {start}, past {limit}",
                            Truncated if whole else InvalidModel)
        self.at = start + size
        return start

    def scalar(self, type: int, field: str) -> Any:
        form = SCALARS[type]
        value = form.unpack_from(self.file.buffer, self.take(form.size, field))[0]
        if type != BOOL:
            return value
        if value > 1:
            raise self.fail(field, f"is {value}, expected a truth value of 0 or 1")
        return bool(value)

    def count(self, field: str, most: int, type: int = UINT64) -> int:
        value = self.scalar(type, field)
        if value > most:
            raise self.fail(field, f"is {value}, expected at most {most}")
        return value

    def name(self, field: str, longest: int) -> str:
        """A string that can be shown to a user."""
        name = self.string(field, longest)
        if not name or not name.isprintable():
            raise self.fail(field, f"is {name!r:.100}, expected printable characters")
        return name

    def string(self, field: str, longest: int) -> str:
        size = self.count(f"the length of {field}", longest)
        start = self.take(size, field)
        try:
            return self.file.buffer[start:start + size].decode()
        except UnicodeDecodeError:
            raise self.fail(field, "is not UTF-8") from None

    def value(self, field: str) -> Any:
        """A metadata value of any type."""
        type = self.scalar(UINT32, f"the type of {field}")
        longest = LONGEST_VOCABULARY if field.startswith("tokenizer.") else LONGEST_STRING
        if type == STRING:
            return self.string(field, longest)
        if type == ARRAY:
            return self.array(field, longest)
        if type not in SCALARS:
            raise self.fail(f"the type of {field}", f"is {type}, expected 0 to 12")
        return self.scalar(type, field)

    def array(self, field: str, longest: int) -> np.ndarray | list[str]:
        type = self.scalar(UINT32, f"the element type of {field}")
        count = self.count(f"the length of {field}", LONGEST_ARRAY)
        if type == STRING:
            return self.strings(field, count, longest)
        if type not in SCALARS:
            raise self.fail(f"the element type of {field}", f"is {type}, expected numbers, truth values or strings")
        dtype = np.dtype(SCALARS[type].format)
        start = self.take(count * dtype.itemsize, field)
        values = np.frombuffer(self.file.buffer, dtype, count, start).copy()
        if type != BOOL:
            return values
        if values.max(initial=0) > 1:
            raise self.fail(field, "has truth values other than 0 and 1")
        return values.astype(np.bool_)

    def strings(self, field: str, count: int, longest: int) -> list[str]:
        if count > self.strings_left:
            raise self.fail(f"the length of {field}", f"is {count}, expected at most {self.strings_left} strings")
        if count * LENGTH.size > self.end - self.at:
            self.take(count * LENGTH.size, field)
        self.strings_left -= count
        buffer, at, end, length = self.file.buffer, self.at, self.end, LENGTH.unpack_from
        found: list[str] = []
        try:
            for _ in range(count):
                start = at + 8
                at = start + length(buffer, at)[0]
                if at > end or at - start > longest:
                    raise self.fail(f"the length of string {len(found)} in {field}", f"is {at - start}, too long",
                                    InvalidModel if at - start > longest else Truncated)
                found.append(buffer[start:at].decode())
        except struct.error:
            raise self.fail(field, f"ends after {len(found)} of {count} strings", Truncated) from None
        except UnicodeDecodeError:
            raise self.fail(f"string {len(found)} in {field}", "is not UTF-8") from None
        self.at = at
        return found


def parse(file: Mapped) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The metadata and the tensors of one file; raises `InvalidModel` naming the field that is wrong."""
    reader = Reader(file)
    _version(reader)
    tensors = reader.count("the number of tensors", MOST_TENSORS)
    entries = reader.count("the number of metadata entries", MOST_ENTRIES)
    metadata: dict[str, Any] = {}
    for index in range(entries):
        key = reader.name(f"metadata key {index}", LONGEST_KEY)
        if key in metadata:
            raise reader.fail(f"metadata key {key!r:.100}", "is there twice")
        metadata[key] = reader.value(key)
    return metadata, _tensors(reader, tensors, _alignment(reader, metadata))


def has_header(path: Path) -> bool:
    """Whether the beginning of a file has all its metadata and the list of its tensors, or is wrong already."""
    try:
        parse(Mapped(path))
    except Truncated:
        return False
    except ZondaError:
        return True
    return True


def _version(reader: Reader) -> None:
    magic = reader.file.buffer[:4]
    if magic[::-1] in (b"ggml", b"ggmf", b"ggjt", b"ggla"):
        raise Unsupported(f"{reader.file.path.name} is of the format that came before GGUF", hint="convert it to GGUF")
    if magic != b"GGUF":
        raise reader.fail("the file", f"begins with {magic!r}, expected b'GGUF'")
    reader.take(4, "the magic number")
    version = reader.scalar(UINT32, "the version")
    if version in (1 << 24, 2 << 24, 3 << 24):
        raise Unsupported(f"{reader.file.path.name} is a big-endian GGUF file", hint="convert it to little-endian")
    if version not in (2, 3):
        raise Unsupported(f"{reader.file.path.name} is GGUF version {version}; Zonda reads versions 2 and 3")


def _alignment(reader: Reader, metadata: dict[str, Any]) -> int:
    value = metadata.get(ALIGNMENT, 32)
    if type(value) is not int or not 0 < value <= LARGEST_ALIGNMENT or value & value - 1:
        raise reader.fail(ALIGNMENT, f"is {value!r:.40}, expected a power of two up to {LARGEST_ALIGNMENT}")
    return value


def _tensors(reader: Reader, count: int, alignment: int) -> dict[str, Tensor]:
    found = [_tensor(reader, index, alignment) for index in range(count)]
    data = -(-reader.at // alignment) * alignment
    tensors: dict[str, Tensor] = {}
    for one in found:
        placed = Tensor(one.name, one.shape, one.type, data + one.offset, one.size)
        if one.name in tensors:
            raise reader.fail(f"tensor {one.name!r}", "is there twice")
        if placed.offset + (one.size or 0) > len(reader.file):
            raise reader.fail(f"the offset of tensor {one.name!r}",
                              f"is {one.offset}: {one.size} bytes do not fit a file of {len(reader.file)}")
        tensors[one.name] = placed
    _check_overlaps(reader, tensors)
    return tensors


def _tensor(reader: Reader, index: int, alignment: int) -> Tensor:
    name = reader.name(f"the name of tensor {index}", LONGEST_NAME)
    field = f"tensor {name!r}"
    dimensions = reader.count(f"the number of dimensions of {field}", MOST_DIMENSIONS, UINT32)
    shape = tuple(reader.scalar(UINT64, f"a dimension of {field}") for _ in range(dimensions))[::-1]
    type = reader.scalar(UINT32, f"the type of {field}")
    offset = reader.scalar(UINT64, f"the offset of {field}")
    if not shape or 0 in shape or math.prod(shape) >= 1 << 63:
        raise reader.fail(f"the shape of {field}", f"is {list(shape)}, expected positive sizes")
    if offset % alignment:
        raise reader.fail(f"the offset of {field}", f"is {offset}, expected a multiple of {alignment}")
    return Tensor(name, shape, type, offset, _size(reader, field, shape, type))


def _size(reader: Reader, field: str, shape: tuple[int, ...], type: int) -> int | None:
    if type in DENSE:
        return math.prod(shape) * STORAGE[DENSE[type]].itemsize
    if type not in CODECS:
        return None
    if shape[-1] % CODECS[type].block:
        raise reader.fail(f"the shape of {field}", f"is {list(shape)}, but {CODECS[type].name} packs "
                                                   f"{CODECS[type].block} weights of a row in a block")
    return math.prod(shape[:-1]) * CODECS[type].row_bytes(shape[-1])


def _check_overlaps(reader: Reader, tensors: dict[str, Tensor]) -> None:
    end, last = 0, ""
    for one in sorted(tensors.values(), key=lambda one: one.offset):
        if one.offset < end:
            raise reader.fail(f"tensor {one.name!r}", f"overlaps tensor {last!r}")
        end, last = one.offset + (one.size or 0), one.name


class GGUFSource(Stored[Tensor]):
    """A GGUF file, or all the shards of one, under canonical names; `metadata` is that of the first file.

    Of a file named `-00001-of-0000N` the other shards are found beside it. Arrays of strings are lists, arrays of
    numbers are numpy arrays.
    """

    def __init__(self, paths: str | Path | Sequence[str | Path]) -> None:
        given = [paths] if isinstance(paths, str | Path) else paths
        files = [Mapped(path) for path in shards([Path(path) for path in given])]
        found, tensors = zip(*map(parse, files))
        super().__init__(found[0], zip(files, tensors))
        _check_split(files[0].path.name, self.metadata, len(files), len(self._tensors))
        facts = names.Facts.of_gguf(self.metadata)
        table = names.GGUF.having(names.GGUF_ODD.get(facts.architecture, ()))
        self._named = names.Tensors(self._tensors, table, facts)
        self.release()

    def _fetch(self, name: str) -> Weight:
        file, tensor = self._tensors[name]
        if tensor.size is None:
            raise Unsupported(f"tensor {name!r} in {file.path.name} is of type {OTHERS.get(tensor.type, tensor.type)}",
                              hint=f"choose a file with types among {', '.join(supported())}")
        if tensor.type in DENSE:
            dtype = DENSE[tensor.type]
            return Dense(file.array(STORAGE[dtype], tensor.offset, tensor.shape), dtype)
        codec = CODECS[tensor.type]
        packed = *tensor.shape[:-1], codec.row_bytes(tensor.shape[-1])
        return GroupInt(codec, file.array(np.dtype(np.uint8), tensor.offset, packed), tensor.shape)


def supported() -> list[str]:
    """The names of the tensor types that can be read."""
    return [*DENSE.values(), *(codec.name for codec in CODECS.values())]


def shards(paths: list[Path]) -> list[Path]:
    """All shards of the one that is named, in order; files that are named together stay together."""
    if len(paths) > 1:
        return sorted(paths, key=lambda path: _shard_number(path.name))
    if not paths:
        raise InvalidModel("no GGUF file was given")
    match = SHARD.fullmatch(paths[0].name)
    if match is None:
        return paths
    stem, total = match[1], int(match[3])
    present = {path.name for path in paths[0].parent.glob("*.gguf")}
    wanted = [f"{stem}-{number:05}-of-{total:05}.gguf" for number in range(1, total + 1)]
    missing = [name for name in wanted if name not in present]
    if missing or not wanted:
        raise InvalidModel(f"{paths[0].name}: {len(missing)} of {total} shards are absent, the first is {missing[:1]}",
                           hint="download the model again")
    return [paths[0].with_name(name) for name in wanted]


def _shard_number(name: str) -> int:
    match = SHARD.fullmatch(name)
    return int(match[2]) if match else 0


def _check_split(name: str, metadata: dict[str, Any], files: int, tensors: int) -> None:
    count, total = metadata.get("split.count", files), metadata.get("split.tensors.count", tensors)
    if count not in (files, 0):
        raise InvalidModel(f"{name}: split.count is {count!r:.40}, but {files} files were given",
                           hint="give all shards, separated by ;")
    if total != tensors:
        raise InvalidModel(f"{name}: split.tensors.count is {total!r:.40}, but the files hold {tensors} tensors",
                           hint="download the model again")
