"""From what the Messages API is asked to a turn of a conversation."""
from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec

from zonda.errors import InvalidRequest, Unsupported
from zonda.server import sampling
from zonda.server.anthropic_blocks import CALLS, RESULTS, SILENT, result_of, text_of
from zonda.server.anthropic_schema import AnthropicMessage, Block, CountRequest, MessageRequest
from zonda.server.anthropic_tools import choice_of, functions_of
from zonda.server.decode import check_depth, needed
from zonda.server.formats import Wanted, wanted_form
from zonda.server.not_offered import check_offered
from zonda.server.responses_writer import unseal
from zonda.server.thinking import told
from zonda.turns import Turn, taken_off
from zonda.types import Grammar, Sampling

VOLATILE = "x-anthropic-billing-header"
"""How a line begins that clients put before their system text. It differs from request to request and says nothing to
the model; with it no two prompts would begin alike."""


def turn_of(body: CountRequest) -> Turn:
    """The turn that a request asks for."""
    check_offered(body)
    if body.mcp_servers:
        raise Unsupported("`mcp_servers` is not supported", param="mcp_servers", hint="offer their tools as `tools`")
    if body.container is not None:
        raise Unsupported("`container` is not supported: there are no containers and skills here", param="container")
    wanted = body.tool_choice
    messages = _messages(body)
    begins = bool(messages) and messages[-1]["role"] == "assistant"
    return Turn(begun=taken_off(messages, thinks=thinks(body)) if begins else "", messages=messages,
                tools=functions_of(body.tools or ()),
                choice=choice_of(wanted), parallel=not (wanted and wanted.disable_parallel_tool_use),
                format=form_of(body)[1], variables=_variables(body))


def sampling_of(body: MessageRequest) -> Sampling:
    """How tokens are drawn."""
    if body.n not in (None, 1):
        raise Unsupported("`n` is not supported: a message is one answer", param="n")
    found = sampling.sampling_of(body, max_tokens=body.max_tokens)
    return found if body.stop_sequences is None else replace(found, stop=tuple(body.stop_sequences))


def thinks(body: CountRequest) -> bool:
    """Whether thinking is asked for."""
    return bool(told(body).get("enable_thinking")) if body.thinking is None else body.thinking.type != "disabled"


def _messages(body: CountRequest) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    system = _system(body.system)
    if system:
        found.append({"role": "system", "content": system})
    users = [index for index, message in enumerate(body.messages) if message.role == "user"]
    for index, message in enumerate(body.messages):
        if message.clear_at != "next_user_message" or not users or users[-1] < index:
            found += _told(message, f"messages[{index}].content")
    return found


def _system(system: str | list[Block] | None) -> str:
    if system is None or isinstance(system, str):
        return _steady(system or "")
    texts = [_steady(text_of(block, f"system[{index}]")) for index, block in enumerate(system)]
    return "\n\n".join(filter(None, texts))


def _steady(text: str) -> str:
    return text.partition("\n")[2] if text.startswith(VOLATILE) else text


def _told(message: AnthropicMessage, place: str) -> list[dict[str, Any]]:
    """A message as those of chats: results of tools are messages of their own, in their order."""
    if isinstance(message.content, str):
        return [{"role": message.role, "content": message.content}]
    if not message.content and message.role != "assistant":
        raise InvalidRequest(f"`{place}` is empty, expected at least one block", param=place)
    found: list[dict[str, Any]] = []
    said = _Said(message.role)
    for index, block in enumerate(message.content):
        where = f"{place}[{index}]"
        if block.type in RESULTS:
            found += said.taken()
            found.append({"role": "tool", "tool_call_id": needed(block, "tool_use_id", where),
                          "content": result_of(block, where)})
        elif block.type not in SILENT:
            said.add(block, where)
    return found + said.taken(whole=not found and message.role == "assistant")


class _Said:
    """What one role says until a tool answers."""

    def __init__(self, role: str) -> None:
        self._role = role
        self._clear()

    def _clear(self) -> None:
        self._texts, self._thoughts, self._calls = list[str](), list[str](), list[dict[str, Any]]()

    def add(self, block: Block, place: str) -> None:
        """Take in one more block; only the model thinks and calls."""
        if self._role != "assistant":
            self._texts.append(text_of(block, place))
        elif block.type == "thinking":
            self._thoughts.append(block.thinking or unseal(block.signature or ""))
        elif block.type == "redacted_thinking":
            self._thoughts.append(unseal(block.data or ""))
        elif block.type in CALLS:
            self._calls.append(_call(block, place))
        else:
            self._texts.append(text_of(block, place))

    def taken(self, *, whole: bool = False) -> list[dict[str, Any]]:
        """The message until now, if there is one; with `whole` there is."""
        texts, thought, calls = self._texts, "".join(self._thoughts), self._calls
        self._clear()
        if not (whole or texts or thought or calls):
            return []
        if self._role != "assistant":
            content = texts[0] if len(texts) == 1 else [{"type": "text", "text": text} for text in texts]
            return [{"role": self._role, "content": content}]
        said: dict[str, Any] = {"role": "assistant", "content": "".join(texts)}
        said |= {"reasoning_content": thought} if thought else {}
        return [said | {"tool_calls": calls} if calls else said]


def _call(block: Block, place: str) -> dict[str, Any]:
    if not isinstance(block.input, dict):
        raise InvalidRequest(f"`{place}.input` is not an object", param=f"{place}.input")
    check_depth(block.input, f"{place}.input")
    function = {"name": needed(block, "name", place), "arguments": msgspec.json.encode(block.input).decode()}
    return {"id": needed(block, "id", place), "type": "function", "function": function}


def form_of(body: CountRequest) -> Wanted | tuple[str, None]:
    """The form that the answer's text must have, and the field that says it."""
    wanted = (body.output_config and body.output_config.format) or body.output_format
    if wanted is None:
        return wanted_form(body)
    field = "output_config.format.schema"
    check_depth(wanted.schema, field)
    return wanted_form(body, (field, Grammar("json_schema", msgspec.json.encode(wanted.schema).decode())))


def _variables(body: CountRequest) -> dict[str, Any]:
    effort = body.output_config.effort if body.output_config else None
    asked = told(body, effort) | {"enable_thinking": thinks(body)}
    budget = body.thinking.budget_tokens if body.thinking and body.thinking.type == "enabled" else None
    return asked if budget is None else asked | {"thinking_budget": budget}
