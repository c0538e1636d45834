"""Triton's interpreter where there is no GPU, and memory that holds no numbers until a kernel writes them."""
from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

import tests.interpreted  # noqa: F401


@pytest.fixture(autouse=True)
def _poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is allocated holds no numbers, so that an output which is not written shows."""
    def poisoned(allocate: Callable[..., Tensor], *shape: object, **kind: object) -> Tensor:
        made = allocate(*shape, **kind)
        return made.fill_(float("nan")) if made.is_floating_point() else made

    for name in ("empty", "empty_like"):
        monkeypatch.setattr(torch, name, partial(poisoned, getattr(torch, name)))
