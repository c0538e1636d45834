"""The tools that a turn offers, and their arguments' schemas."""
from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][-+]?\d+)?")
_KINDS = {"integer": int, "number": (int, float), "boolean": bool, "array": list, "object": dict,
          "null": type(None), "string": str}
_LONGEST = 1 << 16  # characters of a Python literal that is looked at


class Tools:
    """Function tools by name."""

    def __init__(self, tools: Sequence[Mapping[str, Any]] = ()) -> None:
        self.functions: dict[str, Mapping[str, Any]] = {each["function"]["name"]: each["function"] for each in tools}

    def __contains__(self, name: str) -> bool:
        return name in self.functions

    def __bool__(self) -> bool:
        return bool(self.functions)

    def only(self, name: str) -> Tools:
        """One of the tools alone."""
        return Tools([{"function": self.functions[name]}])

    def schema(self, name: str) -> dict[str, Any]:
        """The schema of a tool's arguments; any object where it has none."""
        found = self.functions.get(name, {}).get("parameters")
        return dict(found) if isinstance(found, Mapping) and found else {"type": "object", "properties": {}}

    def kinds(self, name: str, argument: str) -> tuple[str, ...]:
        """The JSON types that an argument may have; empty where nothing is said."""
        properties = self.schema(name).get("properties")
        found = properties.get(argument) if isinstance(properties, Mapping) else None
        return kinds_of(found) if isinstance(found, Mapping) else ()


def kinds_of(schema: Mapping[str, Any]) -> tuple[str, ...]:
    """The JSON types that a schema allows; empty where it says nothing of them."""
    said = schema.get("type")
    if isinstance(said, str):
        return (said,)
    if isinstance(said, list):
        return tuple(each for each in said if isinstance(each, str))
    if isinstance(schema.get("enum"), list):
        return tuple({kind for each in schema["enum"] for kind, types in _KINDS.items() if _is(each, types)})
    for word in ("anyOf", "oneOf"):
        if isinstance(schema.get(word), list):
            return tuple(kind for each in schema[word] if isinstance(each, Mapping) for kind in kinds_of(each))
    return ()


def _is(value: Any, types: Any) -> bool:
    return isinstance(value, types) and (types is bool or not isinstance(value, bool))


def coerced(text: str, kinds: Sequence[str]) -> str:
    """The JSON of an untyped value, of one of these types if it can be."""
    bare = text.strip()
    for value in _readings(bare):
        if any(_is(value, _KINDS[kind]) for kind in kinds if kind in _KINDS) or (not kinds):
            return written(value)
    return written(text)


def written(value: Any) -> str:
    """A value as JSON that any encoding takes: half characters are replaced."""
    return sound(json.dumps(value, ensure_ascii=False))


def sound(text: str) -> str:
    """A text without half characters."""
    return text.encode("utf-8", "replace").decode()


def _readings(text: str) -> list[Any]:
    """What a text may mean beside itself."""
    words = {"true": True, "false": False, "null": None, "none": None}
    if text.lower() in words:
        return [words[text.lower()]]
    if _NUMBER.fullmatch(text) and len(text) < 300:
        number = float(text) if set(text) & set(".eE") else int(text)
        exact = int(number) if abs(number) < 2**53 and number == int(number) else number
        return [exact, number] if abs(number) < math.inf else []
    if text[:1] in ("{", "[", '"') and text[:1]:
        for read in (_loaded, _literal):
            try:
                return [read(text)]
            except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
                continue
    return []


def _loaded(text: str) -> Any:
    found = json.loads(text)
    json.dumps(found, allow_nan=False)
    return found


def _literal(text: str) -> Any:
    found = ast.literal_eval(text) if len(text) < _LONGEST else text
    json.dumps(found, allow_nan=False)
    return found
