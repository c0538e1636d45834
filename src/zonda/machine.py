"""What this machine and the installation are, and what they lack."""
from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from zonda.environment import c_compiler, cache_folder, hub_address, hub_folder, offline

_SCARCE = 10 << 30  # bytes of disk below which doctor warns
_PATIENCE = 3.0  # seconds to wait for the hub
_PACKAGES = ("numpy", "numba", "llvmlite", "tokenizers", "huggingface_hub", "jinja2", "msgspec", "starlette", "uvicorn")


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, how it is, and what to do about it."""

    name: str
    status: Literal["ok", "warning", "error", "skipped"]
    message: str
    hint: str | None = None


def facts() -> dict[str, Any]:
    """What the machine and the installation are."""
    from zonda import __version__
    from zonda.engine.cpu_runner import cores
    from zonda.memory import available

    return {
        "zonda": __version__, "python": platform.python_version(), "system": platform.platform(),
        "processor": _processor(), "cores": cores(), "features": " ".join(sorted(_features() & set(_TOLD))),
        "memory_available": f"{available() / (1 << 30):.1f} GiB", "cache": str(cache_folder()),
        "hub_cache": str(hub_folder()),
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
    }


_TOLD = {"avx", "avx2", "fma", "f16c", "avxvnni", "avx512f", "avx512bw", "avx512vnni", "avx512bf16", "amx-int8", "neon",
         "dotprod", "i8mm", "sve"}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def _features() -> set[str]:
    from llvmlite import binding

    return {name for name, present in binding.get_host_cpu_features().items() if present}


def _vectors() -> Check:
    from zonda.kernels.cpu.library import host

    if host().isa == "portable":
        return Check("vector_instructions", "warning", f"none that kernels are made for on {platform.machine()}",
                     "models run, slowly")
    return Check("vector_instructions", "ok", f"kernels are made for {host().isa}")


def _device() -> Check:
    from zonda.gpu import automatic

    device, why = automatic()
    if device == "cpu":
        return Check("device", "ok", f"cpu: {why}")
    from zonda.kernels.cuda.shapes import has_eights

    eights = "" if has_eights(device) else (
        "; eight-bit floats, of weights or of a cache, become sixteen bits, as computing with them takes compute "
        "capability 8.9")
    return Check("device", "ok", f"{device}: {why}{eights}")


def _compiler() -> Check:
    from zonda.gpu import automatic

    if automatic()[0] == "cpu":
        return Check("c_compiler", "skipped", "only a GPU needs one")
    if found := c_compiler():
        return Check("c_compiler", "ok", found)
    return Check("c_compiler", "warning", "there is none, with which Triton makes, once, what launches kernels",
                 "install gcc, or name a compiler by the variable CC")


def _packages() -> Check:
    missing = [name for name in _PACKAGES if not _version(name)]
    if missing:
        return Check("packages", "error", f"missing: {', '.join(missing)}", "pip install --upgrade zonda")
    return Check("packages", "ok", "all there")


def _writable(name: str, folder: Callable[[], Path]) -> Check:
    path = folder()
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        return Check(name, "error", f"not writable: {error.strerror}", "make it writable, or name another folder")
    return Check(name, "ok", "writable")


def _disk() -> Check:
    path = hub_folder()
    while not path.exists():
        path = path.parent
    free = shutil.disk_usage(path).free
    shown = f"{free / (1 << 30):.1f} GiB free"
    if free < _SCARCE:
        return Check("disk_space", "warning", shown, "`zonda cache list` shows what `zonda cache delete` could free")
    return Check("disk_space", "ok", shown)


def _memory() -> Check:
    from zonda.memory import available

    free = available()
    if free < 1 << 30:
        return Check("memory", "warning", f"{free >> 20} MiB free", "close other programs, or choose small models")
    return Check("memory", "ok", f"{free / (1 << 30):.1f} GiB free")


def _hub() -> Check:
    if offline():
        return Check("hub", "skipped", "HF_HUB_OFFLINE is set")
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    began = time.perf_counter()
    try:
        urlopen(Request(hub_address(), method="HEAD"), timeout=_PATIENCE).close()
    except HTTPError:
        pass  # it answers
    except (OSError, ValueError) as error:
        return Check("hub", "warning", f"{hub_address()} does not answer: {error}",
                     "models in the cache and local files work; see HF_ENDPOINT")
    return Check("hub", "ok", f"answers in {(time.perf_counter() - began) * 1000:.0f} ms")


CHECKS: tuple[Callable[[], Check], ...] = (
    _packages, _vectors, _device, _compiler, _memory, _disk, lambda: _writable("cache", cache_folder),
    lambda: _writable("hub_cache", hub_folder), _hub,
)


def examine(*, asking: bool = True) -> list[Check]:
    """All checks, one after another; without `asking` not the one that asks the hub, which may take seconds."""
    return [check() for check in CHECKS if asking or check is not _hub]
