"""What the sources over mapped files share: where each tensor lies, and the canonical names over them."""
from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, Generic, TypeVar

from zonda.errors import InvalidModel
from zonda.weights.mapped import Mapped
from zonda.weights.names import Tensors
from zonda.weights.source import Weight

Place = TypeVar("Place")
"""What a format's header says of a tensor: its type, shape and offset."""


class Stored(ABC, Generic[Place]):
    """A `Source` over files, each with the tensors that its header tells of. A format names them, and fetches them."""

    _named: Tensors

    def __init__(self, metadata: dict[str, Any], files: Iterable[tuple[Mapped, Mapping[str, Place]]]) -> None:
        self.metadata = metadata
        self._files: list[Mapped] = []
        self._tensors: dict[str, tuple[Mapped, Place]] = {}
        for file, tensors in files:
            self._files.append(file)
            for name, place in tensors.items():
                other, _ = self._tensors.setdefault(name, (file, place))
                if other is not file:
                    raise InvalidModel(f"tensor {name!r:.100} is both in {other.path.name} and in {file.path.name}")

    def names(self) -> set[str]:
        return self._named.names()

    def read(self, name: str) -> Weight:
        return self._named.read(name, self._fetch)

    def release(self) -> None:
        """Give back the memory of what was read so far."""
        for file in self._files:
            file.release()

    @abstractmethod
    def _fetch(self, name: str) -> Weight:
        """A tensor by its own name, as it is stored."""
