"""Tiles fit into the shared memory of the card, and are as measured where there is enough."""
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.kernels.cuda.shared import ROOM
from zonda.kernels.cuda import ops, shapes
from zonda.kernels.cuda.ops import CUDAOps
from zonda.kernels.torch.float8 import Float8Matrix
from zonda.kernels.torch.matrix import DenseMatrix
from zonda.weights.formats.float8 import Float8, encode

CPU, ROOT = torch.device("cpu"), Path(__file__).parents[3]
LARGE = 232448  # bytes of a program on an H100


def test_a_tile_is_as_measured_where_it_fits_and_else_loses_stages_before_columns(
        monkeypatch: pytest.MonkeyPatch) -> None:
    found = {}
    for room in (1 << 62, LARGE, 163840, ROOM, 49152):
        monkeypatch.setattr(shapes, "room", lambda device, room=room: room)
        found[room] = shapes.staged(CPU, 128, 4, loaded=256, made=128)
    assert found == {1 << 62: (128, 4), LARGE: (128, 4), 163840: (128, 4), ROOM: (128, 2), 49152: (64, 2)}


def test_wide_tiles_of_four_byte_numbers_fit_an_h100(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "room", lambda device: LARGE)
    columns, stages = shapes.staged(CPU, 256, 3, loaded=16 * 4 + 2 * 128, made=2 * 128 * 4)
    assert (columns, stages) == (128, 2)


def test_the_largest_tiles_fit_a_card_with_little_shared_memory() -> None:
    script = Path(__file__).with_name("shared.py")
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    ran = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300,
                         env=os.environ | {"TRITON_INTERPRET": "0", "PYTHONPATH": path})
    assert ran.returncode == 0, ran.stderr
    taken = [line.split() for line in ran.stdout.splitlines()]
    assert {"many", "some", "gated_many", "down_many", "tiles"} <= {name for name, _ in taken}
    assert [line for line in taken if int(line[1]) > ROOM] == []


def test_eight_bit_floats_are_unpacked_at_load_where_the_card_cannot_compute_with_them(
        monkeypatch: pytest.MonkeyPatch) -> None:
    weight = Float8(encode(np.ones((128, 128), np.float32)), np.full((1, 1), 0.5, np.float32), 128, False)
    assert isinstance(CUDAOps(CPU, torch.float32).prepare(weight), Float8Matrix)
    monkeypatch.setattr(ops, "has_eights", lambda device: False)
    old = CUDAOps(CPU, torch.float32, cache_dtype=torch.float8_e4m3fn)
    made = old.prepare(weight, weight)
    assert isinstance(made, DenseMatrix) and made.shape == (256, 128) and bool((made.values == 0.5).all())
    assert old.cache_dtype == torch.float32


@pytest.mark.parametrize(("able", "has"), [((8, 0), False), ((8, 6), False), ((8, 9), True), ((9, 0), True)])
def test_eights_need_capability_8_9(able: tuple[int, int], has: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: able)
    assert shapes.has_eights(torch.device("cuda:0")) == has
