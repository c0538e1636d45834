"""Tells whether two JSON schemas have no value in common, so that a `oneOf` of them is no more than an `anyOf`."""
from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from typing import Any

ANY = frozenset({"array", "boolean", "fraction", "integer", "null", "object", "string"})
"""Kinds of values; a number is an integer or a fraction."""
MANY = 300
"""Values and names that are looked at."""
ANNOTATIONS = frozenset({"$comment", "default", "deprecated", "description", "examples", "readOnly", "title",
                         "writeOnly"})
"""Keywords that only explain."""
_LISTED = re.compile(r"\^([\w -]+|\([\w -]+(?:\|[\w -]+)*\))\$")
"""Patterns of certain texts alone."""
_DEPTH = 8
_KINDS = {bool: "boolean", dict: "object", float: "fraction", int: "integer", list: "array", str: "string",
          type(None): "null"}


class Apart:
    """Compares schemas of the document `root`; `left` more steps, so that hostile ones end soon."""

    def __init__(self, root: Any, left: int = 100_000) -> None:
        self.root, self._left = root, left

    def spend(self, steps: int = 1) -> bool:
        """Take steps; tells whether there were so many left."""
        self._left -= steps
        return self._left >= 0

    def all(self, schemas: Iterable[Any], within: frozenset[str] = ANY) -> bool:
        """Whether no value of the kinds `within` fits two of the schemas."""
        each = list(schemas)
        return all(self.pair(one, other, within) for number, one in enumerate(each) for other in each[:number])

    def pair(self, one: Any, other: Any, within: frozenset[str] = ANY, depth: int = _DEPTH) -> bool:
        """Whether no value fits both schemas; False also where that is not plain to see."""
        if not self.spend():
            return False
        mine, theirs = self._whole(one, depth), self._whole(other, depth)
        if mine is None or theirs is None:
            return True
        if depth == 0:
            return False
        common = within.intersection(*(kinds(each) for each in (*mine, *theirs)))
        return not common or self._values(mine, theirs) or self._parts(mine, other, common, depth) or \
            self._parts(theirs, one, common, depth) or (common == {"object"} and self._objects(mine, theirs, depth))

    def _whole(self, schema: Any, depth: int) -> list[Mapping[str, Any]] | None:
        """The schemas that all must hold for one to hold, without those that only refer; None where none can."""
        found, left = list[Mapping[str, Any]](), [(schema, depth)]
        while left:
            each, deep = left.pop()
            each = target(each, self.root)
            if each is False:
                return None
            if isinstance(each, Mapping):
                found.append(each)
                parts = each.get("allOf")
                left += [(part, deep - 1) for part in parts] if isinstance(parts, list) and deep else []
            if not self.spend(1 + len(left)):
                break
        return found

    def _values(self, mine: list[Mapping[str, Any]], theirs: list[Mapping[str, Any]]) -> bool:
        """Whether values are listed on both sides, of which none is the same."""
        for one, other in itertools.product(filter(None, map(values, mine)), filter(None, map(values, theirs))):
            if self.spend(len(one) * len(other)) and not any(_same(value, each) for value in one for each in other):
                return True
        return False

    def _parts(self, whole: list[Mapping[str, Any]], rest: Any, within: frozenset[str], depth: int) -> bool:
        """Whether none of the alternatives of one side goes with the other."""
        found = (each.get(word) for each in whole for word in ("anyOf", "oneOf"))
        return any(isinstance(parts, list) and parts and all(self.pair(each, rest, within, depth - 1) for each in parts)
                   for parts in found)

    def _objects(self, mine: list[Mapping[str, Any]], theirs: list[Mapping[str, Any]], depth: int) -> bool:
        """Whether a member that must be there cannot be as both sides want it."""
        names = dict.fromkeys(name for each in (*mine, *theirs) for name in required(each))
        return any(self.pair({"allOf": [_member(each, name) for each in mine]},
                             {"allOf": [_member(each, name) for each in theirs]}, depth=depth - 1) for name in names)


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
    return found if known is None else found & {kind_of(value) for value in known}


def named(types: Any) -> frozenset[str]:
    """The kinds that `type` names."""
    listed = types if isinstance(types, list) else [types]
    whole = {"fraction", "integer"} if "number" in listed else set()
    return ANY & {*whole, *(each for each in listed if isinstance(each, str) and each != "fraction")}


def values(schema: Mapping[str, Any]) -> list[Any] | None:
    """The only values that a schema takes; None where it does not list them, or many."""
    found = [schema["const"]] if "const" in schema else schema.get("enum", _literal(schema))
    return found if isinstance(found, list) and len(found) <= MANY else None


def _literal(schema: Mapping[str, Any]) -> list[str] | None:
    """The texts that a pattern lists."""
    pattern = schema.get("pattern")
    found = _LISTED.fullmatch(pattern) if isinstance(pattern, str) and schema.get("type") == "string" else None
    return found[1].strip("()").split("|") if found else None


def required(schema: Mapping[str, Any]) -> list[str]:
    """The names that an object must have."""
    names = schema.get("required")
    return [name for name in names[:MANY] if isinstance(name, str)] if isinstance(names, list) else []


def _same(one: Any, other: Any) -> bool:
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def kind_of(value: Any) -> str:
    """The kind of a value."""
    return "integer" if isinstance(value, float) and value.is_integer() else _KINDS[type(value)]


def _member(schema: Mapping[str, Any], name: str) -> Any:
    """The schema of a member of this name, True where it is not plain."""
    members = schema.get("properties", {})
    if not isinstance(members, Mapping) or schema.get("patternProperties"):
        return members[name] if isinstance(members, Mapping) and name in members else True
    return members[name] if name in members else schema.get("additionalProperties", True)
