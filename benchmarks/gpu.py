"""The engine on a GPU beside what the GPU can do: one JSON object a row, as they are measured.

    python benchmarks/gpu.py [--out FILE] [1b] [8b] [8b-fp8] [8b-q4k] [http] [start]

Random weights of the true shapes, greedy, end tokens ignored, prefix cache off. `share` is the time that copying the
bytes, or the operations, would take at the rates that are measured first, over the time that was taken; `where` are
milliseconds of a token, a step or a run: of what the profiler sees on the GPU, and `idle` for the rest of the time.
Every case runs in a process of its own and has a limit in seconds; all of them together end within ten minutes.
"""
from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from gpu_floor import Outline, ceilings, shares
from gpu_load import Run, compilations, drive, engine, kernels, steady

BUDGET = 570  # seconds of all cases
STREAMS = (8, 32, 128, 256)
MODELS = {"1b": ("llama-3.2-1b", "bf16"), "8b": ("llama-3.1-8b", "bf16"), "8b-fp8": ("llama-3.1-8b", "fp8"),
          "8b-q4k": ("llama-3.1-8b", "q4_k")}
LIMITS = {"1b": 100, "8b": 130, "8b-fp8": 120, "8b-q4k": 110, "http": 110, "start": 160}
Row = dict[str, Any]


class Model:
    """A running model, and rows of what it does."""

    def __init__(self, name: str) -> None:
        self.name = name
        shape, dtype = MODELS[name]
        self.most = ceilings(dtype)
        self.outline = Outline.of(shape, dtype)
        self.compiled = compilations()
        self.engine = engine(shape, dtype)

    def runs(self, count: int, prompt: int, generated: int, times: int = 1) -> list[Run]:
        return steady(lambda: drive(self.engine, count, prompt, generated), self.compiled, times)

    def where(self, seconds: float, of: int, *load: int) -> Row:
        """Milliseconds of each kind of kernel in one `of` so many parts of a load, which takes `seconds` a part."""
        try:
            found = {kind: each / of for kind, each in shares(kernels(lambda: drive(self.engine, *load))).items()}
        except Exception as error:
            return {"unknown": f"{type(error).__name__}: {error}"[:100]}
        return rounded({**found, "idle": seconds - sum(found.values())})

    def rows(self) -> Iterator[Row]:
        """Single streams, prompts, then many streams."""
        one, two = (statistics.median((run.total - run.first) / 255 for run in self.runs(1, 128, 256, 3)),
                    statistics.median(run.first for run in self.runs(1, 2048, 1, 5)))
        yield {"what": "1 stream, 128 in, 256 out", "tok_s": 1 / one, "by": "copy",
               "share": self.outline.decode(1, 256, self.most) / one, "where": self.where(one, 128, 1, 1, 128)}
        yield {"what": "first token of 2048", "ms": 1e3 * two, "by": "matrix",
               "share": self.outline.prefill(1, 2048, self.most) / two, "where": self.where(two, 1, 1, 2048, 1)}
        total = min(run.total for run in self.runs(16, 2048, 1, 2))
        yield {"what": "prefill 16 x 2048", "tok_s": 16 * 2048 / total, "by": "matrix",
               "share": self.outline.prefill(16, 2048, self.most) / total, "where": self.where(total, 1, 16, 2048, 1)}
        yield from map(self.streams, STREAMS)

    def streams(self, count: int) -> Row:
        run, = self.runs(count, 512, 128)
        prefill, decode = self.outline.prefill(count, 512, self.most), self.outline.decode(count, 576, self.most)
        return {"what": f"{count} streams, 512 in, 128 out", "tok_s": count * 128 / run.total, "by": "both",
                "share": (prefill + 127 * decode) / run.total, "first_tokens_s": run.firsts, "prefill_floor_s": prefill,
                "step_ms": 1e3 * (run.total - run.firsts) / 127, "step_floor_ms": 1e3 * decode,
                "where": self.where(run.total, 1, count, 512, 128)}


def throughput(name: str) -> Iterator[Row]:
    """All rows of one model."""
    began = time.perf_counter()
    model = Model(name)
    yield {"what": "ceilings", "copy_tb_s": model.most.copy / 1e12, "matrix_tflop_s": model.most.matrix / 1e12,
           "bus_gb_s": model.most.bus / 1e9, "ready_s": time.perf_counter() - began}
    yield from model.rows()
    model.engine.close()


