"""Files mapped into memory, so that only what is read takes memory, and only while it is read."""
from __future__ import annotations

import math
import mmap
from pathlib import Path

import numpy as np

from zonda.errors import InvalidModel, ModelNotFound


class Mapped:
    """A read-only file in memory; arrays over it keep it alive."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self.buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            raise InvalidModel(f"{path.name} is empty") from None
        except OSError as error:
            raise ModelNotFound(f"cannot read {path}: {error.strerror}") from None

    def __len__(self) -> int:
        return len(self.buffer)

    def array(self, dtype: np.dtype, offset: int, shape: tuple[int, ...]) -> np.ndarray:
        """Numbers at a checked offset, without a copy if they are aligned."""
        if not math.prod(shape):
            return np.empty(shape, dtype)
        values = np.frombuffer(self.buffer, dtype, math.prod(shape), offset).reshape(shape)
        return values if values.flags.aligned else values.copy()

    def release(self) -> None:
        """Give back the memory of the pages read so far; they are read again when touched."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self.buffer.madvise(mmap.MADV_DONTNEED)
