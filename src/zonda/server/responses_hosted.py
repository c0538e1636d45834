"""Calls of the tools that OpenAI has kinds of items for, made before and elsewhere: ordinary calls and outputs here."""
from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from zonda.errors import InvalidRequest, Unsupported
from zonda.server.decode import check_depth, missing, needed
from zonda.server.responses_actions import CALLS, arguments_of
from zonda.server.responses_schema import FunctionCall, FunctionCallOutput, InputItem, InputPart, Item

Name = Callable[[str], str]
NO_TEXT = frozenset({"computer_call", "computer_call_output", "image_generation_call"})
_ACTIONS = {"local_shell_call": "action", "shell_call": "action", "apply_patch_call": "operation"}
"""Calls whose outputs are items of their own, and the field that says what is to be done."""


def hosted(given: InputItem, place: str, name: Name) -> list[Item] | None:
    """What an item of such a tool stands for; None for one that is of none. Raises for what is no text."""
    kind = given.type or ""
    if kind in NO_TEXT:
        raise Unsupported(f"`{place}` stands for a picture, and this model takes text alone", param=place)
    if kind in _ACTIONS:
        tool, asked = kind.removesuffix("_call"), _asked(given, _ACTIONS[kind], place)
        return [_call(given, tool, arguments_of(CALLS[tool], asked), needed(given, "call_id", place), name)]
    match kind:
        case "mcp_list_tools":
            return []
        case "local_shell_call_output":
            return [_output(given.call_id or needed(given, "id", place), _text(given, place), name, given.id)]
        case "shell_call_output" | "apply_patch_call_output":
            said = _text(given, place)
            return [_output(needed(given, "call_id", place), f"Error: {said}" if given.status == "failed" else said,
                            name, given.id)]
        case "web_search_call":
            action = _asked(given, "action", place)
            sources = action.pop("sources", None) or ()
            return _both(given, "web_search", action, _joined(_at(each, "url") for each in sources), place, name)
        case "file_search_call":
            found = _joined(_joined((_at(each, "filename"), _at(each, "text"))) for each in given.results or ())
            return _both(given, "file_search", {"queries": given.queries or []}, found, place, name)
        case "code_interpreter_call":
            told = _joined(_log(each, f"{place}.outputs[{index}]") for index, each in enumerate(given.outputs or ()))
            return _both(given, "code_interpreter", {"code": given.code or ""}, told, place, name)
        case "mcp_call":
            failed = "" if given.error is None else f"Error: {_written(given.error)}"
            return _both(given, needed(given, "name", place), needed(given, "arguments", place),
                         _joined((failed, _text(given, place))), place, name)
    return None


def _both(given: InputItem, tool: str, arguments: Any, output: str, place: str, name: Name) -> list[Item]:
    """A call that has been answered."""
    id = needed(given, "id", place)
    return [_call(given, tool, arguments, id, name), _output(id, output, name)]


def _call(given: InputItem, tool: str, arguments: Any, call: str, name: Name) -> Item:
    return FunctionCall(id=given.id or name("fc"), call_id=call, name=tool, arguments=_written(arguments))


def _output(call: str, output: str, name: Name, id: str | None = None) -> Item:
    return FunctionCallOutput(id=name("fco") if id in (None, call) else id or "", call_id=call, output=output)


def _asked(given: InputItem, field: str, place: str) -> dict[str, Any]:
    found = getattr(given, field)
    if found is None:
        raise missing(f"{place}.{field}")
    check_depth(found, f"{place}.{field}")
    return dict(found)


def _text(given: InputItem, place: str) -> str:
    if given.output is None or isinstance(given.output, str):
        return given.output or ""
    if isinstance(given.output, dict):
        raise InvalidRequest(f"`{place}.output` is neither a text nor a list of parts", param=f"{place}.output")
    return _joined(map(_ran, given.output))


def _ran(part: InputPart) -> str:
    outcome = part.outcome or {}
    code = outcome.get("exit_code")
    ended = "Timed out" if outcome.get("type") == "timeout" else f"Exit code: {code}" if code else ""
    return _joined((part.text, part.stdout, part.stderr, ended))


def _log(output: dict[str, Any], place: str) -> str:
    if output.get("type") != "logs":
        raise Unsupported(f"`{place}` is a picture, and this model takes text alone", param=place)
    return _at(output, "logs")


def _at(value: Any, field: str) -> str:
    found = value.get(field) if isinstance(value, dict) else None
    return found if isinstance(found, str) else ""


def _written(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _joined(texts: Iterable[str | None]) -> str:
    return "\n".join(text.removesuffix("\n") for text in texts if text)
