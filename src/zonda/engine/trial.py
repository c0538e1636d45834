"""Tries grammars in a process that can be ended, before they are compiled in this one, which cannot."""
from __future__ import annotations

import contextlib
import json
import queue
import re
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

SECONDS = 2
"""Processor time that a grammar may take."""
MEMORY = 1 << 29
"""Bytes that a grammar may take."""
PATIENCE = 30.0
"""Seconds to wait for an answer, however busy the machine is."""
MAX_ANSWER = 4000
"""Characters that are kept of what the compiler says against a grammar."""
SHORT = 2000
"""Characters of a regular expression that needs no trial."""
USUAL = 1 << 14
"""Characters of a schema that needs no trial if it has no hard words."""
_HARD = re.compile(r"""allOf|oneOf|multipleOf|[pP]attern|dependen|unevaluated
                       |"(?:not|if|minProperties|maxProperties|propertyNames)"|\\u""", re.VERBOSE)
"""What makes the compiler intersect expressions or numbers, or is rewritten so that it does: its work may then be a
power of the schema's size. A keyword can be spelled with escapes."""


def needed(kind: str, source: str) -> bool:
    """Whether a grammar could take long to compile."""
    if kind == "regex":
        return len(source) > SHORT
    if kind == "json_schema":
        return len(source) > USUAL or bool(_HARD.search(source))
    return kind != "choice"


class Trial:
    """A process that compiles what it is given; started when first asked, and again after one had to be ended."""

    def __init__(self, special: Sequence[str], *, limits: Mapping[str, Any], stack: int) -> None:
        self._told = {"special": special, "limits": limits, "stack": stack, "seconds": SECONDS,
                      "memory": MEMORY + stack, "said": MAX_ANSWER}
        self._process: subprocess.Popen[bytes] | None = None
        self.close: Callable[[], Any] = lambda: None
        """Ends the process."""

    def run(self, internal: str) -> str | None:
        """What the compiler says against a grammar, nothing if it takes it; None if that needs more than the limits.

        One thread at a time may ask.
        """
        if self._process is None or self._process.poll() is not None:
            self._start()
        answer = self._ask(internal)
        return str(json.loads(answer)) if answer.endswith(b"\n") else None

    def _start(self) -> None:
        self.close()
        script = Path(__file__).with_name("trial_worker.py")
        self._process = subprocess.Popen([sys.executable, "-P", str(script)], stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.close = weakref.finalize(self, _end, self._process)
        if self._ask(self._told) != b"ready\n":
            raise RuntimeError(f"the process that tries grammars does not start: {script}")

    def _ask(self, value: Any) -> bytes:
        assert self._process
        clock = threading.Timer(PATIENCE, self._process.kill)
        clock.daemon = True
        clock.start()
        try:
            question, answer = _pipes(self._process)
            question.write(json.dumps(value).encode() + b"\n")
            question.flush()
            return answer.readline()
        except (BrokenPipeError, ValueError):  # it has ended, or `close` has closed its pipes
            return b""
        finally:
            clock.cancel()


class Trials:
    """So many processes that compile what they are given, for as many threads; each is started when first needed."""

    def __init__(self, count: int, special: Sequence[str], *, limits: Mapping[str, Any], stack: int) -> None:
        self.all = [Trial(special, limits=limits, stack=stack) for _ in range(count)]
        self._free: queue.LifoQueue[Trial] = queue.LifoQueue()
        for each in reversed(self.all):
            self._free.put(each)

    def run(self, internal: str) -> str | None:
        """As `Trial.run`, when one of them is free."""
        trial = self._free.get()
        try:
            return trial.run(internal)
        finally:
            self._free.put(trial)

    def close(self) -> None:
        """End the processes."""
        for each in self.all:
            each.close()


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    assert process.stdin and process.stdout
    return process.stdin, process.stdout


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in _pipes(process):
        with contextlib.suppress(BrokenPipeError):
            pipe.close()
