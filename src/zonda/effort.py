"""What a chat template is told of reasoning: whether there is to be any, and how much."""
from __future__ import annotations

from typing import Any, get_args

from zonda.errors import InvalidRequest
from zonda.types import Effort

EFFORTS: tuple[Effort, ...] = get_args(Effort)
_SILENT = ("off", "none")


def asked(thinking: bool | None, effort: Any, budget: Any = None) -> dict[str, Any]:
    """The template's variables. An effort but `off` and `none` asks for reasoning, unless `thinking` says otherwise.

    `budget` is the most tokens that may be reasoning; 0 asks for none.
    """
    given: dict[str, Any] = {}
    if effort is not None:
        if effort not in EFFORTS:
            raise InvalidRequest(f"`reasoning_effort` is {effort!r:.40}, expected one of {', '.join(EFFORTS)}",
                                 param="reasoning_effort")
        given = {"enable_thinking": False} if effort in _SILENT else {"enable_thinking": True,
                                                                      "reasoning_effort": effort}
    if thinking and effort in _SILENT:
        raise InvalidRequest("`reasoning_effort` and `enable_thinking` contradict each other",
                             param="reasoning_effort", hint="give one of them")
    if thinking is not None:
        given["enable_thinking"] = thinking
    if budget is not None:
        given |= _limited(budget, asks=bool(given.get("enable_thinking")))
    return given


def _limited(budget: Any, *, asks: bool) -> dict[str, Any]:
    if type(budget) is not int or budget < 0:
        raise InvalidRequest(f"`thinking_budget` is {budget!r:.40}, expected a whole number of tokens",
                             param="thinking_budget")
    if asks and not budget:
        raise InvalidRequest("`thinking_budget` is 0, but reasoning is asked for", param="thinking_budget",
                             hint="give one of them")
    return {"thinking_budget": budget} if budget else {"thinking_budget": 0, "enable_thinking": False}
