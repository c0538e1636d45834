"""Conversations in the shapes that chat templates can render."""
from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from zonda.errors import InvalidRequest, Unsupported

Message = dict[str, Any]

DEEPEST = 64
ROLES = ("system", "developer", "user", "assistant", "tool")
TEXT_PARTS = frozenset({"text", "input_text", "output_text"})
BETWEEN = "\n\n"
THOUGHTS = ("reasoning_content", "thinking", "reasoning")
"""What templates call a message's reasoning."""


def checked(messages: Sequence[Mapping[str, Any]]) -> list[Message]:
    """Messages as plain data, each with a role that there is."""
    if isinstance(messages, str | Mapping) or not isinstance(messages, Sequence):
        raise InvalidRequest(f"`messages` is {type(messages).__name__}, expected a list of messages", param="messages")
    found = [plain(message, f"messages[{index}]") for index, message in enumerate(messages)]
    for index, message in enumerate(found):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise InvalidRequest(f"`messages[{index}]` is no message with a role", param=f"messages[{index}]",
                                 hint='expected {"role": "user", "content": "..."}')
        if message["role"] not in ROLES:
            raise InvalidRequest(f"`messages[{index}].role` is {message['role']!r:.40}",
                                 param=f"messages[{index}].role", hint=f"expected one of {', '.join(ROLES)}")
    return found


