"""Tools and the choice among them, in the forms in which requests have them."""
from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from zonda.errors import InvalidRequest, Unsupported
from zonda.server.custom_tools import custom_tool, function
from zonda.server.decode import check_depth
from zonda.turns import Named, ToolChoice

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_OBJECT = 'expected {"type": "object", "properties": {...}}'
_EXPECTED = 'expected {"type": "function", "function": {"name": ...}}'


def function_tools(given: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tools as functions in the shape of chat completions, whether they came in it or flat."""
    check_depth(given, "tools")
    return [_function_tool(tool, f"tools[{index}]") for index, tool in enumerate(given)]


def _function_tool(tool: dict[str, Any], place: str) -> dict[str, Any]:
    kind = tool.get("type")
    if kind == "custom":
        custom = custom_tool(tool, place)
        syntax, definition = (custom.grammar.syntax, custom.grammar.definition) if custom.grammar else (None, None)
        return {"type": "function", "function": function(custom.name, custom.description, syntax, definition)}
    if kind != "function":
        if isinstance(kind, str) and kind:
            raise Unsupported(f"`{place}` is of type {kind!r:.60}; only function and custom tools are supported",
                              param=place)
        raise InvalidRequest(f"`{place}` is not a function tool", param=place, hint=_EXPECTED)
    nested = "function" in tool
    given = tool["function"] if nested else {name: value for name, value in tool.items() if name != "type"}
    if not isinstance(given, dict):
        raise InvalidRequest(f"`{place}` is not a function tool", param=place, hint=_EXPECTED)
    check_function(given, f"{place}.function" if nested else place)
    return {"type": "function", "function": given}


def check_function(given: dict[str, Any], place: str) -> None:
    """Refuse a function without a usable name, or whose parameters are no schema of objects."""
    check_name(given.get("name"), f"{place}.name")
    check_parameters(given.get("parameters"), f"{place}.parameters")
    if not isinstance(given.get("description", ""), str | None):
        raise InvalidRequest(f"`{place}.description` is no text", param=f"{place}.description")
    if not isinstance(given.get("strict", False), bool | None):
        raise InvalidRequest(f"`{place}.strict` is not true or false", param=f"{place}.strict")


def check_name(name: Any, place: str) -> None:
    """Refuse what is no name of a tool."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidRequest(f"`{place}` is no name", param=place,
                             hint="expected up to 128 letters, digits, `_`, `-` and `.`")


def check_parameters(schema: Any, place: str) -> None:
    """Refuse what is no JSON schema, or one of other values than objects: arguments are an object."""
    if schema is None:
        return
    if not isinstance(schema, dict):
        raise InvalidRequest(f"`{place}` is no JSON schema", param=place, hint=_OBJECT)
    if schema.get("type") is not None and schema["type"] != "object" and schema["type"] != ["object"]:
        raise InvalidRequest(f"`{place}.type` is not \"object\"", param=f"{place}.type", hint=_OBJECT)


def choice_of(given: ToolChoice | dict[str, Any] | None) -> tuple[ToolChoice, tuple[str, ...]]:
    """The choice, and the names of the tools that are allowed; none for all."""
    if not isinstance(given, dict):
        return given or "auto", ()
    if given.get("type") == "allowed_tools":
        return _allowed(given)
    if given.get("type") in ("function", "custom"):
        return Named(name_of(given, "tool_choice")), ()
    raise InvalidRequest("`tool_choice` is not known", param="tool_choice",
                         hint='expected "auto", "none", "required", a function, or "allowed_tools"')


def name_of(given: Any, place: str) -> str:
    """The name of the function that a choice is for."""
    named = given.get("function", given.get("custom", given)) if isinstance(given, dict) else None
    name = named.get("name") if isinstance(named, dict) else None
    if not isinstance(name, str) or not name:
        raise InvalidRequest(f"`{place}` does not name a function", param=place,
                             hint='expected {"type": "function", "function": {"name": ...}}')
    return name


def _allowed(given: dict[str, Any]) -> tuple[ToolChoice, tuple[str, ...]]:
    inner = given.get("allowed_tools", given)
    tools = inner.get("tools") if isinstance(inner, dict) else None
    if not isinstance(tools, list) or not tools or inner.get("mode") not in ("auto", "required"):
        raise InvalidRequest("`tool_choice` has no usable allowed tools", param="tool_choice",
                             hint='expected {"mode": "auto" or "required", "tools": [...]}')
    return inner["mode"], tuple(name_of(tool, f"tool_choice.tools[{index}]") for index, tool in enumerate(tools))
