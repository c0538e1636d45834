"""Compiled kernels: object code made once for this processor, kept on disk, and loaded without Numba.

A kernel is a name and a recipe. A recipe is a Python function of int64 words that Numba compiles, or a function that
writes LLVM IR into a builder. Both become an exported `void name(i64, …)`.
"""
from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm

Progress = Callable[[str], None]
_DIGEST = hashlib.sha256().digest_size  # bytes before the code in a file


@dataclass(frozen=True, slots=True)
class Target:
    """The processor that kernels are compiled for: LLVM's name and features, and what the tiles choose by."""

    cpu: str
    features: str

    def has(self, *names: str) -> bool:
        return all(f"+{name}" in self.features.split(",") for name in names)

    @property
    def isa(self) -> str:
        """avx512vnni, avx512, avxvnni, avx2, neon or portable."""
        if self.has("avx512vnni", "avx512bw", "avx512vl"):
            return "avx512vnni"
        if self.has("avx512bw", "avx512vl"):
            return "avx512"
        if self.has("avxvnni", "avx2"):
            return "avxvnni"
        if self.has("avx2", "fma", "f16c"):
            return "avx2"
        return "neon" if self.has("dotprod") else "portable"

    @property
    def wide(self) -> bool:
        """Whether rows that may be rounded take wide tiles: where scaling sums costs as much as making them."""
        return self.isa == "avx512vnni" and not self.matrices

    @property
    def matrices(self) -> bool:
        """Whether there are matrix registers for products of bytes and of bfloat16 (AMX)."""
        return self.isa == "avx512vnni" and self.has("amx-tile", "amx-int8", "amx-bf16")

    @property
    def bfloat_matrices(self) -> bool:
        """Whether matrix registers multiply bfloat16."""
        return self.matrices and self.has("avx512bf16", "amx-bf16")

    @property
    def bfloats(self) -> bool:
        """Whether products of bfloat16 are faster than those of float32: by AMX, and on AMD's processors.

        A dot product of pairs takes as long as one product of float32 on Zen 4, but four times that on Sapphire Rapids.
        """
        vectors = self.isa == "avx512vnni" and self.has("avx512bf16") and self.cpu.startswith("znver")
        return vectors or self.bfloat_matrices

    @property
    def halves(self) -> bool:
        """Whether instructions convert float16; x86 has them with F16C, and a call into a library is no way."""
        return self.has("f16c") or not llvm.get_process_triple().startswith(("x86", "i386", "i686"))

    @property
    def word_tokens(self) -> int:
        """The least tokens of a block whose exact codes are int16, not planes of int8; 0 for none.

        So where products of bytes take several instructions, and enough tokens share the widening of weights.
        """
        return 4 if self.isa in ("avx2", "avx512") else 0


@cache
def host() -> Target:
    """This machine's processor."""
    features = llvm.get_host_cpu_features()
    if features.get("amx-tile") and not _may_use_matrices():
        features["amx-tile"] = False
    return Target(llvm.get_host_cpu_name(), features.flatten())


def _may_use_matrices() -> bool:
    """Ask Linux for AMX's registers, for all threads of this process."""
    arch_prctl, request_permission, tile_data = 158, 0x1023, 18
    return sys.platform == "linux" and ctypes.CDLL(None).syscall(arch_prctl, request_permission, tile_data) == 0


@dataclass(frozen=True, slots=True)
class Kernel:
    """How to make one kernel of `words` int64 parameters.

    `recipe` is "module:function", imported only to compile. The function is called with `options`, if there are any,
    to give what is compiled: a Python function, by Numba, or an IR writer, if `writer`.
    """

    name: str
    words: int
    recipe: str
    options: tuple[Any, ...] = ()
    writer: bool = False

    def resolve(self) -> Callable[..., Any]:
        module, name = self.recipe.split(":")
        function = getattr(importlib.import_module(f"zonda.kernels.cpu.{module}"), name)
        return function(*self.options) if self.options else function


class Library:
    """Kernels by name, compiled on first use. `folder` keeps their object code; `progress` hears of compilations."""

    def __init__(self, folder: Path, target: Target | None = None, progress: Progress | None = None) -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        self.target = target or host()
        self._folder = folder / self._key()
        self._progress = progress or (lambda name: None)
        self._machine = self._machine_for(self.target)
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), self._machine)
        self._addresses: dict[str, int] = {}

    def _machine_for(self, target: Target) -> Any:
        """On x86, code takes addresses of 64 bits: its constants may be mapped anywhere, and more than 2 GB away where
        others have reserved much of the address space, as CUDA does."""
        x86 = llvm.get_process_triple().startswith("x86_64")
        whole = ",+fast-dpwssd" if target.isa == "avx512vnni" else ""  # else LLVM cuts dot products of words in two
        return llvm.Target.from_default_triple().create_target_machine(
            cpu=target.cpu, features=target.features + whole, opt=3, reloc="static" if x86 else "pic",
            codemodel="large" if x86 else "default", jit=True)

    def _key(self) -> str:
        """Sources, compiler and processor: whatever changes the object code."""
        digest = hashlib.sha256(f"{llvmlite.__version__} {self.target.cpu} {self.target.features}".encode())
        for source in sorted(Path(__file__).parent.glob("*.py")):
            digest.update(source.read_bytes())
        return digest.hexdigest()[:20]

    def address(self, kernel: Kernel) -> int:
        """The kernel's entry, loaded from the cache or compiled now."""
        if kernel.name not in self._addresses:
            self._engine.add_object_file(llvm.ObjectFileRef.from_data(self._object(kernel)))
            self._engine.finalize_object()
            self._addresses[kernel.name] = self._engine.get_function_address(kernel.name)
        return self._addresses[kernel.name]

    def _object(self, kernel: Kernel) -> bytes:
        path = self._folder / f"{kernel.name}.o"
        if code := _read(path):
            return code
        self._progress(kernel.name)
        code = self._compile(kernel)
        with contextlib.suppress(OSError):  # a read-only home only costs the compilation again
            _write(path, code)
        return code

    def _assembly(self, kernel: Kernel) -> str:
        from zonda.kernels.cpu import compile as compiler

        make = compiler.from_writer if kernel.writer else compiler.from_numba
        return make(kernel, kernel.resolve(), self.target)

    def _compile(self, kernel: Kernel) -> bytes:
        from zonda.kernels.cpu import compile as compiler

        module = llvm.parse_assembly(self._assembly(kernel))
        module.triple = llvm.get_process_triple()
        module.data_layout = str(self._machine.target_data)
        compiler.optimize(module, self._machine, kernel.name)
        return bytes(self._machine.emit_object(module))


def _read(path: Path) -> bytes | None:
    """The code in a file, or None if there is none or it is not what was written: LLVM would crash on damaged code."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    digest, code = data[:_DIGEST], data[_DIGEST:]
    return code if hashlib.sha256(code).digest() == digest else None


def _write(path: Path, code: bytes) -> None:
    """Put a file in place at once, so that another process never reads half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(hashlib.sha256(code).digest() + code)
        os.replace(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise
