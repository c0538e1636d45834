"""What the host launches: kernels that can also be compiled ahead, beside each other."""
from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import torch
import triton
from triton import AsyncCompileMode, JITFunction, knobs
from triton.runtime.cache import triton_key as triton_key  # hashes all of Triton, once in a process

_ahead: ContextVar[bool] = ContextVar("ahead", default=False)


class Kernel(JITFunction):
    """A kernel that is compiled for what it is launched with, and within `compiling` does not run."""

    def __getitem__(self, grid: Any) -> Callable[..., Any]:
        return partial(self.run, grid=grid, warmup=_ahead.get())


def kernel(function: Callable[..., Any] | None = None, *, varying: tuple[str, ...] = ()) -> Any:
    """Mark a function as a kernel; `varying` are integers that change from step to step.

    One program serves all their values, where Triton would compile others for 1 and for multiples of 16.
    """
    if function is None:
        return partial(kernel, varying=varying)
    make = triton.jit if knobs.runtime.interpret else Kernel
    return make(function, do_not_specialize=varying)


@contextmanager
def compiling(device: torch.device, told: Callable[[], None]) -> Iterator[None]:
    """While it lasts, this thread's launches do not run: at its end, what they need is compiled and on the device.

    Threads compile beside each other; `told` is called by them for each kernel that is ready.
    """
    token = _ahead.set(True)
    try:
        with ThreadPoolExecutor(initializer=partial(_enter, device)) as pool, _Compilation(pool, told):
            yield
    finally:
        _ahead.reset(token)


@functools.cache
def early(device: torch.device) -> dict[str, bool]:
    """Options of a launch: whether the kernel may start before the one before it has ended, and waits for it itself."""
    able = device.type == "cuda" and torch.version.hip is None and torch.cuda.get_device_capability(device) >= (9, 0)
    return {"PDL": True, "launch_pdl": True} if able else {"PDL": False}


def _enter(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)


class _Compilation(AsyncCompileMode):
    """Triton's compilation by threads, which also load what they compiled."""

    def __init__(self, pool: ThreadPoolExecutor, told: Callable[[], None]) -> None:
        super().__init__(pool)
        self._told = told

    def submit(self, key: str, compile_fn: Callable[[], Any], finalize_fn: Callable[[Any], None]) -> Any:
        found = super().submit(key, lambda: self._ready(compile_fn()), finalize_fn)
        if found.future.done():
            found.result()  # so that the next launch finds it without a key
        return found

    def _ready(self, compiled: Any) -> Any:
        _ = compiled.run  # compiles its launcher, and brings both to the device
        self._told()
        return compiled
