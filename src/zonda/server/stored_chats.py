"""`/v1/chat/completions` that were stored: listed, shown, noted and forgotten."""
from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, Struct, field, structs

from zonda.server.call import Call
from zonda.server.chat_schema import ChatCompletion, ChatRequest, StoredMessage
from zonda.server.conversation import messages
from zonda.server.errors import NotFound
from zonda.server.paging import Page, PageQuery, page
from zonda.server.responses_store import Chat
from zonda.server.schema import Metadata


class ChatsQuery(PageQuery, kw_only=True):
    """Which page of which stored chat completions is shown: those of a model, those with this metadata."""

    model: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)


class ChatUpdate(Struct, kw_only=True):
    """What to note about a stored chat completion."""

    metadata: Metadata | None


class ChatList(Page[ChatCompletion], kw_only=True):
    """A page of stored chat completions."""


class MessageList(Page[StoredMessage], kw_only=True):
    """A page of the messages that led to one."""


class ChatDeleted(Struct):
    """A stored chat completion that is no more."""

    id: str
    object: Literal["chat.completion.deleted"] = "chat.completion.deleted"
    deleted: bool = True


def keep(call: Call, body: ChatRequest, completion: ChatCompletion) -> None:
    """Store an answer, if the request wants that and the server keeps any; it tells of its metadata then."""
    store = call.service.chats
    if not (body.store and store.keeps):
        return
    completion.metadata = body.metadata or {}
    said = [_message(each, f"{completion.id}-{place}") for place, each in enumerate(messages(body.messages))]
    store.put(Chat(completion, said, call.owner))


def _message(said: dict[str, Any], id: str) -> StoredMessage:
    content = said["content"]
    parts = content if isinstance(content, list) else None
    return StoredMessage(id=id, role=said["role"], content=None if parts else content, content_parts=parts,
                         name=said.get("name"), tool_calls=said.get("tool_calls", UNSET),
                         tool_call_id=said.get("tool_call_id", UNSET))


async def list_all(call: Call, query: ChatsQuery) -> ChatList:
    """The client's stored chat completions, a page at a time."""
    chosen = [each.completion for each in call.service.chats.all(call.owner) if _fits(each.completion, query)]
    return page(ChatList, chosen, query)


def _fits(completion: ChatCompletion, query: ChatsQuery) -> bool:
    noted = completion.metadata or {}
    return query.model in (None, completion.model) and query.metadata.items() <= noted.items()


async def get(call: Call) -> ChatCompletion:
    """One that was stored."""
    return _found(call).completion


async def update(call: Call, body: ChatUpdate) -> ChatCompletion:
    """Note something else about one."""
    chat = _found(call)
    chat.completion = structs.replace(chat.completion, metadata=body.metadata or {})
    call.service.chats.settle(chat)
    return chat.completion


async def delete(call: Call) -> ChatDeleted:
    """Forget one."""
    chat = _found(call)
    call.service.chats.drop(chat.id)
    return ChatDeleted(chat.id)


async def list_messages(call: Call, query: PageQuery) -> MessageList:
    """The messages that led to one, a page at a time."""
    return page(MessageList, _found(call).messages, query)


def _found(call: Call) -> Chat:
    chat = call.service.chats.get(call.scope["path_params"]["id"], call.owner)
    if chat is None:
        raise NotFound("there is no chat completion of this id", hint="only those asked for with `store` true are kept",
                       param="id", code="chat_completion_not_found")
    return chat
