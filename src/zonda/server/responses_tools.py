"""Tools of the Responses API as a chat has them. Those of a namespace are told to the model as `NAMESPACE__NAME`."""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from zonda.errors import InvalidRequest, Unsupported
from zonda.server import custom_tools
from zonda.server.decode import check_depth, missing, needed
from zonda.server.responses_actions import CALLS, LocalShellTool, PatchTool, ShellTool
from zonda.server.responses_schema import ContextFields
from zonda.server.responses_tool_schema import Choice, CustomFormat, CustomTool, FunctionTool, NamespaceTool, Tool
from zonda.server.tools import check_name, check_parameters
from zonda.turns import Named, ToolChoice
from zonda.types import Grammar

Called = FunctionTool | CustomTool | LocalShellTool | ShellTool | PatchTool
Offered = Called | NamespaceTool


class Known(NamedTuple):
    """A tool that can be called, and the namespace that it is in."""

    tool: Called
    namespace: str | None = None


def qualified(name: str, namespace: str | None) -> str:
    """The name that the model knows a tool by."""
    return f"{namespace}__{name}" if namespace else name


def known(tools: Sequence[Offered]) -> dict[str, Known]:
    """The tools that can be called, by the names that the model knows them by."""
    found = [Known(each, tool.name if isinstance(tool, NamespaceTool) else None) for tool in tools
             for each in (tool.tools if isinstance(tool, NamespaceTool) else [tool])]
    return {qualified(each.tool.name, each.namespace): each for each in found}


def tools_of(body: ContextFields) -> list[Offered]:
    """The tools, all of which the client runs. Web searches, which agents offer wherever they are, are left out."""
    return [_offered(tool, f"tools[{index}]") for index, tool in enumerate(body.tools or ())
            if not tool.type.startswith("web_search")]


def _offered(tool: Tool, place: str) -> Offered:
    if tool.type in CALLS:
        return _action(tool, place)
    if tool.type != "namespace":
        return _tool(tool, place)
    return NamespaceTool(name=needed(tool, "name", place), description=tool.description,
                         tools=[_tool(each, at) for at, each in _members(tool, place)])


def _members(tool: Tool, place: str) -> Iterator[tuple[str, Tool]]:
    """A tool, or those of a namespace, each with its place."""
    if tool.type != "namespace":
        yield place, tool
        return
    if tool.tools is None:
        raise missing(f"{place}.tools")
    for index, each in enumerate(tool.tools):
        yield f"{place}.tools[{index}]", _read(each, f"{place}.tools[{index}]")


def _action(tool: Tool, place: str) -> LocalShellTool | ShellTool | PatchTool:
    if tool.type != ShellTool.name:
        return PatchTool() if tool.type == PatchTool.name else LocalShellTool()
    if tool.environment is not None and tool.environment.get("type") != "local":
        raise Unsupported(f"`{place}.environment` is none of the client's, and there are no containers here",
                          param=f"{place}.environment", hint='expected {"type": "local"}')
    return ShellTool(environment=tool.environment)


def _tool(tool: Tool, place: str) -> FunctionTool | CustomTool:
    if tool.type not in ("function", "custom"):
        raise Unsupported(f"`{place}.type` is a tool that this server does not have", param=f"{place}.type",
                          hint="expected function and custom tools, namespaces of them, local_shell, shell or "
                          "apply_patch")
    if tool.function is not None:
        tool = _read({**tool.function, "type": "function", "function": None}, f"{place}.function")
    if not tool.name:
        raise missing(f"{place}.name")
    check_name(tool.name, f"{place}.name")
    if tool.type == "custom":
        return CustomTool(name=tool.name, description=tool.description, format=_custom(tool, f"{place}.format"))
    check_depth(tool.parameters, f"{place}.parameters")
    check_parameters(tool.parameters, f"{place}.parameters")
    return FunctionTool(name=tool.name, description=tool.description, parameters=tool.parameters, strict=tool.strict)


