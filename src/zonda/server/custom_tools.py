"""Custom tools, which take any text: the model is told of a function with one argument, and its text is taken out."""
from __future__ import annotations

import json
import re
from typing import Any

from zonda.text.dialects.tools import sound

ARGUMENT = "input"
_OPENING = re.compile(rf'\s*{{\s*"{ARGUMENT}"\s*:\s*"')
_WHOLE = re.compile(r'''(?: [^"\\] | \\[^u]
                         | \\u(?![dD][89abAB])[0-9a-fA-F]{4}        # a character of its own
                         | \\u[dD][89abAB]..(?:\\u....|(?=[^\\]|\\[^u]))  # half of one, with what follows
                         )*''', re.DOTALL | re.VERBOSE)


def function(name: str, description: str | None, syntax: str | None, definition: str | None) -> dict[str, Any]:
    """The function that stands for a custom tool; `definition` is a grammar that its text must follow."""
    text: dict[str, Any] = {"type": "string"}
    said = [description] if description else []
    if definition is not None:
        said.append(f"`{ARGUMENT}` must follow this {syntax} grammar:\n{definition}")
    if syntax == "regex":
        text["pattern"] = f"^(?:{definition})$"
    return {"name": name, "description": "\n\n".join(said), "parameters": {
        "type": "object", "properties": {ARGUMENT: text}, "required": [ARGUMENT], "additionalProperties": False}}


def arguments(text: str) -> str:
    """The arguments of that function for a text."""
    return json.dumps({ARGUMENT: text}, ensure_ascii=False)


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
