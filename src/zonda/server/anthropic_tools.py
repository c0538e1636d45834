"""Tools and the choice among them, as the Messages API has them. Those that Anthropic has named have schemas here:
clients run them, and send none."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zonda.errors import InvalidRequest, Unsupported
from zonda.server.anthropic_schema import AnthropicChoice, AnthropicTool
from zonda.server.decode import check_depth, missing
from zonda.server.tools import check_name, check_parameters
from zonda.turns import Named, ToolChoice

_TEXT, _NUMBER = {"type": "string"}, {"type": "integer"}
_EDIT: dict[str, Any] = {
    "path": _TEXT, "file_text": _TEXT, "old_str": _TEXT, "new_str": _TEXT, "insert_line": _NUMBER, "insert_text": _TEXT,
    "view_range": {"type": "array", "items": _NUMBER, "minItems": 2, "maxItems": 2}}
_COMMANDS = ["view", "create", "str_replace", "insert"]


def _schema(required: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [required]} if required else {
        "type": "object", "properties": properties}


_NAMED: dict[str, tuple[str, dict[str, Any]]] = {
    "bash_": ("Runs a command in a shell that stays open from call to call, or starts that shell anew.",
              _schema("", command=_TEXT, restart={"type": "boolean"})),
    "text_editor_": ("Looks at files and folders, makes files, and changes text in them.",
                     _schema("command", command={"type": "string", "enum": _COMMANDS}, **_EDIT)),
    "memory_": ("Keeps notes as files in a folder that stays from one conversation to the next.",
                _schema("command", command={"type": "string", "enum": [*_COMMANDS, "delete", "rename"]}, **_EDIT,
                        old_path=_TEXT, new_path=_TEXT))}
"""Descriptions and schemas, by what the types of tools begin with; the rest is a date."""


def functions_of(tools: Sequence[AnthropicTool]) -> list[dict[str, Any]]:
    """Tools in the shape of chat completions; no two have the same name."""
    found: dict[str, dict[str, Any]] = {}
    for index, tool in enumerate(tools):
        if tool.name in found:
            raise InvalidRequest(f"`tools[{index}].name` is that of another tool", param=f"tools[{index}].name")
        found[tool.name] = function_of(tool, f"tools[{index}]")
    return list(found.values())


def function_of(tool: AnthropicTool, place: str) -> dict[str, Any]:
    """A tool in the shape of chat completions."""
    check_name(tool.name, f"{place}.name")
    said, schema = tool.description, tool.input_schema
    if tool.type not in (None, "custom"):
        said, schema = _known(tool.type, place)
    if schema is None:
        raise missing(f"{place}.input_schema")
    check_depth(schema, f"{place}.input_schema")
    check_parameters(schema, f"{place}.input_schema")
    function: dict[str, Any] = {"name": tool.name, "parameters": schema} | ({"description": said} if said else {})
    return {"type": "function", "function": function | ({"strict": tool.strict} if tool.strict is not None else {})}


def _known(kind: str, place: str) -> tuple[str, dict[str, Any]]:
    for start, found in _NAMED.items():
        if kind.startswith(start) and kind[len(start):].isdigit():
            return found
    raise Unsupported(f"`{place}.type` is a tool that this server does not have", param=f"{place}.type",
                      hint="expected a tool with an `input_schema`, or one of bash, text_editor and memory")


def choice_of(choice: AnthropicChoice | None) -> ToolChoice:
    """Which tool must be used."""
    if choice is None or choice.type == "auto":
        return "auto"
    if choice.type == "tool":
        if not choice.name:
            raise missing("tool_choice.name")
        return Named(choice.name)
    return "required" if choice.type == "any" else "none"
