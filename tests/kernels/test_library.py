"""Compiled kernels in an address space that others have cut up, and in a cache that is damaged or full."""
from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from zonda.environment import cache_folder
from zonda.kernels.cpu.library import Kernel, Library

KERNELS = (Kernel("product", 4, "matmul:product"), Kernel("attend_f16", 4, "attention:attend", (True, 12)),
           Kernel("pack", 4, "activations:pack"))
PACK = KERNELS[2]

PROGRAM = """
import ctypes
from tests.kernels.test_library import KERNELS, cache_folder
from zonda.kernels.cpu.library import Library

system = ctypes.CDLL(None)
system.mmap.restype = ctypes.c_void_p
system.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
system.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
library, page, private_unreserved = Library(cache_folder()), 4096, 0x4022


def reserve(size):
    return system.mmap(None, size, 0, private_unreserved, -1, 0)


def fill():
    for size in (256 * page, 16 * page, 4 * page, page):
        for _ in range(1000):
            reserve(size)


fill()
holes = [(reserve(page), reserve(page))[0] for _ in range(200)]
reserve(8 << 30)
fill()
for hole in holes:
    system.munmap(hole, page)
print([library.address(kernel) > 0 for kernel in KERNELS])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it maps memory as Linux does")
def test_code_may_lie_far_from_its_constants() -> None:
    for kernel in KERNELS:
        Library(cache_folder()).address(kernel)
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "[True, True, True]\n"), done.stderr


@pytest.mark.parametrize("damage", [
    lambda code: b"", lambda code: b"x", lambda code: code[:len(code) // 2], lambda code: code + b"\0",
    lambda code: bytes(len(code)), lambda code: code[32:], lambda code: code[:32],
    lambda code: code[:-9] + bytes([code[-9] ^ 1]) + code[-8:]], ids=range(8))
def test_damaged_code_is_compiled_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                        damage: Callable[[bytes], bytes]) -> None:
    """LLVM would end the process, or run it."""
    compiled: list[str] = []
    assert Library(tmp_path, progress=compiled.append).address(PACK)
    (path,) = tmp_path.rglob("pack.o")
    whole = path.read_bytes()
    monkeypatch.setattr(Library, "_compile", lambda self, kernel: whole[32:])
    path.write_bytes(damage(whole))
    assert Library(tmp_path, progress=compiled.append).address(PACK) and path.read_bytes() == whole
    assert Library(tmp_path, progress=compiled.append).address(PACK) and compiled == ["pack", "pack"]


def test_a_full_disk_only_costs_the_compilation_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: str, target: Path) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert Library(tmp_path).address(PACK)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_folder_that_cannot_be_made_only_costs_the_compilation_again(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert Library(tmp_path / "file").address(PACK)
