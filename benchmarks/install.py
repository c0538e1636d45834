"""Sets up the peers in a cache folder: llama.cpp built for this machine, and OpenVINO GenAI in an environment."""
from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
from pathlib import Path

TOOLS = ("llama-bench", "llama-completion", "llama-quantize", "llama-server")
CMAKE = (
    "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF", "-DCMAKE_BUILD_WITH_INSTALL_RPATH=ON", "-DCMAKE_INSTALL_RPATH=$ORIGIN",
)


NO_AMX = "-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"
"""llama.cpp's kernels for AMX end with an illegal instruction where threads have not asked the system for it."""


def environment(cache: Path) -> Path:
    """The interpreter of the peers' own environment, made first if it is missing."""
    python = cache / "venv" / "bin" / "python"
    if not python.exists():
        venv.create(cache / "venv", with_pip=True)
        _run(python, "-m", "pip", "install", "-q", "openvino-genai", "cmake", "ninja")
    return python


def llama_cpp(cache: Path) -> Path:
    """The folder of llama.cpp's tools, built from the source that `llama-cpp-python` carries if it is missing."""
    folder = cache / "bin"
    if all((folder / tool).exists() for tool in TOOLS):
        return folder
    python = environment(cache)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        options = ("-q", "--no-deps", "--no-binary", "llama-cpp-python", "-d", scratch)
        _run(python, "-m", "pip", "download", *options, "llama-cpp-python")
        archive = next(Path(scratch).glob("*.tar.gz"))
        with tarfile.open(archive) as package:
            package.extractall(scratch, filter="data")
        version = archive.name.removesuffix(".tar.gz")
        _build(Path(scratch) / version / "vendor" / "llama.cpp", Path(scratch) / "build", cache)
        shutil.copytree(Path(scratch) / "build" / "bin", folder, symlinks=True, dirs_exist_ok=True)
    (folder / "VERSION").write_text(version)
    return folder


def _build(source: Path, target: Path, cache: Path) -> None:
    path = f"{cache / 'venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    flags = [f"-DCMAKE_{language}_FLAGS={NO_AMX}" for language in ("C", "CXX")] if _has_amx() else []
    _run("cmake", "-S", source, "-B", target, *CMAKE, *flags, path=path)
    _run("cmake", "--build", target, "-j", str(os.cpu_count()), "--target", *TOOLS, path=path)


def _has_amx() -> bool:
    """Whether this processor has matrix registers."""
    information = Path("/proc/cpuinfo")
    return information.exists() and "amx_tile" in information.read_text()


def _run(*command: str | Path, path: str | None = None) -> None:
    print("+", *command, file=sys.stderr)
    environ = os.environ | ({"PATH": path} if path else {})
    executable = shutil.which(command[0], path=path) or command[0]
    subprocess.run([executable, *command[1:]], check=True, stdout=sys.stderr, env=environ)
