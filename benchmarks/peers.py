"""Compares Zonda with llama.cpp and OpenVINO GenAI on this machine, in alternating runs, and prints a table.

    python benchmarks/peers.py [--only prefill,decode] [--models smollm2-q4_1] [--rounds 5] [--json]

The first run builds the peers and the model files in a cache folder (a C++ compiler, 8 GB of disk, half an hour).
Restrict all engines to some cores with `taskset`.
"""
from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import install
import models
from engines import Case, Engine, LlamaCpp, OpenVino, Zonda

PREFILL, DECODE, DEEP = Case(prompt_len=512), Case(gen_len=128, depth=4), Case(gen_len=128, depth=2048)
CASES = {"prefill": (PREFILL,), "decode": (DECODE,), "depth": (DECODE, DEEP)}
STREAMS = 8
SECTIONS = {
    "prefill": tuple(name for name in models.MODELS if name != "llama-1b-f16"),
    "decode": tuple(name for name in models.MODELS if name != "llama-1b-f16"),
    "depth": ("llama-1b-q4_0",),
    "streams": ("smollm2-q4_1", "smollm2-q4_0", "llama-1b-q4_0"),
    "start": ("smollm2-q4_1", "llama-1b-q4_0"),
    "cold": ("smollm2-q4_1",),
}
ENGINES: dict[str, Callable[[Path], Engine]] = {
    "zonda": lambda cache: Zonda(), "llama.cpp": LlamaCpp, "openvino": OpenVino,
}


@dataclass
class Row:
    """What all engines reached at one measure on one model."""

    model: str
    measure: str
    lower_is_better: bool = False
    samples: dict[str, list[float]] = field(default_factory=dict)

    def ratio(self, engine: str) -> float | None:
        """The median, over the rounds, of the engine's figure against the best other engine's."""
        best = min if self.lower_is_better else max
        others = {name: statistics.median(values) for name, values in self.samples.items() if name != engine}
        if not others or engine not in self.samples:
            return None
        peer = self.samples[best(others, key=others.__getitem__)]
        return statistics.median(ours / theirs for ours, theirs in zip(self.samples[engine], peer))

    def record(self, engine: str) -> dict:
        """All figures, for `--json`."""
        figures = {
            name: {"median": statistics.median(values), "min": min(values), "max": max(values), "rounds": len(values)}
            for name, values in self.samples.items()
        }
        return {"model": self.model, "measure": self.measure, "engines": figures, "ratio": self.ratio(engine)}

    def cells(self, engines: Sequence[Engine]) -> list[str]:
        """The row of the table."""
        ratio = self.ratio(engines[0].name)
        figures = [_figure(self.samples.get(engine.name)) for engine in engines]
        return [self.model, self.measure, *figures, "–" if ratio is None else f"{ratio:.2f}"]


def _figure(values: list[float] | None) -> str:
    if not values:
        return "–"
    digits = 2 if max(values) < 10 else 0
    middle, low, high = (f"{value:,.{digits}f}" for value in (statistics.median(values), min(values), max(values)))
    return f"{middle} ({low}–{high})"


def measure(engine: Engine, name: str, path: Path, sections: Sequence[str],
            iterations: int) -> Iterator[tuple[Row, float]]:
    """One round of one engine on one model: empty rows, each with the figure that belongs into it."""
    wanted = list(dict.fromkeys(case for section in sections for case in CASES.get(section, ())))
    speeds = dict(zip(wanted, engine.speeds(path, wanted, iterations), strict=True)) if wanted else {}
    for case, speed in speeds.items():
        yield Row(name, f"{case.name}, tok/s"), speed
    if DEEP in speeds:
        yield Row(name, "depth 2048 / depth 4"), speeds[DEEP] / speeds[DECODE]
    if "streams" in sections:
        length = 64 if name.startswith("llama-1b") else 128
        yield Row(name, f"{STREAMS} streams × {length}, tok/s"), engine.streams(path, STREAMS, length)
    if "start" in sections:
        start = engine.start(path)
        yield Row(name, "start to first token, s", lower_is_better=True), start.seconds
        yield Row(name, "peak memory, MB", lower_is_better=True), start.megabytes
    if "cold" in sections:
        row = Row(name, "the same, nothing compiled yet, s", lower_is_better=True)
        yield row, engine.start(path, cold=True).seconds


