"""The page of promises names tests that exist, and leaves no promise without one."""
from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "hardening.md").read_text("utf-8")
ROWS = {row[1]: re.findall(r"`([\w/]+\.py)::(\w+)`", row[0])
        for row in re.finditer(r"^\| ([SRP]\d+) \|.*$", PAGE, re.MULTILINE)}
PROMISES = {"S": (1, 2, 3, 5, 6, 7, 10, 11, 12, 13, 14, 17, 18, 20), "R": (1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12),
            "P": (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 13, 14, 15, 16, 19, 20, 21, 22, 23, 24, 25, 28, 29, 30)}


@cache
def functions(file: str) -> set[str]:
    """The functions at the top of a test file."""
    tree = ast.parse((ROOT / "tests" / file).read_text("utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_promise_has_a_row() -> None:
    assert set(ROWS) == {f"{kind}{number}" for kind, numbers in PROMISES.items() for number in numbers}


@pytest.mark.parametrize("promise", ROWS)
def test_the_tests_of_a_promise_exist(promise: str) -> None:
    assert ROWS[promise]
    assert [f"{file}::{name}" for file, name in ROWS[promise] if name not in functions(file)] == []


def test_templates_are_rendered_in_the_sandbox_alone() -> None:
    """Nothing else makes an environment or a template of the template library."""
    makers = [path.name for path in (ROOT / "src").rglob("*.py") if re.search(
        r"(?<!Immutable)(?<!Sandboxed)\b(Environment|NativeEnvironment|Template)\(|from_string|SandboxedEnvironment",
        path.read_text("utf-8"))]
    assert makers == ["sandbox.py"]
