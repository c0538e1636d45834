"""Tells whether two JSON schemas have no value in common, so that a `oneOf` of them is no more than an `anyOf`."""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

ANY = frozenset({"array", "boolean", "fraction", "integer", "null", "object", "string"})
"""Kinds of values; a number is an integer or a fraction."""
MANY = 200
"""Values and names that are looked at."""
_DEPTH = 8
_KINDS = {bool: "boolean", dict: "object", float: "fraction", int: "integer", list: "array", str: "string",
          type(None): "null"}


class Apart:
    """Compares schemas of one document; `left` more pairs, so that hostile ones end soon."""

    def __init__(self, root: Any, left: int = 20_000) -> None:
        self._root, self._left = root, left

    def all(self, schemas: Iterable[Any], within: frozenset[str] = ANY) -> bool:
        """Whether no value of the kinds `within` fits two of the schemas."""
        each = list(schemas)
        return all(self.pair(one, other, within) for number, one in enumerate(each) for other in each[:number])

    def pair(self, one: Any, other: Any, within: frozenset[str] = ANY, depth: int = _DEPTH) -> bool:
        """Whether no value fits both schemas; False also where that is not plain to see."""
        self._left -= 1
        one, other = target(one, self._root), target(other, self._root)
        if one is False or other is False:
            return True
        if not isinstance(one, Mapping) or not isinstance(other, Mapping) or depth == 0 or self._left < 0:
            return False
        common = within & kinds(one) & kinds(other)
        return not common or self._values(one, other) or self._parts(one, other, common, depth) or (
            common == {"object"} and self._objects(one, other, depth))

    def _values(self, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
        mine, theirs = values(one), values(other)
        if mine is None or theirs is None:
            return False
        self._left -= len(mine) * len(theirs)
        return self._left >= 0 and not any(value in theirs for value in mine)

    def _parts(self, one: Mapping[str, Any], other: Mapping[str, Any], within: frozenset[str], depth: int) -> bool:
        for whole, rest in ((one, other), (other, one)):
            for word, enough in (("allOf", any), ("anyOf", all), ("oneOf", all)):
                parts = whole.get(word)
                if isinstance(parts, list) and parts and enough(self.pair(each, rest, within, depth - 1)
                                                                for each in parts):
                    return True
        return False

    def _objects(self, one: Mapping[str, Any], other: Mapping[str, Any], depth: int) -> bool:
        names = dict.fromkeys(name for each in (one, other) for name in required(each))
        return any(self.pair(_member(one, name), _member(other, name), depth=depth - 1) for name in names)


def target(schema: Any, root: Any) -> Any:
    """What a schema's reference within the document stands for; the schema itself where it has none."""
    for _ in range(_DEPTH):
        place = schema.get("$ref") if isinstance(schema, Mapping) else None
        if not isinstance(place, str):
            return schema
        schema = root if place.startswith("#") else True
        for step in place.split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            schema = schema.get(name, True) if isinstance(schema, Mapping) else True
    return True


def kinds(schema: Mapping[str, Any]) -> frozenset[str]:
    """The kinds of values that a schema's type and values leave."""
    found = named(schema["type"]) if "type" in schema else ANY
    known = values(schema)
    return found if known is None else found & {_kind(value) for value in known}


def named(types: Any) -> frozenset[str]:
    """The kinds that `type` names."""
    listed = types if isinstance(types, list) else [types]
    whole = {"fraction", "integer"} if "number" in listed else set()
    return ANY & {*whole, *(each for each in listed if isinstance(each, str) and each != "fraction")}


def values(schema: Mapping[str, Any]) -> list[Any] | None:
    """The only values that a schema takes; None where it does not list them, or many."""
    found = [schema["const"]] if "const" in schema else schema.get("enum")
    return found if isinstance(found, list) and len(found) <= MANY else None


def required(schema: Mapping[str, Any]) -> list[str]:
    """The names that an object must have."""
    names = schema.get("required")
    return [name for name in names[:MANY] if isinstance(name, str)] if isinstance(names, list) else []


def _kind(value: Any) -> str:
    return "integer" if isinstance(value, float) and value.is_integer() else _KINDS[type(value)]


def _member(schema: Mapping[str, Any], name: str) -> Any:
    """The schema of a member of this name, True where it is not plain."""
    members = schema.get("properties", {})
    if not isinstance(members, Mapping) or schema.get("patternProperties"):
        return members[name] if isinstance(members, Mapping) and name in members else True
    return members[name] if name in members else schema.get("additionalProperties", True)
