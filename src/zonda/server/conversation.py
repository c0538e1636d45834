"""From a chat request to what the model's template renders."""
from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from zonda.errors import InvalidRequest, Unsupported
from zonda.server.decode import check_depth
from zonda.server.schema import ChatMessage, ChatRequest, Part

if TYPE_CHECKING:
    from zonda.sdk import AsyncLLM

TEMPLATE_KEYS = frozenset({"enable_thinking", "thinking", "thinking_budget", "reasoning_effort", "preserve_thinking",
                           "clear_thinking", "date_string"})
"""Variables that a request may hand to the chat template."""
MAX_VALUE = 1000  # characters of such a variable
_TEXTS = frozenset({"text", "input_text", "output_text"})
_MEDIA = frozenset({"image_url", "input_image", "image", "audio_url", "input_audio", "video_url", "file", "input_file"})
_NO_THOUGHT = frozenset({"off", "none"})


def render(llm: AsyncLLM, body: ChatRequest) -> tuple[int, ...]:
    """The prompt that the model's template makes of the request's messages."""
    return llm.render(messages(body), tools=tools(body), **variables(body))


def messages(body: ChatRequest) -> list[dict[str, Any]]:
    """The messages as they came, with every part of a content checked."""
    if isinstance(body.messages, str):
        return [{"role": "user", "content": body.messages}]
    return [_message(each, f"messages[{index}]") for index, each in enumerate(body.messages)]


def _message(message: ChatMessage, place: str) -> dict[str, Any]:
    check_depth(message.tool_calls, f"{place}.tool_calls")
    extra = {"tool_calls": message.tool_calls or None, "name": message.name, "tool_call_id": message.tool_call_id,
             "reasoning_content": message.reasoning_content or message.reasoning}
    return {"role": message.role, "content": _content(message, f"{place}.content"),
            **{name: value for name, value in extra.items() if value is not None}}


def _content(message: ChatMessage, place: str) -> str | list[dict[str, str]] | None:
    if isinstance(message.content, list):
        return [{"type": "text", "text": _text(part, f"{place}[{index}]")}
                for index, part in enumerate(message.content)]
    if message.content is None and message.role != "assistant":
        raise InvalidRequest(f"`{place}` is missing", hint="expected a text or a list of parts", param=place)
    return message.content


def _text(part: Part, place: str) -> str:
    if part.type in _MEDIA:
        raise Unsupported(f"`{place}` is not text, and this model takes text alone", param=place)
    text = part.refusal if part.type == "refusal" else part.text
    if part.type not in _TEXTS and part.type != "refusal":
        raise InvalidRequest(f"`{place}.type` is not known", hint="expected 'text'", param=f"{place}.type")
    if text is None:
        raise InvalidRequest(f"`{place}.text` is missing", param=f"{place}.text", code="missing_required_parameter")
    return text


def tools(body: ChatRequest) -> Sequence[dict[str, Any]] | None:
    """The tools to show the model; what would have to force or forbid a call is refused."""
    if body.tool_choice not in (None, "none", "auto"):
        raise Unsupported("only `tool_choice` auto and none are supported", param="tool_choice")
    if not body.tools or body.tool_choice == "none":
        return None
    for index, tool in enumerate(body.tools):
        if tool.get("type") != "function" or not isinstance(tool.get("function"), dict):
            raise InvalidRequest(f"`tools[{index}]` is not a function tool", param=f"tools[{index}]",
                                 hint="expected {\"type\": \"function\", \"function\": {...}}")
    check_depth(body.tools, "tools")
    return body.tools


def variables(body: ChatRequest) -> dict[str, Any]:
    """What the request says to the template beside its messages."""
    given = dict(body.chat_template_kwargs or {})
    for name, value in given.items():
        _check_variable(name, value)
    if body.reasoning_effort:
        silent = body.reasoning_effort in _NO_THOUGHT
        if silent and body.enable_thinking:
            raise InvalidRequest("`reasoning_effort` and `enable_thinking` contradict each other",
                                 param="reasoning_effort")
        given |= {"enable_thinking": not silent}
        given |= {} if silent else {"reasoning_effort": body.reasoning_effort}
    return given if body.enable_thinking is None else given | {"enable_thinking": body.enable_thinking}


def _check_variable(name: str, value: Any) -> None:
    if name not in TEMPLATE_KEYS:
        raise InvalidRequest("`chat_template_kwargs` has a key that requests may not set", param="chat_template_kwargs",
                             hint=f"known: {', '.join(sorted(TEMPLATE_KEYS))}")
    if not isinstance(value, bool | int | float | str | None) or len(str(value)) > MAX_VALUE:
        raise InvalidRequest(f"`chat_template_kwargs.{name}` is not a plain, short value",
                             param=f"chat_template_kwargs.{name}")


def check_format(body: ChatRequest) -> None:
    """Refuse a form of answer that is not enforced; never ignore it."""
    if body.response_format and body.response_format.type != "text":
        raise Unsupported("only the `response_format` text is supported", param="response_format")
