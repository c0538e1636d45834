"""Damaged files: whatever is changed, a parser reads on or gives a Zonda error."""
from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from files import CONFIG, LLAMA, raw_safetensors, write_gguf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packing import random_packed

from zonda.errors import ZondaError
from zonda.weights.gguf import GGUFSource
from zonda.weights.safetensors import SafetensorsSource

NUMBERS = st.one_of(st.integers(0, 300), st.sampled_from([1 << bits for bits in (15, 16, 20, 24, 31, 32, 40, 62, 63)]),
                    st.integers(0, (1 << 64) - 1))
RELAXED = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@st.composite
def changes(draw: st.DrawFn) -> list[tuple[str, float, bytes]]:
    """A few changes, each of a kind, at a share of the file's length, with bytes to put there."""
    data = st.one_of(st.binary(max_size=12), NUMBERS.map(lambda n: struct.pack("<Q", n)),
                     NUMBERS.map(lambda n: struct.pack("<I", n & 0xFFFFFFFF)), NUMBERS.map(lambda n: str(n).encode()))
    kind = st.sampled_from(["overwrite", "insert", "delete", "cut"])
    return draw(st.lists(st.tuples(kind, st.floats(0, 1, exclude_max=True), data), min_size=1, max_size=4))


def changed(data: bytes, some: list[tuple[str, float, bytes]]) -> bytes:
    for kind, share, new in some:
        at = int(share * len(data))
        keep = {"overwrite": at + len(new), "insert": at, "delete": at + 8, "cut": len(data)}[kind]
        data = data[:at] + (b"" if kind in ("delete", "cut") else new) + data[keep:]
    return data


def read_all(open_source, path, data: bytes) -> None:
    path.write_bytes(data)
    try:
        source = open_source()
        for name in source.names():
            source.read(name).dense()
    except ZondaError as error:
        assert str(error)


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory) -> bytes:
    tensors = {"blk.0.attn_q.weight": random_packed("q4_0", 64, 64),
               "blk.0.ffn_up.weight": random_packed("q6_k", 2, 256), "output_norm.weight": np.ones(8, np.float32)}
    metadata = {**LLAMA, "tokens": ["a", "bc", "é"], "scores": [0.5, 1.5], "flag": True, "name": "x" * 40}
    path = write_gguf(tmp_path_factory.mktemp("gguf") / "a.gguf", tensors, metadata)
    return path.read_bytes()


@RELAXED
@given(some=changes())
def test_a_changed_gguf_file_is_read_or_refused(tmp_path, gguf_file, some):
    path = tmp_path / "a.gguf"
    read_all(lambda: GGUFSource(path), path, changed(gguf_file, some))


@RELAXED
@given(some=changes())
def test_the_changed_head_of_a_gguf_file_is_read_or_refused(tmp_path, gguf_file, some):
    path, head = tmp_path / "a.gguf", gguf_file.index(b"output_norm") + 40
    read_all(lambda: GGUFSource(path), path, changed(gguf_file[:head], some) + gguf_file[head:])


HEADER = {"__metadata__": {"format": "pt"},
          "model.layers.0.self_attn.qkv_proj.weight": {"dtype": "F16", "shape": [128, 2], "data_offsets": [0, 512]},
          "model.norm.weight": {"dtype": "BF16", "shape": [4], "data_offsets": [512, 520]}}


@RELAXED
@given(some=changes())
def test_a_changed_safetensors_header_is_read_or_refused(tmp_path, some):
    path = tmp_path / "model.safetensors"
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    header = changed(json.dumps(HEADER).encode(), some)
    read_all(lambda: SafetensorsSource(tmp_path), path, raw_safetensors(header, bytes(520)))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text(max_size=8), one, max_size=3), max_leaves=8)
ENTRY = st.fixed_dictionaries({}, optional={
    "dtype": JSON | st.sampled_from(["F32", "BF16", "X"]), "shape": JSON | st.lists(NUMBERS),
    "data_offsets": JSON | st.lists(NUMBERS)})


@RELAXED
@given(entry=ENTRY, config=JSON)
def test_any_json_in_a_header_or_a_configuration_is_read_or_refused(tmp_path, entry, config):
    path = tmp_path / "model.safetensors"
    (tmp_path / "config.json").write_text(json.dumps(config))
    read_all(lambda: SafetensorsSource(tmp_path), path, raw_safetensors({"model.norm.weight": entry}, bytes(8)))
