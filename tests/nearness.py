"""How near the results of GPU kernels come to a reference of higher precision, and which kernels took part.

As a plugin of pytest (`-p tests.nearness`), it leaves both in each test's report, for `benchmarks/gpu_check.py`.
"""
from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import tests.interpreted  # noqa: F401
from zonda.kernels import cuda

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
ON_CARD = DEVICE.type == "cuda"
LIMITS = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 1e-2}
"""Relative errors that results of these types stay below."""
on_card = pytest.mark.skipif(not ON_CARD, reason="too large for Triton's interpreter, or in types that it lacks")
_errors: list[tuple[float, float]] = []
_launched: set[str] = set()


def near(found: Tensor, wanted: Tensor, limit: float) -> None:
    """Asserts that the relative error of `found` is below the limit; no number never is."""
    assert found.shape == wanted.shape
    error = float((found.double() - wanted.double()).norm() / wanted.double().norm())
    _errors.append((error, limit))
    assert error < limit, f"relative error {error:.1e}, limit {limit:.0e}"


def kernels() -> set[str]:
    """All that the package launches, as `module.name`."""
    found: set[str] = set()
    for path in Path(cuda.__path__[0]).glob("*.py"):
        module = import_module(f"{cuda.__name__}.{path.stem}")
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            launches = isinstance(node, ast.Call) and isinstance(node.func, ast.Subscript)
            if launches and isinstance(node.func.value, ast.Name | ast.Attribute):
                kernel = attrgetter(ast.unparse(node.func.value))(module)
                found |= {name_of(kernel)} if hasattr(kernel, "fn") else set()
    return found


def name_of(kernel: Any) -> str:
    """The last part of a kernel's module, and its name."""
    return f"{kernel.fn.__module__.rpartition('.')[2]}.{kernel.fn.__name__}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Notes the errors and the kernels of a test."""
    _errors.clear()
    _launched.clear()
    try:
        return (yield)
    finally:
        item.user_properties += [("errors", list(_errors)), ("kernels", sorted(_launched))]


def pytest_configure(config: pytest.Config) -> None:
    """Notes launches from now on."""
    from triton.runtime.jit import KernelInterface

    from zonda.kernels.cuda.launch import Kernel

    owner = Kernel if ON_CARD else KernelInterface
    launch: Callable[[Any, Any], Any] = owner.__getitem__

    def noted(kernel: Any, grid: Any) -> Any:
        _launched.add(name_of(kernel))
        return launch(kernel, grid)

    owner.__getitem__ = noted