def compare(engines: Sequence[Engine], name: str, path: Path, sections: Sequence[str],
            *, rounds: int, iterations: int) -> list[Row]:
    """All rows of a model: the engines take turns, round after round."""
    rows: dict[str, Row] = {}
    able = list(engines)
    for number in range(rounds):
        for engine in tuple(able):
            try:
                for row, value in measure(engine, name, path, sections, iterations):
                    rows.setdefault(row.measure, row).samples.setdefault(engine.name, []).append(value)
                    print(f"{name} {number + 1}/{rounds} {engine.name} {row.measure}: {value:.2f}", file=sys.stderr)
            except RuntimeError as error:
                able.remove(engine)
                print(f"{name}: {engine.name} drops out: {error}", file=sys.stderr)
    return list(rows.values())


def machine(engines: Sequence[Engine]) -> dict[str, Any]:
    """What the figures were measured on, with which versions, when."""
    return {
        "date": datetime.date.today().isoformat(), "cpu": _cpu(), "cores": len(os.sched_getaffinity(0)),
        "system": platform.platform(), "python": platform.python_version(),
        "engines": [engine.version() for engine in engines],
    }


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    facts = dict(line.replace("\t", "").split(": ", 1) for line in lines if ": " in line)
    sets = [flag for flag in ("avx2", "avx512f", "avx512_vnni", "amx_int8") if flag in facts.get("flags", "").split()]
    return f"{facts.get('model name', platform.machine())} (family {facts.get('cpu family')}, {' '.join(sets)})"


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, separated by commas (default: all)")
    parser.add_argument("--models", default=",".join(models.MODELS), help="models, separated by commas (default: all)")
    parser.add_argument("--engines", default=",".join(ENGINES), help="the first is compared with the others")
    parser.add_argument("--rounds", type=int, default=5, help="how often the engines take turns (default: 5)")
    parser.add_argument("--iterations", type=int, default=3, help="repetitions within a turn (default: 3)")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "zonda-benchmarks",
                        help="where peers and model files are kept")
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of a table")
    options = parser.parse_args()
    for flag, known in (("only", SECTIONS), ("models", models.MODELS), ("engines", ENGINES)):
        if unknown := set(getattr(options, flag).split(",")) - set(known):
            parser.error(f"--{flag}: no {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return options


def main() -> None:
    """Sets everything up, measures, and prints each row when its model is done."""
    options = arguments()
    cache = options.cache.expanduser().absolute()
    cache.mkdir(parents=True, exist_ok=True)
    engines = [ENGINES[name](cache) for name in options.engines.split(",")]
    facts = machine(engines)
    print(json.dumps(facts) if options.json else "\n".join(_header(facts, engines)), flush=True)
    for name in options.models.split(","):
        sections = [section for section in options.only.split(",") if name in SECTIONS[section]]
        if not sections:
            continue
        path = models.make(name, folder=cache / "models", quantize=install.llama_cpp(cache) / "llama-quantize")
        for row in compare(engines, name, path, sections, rounds=options.rounds, iterations=options.iterations):
            line = json.dumps(row.record(engines[0].name)) if options.json else _line(row.cells(engines))
            print(line, flush=True)


def _header(facts: dict[str, Any], engines: Sequence[Engine]) -> list[str]:
    names = [engine.name for engine in engines]
    columns = ["model", "measure", *names, f"{names[0]} / best other"]
    versions = ", ".join(facts["engines"])
    return [f"{facts['date']}, {facts['cpu']}, {facts['cores']} cores, {facts['system']}, Python {facts['python']}",
            f"{versions}. Medians (minimum–maximum); the ratio is the median of the rounds' ratios.", "",
            _line(columns), _line(["---"] * len(columns))]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
