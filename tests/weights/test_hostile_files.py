"""Files that lie: each gives an error that names the field, and no large allocation."""
from __future__ import annotations

import json
import re
import struct
import tracemalloc

import pytest
from files import CONFIG, entry, raw_gguf, raw_safetensors, tensor, text

from zonda.errors import InvalidModel, Unsupported, ZondaError
from zonda.weights import gguf
from zonda.weights.gguf import GGUFSource
from zonda.weights.mapped import Mapped
from zonda.weights.safetensors import SafetensorsSource, parse

ARCHITECTURE = entry("general.architecture", 8, text("llama"))
BIG = 1 << 62
MEMORY = 8 << 20


def array(type: int, count: int, data: bytes = b"") -> bytes:
    return struct.pack("<IQ", type, count) + data


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def one_tensor(*shape: int, type: int = 0, offset: int = 0, name: str = "t", data: int = 64) -> bytes:
    return raw_gguf(ARCHITECTURE, tensor(name, shape, type, offset), bytes(32 + data), tensors=1, entries=1)


def tensors(*infos: bytes, data: int = 256) -> bytes:
    return raw_gguf(ARCHITECTURE, *infos, bytes(data), tensors=len(infos), entries=1)


GGUF = {
    "an empty file": (b"", "is empty"),
    "another format": (b"PK\x03\x04" + bytes(60), "begins with"),
    "the format before": (b"tjgg" + bytes(60), "before GGUF"),
    "a short magic": (b"GGU", "begins with"),
    "no version": (b"GGUF", "the version needs 4 bytes"),
    "version 1": (raw_gguf(version=1), "version 1"),
    "version 99": (raw_gguf(version=99), "version 99"),
    "big-endian": (b"GGUF" + struct.pack(">I", 3) + bytes(16), "big-endian"),
    "no counts": (b"GGUF" + u32(3), "the number of tensors needs 8 bytes"),
    "huge tensor count": (raw_gguf(ARCHITECTURE, tensors=BIG, entries=1), "the number of tensors is"),
    "lying tensor count": (raw_gguf(ARCHITECTURE, tensors=1000, entries=1), "the name of tensor 0"),
    "huge entry count": (raw_gguf(entries=BIG), "the number of metadata entries is"),
    "lying entry count": (raw_gguf(ARCHITECTURE, entries=2), "metadata key 1"),
    "huge key length": (raw_gguf(text("k", BIG), entries=1), "the length of metadata key 0 is"),
    "lying key length": (raw_gguf(text("k", 200), entries=1), "metadata key 0 needs 200 bytes"),
    "a key that is not UTF-8": (raw_gguf(text(b"\xff\xfe"), bytes(99), entries=1), "metadata key 0 is not UTF-8"),
    "a key of control characters": (raw_gguf(text("a\x1b[2J"), bytes(99), entries=1), "metadata key 0 is .*printable"),
    "an empty key": (raw_gguf(text(""), bytes(99), entries=1), "metadata key 0 is '', expected printable"),
    "a repeated key": (raw_gguf(ARCHITECTURE, ARCHITECTURE, entries=2), "'general.architecture' is there twice"),
    "an unknown type": (raw_gguf(entry("k", 13, bytes(64)), entries=1), "the type of k is 13"),
    "a truncated number": (raw_gguf(entry("k", 10, bytes(3)), entries=1), "k needs 8 bytes"),
    "a truth value of 2": (raw_gguf(entry("k", 7, b"\x02"), entries=1), "k is 2, expected a truth value"),
    "truth values of 2": (raw_gguf(entry("k", 9, array(7, 2, b"\x01\x02")), entries=1), "k has truth values other"),
    "a huge string": (raw_gguf(entry("k", 8, text("x", BIG)), entries=1), "the length of k is"),
    "a string past the end": (raw_gguf(entry("k", 8, text("x", 1 << 19)), entries=1), "k needs 524288 bytes"),
    "a string too long for its key":
        (raw_gguf(entry("k", 8, text("x" * (1 << 20) + "x")), entries=1), "the length of k is"),
    "a string that is not UTF-8": (raw_gguf(entry("k", 8, text(b"\xc3")), entries=1), "k is not UTF-8"),
    "a huge array": (raw_gguf(entry("k", 9, array(4, BIG)), entries=1), "the length of k is"),
    "an array past the end": (raw_gguf(entry("k", 9, array(10, 1 << 24)), entries=1), "k needs 134217728 bytes"),
    "an array of arrays":
        (raw_gguf(entry("k", 9, array(9, 1, array(4, 1, u32(1)))), entries=1), "element type of k is 9"),
    "an array of unknown type": (raw_gguf(entry("k", 9, array(77, 1)), entries=1), "the element type of k is 77"),
    "too many strings": (raw_gguf(entry("k", 9, array(8, 1 << 22)), entries=1), "the length of k is 4194304"),
    "strings past the end": (raw_gguf(entry("k", 9, array(8, 1 << 20, bytes(80))), entries=1), "k needs 8388608 bytes"),
    "a string of an array past the end":
        (raw_gguf(entry("k", 9, array(8, 2, text("a") + text("b", 99))), entries=1), "the length of string 1 in k"),
    "a huge string of an array":
        (raw_gguf(entry("k", 9, array(8, 1, text("a", BIG))), entries=1), "the length of string 0 in k"),
    "an array cut between strings":
        (raw_gguf(entry("k", 9, array(8, 2, text("12345678"))), entries=1), "k ends after 1 of 2 strings"),
    "a string of an array that is not UTF-8":
        (raw_gguf(entry("k", 9, array(8, 1, text(b"\x80"))), entries=1), "string 0 in k is not UTF-8"),
    "no architecture": (raw_gguf(), "general.architecture is missing"),
    "an architecture that is a number": (raw_gguf(entry("general.architecture", 4, u32(1)), entries=1), "not a string"),
    "alignment of zero": (raw_gguf(entry("general.alignment", 4, u32(0)), entries=1), "general.alignment is 0"),
    "alignment of three": (raw_gguf(entry("general.alignment", 4, u32(3)), entries=1), "general.alignment is 3"),
    "huge alignment": (raw_gguf(entry("general.alignment", 4, u32(1 << 30)), entries=1), "general.alignment is"),
    "alignment that is text":
        (raw_gguf(entry("general.alignment", 8, text("32")), entries=1), "general.alignment is '32'"),
    "alignment that is true": (raw_gguf(entry("general.alignment", 7, b"\1"), entries=1), "general.alignment is True"),
    "too long a tensor name": (one_tensor(4, name="n" * 300), "the length of the name of tensor 0 is 300"),
    "a tensor name of control characters": (one_tensor(4, name="a\nb"), "the name of tensor 0 is .*printable"),
    "no dimensions": (one_tensor(), r"the shape of tensor 't' is \[\]"),
    "too many dimensions": (one_tensor(1, 1, 1, 1, 1), "the number of dimensions of tensor 't' is 5"),
    "a dimension of zero": (one_tensor(4, 0), r"the shape of tensor 't' is \[0, 4\]"),
    "dimensions whose product overflows": (one_tensor(1 << 32, 1 << 32), "the shape of tensor 't'"),
    "dimensions whose product wraps to zero": (one_tensor(1 << 63, 2, 2), "the shape of tensor 't'"),
    "a tensor past the end": (one_tensor(1 << 40), "the offset of tensor 't'"),
    "an offset past the end": (one_tensor(4, offset=1 << 20), "the offset of tensor 't' is 1048576"),
    "an offset that wraps": (one_tensor(4, offset=(1 << 64) - 32), "the offset of tensor 't'"),
    "an odd offset": (one_tensor(4, offset=8), "the offset of tensor 't' is 8, expected a multiple of 32"),
    "an offset past the end for an unknown type": (one_tensor(4, type=999, offset=1 << 20), "the offset of tensor 't'"),
    "a row that splits a block": (one_tensor(33, type=2), "q4_0 packs 32 weights"),
    "a truncated tensor description":
        (raw_gguf(ARCHITECTURE, text("t") + u32(2), tensors=1, entries=1), "a dimension of"),
    "a repeated tensor": (tensors(tensor("t", (4,)), tensor("t", (4,), offset=32)), "tensor 't' is there twice"),
    "overlapping tensors":
        (tensors(tensor("a", (16,)), tensor("b", (16,), offset=32)), "tensor 'b' overlaps tensor 'a'"),
    "tensors at one place": (tensors(tensor("a", (8,)), tensor("b", (8,))), "overlaps"),
    "a split count that is text":
        (raw_gguf(ARCHITECTURE, entry("split.count", 8, text("x")), entries=2), "split.count is 'x'"),
    "a wrong number of tensors in all":
        (raw_gguf(ARCHITECTURE, entry("split.tensors.count", 4, u32(9)), entries=2), "split.tensors.count is 9"),
}


