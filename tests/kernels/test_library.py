"""Compiled kernels in an address space that others have cut up."""
from __future__ import annotations

import subprocess
import sys

import pytest

from zonda.kernels.cpu.library import Kernel, Library
from zonda.options import cache_folder

KERNELS = (Kernel("product", 4, "matmul:product"), Kernel("attend_f16", 4, "attention:attend", (True, 12)),
           Kernel("pack", 4, "activations:pack"))

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
