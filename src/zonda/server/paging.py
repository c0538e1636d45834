"""Pages of lists that are too long to be shown whole."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Generic, Literal, Protocol, TypeVar

from msgspec import Meta, Struct

from zonda.errors import InvalidRequest
from zonda.server.schema import Identifier


class Identified(Protocol):
    """What can be listed."""

    @property
    def id(self) -> str: ...


T = TypeVar("T")
L = TypeVar("L", bound=Identified)
P = TypeVar("P")


class PageQuery(Struct, kw_only=True):
    """Which page is shown."""

    limit: Annotated[int, Meta(ge=1, le=100)] = 20
    order: Literal["asc", "desc"] = "asc"
    after: Identifier | None = None


class Page(Struct, Generic[T], kw_only=True):
    """A page, as OpenAI's API has it."""

    object: Literal["list"] = "list"
    data: list[T]
    first_id: str
    last_id: str
    has_more: bool


def page(kind: Callable[..., P], listed: Sequence[Any], query: PageQuery, before: str | None = None) -> P:
    """The page of this kind that a query asks for, of things that are listed in ascending order."""
    found, more = cut(listed if query.order == "asc" else listed[::-1], query.limit, query.after, before)
    first, last = (found[0].id, found[-1].id) if found else ("", "")
    return kind(data=list(found), first_id=first, last_id=last, has_more=more)


def cut(listed: Sequence[L], limit: int, after: str | None, before: str | None = None, *,
        fields: tuple[str, str] = ("after", "before")) -> tuple[Sequence[L], bool]:
    """Those that follow one id, or come right before another, and whether there are more in that direction.

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