def header(**changes: object) -> dict[str, object]:
    return {"t": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}}


def both(first: tuple[int, int], second: tuple[int, int]) -> dict[str, object]:
    return {name: {"dtype": "U8", "shape": [end - start], "data_offsets": [start, end]}
            for name, (start, end) in {"a": first, "b": second}.items()}


SAFETENSORS = {
    "an empty file": (b"", "is empty"),
    "a few bytes": (b"\1\2\3", "too few"),
    "a huge header length": (raw_safetensors(b"{}", length=BIG), "the length of the header"),
    "a header length past the end": (raw_safetensors(b"{}", length=3), "the length of the header is 3"),
    "a header length over the limit": (raw_safetensors(b"{}", length=100_000_001), "the length of the header"),
    "a header length of zero": (raw_safetensors(b""), "the length of the header is 0"),
    "no JSON": (raw_safetensors(b"xx"), "the header is no table"),
    "a list": (raw_safetensors(b"[]"), "the header is no table"),
    "not UTF-8": (raw_safetensors(b'{"\xff":{}}'), "the header is no table"),
    "deep nesting": (raw_safetensors(b'{"t":' + b"[" * 200_000), "the header is no table"),
    "deep nesting in a tensor": (raw_safetensors(b'{"t":{"dtype":' + b"[" * 900 + b"]" * 900 + b"}}"), "'t'"),
    "a name of control characters": (raw_safetensors({"a\x1b[2J": header()["t"]}, bytes(8)), "a printable name"),
    "a tensor that is a number": (raw_safetensors({"t": 1}), "tensor 't' is described wrongly"),
    "a tensor without a shape": (raw_safetensors({"t": {"dtype": "F32", "data_offsets": [0, 8]}}), "shape"),
    "a shape of text": (raw_safetensors(header(shape=["2"]), bytes(8)), "'t' is described wrongly"),
    "a shape of fractions": (raw_safetensors(header(shape=[2.5]), bytes(8)), "'t' is described wrongly"),
    "a negative shape": (raw_safetensors(header(shape=[-2]), bytes(8)), r"'t' has shape \[-2\]"),
    "two negative sizes": (raw_safetensors(header(shape=[-2, -1]), bytes(8)), r"'t' has shape"),
    "a shape of too many sizes": (raw_safetensors(header(shape=[1] * 9), bytes(8)), "expected up to 8 sizes"),
    "a shape that overflows": (raw_safetensors(header(shape=[1 << 62, 1 << 62]), bytes(8)), "not what shape"),
    "a number beyond 64 bits": (raw_safetensors(header(shape=[1 << 80]), bytes(8)), "'t'"),
    "a shape that is too small": (raw_safetensors(header(shape=[1]), bytes(8)), "'t' has 8 bytes"),
    "the wrong size for its type": (raw_safetensors(header(dtype="F16"), bytes(8)), "'t' has 8 bytes"),
    "offsets past the end":
        (raw_safetensors(header(shape=[4], data_offsets=[0, 16]), bytes(8)), "the tensors end at 16"),
    "negative offsets": (raw_safetensors(header(data_offsets=[-8, 0]), bytes(8)), "data_offsets"),
    "offsets that run backwards": (raw_safetensors(header(shape=[0], data_offsets=[8, 0]), bytes(8)), "data_offsets"),
    "three offsets": (raw_safetensors(header(data_offsets=[0, 8, 16]), bytes(8)), "data_offsets"),
    "overlapping tensors": (raw_safetensors(both((0, 8), (4, 12)), bytes(12)), "tensor 'b' begins at 4, expected 8"),
    "tensors at one place": (raw_safetensors(both((0, 8), (0, 8)), bytes(8)), "begins at 0, expected 8"),
    "a hole": (raw_safetensors(both((0, 4), (8, 12)), bytes(12)), "tensor 'b' begins at 8, expected 4"),
    "bytes left over": (raw_safetensors(header(), bytes(9)), "the file has 9 bytes of data"),
    "a cut-off file": (raw_safetensors(header(), bytes(5)), "the file has 5 bytes of data"),
    "an unknown type past the end":
        (raw_safetensors(header(dtype="X", data_offsets=[0, BIG]), bytes(8)), "tensors end"),
    "metadata of numbers": (raw_safetensors({"__metadata__": {"a": 1}}), "the header is no table"),
    "metadata that is a list": (raw_safetensors({"__metadata__": []}), "the header is no table"),
    "a long description": (raw_safetensors(header(shape=[1] * 4000), bytes(8)), "bytes to describe"),
    "very many pairs": (raw_safetensors(b'{"a":1' + b',"a":1' * (1 << 20) + b"}"), "describes too much"),
    "very many tensors":
        (raw_safetensors({f"{n}": {} for n in range((1 << 17) + 1)}), "describes 131073 tensors"),
}


