"""A server in a process of its own."""
from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from fakes import PATIENCE, until

import zonda


class Process:
    """Runs a program that serves on a free port; what it says goes to a file in the folder."""

    def __init__(self, folder: Path, program: str, *args: str) -> None:
        self._said = folder / "said.txt"
        paths = os.pathsep.join(map(str, (Path(__file__).parent, Path(zonda.__file__).parents[1])))
        with self._said.open("w") as said:
            self.process = subprocess.Popen([sys.executable, "-c", program, *args], text=True, stdout=subprocess.PIPE,
                                            stderr=said, env={**os.environ, "PYTHONPATH": paths})
        self.port = 0
        until(self._listens)

    def _listens(self) -> bool:
        assert self.process.poll() is None, self._said.read_text()
        found = re.search(r"serving \S+ at http://127\.0\.0\.1:(\d+)", self._said.read_text())
        self.port = int(found[1]) if found else 0
        return bool(found)

    def end(self) -> tuple[int, str, str]:
        """Its exit status, and what it said on standard output and standard error."""
        out, _ = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out, self._said.read_text()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()
