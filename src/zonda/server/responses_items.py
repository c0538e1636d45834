"""Items of responses and conversations: their ids, and pages of them."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from zonda.server.paging import Page, PageQuery, page
from zonda.server.responses_schema import Item
from zonda.server.schema import Identifier


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


class ItemList(Page[Item], kw_only=True):
    """A page of items."""


class ItemQuery(PageQuery, kw_only=True):
    """Which page of items is shown."""

    order: Literal["asc", "desc"] = "desc"
    before: Identifier | None = None


def item_page(items: Sequence[Item], query: ItemQuery) -> ItemList:
    """The page of the items that is asked for."""
    return page(ItemList, items, query, query.before)
