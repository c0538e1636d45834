"""All routes in one place, and the application made of them."""
from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route, Router
from starlette.types import ASGIApp

from zonda.options import ServerOptions
from zonda.server import chat, completions, models, operations
from zonda.server.chat_schema import ChatChunk, ChatCompletion, ChatRequest
from zonda.server.endpoint import Endpoint
from zonda.server.errors import Envelope
from zonda.server.front import Front
from zonda.server.schema import (
    About,
    CompletionRequest,
    Health,
    ModelCard,
    ModelList,
    TextCompletion,
)
from zonda.server.service import Service

if TYPE_CHECKING:
    from zonda.sdk import AsyncLLM

DEFAULTS = ServerOptions()
ENDPOINTS = (
    Endpoint(method="POST", path="/v1/chat/completions", answer=chat.create, summary="Answer a conversation",
             body=ChatRequest, reply=ChatCompletion, events=ChatChunk),
    Endpoint(method="POST", path="/v1/completions", answer=completions.create, summary="Continue texts or token ids",
             body=CompletionRequest, reply=TextCompletion, events=TextCompletion),
    Endpoint(method="GET", path="/v1/models", answer=models.list_all, summary="List the models", reply=ModelList),
    Endpoint(method="GET", path="/v1/models/{id:path}", answer=models.get, summary="Describe a model",
             reply=ModelCard),
    Endpoint(method="GET", path="/health", answer=operations.health, summary="Tell whether requests are taken",
             reply=Health, failures={503: Health}, quiet=True, open=True),
    Endpoint(method="GET", path="/metrics", answer=operations.metrics, summary="Prometheus metrics",
             media="text/plain", quiet=True),
    Endpoint(method="GET", path="/openapi.json", answer=operations.document, summary="This document", quiet=True),
    Endpoint(method="GET", path="/docs", answer=operations.docs, summary="This document as a page",
             media="text/html", quiet=True),
    Endpoint(method="GET", path="/", answer=operations.about, summary="Name and version", reply=About, quiet=True),
)

ENVELOPES: Mapping[str, Envelope] = {}
"""Beginnings of the paths whose errors have a form of their own."""


def create_app(llms: Mapping[str, AsyncLLM] | AsyncLLM, options: ServerOptions = DEFAULTS) -> ASGIApp:
    """An ASGI application that serves one model under its name, or several under the mapping's."""
    return application(service(llms if isinstance(llms, Mapping) else {llms.name: llms}, options))


def service(models: Mapping[str, AsyncLLM], options: ServerOptions) -> Service:
    """What the routes share."""
    return Service(models, options, [each for each in ENDPOINTS if options.metrics or each.path != "/metrics"])


def application(service: Service) -> ASGIApp:
    """The application around a service."""
    routes = [Route(each.path, each, methods=[each.method]) for each in service.endpoints]
    front: ASGIApp = Front(service, Router(routes, redirect_slashes=False), envelopes=ENVELOPES)
    if service.options.cors_origin:
        front = CORSMiddleware(front, allow_origins=service.options.cors_origin, allow_methods=["*"],
                               allow_headers=["*"], expose_headers=["x-request-id"])
    return front