def error_within_limits(load) -> ZondaError:
    tracemalloc.start()
    try:
        with pytest.raises((InvalidModel, Unsupported)) as caught:
            load()
        assert len(str(caught.value)) < 600
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()
    return caught.value


@pytest.mark.parametrize("case", GGUF)
def test_a_hostile_gguf_file_gives_an_error_that_names_the_field(tmp_path, case):
    data, message = GGUF[case]
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    error = error_within_limits(lambda: GGUFSource(path))
    assert re.search(message, str(error))
    assert "model.gguf" in str(error) or "general.architecture" in str(error)


@pytest.mark.parametrize("case", [case for case in SAFETENSORS if not case.startswith("very many")])
def test_a_hostile_safetensors_file_gives_an_error_that_names_the_tensor(tmp_path, case):
    data, message = SAFETENSORS[case]
    (tmp_path / "model.safetensors").write_bytes(data)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    error = error_within_limits(lambda: SafetensorsSource(tmp_path))
    assert re.search(message, str(error))
    assert "model.safetensors" in str(error)


@pytest.mark.parametrize("case", [case for case in SAFETENSORS if case.startswith("very many")])
def test_a_header_of_very_many_entries_is_refused(tmp_path, case):
    data, message = SAFETENSORS[case]
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(InvalidModel, match=message):
        parse(Mapped(tmp_path / "model.safetensors"))


