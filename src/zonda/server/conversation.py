"""From a chat request to a turn of a conversation."""
from __future__ import annotations

from typing import Any

from msgspec import structs

from zonda.errors import InvalidRequest, Unsupported
from zonda.server.chat_schema import ChatMessage, ChatRequest, Part
from zonda.server.custom_tools import arguments, customs, patterns
from zonda.server.decode import check_depth, needed, no_text
from zonda.server.not_offered import check_offered
from zonda.server.thinking import told
from zonda.server.tools import check_function, choice_of, function_tools, name_of
from zonda.turns import Named, ToolChoice, Turn, taken_off
from zonda.types import Grammar, Sampling

_TEXTS = frozenset({"text", "input_text", "output_text"})
_MEDIA = frozenset({"image_url", "input_image", "image", "audio_url", "input_audio", "video_url", "file", "input_file"})


def turn(body: ChatRequest, sampling: Sampling, form: Grammar | None) -> Turn:
    """What the request asks for; `form` is the form of the answer."""
    check_offered(body)
    if body.modalities and "audio" in body.modalities:
        raise Unsupported("this model answers with text alone", param="modalities")
    choice, allowed = choice_of(body.tool_choice)
    tools = function_tools(body.tools or ())
    if body.functions is not None or body.function_call is not None:
        tools, choice = _functions(body)
    parallel = body.parallel_tool_calls is not False and body.functions is None
    said, given = messages(body.messages), told(_plainly(body))
    begun, end = ending(said, body.continue_final_message, body.add_generation_prompt,
                        thinks=bool(given.get("enable_thinking")))
    return Turn(messages=said, tools=tools, choice=choice, allowed=allowed, parallel=parallel, format=form,
                patterns=patterns(customs(body.tools or ())), variables=given | end, sampling=sampling, begun=begun)


_TYPES = {"enabled": True, "disabled": False}


def _plainly(body: ChatRequest) -> ChatRequest:
    """The request with what `thinking` and `reasoning` say in the fields of all routes, as far as these are open."""
    wanted: dict[str, Any] = {}
    if isinstance(body.thinking, bool):
        wanted["enable_thinking"] = body.thinking
    elif body.thinking:
        wanted = {"enable_thinking": _TYPES.get(body.thinking.type), "thinking_budget": body.thinking.budget_tokens}
    if asked := body.reasoning:
        wanted |= {"enable_thinking": asked.enabled, "reasoning_effort": asked.effort,
                   "thinking_budget": asked.max_tokens}
    return structs.replace(body, **{name: value for name, value in wanted.items() if getattr(body, name) is None})


def ending(said: list[dict[str, Any]], goes_on: bool | None, prompts: bool | None, *,
           thinks: bool) -> tuple[str, dict[str, Any]]:
    """What begins the answer, taken off the messages, and what to tell the template about the prompt's end.

    `goes_on` and `prompts` are `continue_final_message` and `add_generation_prompt`.
    """
    if not goes_on:
        return "", {} if prompts is None else {"add_generation_prompt": prompts}
    if prompts:
        raise InvalidRequest("`continue_final_message` and `add_generation_prompt` exclude each other",
                             param="continue_final_message")
    return taken_off(said, thinks=thinks), {}


def _functions(body: ChatRequest) -> tuple[list[dict[str, Any]], ToolChoice]:
    """Tools and choice under their old names."""
    if body.tools or body.tool_choice is not None:
        raise InvalidRequest("`functions` and `tools` cannot be used together", param="functions")
    functions = body.functions or []
    check_depth(functions, "functions")
    for index, function in enumerate(functions):
        check_function(function, f"functions[{index}]")
    choice: ToolChoice = "auto"
    if isinstance(body.function_call, dict):
        choice = Named(name_of(body.function_call, "function_call"))
    elif body.function_call is not None:
        choice = body.function_call
    return [{"type": "function", "function": function} for function in functions], choice


def messages(given: str | list[ChatMessage]) -> list[dict[str, Any]]:
    """The messages as they came, with every part of a content checked."""
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    return [_message(each, f"messages[{index}]") for index, each in enumerate(given)]


def _message(message: ChatMessage, place: str) -> dict[str, Any]:
    calls = _calls(message, place)
    role = "tool" if message.role == "function" else message.role
    extra = {"tool_calls": calls or None, "name": message.name, "tool_call_id": message.tool_call_id,
             "reasoning_content": message.reasoning_content or message.reasoning}
    return {"role": role, "content": _content(message, f"{place}.content"),
            **{name: value for name, value in extra.items() if value is not None}}


def _calls(message: ChatMessage, place: str) -> list[dict[str, Any]]:
    """The calls that a message made, checked."""
    if message.function_call is not None:
        calls, names = [{"type": "function", "function": message.function_call}], [f"{place}.function_call"]
    else:
        calls = message.tool_calls or []
        names = [f"{place}.tool_calls[{index}]" for index in range(len(calls))]
    check_depth(calls, f"{place}.tool_calls")
    calls = [_as_function(call) for call in calls]
    for call, name in zip(calls, names):
        function = call.get("function")
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise InvalidRequest(f"`{name}` is no call of a function", param=name,
                                 hint='expected {"id": ..., "type": "function", "function": {"name", "arguments"}}')
        if not isinstance(function.get("arguments", ""), str | dict):
            raise InvalidRequest(f"`{name}.function.arguments` is no text", param=f"{name}.function.arguments")
    return calls


def _as_function(call: dict[str, Any]) -> dict[str, Any]:
    """A call of a custom tool as that of the function that stands for it."""
    custom = call.get("custom")
    if call.get("type") != "custom" or not isinstance(custom, dict) or not isinstance(custom.get("input"), str):
        return call
    function = {"name": custom.get("name"), "arguments": arguments(custom["input"])}
    return {"id": call.get("id"), "type": "function", "function": function}


def _content(message: ChatMessage, place: str) -> str | list[dict[str, str]] | None:
    if isinstance(message.content, list):
        return [{"type": "text", "text": _text(part, f"{place}[{index}]")}
                for index, part in enumerate(message.content)]
    if message.content is None and message.refusal:
        return message.refusal
    if message.content is None and message.role not in ("assistant", "function", "tool"):
        raise InvalidRequest(f"`{place}` is missing", hint="expected a text or a list of parts", param=place)
    return message.content


def _text(part: Part, place: str) -> str:
    if part.type in _MEDIA:
        raise no_text(part.type, place)
    if part.type not in _TEXTS and part.type != "refusal":
        raise InvalidRequest(f"`{place}.type` is not known", hint="expected 'text'", param=f"{place}.type")
    return needed(part, "refusal" if part.type == "refusal" else "text", place)
