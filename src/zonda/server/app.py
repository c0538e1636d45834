"""All routes in one place, and the application made of them."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route, Router, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from zonda.options import ServerOptions
from zonda.server import (
    anthropic,
    chat,
    completions,
    conversations,
    embeddings,
    models,
    operations,
    responses,
    responses_socket,
    stored_chats,
    tokenizing,
    ui,
)
from zonda.server.anthropic_schema import (
    AnsweredMessage,
    AnthropicErrorReply,
    AnthropicModel,
    AnthropicModels,
    CountRequest,
    MessageEvent,
    MessageRequest,
    ModelQuery,
    TokensCount,
)
from zonda.server.chat_schema import ChatChunk, ChatCompletion, ChatRequest
from zonda.server.conversations import (
    Conversation,
    ConversationDeleted,
    ConversationRequest,
    ConversationUpdate,
    ItemsRequest,
)
from zonda.server.embeddings import EmbeddingList, EmbeddingRequest, Ranking, RerankRequest
from zonda.server.endpoint import Endpoint, Methods
from zonda.server.errors import Envelope
from zonda.server.front import Front
from zonda.server.paging import PageQuery
from zonda.server.registry import Registry
from zonda.server.responses_events import ResponseEvent
from zonda.server.responses_items import ItemList, ItemQuery
from zonda.server.responses_schema import (
    Compacted,
    CompactRequest,
    Deleted,
    InputTokensRequest,
    Item,
    Response,
    ResponseQuery,
    ResponseRequest,
    TokenCount,
)
from zonda.server.schema import (
    About,
    CompletionRequest,
    Diagnosis,
    Health,
    Machine,
    ModelCard,
    ModelList,
    ModelRequest,
    ModelStatus,
    TextCompletion,
)
from zonda.server.served import Model
from zonda.server.service import Service
from zonda.server.stored_chats import ChatDeleted, ChatList, ChatsQuery, ChatUpdate, MessageList
from zonda.server.tokenizing import Detokenized, DetokenizeRequest, Tokenized, TokenizeRequest
from zonda.types import Progress

if TYPE_CHECKING:
    from zonda.sdk import AsyncLLM

DEFAULTS = ServerOptions()
NOT_LOADED = dict.fromkeys((400, 404, 503), ModelStatus)
ENDPOINTS = (
    Endpoint(method="POST", path="/v1/chat/completions", answer=chat.create, summary="Answer a conversation",
             body=ChatRequest, reply=ChatCompletion, events=ChatChunk),
    Endpoint(method="GET", path="/v1/chat/completions", answer=stored_chats.list_all,
             summary="List stored chat completions", query=ChatsQuery, reply=ChatList),
    Endpoint(method="GET", path="/v1/chat/completions/{id}", answer=stored_chats.get,
             summary="Show a stored chat completion", reply=ChatCompletion),
    Endpoint(method="POST", path="/v1/chat/completions/{id}", answer=stored_chats.update,
             summary="Note something about a stored chat completion", body=ChatUpdate, reply=ChatCompletion),
    Endpoint(method="DELETE", path="/v1/chat/completions/{id}", answer=stored_chats.delete,
             summary="Forget a stored chat completion", reply=ChatDeleted),
    Endpoint(method="GET", path="/v1/chat/completions/{id}/messages", answer=stored_chats.list_messages,
             summary="List what led to a stored chat completion", query=PageQuery, reply=MessageList),
    Endpoint(method="POST", path="/v1/completions", answer=completions.create, summary="Continue texts or token ids",
             body=CompletionRequest, reply=TextCompletion, events=TextCompletion),
    Endpoint(method="POST", path="/v1/messages", answer=anthropic.create,
             summary="Answer a conversation, as Anthropic's API has it", body=MessageRequest,
             reply=AnsweredMessage, events=MessageEvent, error=AnthropicErrorReply),
    Endpoint(method="POST", path="/v1/messages/count_tokens", answer=anthropic.count,
             summary="Count the tokens of a conversation", body=CountRequest, reply=TokensCount,
             error=AnthropicErrorReply),
    Endpoint(method="POST", path="/v1/responses", answer=responses.create, summary="Write a response",
             body=ResponseRequest, reply=Response, events=ResponseEvent),
    Endpoint(method="POST", path="/v1/responses/input_tokens", answer=responses.input_tokens,
             summary="Count the tokens of a prompt", body=InputTokensRequest, reply=TokenCount),
    Endpoint(method="POST", path="/v1/responses/compact", answer=responses.compact,
             summary="Put a conversation into fewer tokens", body=CompactRequest, reply=Compacted),
    Endpoint(method="GET", path="/v1/responses/{id}", answer=responses.get, summary="Show a response",
             query=ResponseQuery, reply=Response, events=ResponseEvent),
    Endpoint(method="DELETE", path="/v1/responses/{id}", answer=responses.delete, summary="Forget a response",
             reply=Deleted),
    Endpoint(method="POST", path="/v1/responses/{id}/cancel", answer=responses.cancel,
             summary="Cancel a response", reply=Response),
    Endpoint(method="GET", path="/v1/responses/{id}/input_items", answer=responses.input_items,
             summary="List what led to a response", query=ItemQuery, reply=ItemList),
    Endpoint(method="POST", path="/v1/conversations", answer=conversations.create, summary="Begin a conversation",
             body=ConversationRequest, reply=Conversation),
    Endpoint(method="GET", path="/v1/conversations/{id}", answer=conversations.get, summary="Describe a conversation",
             reply=Conversation),
    Endpoint(method="POST", path="/v1/conversations/{id}", answer=conversations.update,
             summary="Note something about a conversation", body=ConversationUpdate, reply=Conversation),
    Endpoint(method="DELETE", path="/v1/conversations/{id}", answer=conversations.delete,
             summary="Forget a conversation", reply=ConversationDeleted),
    Endpoint(method="GET", path="/v1/conversations/{id}/items", answer=conversations.list_items,
             summary="List the items of a conversation", query=ItemQuery, reply=ItemList),
    Endpoint(method="POST", path="/v1/conversations/{id}/items", answer=conversations.add_items,
             summary="Add items to a conversation", body=ItemsRequest, reply=ItemList),
    Endpoint(method="GET", path="/v1/conversations/{id}/items/{item}", answer=conversations.get_item,
             summary="Show an item of a conversation", reply=Item),  # type: ignore[arg-type]
    Endpoint(method="DELETE", path="/v1/conversations/{id}/items/{item}", answer=conversations.delete_item,
             summary="Take an item out of a conversation", reply=Conversation),
    Endpoint(method="POST", path="/v1/embeddings", answer=embeddings.embed, summary="Embed texts, where the model can",
             body=EmbeddingRequest, reply=EmbeddingList),
    *(Endpoint(method="POST", path=path, answer=embeddings.rerank, body=RerankRequest, reply=Ranking,
               summary="Sort documents by relevance, where the model can") for path in ("/v1/rerank", "/rerank")),
    Endpoint(method="POST", path="/tokenize", answer=tokenizing.tokenize, summary="Turn text into token ids",
             body=TokenizeRequest, reply=Tokenized),
    Endpoint(method="POST", path="/detokenize", answer=tokenizing.detokenize, summary="Turn token ids into text",
             body=DetokenizeRequest, reply=Detokenized),
    Endpoint(method="GET", path="/version", answer=operations.about, summary="Name and version", reply=About,
             quiet=True),
    Endpoint(method="GET", path="/v1/models", answer=models.list_all, summary="List the models",
             query=ModelQuery, reply=ModelList, also=AnthropicModels),
    Endpoint(method="POST", path="/v1/models/load", answer=models.load, summary="Load a model",
             body=ModelRequest, reply=ModelStatus, failures=NOT_LOADED),
    Endpoint(method="POST", path="/v1/models/reload", answer=models.load, summary="Load a model (another name)",
             body=ModelRequest, reply=ModelStatus, failures=NOT_LOADED),
    Endpoint(method="POST", path="/v1/models/unload", answer=models.unload, summary="Unload a model",
             body=ModelRequest, reply=ModelStatus, failures=NOT_LOADED),
    Endpoint(method="POST", path="/v1/models/status", answer=models.status, summary="Tell what a model is doing",
             body=ModelRequest, reply=ModelStatus, failures={404: ModelStatus}),
    Endpoint(method="GET", path="/v1/models/{id:path}", answer=models.get, summary="Describe a model",
             reply=ModelCard, also=AnthropicModel),
    Endpoint(method="GET", path="/v1/system/info", answer=operations.machine, summary="Tell what the server runs on",
             reply=Machine),
    Endpoint(method="POST", path="/v1/system/doctor", answer=operations.diagnosis, summary="Say what the machine lacks",
             reply=Diagnosis),
    Endpoint(method="GET", path="/health", answer=operations.health, summary="Tell whether requests are taken",
             reply=Health, failures={503: Health}, quiet=True, open=True),
    Endpoint(method="GET", path="/metrics", answer=operations.metrics, summary="Prometheus metrics",
             media="text/plain", quiet=True),
    Endpoint(method="GET", path="/openapi.json", answer=operations.document, summary="This document", quiet=True),
    Endpoint(method="GET", path="/docs", answer=operations.docs, summary="This document as a page",
             media="text/html", quiet=True),
    Endpoint(method="GET", path="/", answer=operations.about, summary="Name and version", reply=About, quiet=True),
    Endpoint(method="GET", path=ui.HOME, answer=ui.page, summary="Chat in the browser", media="text/html",
             quiet=True, open=True),
    Endpoint(method="GET", path=ui.HOME + "/{file:path}", answer=ui.file, summary="The files of that page",
             media="*/*", quiet=True, open=True),
)

ENVELOPES: Mapping[str, Envelope] = dict.fromkeys(("/v1/messages", "/messages", "/v1/v1/messages"),
                                               anthropic.ENVELOPE)
"""Beginnings of the paths whose errors have a form of their own."""
SPOKEN: Mapping[bytes, Envelope] = {models.ANTHROPIC: anthropic.ENVELOPE}
"""Headers of clients that expect that form on all paths."""


Models: TypeAlias = "AsyncLLM | Mapping[str, AsyncLLM] | Sequence[Model] | Callable[[Progress], AsyncLLM]"
"""One loaded model; several by the names to serve them under; models with all that there is to say of them; or what
loads the one model."""


def create_app(models: Models, options: ServerOptions = DEFAULTS) -> ASGIApp:
    """An ASGI application that serves one model under its name, or several."""
    return application(service(models, options))


def service(models: Models, options: ServerOptions, *, default: str | None = None) -> Service:
    """What the routes share; `default` names the model that answers who names none, the first one unless given."""
    registry = Registry(described(models), options, default=default)
    left_out = [path for path, served in (("/metrics", options.metrics), (ui.HOME, options.ui)) if not served]
    return Service(registry, options, [each for each in ENDPOINTS
                                       if not any(f"{each.path}/".startswith(f"{path}/") for path in left_out)])


def described(models: Models) -> Sequence[Model]:
    """The models in the one form that says everything."""
    if isinstance(models, Mapping):
        return [Model(name=name, llm=llm) for name, llm in models.items()]
    if isinstance(models, Sequence):
        return models
    return [Model(load=models) if callable(models) else Model(llm=models)]


def application(service: Service) -> ASGIApp:
    """The application around a service."""
    paths: dict[str, dict[str, Endpoint]] = {}
    for each in service.endpoints:
        paths.setdefault(each.path, {}).setdefault(each.method, each)
    for path in [path for path in paths if path.startswith("/v1/")]:
        for other in (path.removeprefix("/v1"), f"/v1{path}"):  # for addresses without it, and with it twice
            paths.setdefault(other, paths[path])
    routes = [*(Route(path, Methods(methods), methods=list(methods)) for path, methods in paths.items()),
              *(WebSocketRoute(f"{before}/responses", responses_socket.Opened()) for before in ("/v1", "", "/v1/v1"))]
    router = Router(routes, redirect_slashes=False, default=_unknown)
    front: ASGIApp = Front(service, router, envelopes=ENVELOPES, spoken=SPOKEN)
    if service.options.cors_origin:
        front = CORSMiddleware(front, allow_origins=service.options.cors_origin, allow_methods=["*"],
                               allow_headers=["*"], expose_headers=["x-request-id", "request-id", "retry-after"])
    return front


async def _unknown(scope: Scope, receive: Receive, send: Send) -> None:
    raise HTTPException(404)
