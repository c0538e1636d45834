"""What a chat template is told of reasoning: whether there is to be any, and how much."""
from __future__ import annotations

from typing import Any, get_args

from zonda.errors import InvalidRequest
from zonda.types import Effort

EFFORTS: tuple[Effort, ...] = get_args(Effort)
_SILENT = ("off", "none")


def asked(thinking: bool | None, effort: Any) -> dict[str, Any]:
    """The template's variables. An effort but `off` and `none` asks for reasoning, unless `thinking` says otherwise."""
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
    return given if thinking is None else given | {"enable_thinking": thinking}
