"""Arrays to a device: through pinned memory that threads fill while the piece before is on its way."""
from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import numpy as np
import torch
from torch import Tensor

STAGE = 1 << 25
"""Bytes of each piece of pinned memory that weights pass through."""
PIECES = 4
SHARE = 1 << 22
"""Bytes that a thread copies at a time."""
THREADS = 8


def upload(array: np.ndarray, device: torch.device | str, dtype: torch.dtype) -> Tensor:
    """An array, mapped from a file perhaps, whose bits are of `dtype`."""
    device = torch.device(device)
    if device.type == "cuda" and array.nbytes > SHARE:
        out = torch.empty(array.shape, dtype=dtype, device=device)
        _staging(device).copy(np.ascontiguousarray(array), out)
        return out
    host = torch.empty(array.shape, dtype=dtype)
    bits = torch.int16 if dtype == torch.bfloat16 else dtype
    target = host.view(bits).numpy()
    np.copyto(target, array.view(target.dtype))
    return host.to(device)


@functools.cache
def _staging(device: torch.device) -> Staging:
    return Staging(device)


class Staging:
    """Pieces of pinned memory in turn; one is filled again when it has left, which its event tells."""

    def __init__(self, device: torch.device) -> None:
        pinned = device.type == "cuda"
        self._pieces = [torch.empty(STAGE, dtype=torch.uint8, pin_memory=pinned) for _ in range(PIECES)]
        self._left = [torch.cuda.Event() if pinned else None for _ in range(PIECES)]
        self._turn = 0
        self._lock = Lock()
        self._threads = ThreadPoolExecutor(THREADS)

    def copy(self, array: np.ndarray, out: Tensor) -> None:
        """The bytes of `array` into `out`; they have been read when this returns, and are on their way."""
        source, target = array.reshape(-1).view(np.uint8), out.view(-1).view(torch.uint8)
        with self._lock:
            for start in range(0, source.size, STAGE):
                self._send(source[start:start + STAGE], target[start:start + STAGE])

    def _send(self, source: np.ndarray, target: Tensor) -> None:
        piece, left = self._pieces[self._turn], self._left[self._turn]
        self._turn = (self._turn + 1) % PIECES
        if left:
            left.synchronize()
        filled = piece.numpy()

        def fill(at: int) -> None:
            end = min(at + SHARE, source.size)
            np.copyto(filled[at:end], source[at:end])

        list(self._threads.map(fill, range(0, source.size, SHARE)))
        target.copy_(piece[:source.size], non_blocking=True)
        if left:
            left.record()
