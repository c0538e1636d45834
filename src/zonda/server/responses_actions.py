"""Tools that OpenAI has named and that clients run: what models are told of them, and their calls as items."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import msgspec
from msgspec import Struct, field

ItemStatus = Literal["in_progress", "completed", "incomplete"]
_TEXT, _NUMBER, _TEXTS = {"type": "string"}, {"type": "integer"}, {"type": "array", "items": {"type": "string"}}


def _object(*required: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


class ActionTool(Struct, kw_only=True):
    """Such a tool; the model knows it as a function of this name."""

    name: ClassVar[str]
    description: ClassVar[str]
    parameters: ClassVar[dict[str, Any]]
    strict: ClassVar[bool] = True


class LocalShellTool(ActionTool, tag="local_shell", tag_field="type", kw_only=True):
    """A shell that runs one command."""

    name: ClassVar[str] = "local_shell"
    description: ClassVar[str] = "Runs a command, given as a list of its words."
    parameters: ClassVar[dict[str, Any]] = _object(
        "command", command=_TEXTS, env={"type": "object", "additionalProperties": _TEXT}, timeout_ms=_NUMBER,
        working_directory=_TEXT)


class ShellTool(ActionTool, tag="shell", tag_field="type", kw_only=True):
    """A shell that runs commands side by side."""

    name: ClassVar[str] = "shell"
    description: ClassVar[str] = "Runs commands of a shell, each by itself, side by side."
    parameters: ClassVar[dict[str, Any]] = _object("commands", commands=_TEXTS, max_output_length=_NUMBER,
                                                   timeout_ms=_NUMBER)
    environment: dict[str, Any] | None = None


class PatchTool(ActionTool, tag="apply_patch", tag_field="type", kw_only=True):
    """Changes to files."""

    name: ClassVar[str] = "apply_patch"
    description: ClassVar[str] = (
        "Makes, changes or deletes a file. The diff has a part for each change, begun by a line with @@; its other "
        "lines begin with a space if they stay, with - if they go and with + if they come. That of a new file has "
        "+ lines alone, that of a deleted file is empty.")
    parameters: ClassVar[dict[str, Any]] = _object(
        "type", "path", "diff", type={"type": "string", "enum": ["create_file", "update_file", "delete_file"]},
        path=_TEXT, diff=_TEXT)


class ActionCall(Struct, kw_only=True):
    """A call of such a tool: what is to be done."""

    tool: ClassVar[type[ActionTool]]
    empty: ClassVar[dict[str, Any]]
    """What an action has in any case."""
    id: str
    call_id: str
    action: dict[str, Any]
    status: ItemStatus = "completed"


class LocalShellCall(ActionCall, tag="local_shell_call", tag_field="type", kw_only=True):
    """A call of `local_shell`."""

    tool: ClassVar[type[ActionTool]] = LocalShellTool
    empty: ClassVar[dict[str, Any]] = {"type": "exec", "command": [], "env": {}}


class ShellCall(ActionCall, tag="shell_call", tag_field="type", kw_only=True):
    """A call of `shell`."""

    tool: ClassVar[type[ActionTool]] = ShellTool
    empty: ClassVar[dict[str, Any]] = {"commands": []}
    environment: None = None


class PatchCall(ActionCall, tag="apply_patch_call", tag_field="type", kw_only=True):
    """A call of `apply_patch`."""

    tool: ClassVar[type[ActionTool]] = PatchTool
    empty: ClassVar[dict[str, Any]] = {"type": "update_file", "path": "", "diff": ""}
    action: dict[str, Any] = field(name="operation")


CALLS: dict[str, type[LocalShellCall] | type[ShellCall] | type[PatchCall]] = {
    "local_shell": LocalShellCall, "shell": ShellCall, "apply_patch": PatchCall}
"""By the types of tools."""


def action_of(call: type[ActionCall], arguments: str) -> dict[str, Any]:
    """What the arguments of the model's call ask for."""
    try:
        found = msgspec.json.decode(arguments or "{}")
    except (msgspec.DecodeError, RecursionError):
        found = {}
    return call.empty | (found if isinstance(found, dict) else {})


def arguments_of(call: type[ActionCall], action: Mapping[str, Any]) -> str:
    """The arguments for which that is the action, as the model writes them."""
    known = {name: action.get(name) for name in call.tool.parameters["properties"]}
    return msgspec.json.encode({name: value for name, value in known.items() if value not in (None, {})}).decode()
