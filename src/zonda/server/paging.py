"""Pages of lists that are too long to be shown whole."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from zonda.errors import InvalidRequest


class Identified(Protocol):
    """What can be listed."""

    @property
    def id(self) -> str: ...


T = TypeVar("T", bound=Identified)


def cut(listed: Sequence[T], limit: int, after: str | None, before: str | None = None, *,
        fields: tuple[str, str] = ("after", "before")) -> tuple[Sequence[T], bool]:
    """The page that follows one id, or ends before another, and whether there is more in that direction.

    `fields` are the names of the two in the request.
    """
    ids = [each.id for each in listed]
    first = _place(ids, after, fields[0]) + 1 if after else 0
    last = _place(ids, before, fields[1]) if before else len(listed)
    if before and not after:
        return listed[max(last - limit, 0):last], last > limit
    found = listed[first:last][:limit]
    return found, first + len(found) < last


def _place(ids: Sequence[str], id: str, field: str) -> int:
    if id not in ids:
        raise InvalidRequest(f"`{field}` is not the id of anything that is listed here", param=field)
    return ids.index(id)
