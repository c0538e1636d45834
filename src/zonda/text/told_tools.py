"""Conversations with tools for chat templates that know of none: told in plain words, in the form most models know."""
from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from zonda.text.conversation import Message

_TOLD = """You can call functions to help with the user's request. These are their signatures in JSON:
<tools>
{tools}
</tools>
To call a function, answer with its name and arguments as a JSON object between these marks, and nothing else:
<tool_call>
{{"name": "function name", "arguments": {{"argument": "value"}}}}
</tool_call>
Call a function only if it helps; else answer in words. Results of calls come between <tool_response> marks."""
_SHORT = 9  # characters of a call's id in Mistral's templates
_LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def told(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> list[Message]:
    """The tools as a part of the system's words, and calls and results as text."""
    found = [_plain(message) for message in messages]
    if not tools:
        return found
    words = _TOLD.format(tools="\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools))
    if found and found[0]["role"] in ("system", "developer"):
        return [found[0] | {"content": _joined(found[0].get("content"), words)}, *found[1:]]
    return [{"role": "system", "content": words}, *found]


def _plain(message: Message) -> Message:
    if message["role"] == "tool":
        return {"role": "user", "content": f"<tool_response>\n{_text(message.get('content'))}\n</tool_response>"}
    calls = message.get("tool_calls")
    if not isinstance(calls, list) or not calls:
        return message
    written = "\n".join(f"<tool_call>\n{_call(call)}\n</tool_call>" for call in calls)
    rest = {name: value for name, value in message.items() if name != "tool_calls"}
    return rest | {"content": _joined(message.get("content"), written)}


def _call(call: Any) -> str:
    function = call.get("function", call) if isinstance(call, dict) else {}
    return json.dumps({"name": function.get("name"), "arguments": function.get("arguments", {})}, ensure_ascii=False)


def _joined(content: Any, words: str) -> Any:
    if isinstance(content, list):
        return [*content, {"type": "text", "text": words}]
    return f"{content}\n\n{words}" if content else words


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return "" if content is None else str(content)


def short_ids(messages: Sequence[Message]) -> list[Message]:
    """Ids of calls as nine letters and digits, the same for the same, as Mistral's templates want them."""
    result = []
    for message in messages:
        if isinstance(message.get("tool_call_id"), str):
            message = message | {"tool_call_id": _short(message["tool_call_id"])}
        if isinstance(message.get("tool_calls"), list):
            message = message | {"tool_calls": [
                call | {"id": _short(str(call.get("id", index)))} if isinstance(call, dict) else call
                for index, call in enumerate(message["tool_calls"])]}
        result.append(message)
    return result


def _short(id: str) -> str:
    if len(id) == _SHORT and id.isalnum() and id.isascii():
        return id
    digest = hashlib.sha256(id.encode("utf-8", "replace")).digest()
    return "".join(_LETTERS[byte % len(_LETTERS)] for byte in digest[:_SHORT])
