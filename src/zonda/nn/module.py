"""A tree of named blocks: the smallest thing that a loader can walk."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import ClassVar

from zonda.kernels.ops import Ops
from zonda.weights.source import Weight

Read = Callable[[str], Weight]
"""Reads one of a block's own parameters by the name it has in `Module.parameters`."""


def join(parent: str, child: str) -> str:
    return f"{parent}.{child}" if parent and child else parent or child


class Module:
    """A block. Attributes that are blocks, or tuples of blocks, are its children."""

    ops: Ops
    inline: ClassVar[bool] = False
    """Whether the block's parameters go under its parent's name."""

    def children(self) -> Iterator[tuple[str, Module]]:
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value
            elif isinstance(value, tuple):
                yield from ((f"{name}.{i}", block) for i, block in enumerate(value) if isinstance(block, Module))

    def walk(self, name: str = "") -> Iterator[tuple[str, Module]]:
        """Every block of the tree with its canonical name, parents first; a shared block comes once for each parent."""
        yield name, self
        for child_name, child in self.children():
            yield from child.walk(name if child.inline else join(name, child_name))

    def parameters(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the block's own parameters, under names relative to its own; "" is the block's name itself."""
        return {}

    def load(self, read: Read, ops: Ops) -> None:
        """Read the block's own parameters and prepare them for the device."""