@pytest.mark.parametrize("keep", range(0, 200, 7))
def test_a_gguf_file_cut_off_anywhere_is_refused(tmp_path, keep):
    whole = raw_gguf(ARCHITECTURE, entry("k", 9, array(8, 2, text("ab") + text("cd"))), tensor("t", (4,)), bytes(64),
                     tensors=1, entries=2)
    path = tmp_path / "model.gguf"
    path.write_bytes(whole)
    GGUFSource(path)
    path.write_bytes(whole[:min(keep, len(whole) - 49)])
    with pytest.raises(InvalidModel):
        GGUFSource(path)


def test_metadata_beyond_its_limit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(gguf, "LARGEST_METADATA", 1 << 20)
    texts = [entry(f"k{n}", 8, text("x" * (1 << 19))) for n in range(3)]
    (tmp_path / "model.gguf").write_bytes(raw_gguf(ARCHITECTURE, *texts, entries=4))
    with pytest.raises(InvalidModel, match=r"k1 needs 524288 bytes at offset .*, past 1 MiB of metadata"):
        GGUFSource(tmp_path / "model.gguf")


def test_long_texts_are_allowed_where_tokenizers_need_them(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(raw_gguf(ARCHITECTURE, entry("tokenizer.huggingface.json", 8, text("x" * (1 << 21))), entries=2))
    assert len(GGUFSource(path).metadata["tokenizer.huggingface.json"]) == 1 << 21