def http() -> Iterator[Row]:
    """256 streams of 8B through HTTP, beside the same without."""
    from zonda.cli.loopback import loopback
    from zonda.cli.measure import Case
    from zonda.cli.numbers import Numbers
    from zonda.sdk import AsyncLLM

    model, case = Model("8b"), Case("serve", 512, 128, 512, 256)
    offline = 256 * 128 / model.runs(256, 512, 128)[0].total
    numbers: Any = Numbers(model.engine.vocab)
    with loopback(AsyncLLM.from_parts(model.engine, numbers, name="8b")) as measure:
        speed = steady(lambda: measure(case, time.monotonic_ns() % 2048), model.compiled)[0]
    floor = model.outline.prefill(256, 512, model.most) + 127 * model.outline.decode(256, 576, model.most)
    yield {"what": "256 streams through HTTP", "tok_s": speed, "by": "both", "share": floor * speed / (256 * 128),
           "offline_tok_s": offline, "of_offline": speed / offline,
           "where": rounded({"engine": 256 * 128 / offline, "http": 256 * 128 * (1 / speed - 1 / offline)})}
    model.engine.close()


def start() -> Iterator[Row]:
    """8B from safetensors in the page cache to the first token, each in a fresh process; first without any cache."""
    from gpu_files import write_checkpoint

    with tempfile.TemporaryDirectory() as place:
        began = time.perf_counter()
        size = write_checkpoint(Path(place) / "model", MODELS["8b"][0])
        yield {"what": "checkpoint written", "gb": size / 1e9, "seconds": time.perf_counter() - began}
        caches = {name: f"{place}/{name}" for name in ("TRITON_CACHE_DIR", "ZONDA_CACHE", "CUDA_CACHE_PATH")}
        for what in ("cold", "warm", "warm again"):
            ran = subprocess.run([sys.executable, __file__, "--first-token", f"{place}/model", str(time.time())],
                                 env={**os.environ, **caches}, stdout=subprocess.PIPE, text=True, check=True)
            yield {"what": f"start to first token, {what}", **json.loads(ran.stdout)}


def first_token(folder: str, began: float) -> Row:
    """Load a checkpoint and wait for a token; `began` is when the process was asked for."""
    stages: list[tuple[str, float]] = [("python", began), ("imports", time.time())]

    def tell(stage: str, done: int, total: int) -> None:
        if stage != stages[-1][0]:
            stages.append((stage, time.time()))

    import torch

    from zonda.model import resolve_model
    from zonda.model import start as start_engine
    from zonda.options import EngineOptions, ModelOptions
    from zonda.weights.hub import open_source

    torch.cuda.init()
    tell("files", 0, 0)
    model = ModelOptions(model=folder)
    files = resolve_model(model)
    size = sum(path.stat().st_size for path in files.weights)
    running = start_engine(open_source(files), model, EngineOptions(max_seq_len=4096), weight_bytes=size, progress=tell)
    tell("first token", 0, 0)
    drive(running, 1, 128, 1)
    tell("end", 0, 0)
    running.close()
    total = stages[-1][1] - began
    spent = {name: after - at for (name, at), (_, after) in pairwise(stages)}
    return {"seconds": total, "by": "bus", "share": size / ceilings("bf16").bus / total, "where": rounded(spent)}


def rounded(seconds: dict[str, float]) -> Row:
    """In milliseconds, the longest first."""
    return {name: round(1e3 * each, 3) for name, each in sorted(seconds.items(), key=lambda item: -item[1])}


CASES: dict[str, Callable[[], Iterator[Row]]] = {
    **{name: lambda name=name: throughput(name) for name in MODELS}, "http": http, "start": start}  # type: ignore[misc]


def run(case: str, limit: float, out: Path | None) -> None:
    """A case in its own process, its rows as they come; after the limit it is killed, with all that it started."""
    with subprocess.Popen([sys.executable, __file__, "--child", case], stdout=subprocess.PIPE, text=True,
                          start_new_session=True) as child:
        assert child.stdout
        end = threading.Timer(limit, lambda: os.killpg(child.pid, signal.SIGKILL))
        end.start()
        for line in child.stdout:
            tell(line, out)
        end.cancel()
    if child.returncode:
        tell(json.dumps({"case": case, "what": f"failed with status {child.returncode}", "limit_s": limit}), out)


def tell(line: str, out: Path | None) -> None:
    print(line.rstrip(), flush=True)
    if out:
        with out.open("a") as file:
            file.write(line.rstrip() + "\n")


def main() -> None:
    """The cases that the command line names, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="case", help=f"any of {', '.join(CASES)}; all unless given")
    parser.add_argument("--out", type=Path, help="append the rows to this file too")
    parser.add_argument("--child", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--first-token", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.first_token:
        return print(json.dumps(first_token(asked.first_token[0], float(asked.first_token[1]))))
    if asked.child:
        for row in CASES[asked.child]():
            print(shown({"case": asked.child, **row}), flush=True)
        return None
    if unknown := set(asked.cases) - set(CASES):
        parser.error(f"no case {', '.join(unknown)}; there are {', '.join(CASES)}")
    end = time.monotonic() + BUDGET
    for case in asked.cases or CASES:
        run(case, min(LIMITS[case], max(1.0, end - time.monotonic())), asked.out)
    return None


def shown(row: Row) -> str:
    return json.dumps({key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()})


if __name__ == "__main__":
    main()
