"""Give every block of a model its bytes: one walk over the finished tree."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from zonda.errors import InvalidModel
from zonda.kernels.ops import Ops
from zonda.nn.module import Module, join
from zonda.weights.source import Source, Weight

Convert = Callable[[str, Weight], Weight]
"""Sets the format of a named weight before siblings are stacked."""
Progress = Callable[[int, int], None]
"""Told how many parameters are done, of how many."""

CONFIGURATION = "rope."
"""Names that start so hold hyper-parameters, which `Config` has read."""


def load(decoder: Module, source: Source, ops: Ops, *, convert: Convert | None = None,
         progress: Progress | None = None) -> None:
    """Bind `ops` to every block and read, check and prepare its parameters, one block at a time.

    A source with a method `release` gives back the memory of what was read after each block. Raises `InvalidModel` when
    the model and the checkpoint do not have the same names and shapes.
    """
    release = getattr(source, "release", lambda: None)
    owners = list(_owners(decoder))
    shapes = {join(name, part): shape for name, block in owners for part, shape in block.parameters().items()}
    _compare(shapes, source.names(), tied="head" not in shapes)
    done = 0

    def read(name: str) -> Weight:
        weight = source.read(name)
        if tuple(weight.shape) != shapes[name]:
            raise InvalidModel(f"{name} has shape {tuple(weight.shape)} in the checkpoint, expected {shapes[name]}")
        return convert(name, weight) if convert else weight

    for name, block in owners:
        block.ops = ops
        block.load(lambda part, name=name: read(join(name, part)), ops)  # type: ignore[misc]
        if not block.parameters():
            continue
        release()
        done += len(block.parameters())
        if progress:
            progress(done, len(shapes))


def _owners(decoder: Module) -> Iterator[tuple[str, Module]]:
    """Every block once, under the first of its names."""
    seen: set[int] = set()
    for name, block in decoder.walk():
        if id(block) not in seen:
            seen.add(id(block))
            yield name, block


def _compare(wanted: Iterable[str], found: set[str], *, tied: bool) -> None:
    ignored = {name for name in found if name.startswith(CONFIGURATION) or (tied and name == "head")}
    missing, unknown = set(wanted) - found, found - set(wanted) - ignored
    if missing or unknown:
        raise InvalidModel("the checkpoint does not fit its architecture: "
                           f"{_listed('missing', missing)}; {_listed('unknown', unknown)}",
                           hint="the file may be incomplete, or its configuration may be that of another model")


def _listed(label: str, names: set[str]) -> str:
    shown = sorted(names)[:8]
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return f"{label} {', '.join(shown)}{more}" if names else f"nothing {label}"
