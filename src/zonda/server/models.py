"""`/v1/models`: what is served, and loading and unloading by request."""
from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from zonda.errors import ModelNotFound, Unsupported, ZondaError
from zonda.server import errors
from zonda.server.anthropic_schema import AnthropicModel, AnthropicModels, ModelQuery
from zonda.server.call import Call
from zonda.server.decode import missing
from zonda.server.paging import cut
from zonda.server.schema import ModelCard, ModelList, ModelRequest, ModelStatus
from zonda.server.served import Served

ANTHROPIC = b"anthropic-version"
"""The header of clients that speak Anthropic's API."""
_WORDS = {"ok": "loaded"}


async def list_all(call: Call, query: ModelQuery) -> ModelList | AnthropicModels:
    """All models, loaded or not, as the client's API has them: Anthropic's a page at a time."""
    cards = [_card(call, each) for each in call.service.registry]
    if not _anthropics(call):
        return ModelList(data=cards)
    found, more = cut([_described(card) for card in cards], query.limit, query.after_id, query.before_id,
                      fields=("after_id", "before_id"))
    return AnthropicModels(data=list(found), first_id=found[0].id if found else None,
                           last_id=found[-1].id if found else None, has_more=more)


async def get(call: Call) -> ModelCard | AnthropicModel:
    """One model, by its id, which may have slashes."""
    served = call.service.registry.find(call.scope["path_params"]["id"])
    if not served.name:
        raise ModelNotFound("there is no model of this name yet", hint="the model is still loading", param="model")
    card = _card(call, served)
    return _described(card) if _anthropics(call) else card


def _anthropics(call: Call) -> bool:
    """Whether the client speaks Anthropic's API."""
    return ANTHROPIC in call.headers


def _described(card: ModelCard) -> AnthropicModel:
    made = datetime.fromtimestamp(card.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return AnthropicModel(id=card.id, display_name=card.id, created_at=made, max_input_tokens=card.max_model_len,
                          max_tokens=card.max_model_len)


def _card(call: Call, served: Served) -> ModelCard:
    facts = served.facts
    return ModelCard(id=served.title, created=facts.created if facts else 0, root=served.title,
                     aliases=list(served.model.aliases), max_model_len=facts.max_len if facts else None,
                     capabilities=list(facts.capabilities) if facts else None, status=_status(call, served))


def _status(call: Call, served: Served) -> str:
    """What a model is doing, in the words of the models' routes."""
    state = served.state(call.service.options.stall_timeout)
    return "reloading" if state == "loading" and served.facts else _WORDS.get(state, state)


async def load(call: Call, body: ModelRequest) -> None:
    """Load a model, and answer when it is there."""
    await _change(call, body, call.service.registry.load)


async def unload(call: Call, body: ModelRequest) -> None:
    """Unload a model, and answer when its requests have ended and its memory is free; or give up its loading."""
    await _change(call, body, call.service.registry.unload)


async def status(call: Call, body: ModelRequest) -> None:
    """Say what a model is doing."""
    async def look(name: str) -> Served:
        return call.service.registry.find(name)

    await _change(call, body, look)


async def _change(call: Call, body: ModelRequest, change: Callable[[str], Awaitable[Served]]) -> None:
    name = body.model if body.model_id is None else body.model_id
    if name is None:
        raise missing("model_id")
    try:
        async with call.flight():
            served = await change(name)
    except ZondaError as error:
        told = errors.told(error).error
        call.code = told.code
        word = "not_found" if isinstance(error, ModelNotFound) else "failed"
        if isinstance(error, Unsupported):
            word = "no_loader_config"
        await call.reply(ModelStatus(model_id=name, status=word, error=told), status=errors.status_of(error),
                         headers=errors.headers_of(error))
        return
    call.model = served.title
    await call.reply(ModelStatus(model_id=served.title, status=_status(call, served)))
