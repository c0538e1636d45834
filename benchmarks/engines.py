"""The engines under comparison, each as a way to run the cases: tokens/s, streams, start and peak memory."""
from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version as installed
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Protocol

import install
import traffic

ANSWER_TOKENS = 16


@dataclass(frozen=True)
class Case:
    """One stream: a prompt of `prompt_len` is read, or `gen_len` tokens are generated after `depth` others."""

    prompt_len: int = 0
    gen_len: int = 0
    depth: int = 0

    @property
    def name(self) -> str:
        """What the case is called in results."""
        return f"prefill {self.prompt_len}" if self.prompt_len else f"decode {self.gen_len} at depth {self.depth}"


class Start(NamedTuple):
    """A whole process that answers once: seconds to the first byte of text, peak memory in MB."""

    seconds: float
    megabytes: float


class Engine(Protocol):
    """What the comparison needs of an engine."""

    name: str

    def version(self) -> str:
        """The engine's name and version."""

    def speeds(self, model: Path, cases: Sequence[Case], iterations: int) -> list[float]:
        """Median tokens/s of each case, one stream."""

    def streams(self, model: Path, count: int, length: int) -> float:
        """Tokens/s over `count` concurrent streams of `length` tokens each."""

    def start(self, model: Path, *, cold: bool = False) -> Start:
        """Answers one short prompt in a new process; `cold`: nothing that was compiled before may be used."""


def prompt(length: int, *, case: int, iteration: int) -> list[int]:
    """Token ids that differ from one iteration to the next, so that no cache helps."""
    first = (iteration + 1) * 131 + case * 719
    return [1000 + (first + i) % 2048 for i in range(length)]


def prompts(count: int, *, iteration: int = 0) -> list[list[int]]:
    """One short prompt a stream."""
    return [prompt(16, case=stream, iteration=iteration) for stream in range(count)]


class Zonda:
    """The engine of this project, as installed in this environment."""

    name = "Zonda"

    def __init__(self) -> None:
        beside = Path(sys.executable).with_name("zonda")
        self.program = beside if beside.exists() else Path(shutil.which("zonda") or "zonda")

    def version(self) -> str:
        """Zonda's version."""
        return f"Zonda {installed('zonda')}"

    def speeds(self, model: Path, cases: Sequence[Case], iterations: int) -> list[float]:
        """By `zonda bench`."""
        return [self._speed(model, case, iterations) for case in cases]

    def _speed(self, model: Path, case: Case, iterations: int) -> float:
        command = [self.program, "bench", "-f", model, "--prompt-len", case.prompt_len, "--gen-len", case.gen_len,
                   "--depth", case.depth, "--iterations", iterations, "--json"]
        return json.loads(_output(command).splitlines()[-1])["tok_s"]

    def streams(self, model: Path, count: int, length: int) -> float:
        """Over HTTP, from `zonda serve`."""
        port = traffic.free_port()
        return _serve([self.program, "serve", "-f", model, "-p", port], port, model.stem, count, length)

    def start(self, model: Path, *, cold: bool = False) -> Start:
        """By `zonda run`."""
        command = [self.program, "run", "-f", model, "-i", "hi", "--max-tokens", ANSWER_TOKENS, "--ignore-eos"]
        with tempfile.TemporaryDirectory() as empty:
            return _start(command, {"ZONDA_CACHE": empty} if cold else {})


class LlamaCpp:
    """llama.cpp's own tools."""

    name = "llama.cpp"

    def __init__(self, cache: Path) -> None:
        self.tools = install.llama_cpp(cache)

    def version(self) -> str:
        """The release of the package whose source was built."""
        return f"llama.cpp ({(self.tools / 'VERSION').read_text().strip()})"

    def speeds(self, model: Path, cases: Sequence[Case], iterations: int) -> list[float]:
        """By `llama-bench`."""
        return [self._speed(model, case, iterations) for case in cases]

    def _speed(self, model: Path, case: Case, iterations: int) -> float:
        command = [self.tools / "llama-bench", "-m", model, "-p", case.prompt_len, "-n", case.gen_len, "-d", case.depth,
                   "-r", iterations, "-t", _threads(), "-o", "json"]
        return statistics.median(json.loads(_output(command))[0]["samples_ts"])

    def streams(self, model: Path, count: int, length: int) -> float:
        """Over HTTP, from `llama-server`."""
        port = traffic.free_port()
        command = [self.tools / "llama-server", "-m", model, "--port", port, "-np", count, "-c", count * 1024,
                   "-t", _threads(), "--no-webui"]
        return _serve(command, port, model.stem, count, length)

    def start(self, model: Path, *, cold: bool = False) -> Start:
        """By `llama-completion`."""
        return _start([self.tools / "llama-completion", "-m", model, "-p", "hi", "-n", ANSWER_TOKENS, "-c", 512,
                       "-t", _threads(), "-no-cnv", "--no-display-prompt", "--ignore-eos"])


class OpenVino:
    """OpenVINO GenAI, in process, in its own environment."""

    name = "OpenVINO"

    def __init__(self, cache: Path) -> None:
        self.worker = [install.environment(cache), Path(__file__).with_name("openvino_worker.py")]

    def version(self) -> str:
        """OpenVINO GenAI's version."""
        return f"OpenVINO GenAI {self._ask(kind='version')}"

    def speeds(self, model: Path, cases: Sequence[Case], iterations: int) -> list[float]:
        """By its own performance counters."""
        jobs = [{
            "gen_len": case.gen_len,
            "prompts": [prompt(case.prompt_len or case.depth, case=number, iteration=i) for i in range(iterations + 1)],
        } for number, case in enumerate(cases)]
        return self._ask(kind="bench", model=str(model), cases=jobs, iterations=iterations)

    def streams(self, model: Path, count: int, length: int) -> float:
        """By its continuous-batching pipeline, without HTTP."""
        return self._ask(kind="streams", model=str(model), prompts=prompts(count), length=length)

    def start(self, model: Path, *, cold: bool = False) -> Start:
        """By a script that streams one answer."""
        job = {"kind": "answer", "model": str(model), "prompt": "hi", "length": ANSWER_TOKENS}
        return _start([*self.worker, json.dumps(job)])

    def _ask(self, **job):
        return json.loads(_output([*self.worker, json.dumps(job)]).splitlines()[-1])


def _threads() -> int:
    return len(os.sched_getaffinity(0))


def _output(command: Sequence[object]) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        reason = "; ".join(done.stderr.strip().splitlines()[-2:])
        raise RuntimeError(f"{Path(str(command[0])).name} exited {done.returncode}: {reason}")
    return done.stdout


def _serve(command: Sequence[object], port: int, model: str, count: int, length: int) -> float:
    with traffic.server(command, port):
        traffic.throughput(port, model, prompts(count, iteration=1), length)
        return traffic.throughput(port, model, prompts(count), length)


def _start(command: Sequence[object], variables: Mapping[str, str] = MappingProxyType({})) -> Start:
    begin = time.perf_counter()
    process = subprocess.Popen([str(part) for part in command], env=os.environ | dict(variables),
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    with process.stdout as out:
        first = os.read(out.fileno(), 1)
        seconds = time.perf_counter() - begin
        out.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or not first:
        raise RuntimeError(f"{Path(str(command[0])).name} exited {process.returncode} without an answer")
    return Start(seconds, usage.ru_maxrss / 1024)
