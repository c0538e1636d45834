"""What a request says to the chat template beside its messages."""
from __future__ import annotations

from typing import Any, Protocol

from zonda.effort import asked
from zonda.errors import InvalidRequest
from zonda.text.template import OWN
from zonda.types import Effort

_BUDGETS = ("thinking_budget", "thinking_token_budget", "thinking_budget_tokens")
MAX_VALUE = 1000  # characters of a variable


class Thinks(Protocol):
    """A request's fields for the chat template."""

    enable_thinking: bool | None
    reasoning_effort: Effort | None
    thinking_budget: int | None
    chat_template_kwargs: dict[str, Any] | None


def told(body: Thinks, effort: str | None = None) -> dict[str, Any]:
    """The template's variables; `effort` is what a field of the request's own protocol says."""
    given = dict(body.chat_template_kwargs or {})
    if given.keys() & OWN:
        raise InvalidRequest("`chat_template_kwargs` has a variable that requests may not set",
                             param="chat_template_kwargs")
    for name, value in given.items():
        if not isinstance(value, bool | int | float | str | None) or len(str(value)) > MAX_VALUE:
            raise InvalidRequest(f"`chat_template_kwargs.{name:.40}` is not a plain, short value",
                                 param=f"chat_template_kwargs.{name:.40}")
    budgets = (getattr(body, name, None) for name in _BUDGETS)
    budget = next((each for each in budgets if each is not None and each >= 0), None)
    return given | asked(body.enable_thinking, effort or body.reasoning_effort, budget)
