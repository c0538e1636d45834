"""`/v1/models`."""
from __future__ import annotations

from typing import TYPE_CHECKING

from zonda.server.call import Call
from zonda.server.schema import ModelCard, ModelList

if TYPE_CHECKING:
    from zonda.sdk import AsyncLLM


async def list_all(call: Call) -> ModelList:
    """All models."""
    return ModelList(data=[_card(call, name, llm) for name, llm in call.service.models.items()])


async def get(call: Call) -> ModelCard:
    """One model, by its id, which may have slashes."""
    name = call.scope["path_params"]["id"]
    return _card(call, name, call.service.find(name))


def _card(call: Call, name: str, llm: AsyncLLM) -> ModelCard:
    return ModelCard(id=name, created=llm.created, root=name, max_model_len=llm.engine.max_len,
                     status=call.service.state(llm))
