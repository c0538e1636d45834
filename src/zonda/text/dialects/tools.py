"""The tools that a turn offers, and their arguments' schemas."""
from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Container, Mapping, Sequence
from typing import Any

_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][-+]?\d+)?")
_KINDS = {"integer": int, "number": (int, float), "boolean": bool, "array": list, "object": dict,
          "null": type(None), "string": str}
SHARED = ("$defs", "definitions")
"""Where a tool's schema has what its arguments refer to."""
ANNOTATIONS = frozenset({"$comment", "default", "deprecated", "description", "examples", "readOnly", "title",
                         "writeOnly"})
"""Keywords that only explain."""
_COMBINED = frozenset({"$ref", "allOf", "anyOf", "oneOf", "not", "if", "dependentRequired", "dependentSchemas",
                       "dependencies", "propertyNames", "patternProperties", "minProperties", "maxProperties",
                       "prefixItems", "contains", "uniqueItems", "unevaluatedItems"})
_OPEN = _COMBINED | {"additionalProperties", "unevaluatedProperties"}
_MANY = 128  # alternatives that are looked at
_DEPTH = 8  # references, and alternatives within alternatives
_LONGEST = 1 << 16  # characters of a Python literal that is looked at


class Loose(dict[str, Any]):
    """A schema of any arguments; `listed` has the types of those that are known."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        super().__init__(type="object")
        found = schema.get("properties")
        kinds = {key: kinds_of(within(schema, each)) for key, each in found.items()
                 if isinstance(each, Mapping)} if isinstance(found, Mapping) else {}
        self.listed = {key: {"type": "string" if not each or "string" in each else each[0] if len(each) == 1 else
                             list(each)} for key, each in kinds.items()}


class Tools:
    """Function tools by name. In an answer that is free, calls of those of `held` must fit their schemas."""

    def __init__(self, tools: Sequence[Mapping[str, Any]] = (), held: Container[str] = ()) -> None:
        self.functions: dict[str, Mapping[str, Any]] = {each["function"]["name"]: each["function"] for each in tools}
        self.held = frozenset(name for name in self.functions if name in held)

    def __contains__(self, name: str) -> bool:
        return name in self.functions

    def __bool__(self) -> bool:
        return bool(self.functions)

    def only(self, name: str) -> Tools:
        """One of the tools alone."""
        return Tools([{"function": self.functions[name]}], self.held)

    def loosened(self) -> Tools:
        """The same, with any arguments for those that are not held to their schemas."""
        return Tools([{"function": function if name in self.held else
                       {"name": name, "parameters": Loose(self.schema(name))}}
                      for name, function in self.functions.items()], self.held)

    def schema(self, name: str) -> dict[str, Any]:
        """The schema of a tool's arguments; a tool without one takes none, as OpenAI's API has it.

        Other arguments than the listed ones are only for schemas that speak of them.
        """
        found = self.functions.get(name, {}).get("parameters")
        if isinstance(found, Loose):
            return found
        if not isinstance(found, Mapping) or not found:
            return {"type": "object", "properties": {}, "additionalProperties": False}
        listed, required = found.get("properties"), found.get("required", [])
        closed = (isinstance(listed, Mapping) and isinstance(required, list) and not _OPEN & found.keys()
                  and all(isinstance(each, str) and each in listed for each in required))
        return {**found, **({"additionalProperties": False} if closed else {})}

    def kinds(self, name: str, argument: str) -> tuple[str, ...]:
        """The JSON types that an argument may have; empty where nothing is said."""
        schema = self.schema(name)
        properties = schema.get("properties")
        found = properties.get(argument) if isinstance(properties, Mapping) else None
        return kinds_of(within(schema, found)) if isinstance(found, Mapping) else ()


def kinds_of(schema: Mapping[str, Any]) -> tuple[str, ...]:
    """The JSON types that a schema allows; empty where it says nothing of them."""
    return tuple(dict.fromkeys(kind for each in alternatives(schema) for kind in _kinds(each)))


def _kinds(schema: Mapping[str, Any]) -> list[str]:
    said = schema.get("type")
    if isinstance(said, str | list):
        return [each for each in ([said] if isinstance(said, str) else said) if isinstance(each, str)]
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    return [kind for kind, types in _KINDS.items() if any(_is(each, types) for each in values)] \
        if isinstance(values, list) else []


def alternatives(schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The schemas of which one must hold, none of which only refers to others. Each shared one comes once.

    Where they are many, a schema that says nothing stands for all.
    """
    found, left, seen = list[Mapping[str, Any]](), [schema], set[int]()
    while left:
        if len(found) + len(left) > _MANY:
            return [{}]
        each = left.pop()
        kind = {word: each[word] for word in ("type",) if word in each}
        while (inner := referred(each)) is not None and id(inner) not in seen:
            seen.add(id(inner))
            each = within(each, inner)
        parts = branches(each) if inner is None else []
        left += [part if referred(part) else {**kind, **part} for part in reversed(parts)]
        found += [] if parts or inner is not None else [each]
    return found


def branches(schema: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The schemas of which one must hold; none where the schema has no such, or many."""
    parts = schema.get("anyOf") or schema.get("oneOf")
    if not isinstance(parts, list) or len(parts) > _MANY:
        return []
    return [within(schema, each) for each in parts if isinstance(each, Mapping)]


def within(schema: Mapping[str, Any], inner: Mapping[str, Any]) -> dict[str, Any]:
    """A schema that is part of another, with what it may refer to."""
    return {**inner, **{word: schema[word] for word in SHARED if word in schema}}


def referred(schema: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The schema that a reference to a shared one, or an `allOf` of one, is no more than."""
    place, parts = (schema[word] if told(schema) == {word} else None for word in ("$ref", "allOf"))
    where = place.split("/") if isinstance(place, str) else []
    shared = schema.get(where[1]) if len(where) == 3 and where[0] == "#" and where[1] in SHARED else None
    found = shared.get(where[2]) if isinstance(shared, Mapping) else \
        parts[0] if isinstance(parts, list) and len(parts) == 1 else None
    return found if isinstance(found, Mapping) else None


def target(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a schema stands for if it only refers to another; else itself."""
    for _ in range(_DEPTH):
        found = referred(schema)
        if found is None:
            break
        schema = within(schema, found)
    return schema


def told(schema: Mapping[str, Any]) -> set[str]:
    """The keywords of a schema that say what its values are."""
    return schema.keys() - {*SHARED, *ANNOTATIONS}


def plain(schema: Mapping[str, Any]) -> bool:
    """Whether a schema is told by its type, its members and its items."""
    return not schema.keys() & _COMBINED


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
