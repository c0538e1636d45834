"""Every GPU kernel against its reference: the tests of `tests/kernels/cuda` and of the runner, as a table by kernel.

    python benchmarks/gpu_check.py [PART ...]

Parts are attention, flash, experts, float8, linear, models, waits, runner, capture, memory, trouble and real, all if
none is named. Run on a machine with a GPU; `real` compares the models below ZONDA_TEST_MODELS with the processor. Takes
pytest's options too, such as `-k` and `-n`. The exit code is not 0 when anything is wrong.
"""
from __future__ import annotations

import os
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = {"attention": "kernels/cuda/test_attention.py", "flash": "kernels/cuda/test_flash.py",
         "experts": "kernels/cuda/test_experts.py",
         "float8": "kernels/cuda/test_float8_products.py", "linear": "kernels/cuda/test_linear.py",
         "models": "kernels/cuda/test_models.py", "waits": "kernels/cuda/test_waits.py",
         "runner": "engine/test_torch_runner.py", "capture": "engine/test_capture.py",
         "memory": "engine/test_device_memory.py", "trouble": "engine/test_troubled_gpu.py",
         "real": "engine/test_real_gpu.py"}
EVERY = 10  # seconds between lines on what is done
WORKERS = 12


@dataclass
class Row:
    """What is known of one kernel: the tests that launched it, and the relative error nearest to its limit."""

    passed: int = 0
    failed: int = 0
    worst: tuple[float, float] = (0.0, 1.0)

    def note(self, *, passed: bool, errors: list[tuple[float, float]]) -> None:
        self.passed += passed
        self.failed += not passed
        self.worst = max([self.worst, *errors], key=lambda each: each[0] / each[1] if each[0] == each[0] else 1e9)


@dataclass
class Table:
    """Listens to pytest."""

    rows: defaultdict[str, Row] = field(default_factory=lambda: defaultdict(Row))
    done: int = 0
    failed: int = 0
    skipped: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    told: list[str] = field(default_factory=list)
    said: float = field(default_factory=time.monotonic)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            print(f"FAILED {report.nodeid}\n{report.longreprtext[-1500:]}", flush=True)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped:
            self.skipped += 1
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
            self.reasons[str(reason)] += 1
        if report.failed:
            self.failed += 1
            print(f"FAILED {report.nodeid} {report.when}\n{report.longreprtext[-1500:]}", flush=True)
        if report.when == "call" and not report.skipped:
            self._note(report)
        if time.monotonic() - self.said > EVERY:
            self.said = time.monotonic()
            print(f"{self.done} tests done, {self.failed} failed; now {report.nodeid}", flush=True)

    def _note(self, report: pytest.TestReport) -> None:
        self.done += 1
        told = dict(report.user_properties)
        self.told += [str(told["told"])] if "told" in told else []
        for kernel in told["kernels"]:  # type: ignore[union-attr]
            self.rows[str(kernel)].note(passed=report.passed, errors=told["errors"])  # type: ignore[arg-type]

    def show(self) -> None:
        print(f"{'kernel':22} {'passed':>7} {'failed':>7}  worst relative error, limit")
        for kernel, row in sorted(self.rows.items()):
            error, limit = row.worst
            shown = f"{error:.1e}  {limit:.0e}" if error else "compared exactly"
            print(f"{kernel:22} {row.passed:7} {row.failed:7}  {shown}")
        print("\n".join([*self.told, f"{self.done} tests, {self.failed} failed, {self.skipped} skipped"]))
        for reason, count in self.reasons.items():
            print(f"{count} times {reason}")


def main() -> int:
    """Run the parts that the command line names, or all."""
    sys.path.insert(0, str(ROOT))
    os.chdir(ROOT)
    parts = [each for each in sys.argv[1:] if each in PARTS]
    options = [each for each in sys.argv[1:] if each not in PARTS]
    workers = [] if "-n" in options else ["-n", str(min(WORKERS, os.cpu_count() or 1))]
    table = Table()
    status = pytest.main(["-p", "tests.nearness", "-p", "no:terminal", "-p", "no:benchmark",
                          "-W", "ignore::pytest.PytestConfigWarning", "--continue-on-collection-errors",
                          *workers, *options, *(f"tests/{PARTS[each]}" for each in parts or PARTS)], plugins=[table])
    table.show()
    from tests.nearness import kernels

    never = set() if parts or options else kernels() - set(table.rows)
    if never:
        print("never launched:", ", ".join(sorted(never)))
    return int(status) or int(bool(never))


if __name__ == "__main__":
    sys.exit(main())