def _read(given: dict[str, Any], place: str) -> Tool:
    try:
        return msgspec.convert(given, Tool)
    except msgspec.ValidationError:
        raise InvalidRequest(f"`{place}` is no function", param=place,
                             hint='expected {"name": ..., "parameters": {...}}') from None


def _custom(tool: Tool, place: str) -> CustomFormat:
    found = tool.format or CustomFormat(type="text")
    for name in ("syntax", "definition") if found.type == "grammar" else ():
        needed(found, name, place)
    return found if found.type == "grammar" else CustomFormat(type="text")


def grammars_of(body: ContextFields) -> list[tuple[str, Grammar]]:
    """The grammars of custom tools, with the fields that they come from."""
    return [(f"{place}.format.definition", Grammar(tool.format.syntax or "lark", tool.format.definition or ""))
            for index, given in enumerate(body.tools or ()) for place, tool in _members(given, f"tools[{index}]")
            if tool.format and tool.format.type == "grammar"]


def patterns_of(tools: Sequence[Offered]) -> dict[str, str]:
    """What the texts of custom tools must match, by the names that the model knows them by."""
    return custom_tools.patterns({
        name: Grammar(each.tool.format.syntax or "lark", each.tool.format.definition or "")
        for name, each in known(tools).items()
        if isinstance(each.tool, CustomTool) and each.tool.format.type == "grammar"})


def as_chat(tools: Sequence[Offered]) -> list[dict[str, Any]]:
    """Tools as a chat has them."""
    about = {tool.name: tool.description for tool in tools if isinstance(tool, NamespaceTool)}
    return [{"type": "function", "function": _function(each.tool, name, about.get(each.namespace or ""))}
            for name, each in known(tools).items()]


def _function(tool: Called, name: str, group: str | None) -> dict[str, Any]:
    """The function; `group` describes its namespace."""
    description = "\n\n".join(filter(None, (group, tool.description))) or None
    if isinstance(tool, CustomTool):
        return custom_tools.function(name, description, tool.format.syntax, tool.format.definition)
    return {key: value for key, value in (("name", name), ("description", description),
                                          ("parameters", tool.parameters), ("strict", tool.strict))
            if value is not None}


def choice_of(body: ContextFields) -> tuple[ToolChoice, tuple[str, ...]]:
    """Which tool must be called, and which may be."""
    choice = body.tool_choice
    if not isinstance(choice, Choice):
        return choice or "auto", ()
    names = known(tools_of(body))
    if choice.type in ("function", "custom"):
        if not choice.name:
            raise missing("tool_choice.name")
        return Named(_resolved(choice.name, names)), ()
    if choice.type in CALLS:
        return Named(choice.type), ()
    if choice.type == "allowed_tools":
        return choice.mode or "auto", tuple(name for index, tool in enumerate(choice.tools or ())
                                            for name in _allowed(tool, index, names))
    raise Unsupported("`tool_choice.type` is not supported", param="tool_choice.type",
                      hint="expected function, custom, allowed_tools, local_shell, shell or apply_patch")


def _resolved(name: str, names: Mapping[str, Known]) -> str:
    """The name by which the model knows the tool that is called so, be it in a namespace."""
    inside = [full for full, each in names.items() if each.tool.name == name]
    return name if name in names or len(inside) != 1 else inside[0]


def _allowed(tool: Mapping[str, Any], index: int, names: Mapping[str, Known]) -> list[str]:
    place = f"tool_choice.tools[{index}]"
    function = tool.get("function")
    name = function.get("name") if isinstance(function, Mapping) else tool.get("name")
    if tool.get("type") in CALLS:
        return [tool["type"]]
    if tool.get("type") not in ("function", "custom", "namespace") or not isinstance(name, str):
        raise InvalidRequest(f"`{place}` is no tool that is known", param=place,
                             hint='expected {"type": "function", "name": ...}')
    if tool["type"] == "namespace":
        return [full for full, each in names.items() if each.namespace == name]
    return [_resolved(name, names)]
