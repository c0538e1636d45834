"""From what the Messages API is asked to a turn of a conversation."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from zonda.errors import InvalidRequest, Unsupported
from zonda.server import sampling
from zonda.server.anthropic_schema import AnthropicMessage, Block, CountRequest, MessageRequest, Source
from zonda.server.anthropic_tools import choice_of, function_of
from zonda.server.decode import check_depth, needed
from zonda.server.formats import Wanted, wanted_form
from zonda.server.responses_writer import unseal
from zonda.server.thinking import told
from zonda.turns import Turn, taken_off
from zonda.types import Grammar, Sampling

MEDIA = frozenset({"image", "document", "container_upload"})
VOLATILE = "x-anthropic-billing-header"
"""How a line begins that clients put before their system text. It differs from request to request and says nothing to
the model; with it no two prompts would begin alike."""


def turn_of(body: CountRequest) -> Turn:
    """The turn that a request asks for."""
    if body.mcp_servers:
        raise Unsupported("`mcp_servers` is not supported", param="mcp_servers", hint="offer their tools as `tools`")
    if body.container is not None:
        raise Unsupported("`container` is not supported: there are no containers and skills here", param="container")
    wanted = body.tool_choice
    messages = _messages(body)
    begins = bool(messages) and messages[-1]["role"] == "assistant"
    return Turn(begun=taken_off(messages, thinks=thinks(body)) if begins else "", messages=messages,
                tools=[function_of(each, f"tools[{n}]") for n, each in enumerate(body.tools or ())],
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
    for index, message in enumerate(body.messages):
        place = f"messages[{index}].content"
        found += _said(message, place) if message.role == "assistant" else _heard(message, place)
    return found


def _system(system: str | list[Block] | None) -> str:
    if system is None or isinstance(system, str):
        return _steady(system or "")
    texts = [_steady(_text(block, f"system[{index}]")) for index, block in enumerate(system)]
    return "\n\n".join(filter(None, texts))


def _steady(text: str) -> str:
    return text.partition("\n")[2] if text.startswith(VOLATILE) else text


def _heard(message: AnthropicMessage, place: str) -> list[dict[str, Any]]:
    """A message of the user or the system: results of tools are messages of their own, in their order."""
    if isinstance(message.content, str):
        return [{"role": message.role, "content": message.content}]
    found: list[dict[str, Any]] = []
    texts: list[str] = []
    for index, block in enumerate(message.content):
        where = f"{place}[{index}]"
        if block.type == "tool_result":
            found += _spoken(message.role, texts)
            texts = []
            found.append({"role": "tool", "tool_call_id": needed(block, "tool_use_id", where),
                          "content": _result(block, f"{where}.content")})
        else:
            texts.append(_text(block, where))
    return found + _spoken(message.role, texts)


def _spoken(role: str, texts: Sequence[str]) -> list[dict[str, Any]]:
    if not texts:
        return []
    content = texts[0] if len(texts) == 1 else [{"type": "text", "text": text} for text in texts]
    return [{"role": role, "content": content}]


def _said(message: AnthropicMessage, place: str) -> list[dict[str, Any]]:
    if isinstance(message.content, str):
        return [{"role": "assistant", "content": message.content}]
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[dict[str, Any]] = []
    for index, block in enumerate(message.content):
        where = f"{place}[{index}]"
        match block.type:
            case "thinking":
                thoughts.append(block.thinking or unseal(block.signature or ""))
            case "redacted_thinking":
                thoughts.append(unseal(block.data or ""))
            case "tool_use":
                calls.append(_call(block, where))
            case _:
                texts.append(_text(block, where))
    said: dict[str, Any] = {"role": "assistant", "content": "".join(texts)}
    if thought := "".join(thoughts):
        said["reasoning_content"] = thought
    return [said | {"tool_calls": calls} if calls else said]


def _call(block: Block, place: str) -> dict[str, Any]:
    if not isinstance(block.input, dict):
        raise InvalidRequest(f"`{place}.input` is not an object", param=f"{place}.input")
    check_depth(block.input, f"{place}.input")
    function = {"name": needed(block, "name", place), "arguments": msgspec.json.encode(block.input).decode()}
    return {"id": needed(block, "id", place), "type": "function", "function": function}


def _result(block: Block, place: str) -> str:
    said = _lines(block.content, place, _text)
    return f"Error: {said}" if block.is_error else said


def _lines(content: str | Sequence[Block] | None, place: str, read: Callable[[Block, str], str]) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(read(each, f"{place}[{index}]") for index, each in enumerate(content))


def _text(block: Block, place: str) -> str:
    match block.type:
        case "document" if isinstance(block.source, Source) and block.source.type in ("text", "content"):
            return "\n".join(filter(None, (block.title, block.context, _document(block.source, f"{place}.source"))))
        case "search_result":
            return "\n".join(filter(None, (block.title, _lines(block.content, f"{place}.content", _plain))))
        case "compaction":
            return _lines(block.content, f"{place}.content", _plain)
        case "tool_reference":
            return needed(block, "tool_name", place)
    return _plain(block, place)


def _plain(block: Block, place: str) -> str:
    """A text alone, as documents and search results are made of."""
    if block.type == "text":
        return needed(block, "text", place)
    if block.type in MEDIA:
        raise Unsupported(f"`{place}` is not text, and this model takes text alone", param=place)
    raise InvalidRequest(f"`{place}.type` is not known here", param=f"{place}.type",
                         hint="expected text, thinking, redacted_thinking, tool_use or tool_result, as the role allows")


def _document(source: Source, place: str) -> str:
    return _lines(source.content, f"{place}.content", _plain) if source.data is None else source.data


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
