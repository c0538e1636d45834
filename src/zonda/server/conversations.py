"""`/v1/conversations`: lists of items that responses continue and add to."""
from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Literal

from msgspec import Meta, Struct

from zonda.errors import InvalidRequest, Unsupported
from zonda.server.call import Call
from zonda.server.errors import NotFound
from zonda.server.responses_input import read
from zonda.server.responses_items import ItemList, ItemQuery, Names, item_page
from zonda.server.responses_schema import ConversationId, InputItem, Item
from zonda.server.responses_store import Talk
from zonda.server.schema import Metadata

Added = Annotated[list[InputItem], Meta(max_length=20)]


class ConversationRequest(Struct, kw_only=True):
    """A conversation to begin."""

    items: Added | None = None
    metadata: Metadata | None = None


class ConversationUpdate(Struct, kw_only=True):
    """What to note about a conversation."""

    metadata: Metadata | None


class ItemsRequest(Struct, kw_only=True):
    """Items to add to a conversation."""

    items: Added


class Conversation(Struct, kw_only=True):
    """A conversation, without its items."""

    id: str
    object: Literal["conversation"] = "conversation"
    created_at: int
    metadata: dict[str, str]


class ConversationDeleted(Struct, kw_only=True):
    """A conversation that is no more."""

    id: str
    object: Literal["conversation.deleted"] = "conversation.deleted"
    deleted: bool = True


async def create(call: Call, body: ConversationRequest) -> Conversation:
    """Begin a conversation."""
    store = call.service.conversations
    if not store.keeps:
        raise Unsupported("this server keeps no conversations", hint="raise --stored-responses")
    talk = Talk(f"conv_{secrets.token_hex(16)}", int(time.time()), body.metadata or {}, _items(body.items or []),
                call.owner)
    store.put(talk)
    return _shown(talk)


async def get(call: Call) -> Conversation:
    """Describe a conversation."""
    return _shown(_found(call))


async def update(call: Call, body: ConversationUpdate) -> Conversation:
    """Note something else about a conversation."""
    talk = _found(call)
    talk.metadata = body.metadata or {}
    call.service.conversations.settle(talk)
    return _shown(talk)


async def delete(call: Call) -> ConversationDeleted:
    """Forget a conversation; the responses that belong to it stay."""
    talk = _found(call)
    call.service.conversations.drop(talk.id)
    return ConversationDeleted(id=talk.id)


async def list_items(call: Call, query: ItemQuery) -> ItemList:
    """The items of a conversation, a page at a time."""
    return item_page(_found(call).items, query)


async def add_items(call: Call, body: ItemsRequest) -> ItemList:
    """Add items at the end of a conversation."""
    talk = _found(call)
    added = _items(body.items)
    talk.add(added)
    call.service.conversations.settle(talk)
    return item_page(added, ItemQuery(order="asc"))


async def get_item(call: Call) -> Item:
    """One item of a conversation."""
    return _item(call, _found(call))


async def delete_item(call: Call) -> Conversation:
    """Take an item out of a conversation."""
    talk = _found(call)
    talk.remove(_item(call, talk))
    call.service.conversations.settle(talk)
    return _shown(talk)


def talk_of(call: Call, named: str | ConversationId | None) -> Talk | None:
    """The conversation that a request names."""
    id = named.id if isinstance(named, ConversationId) else named
    if id is None:
        return None
    talk = call.service.conversations.get(id, call.owner)
    if talk is None:
        raise NotFound("there is no conversation of this id", hint="create one, or send the items themselves",
                       param="conversation", code="conversation_not_found")
    return talk


@asynccontextmanager
async def going_on(call: Call, named: str | ConversationId | None, response: str) -> AsyncIterator[Talk | None]:
    """The conversation that a request names, for this response alone until it ends, also in the background."""
    talk = talk_of(call, named)
    if talk is None:
        yield None
        return
    if talk.writer:
        raise InvalidRequest("another response goes on with this conversation now", param="conversation",
                             hint="wait until it has ended", code="conversation_locked")
    talk.writer = response
    try:
        yield talk
    finally:
        kept = call.service.responses.peek(response, call.owner)
        if kept is None or not kept.running:
            talk.free(response)


def kept_in(named: str | ConversationId | None) -> ConversationId | None:
    """What a response says of the conversation that it belongs to."""
    return ConversationId(named) if isinstance(named, str) else named


def _found(call: Call) -> Talk:
    talk = talk_of(call, call.scope["path_params"]["id"])
    assert talk
    return talk


def _item(call: Call, talk: Talk) -> Item:
    wanted = call.scope["path_params"]["item"]
    for item in talk.items:
        if item.id == wanted:
            return item
    raise NotFound("the conversation has no item of this id", param="item")


def _items(given: list[InputItem]) -> list[Item]:
    names = Names(secrets.token_hex(16))
    return [item for index, each in enumerate(given)
            for item in read(each, f"items[{index}]", names.next, lambda id: None)]


def _shown(talk: Talk) -> Conversation:
    return Conversation(id=talk.id, created_at=talk.created, metadata=talk.metadata)