def checked_tools(tools: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Tools as plain data."""
    found = plain(tools, "tools")
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise InvalidRequest("`tools` is no list of tools", param="tools")
    return found


def plain(value: Any, place: str, depth: int = DEEPEST) -> Any:
    """A copy of the value, which must be made of mappings, lists, texts, numbers, truth values and None."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return str(value)
    if depth and isinstance(value, Mapping):
        return {str(name): plain(each, f"{place}.{name}", depth - 1) for name, each in value.items()}
    if depth and isinstance(value, list | tuple):
        return [plain(each, f"{place}[{index}]", depth - 1) for index, each in enumerate(value)]
    what = f"is nested deeper than {DEEPEST}" if not depth else f"is {type(value).__name__}"
    raise InvalidRequest(f"`{place}` {what}, expected plain data", param=place)


def flat(messages: Sequence[Message]) -> list[Message]:
    """Contents as texts, for a template that takes no lists of parts."""
    return [message | {"content": _flat(message["content"], f"messages[{index}].content")}
            if isinstance(message.get("content"), list) else message for index, message in enumerate(messages)]


def _flat(parts: list[Any], place: str) -> str:
    texts: list[str] = []
    for index, part in enumerate(parts):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in TEXT_PARTS:
            raise Unsupported(f"`{place}[{index}]` is of type {kind!r:.40}, but the model's chat template takes text",
                              param=place)
        texts.append(str(part.get("text", "")))
    return "\n".join(texts)


def in_parts(messages: Sequence[Message]) -> list[Message]:
    """Contents as lists of parts, for a template that takes no texts."""
    return [message | {"content": [{"type": "text", "text": message["content"]}]}
            if isinstance(message.get("content"), str) else message for message in messages]


def parsed_arguments(messages: Sequence[Message]) -> list[Message]:
    """Tool calls with their arguments as objects, as templates expect, where a request has them as JSON."""
    return _with_arguments(messages, _parsed)


def written_arguments(messages: Sequence[Message]) -> list[Message]:
    """Tool calls with their arguments as JSON, as a few templates expect."""
    return _with_arguments(messages, lambda arguments: json.dumps(arguments, ensure_ascii=False))


def _with_arguments(messages: Sequence[Message], change: Callable[[Any], Any]) -> list[Message]:
    def call(each: Any) -> Any:
        function = each.get("function") if isinstance(each, dict) else None
        if not isinstance(function, dict) or "arguments" not in function:
            return each
        return each | {"function": function | {"arguments": change(function["arguments"])}}

    return [message | {"tool_calls": [call(each) for each in message["tool_calls"]]}
            if isinstance(message.get("tool_calls"), list) else message for message in messages]


def _parsed(arguments: Any) -> Any:
    if not isinstance(arguments, str):
        return arguments
    try:
        found = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        return arguments
    return found if isinstance(found, dict) else arguments


def without_developer(messages: Sequence[Message]) -> list[Message]:
    """The developer speaks as the system."""
    return [message | {"role": "system"} if message["role"] == "developer" else message for message in messages]


def filled(messages: Sequence[Message]) -> list[Message]:
    """No message without content."""
    return [message | {"content": ""} if message.get("content") is None else message for message in messages]


def thoughts_named(messages: Sequence[Message]) -> list[Message]:
    """Reasoning under every name that templates know it by."""
    return [dict.fromkeys(THOUGHTS, thought) | message | {THOUGHTS[0]: thought}
            if (thought := _thought(message)) else message for message in messages]


def thoughts_said(messages: Sequence[Message]) -> list[Message]:
    """Reasoning as the beginning of the content, for a template that takes one of them beside tool calls."""
    return [{name: value for name, value in message.items() if name not in THOUGHTS}
            | {"content": f"{thought}{BETWEEN}{message['content']}"}
            if (thought := _thought(message)) and message.get("tool_calls") and isinstance(message.get("content"), str)
            else message for message in messages]


def _thought(message: Message) -> Any:
    return next((thought for name in THOUGHTS if (thought := message.get(name))), None)


def system_first(messages: Sequence[Message]) -> list[Message]:
    """What the system says after the beginning becomes a user's words."""
    start = _start(messages)
    return [*messages[:start], *map(_as_user, messages[start:])]


def without_system(messages: Sequence[Message]) -> list[Message]:
    """What the system says becomes the beginning of what the first user says, or after that a user's words."""
    start, known = _start(messages), system_first(messages)
    said, rest = known[:start], known[start:]
    if not said:
        return rest
    if not rest or rest[0]["role"] != "user":
        return [joined([_as_user(message) for message in said]), *rest]
    return [joined([*map(_as_user, said), rest[0]]), *rest[1:]]


def _start(messages: Sequence[Message]) -> int:
    """How many messages the system begins with."""
    return next((index for index, message in enumerate(messages) if message["role"] != "system"), len(messages))


def _as_user(message: Message) -> Message:
    return message | {"role": "user"} if message["role"] == "system" else message


def alternating(messages: Sequence[Message]) -> list[Message]:
    """No two messages of one role in a row, but for tools."""
    runs: list[list[Message]] = []
    for message in messages:
        if runs and runs[-1][-1]["role"] == message["role"] != "tool":
            runs[-1].append(message)
        else:
            runs.append([message])
    return [joined(run) for run in runs]


def joined(messages: Sequence[Message]) -> Message:
    """One message of what several of one role say."""
    if len(messages) == 1:
        return messages[0]
    whole = {name: value for message in messages for name, value in message.items()}
    calls = [call for message in messages for call in message.get("tool_calls") or ()]
    contents = [content for message in messages if (content := message.get("content"))]
    if all(isinstance(content, str) for content in contents):
        whole["content"] = BETWEEN.join(contents)
    else:
        whole["content"] = [part for content in contents for part in _in_parts(content)]
    return whole | ({"tool_calls": calls} if calls else {})


def _in_parts(content: Any) -> list[Any]:
    return content if isinstance(content, list) else [{"type": "text", "text": content}]


FORMS: tuple[tuple[Callable[[Sequence[Message]], list[Message]], ...], ...] = (
    (), (filled,), (filled, written_arguments), (filled, thoughts_said), (filled, alternating), (filled, system_first),
    (filled, system_first, alternating), (filled, without_system), (filled, without_system, alternating))
"""What is changed, one after another, when a template does not take a conversation as it is."""


def forms(messages: list[Message]) -> Iterator[list[Message]]:
    """The conversation as it is, then in each other form that differs."""
    seen: list[list[Message]] = []
    for changes in FORMS:
        form = messages
        for change in changes:
            form = change(form)
        if form not in seen:
            seen.append(form)
            yield form
