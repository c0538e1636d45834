"""Custom tools, which take any text: the model is told of a function with one argument, and its text is taken out."""
from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from zonda.errors import InvalidRequest
from zonda.text.dialects.tools import sound
from zonda.text.regular import expression
from zonda.types import Grammar

ARGUMENT = "input"
_OPENING = re.compile(rf'\s*{{\s*"{ARGUMENT}"\s*:\s*"')
_WHOLE = re.compile(r'''(?: [^"\\] | \\[^u]
                         | \\u(?![dD][89abAB])[0-9a-fA-F]{4}        # a character of its own
                         | \\u[dD][89abAB]..(?:\\u....|(?=[^\\]|\\[^u]))  # half of one, with what follows
                         )*''', re.DOTALL | re.VERBOSE)


class CustomGrammar(Struct):
    """A grammar in chat completions."""

    syntax: Literal["lark", "regex"]
    definition: str


class CustomForm(Struct):
    """What a text must look like."""

    type: Literal["text", "grammar"]
    grammar: CustomGrammar | None = None


class CustomTool(Struct):
    """A custom tool in chat completions."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,128}$")]
    description: str | None = None
    format: CustomForm | None = None

    @property
    def grammar(self) -> CustomGrammar | None:
        return self.format.grammar if self.format and self.format.type == "grammar" else None


def custom_tool(tool: Mapping[str, Any], place: str) -> CustomTool:
    """A custom tool that was given, nested or flat; `place` is where."""
    place, given = (f"{place}.custom", tool["custom"]) if "custom" in tool else (place, tool)
    try:
        found = msgspec.convert(given, CustomTool)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"`{place}` is no custom tool: {error}", param=place,
                             hint='expected {"name": ..., "format": {"type": "text"}}') from None
    if found.format and found.format.type == "grammar" and not found.format.grammar:
        raise InvalidRequest(f"`{place}.format.grammar` is missing", param=f"{place}.format.grammar")
    return found


def customs(tools: Sequence[Mapping[str, Any]]) -> dict[str, Grammar | None]:
    """The names of the custom tools among the tools of a chat, with what their texts must follow."""
    found = [custom_tool(tool, f"tools[{place}]") for place, tool in enumerate(tools) if tool.get("type") == "custom"]
    return {each.name: Grammar(each.grammar.syntax, each.grammar.definition) if each.grammar else None
            for each in found}


def patterns(grammars: Mapping[str, Grammar | None]) -> dict[str, str]:
    """What the texts of custom tools must match, as expressions, by name; without grammars that are none."""
    found = {name: expression(grammar.source) if grammar.kind == "lark" else grammar.source
             for name, grammar in grammars.items() if grammar}
    return {name: each for name, each in found.items() if each is not None}


def function(name: str, description: str | None, syntax: str | None, definition: str | None) -> dict[str, Any]:
    """The function that stands for a custom tool; `definition` is a grammar that its text must follow."""
    given: dict[str, Any] = {"type": "string"}
    said = [description] if description else []
    if definition is not None:
        said.append(f"`{ARGUMENT}` must follow this {syntax} grammar:\n{definition}")
    if syntax == "regex":
        given["pattern"] = f"^(?:{definition})$"
    return {"name": name, "description": "\n\n".join(said), "parameters": {
        "type": "object", "properties": {ARGUMENT: given}, "required": [ARGUMENT], "additionalProperties": False}}


def arguments(text: str) -> str:
    """The arguments of that function for a text."""
    return json.dumps({ARGUMENT: text}, ensure_ascii=False)


def text(arguments: str) -> str:
    """The text for which those are the arguments."""
    taken = Input()
    return taken.feed(arguments) + taken.finish()


class Input:
    """Takes the text out of a function's arguments while they come."""

    def __init__(self) -> None:
        self._opened = self._closed = False
        self._held = ""

    def feed(self, piece: str) -> str:
        """What a piece of the arguments adds to the text."""
        self._held += piece
        if not self._opened and (found := _OPENING.match(self._held)):
            self._opened, self._held = True, self._held[found.end():]
        if not self._opened or self._closed:
            return ""
        found = _WHOLE.match(self._held)
        whole = found[0] if found else ""
        self._held = self._held[len(whole):]
        self._closed = self._held.startswith('"')
        return sound(json.loads(f'"{whole}"', strict=False))

    def finish(self) -> str:
        """What else belongs to the text: arguments of another shape as they are."""
        return "" if self._opened else self._held
