"""Items of responses and conversations: their ids, and pages of them."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta, Struct

from zonda.server.paging import cut
from zonda.server.responses_schema import Identifier, Item


@dataclass(slots=True)
class Names:
    """Ids of a response and its items: an item's tells the response that it is of, and its place."""

    core: str
    count: int = 0

    def next(self, prefix: str) -> str:
        """The id of one more item of the input."""
        self.count += 1
        return self.at(prefix, -1)

    def at(self, prefix: str, place: int) -> str:
        """The id of the item at a place of the output."""
        return f"{prefix}_{self.core}{self.count + place:04x}"


class ItemList(Struct, kw_only=True):
    """A page of items."""

    object: Literal["list"] = "list"
    data: list[Item]
    first_id: str
    last_id: str
    has_more: bool


class ItemQuery(Struct, kw_only=True):
    """Which page of items is shown."""

    limit: Annotated[int, Meta(ge=1, le=100)] = 20
    order: Literal["asc", "desc"] = "desc"
    after: Identifier | None = None
    before: Identifier | None = None


def page(items: Sequence[Item], query: ItemQuery) -> ItemList:
    """The page of the items that is asked for."""
    listed = list(items) if query.order == "asc" else list(reversed(items))
    found, more = cut(listed, query.limit, query.after, query.before)
    return ItemList(data=list(found), first_id=found[0].id if found else "", last_id=found[-1].id if found else "",
                    has_more=more)
