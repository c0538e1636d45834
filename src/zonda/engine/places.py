"""Tells which arrays of an answer must have items that differ, by following a schema as the answer is written."""
from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from zonda.errors import InvalidRequest

Schema = Mapping[str, Any]
MOST_USEFUL = 2000
"""Schemas in which a `uniqueItems` can be met."""
MOST_KNOWN = 200_000
"""Schemas of the places that are kept."""
_HERE = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "dependencies")
_MEMBERS = ("properties", "patternProperties", "additionalProperties", "unevaluatedProperties")
_ITEMS = ("prefixItems", "items", "additionalItems", "unevaluatedItems")


class Place:
    """The schemas that may have a say about one value of an answer, as far as they lead to a `uniqueItems`."""

    def __init__(self, schemas: list[Schema]) -> None:
        self.schemas = schemas
        self.unique = any(each.get("uniqueItems") is True for each in schemas)
        """Whether items must differ, if the value is an array."""
        lists = (each.get(word) for each in schemas for word in ("prefixItems", "items"))
        self.indexed = max((len(each) for each in lists if isinstance(each, list)), default=0)
        """Items that have schemas of their own."""
        self.below: dict[str | int | None, Place] = {}


class Places:
    """The places of a schema. Where any of its parts that could hold wants unique items, they are wanted."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._useful = _useful(root)
        self._names = {name for each in self._useful.values() for name in _named(each)}
        self._known: dict[frozenset[int], Place] = {}
        self._left = MOST_KNOWN
        self.start = self._place([root])

    def member(self, place: Place, name: str) -> Place:
        """The place of an object's member."""
        return self._below(place, name if name in self._names else None, lambda each: _member(each, name))

    def item(self, place: Place, number: int) -> Place:
        """The place of an array's item."""
        return self._below(place, min(number, place.indexed), lambda each: _item(each, number))

    def _below(self, place: Place, key: str | int | None, inner: Callable[[Schema], Iterator[Any]]) -> Place:
        found = place.below.get(key)
        if found is None:
            found = self._place([one for each in place.schemas for one in inner(each)])
            if self._left > 0:
                place.below[key] = found
        return found

    def _place(self, schemas: list[Any]) -> Place:
        """The place of which schemas speak, and all that they say holds there, too."""
        found = dict[int, Schema]()
        while schemas:
            each = schemas.pop()
            if id(each) in self._useful and id(each) not in found:
                found[id(each)] = each
                schemas += _here(each, self._root)
        key = frozenset(found)
        place = self._known.get(key) or Place(list(found.values()))
        if self._left > 0 and key not in self._known:
            self._known[key] = place
            self._left -= 1 + len(found)
        return place


def unique_places(schema: Schema) -> Places | None:
    """The places of a schema; None where it wants nothing to be unique, or its references or size are beyond this."""
    try:
        places = Places(schema)
    except (LookupError, TypeError, ValueError):
        return None
    return places if places.start.schemas else None


def _useful(root: Schema) -> dict[int, Schema]:
    """All schemas that lead to a `uniqueItems`, by their identity; LookupError and the like if that is not plain."""
    above, left, found = dict[int, list[Schema]](), [root], dict[int, Schema]()
    wanted = list[Schema]()
    while left:
        each = left.pop()
        named = each.get("$id", each.get("id"))
        if each is not root and isinstance(named, str) and named[:1] != "#" and '"$ref"' in json.dumps(each):
            raise LookupError  # references within are not to this document
        if each.get("uniqueItems") is True:
            wanted.append(each)
        for inner in _inner(each, root):
            if isinstance(inner, Mapping):
                if id(inner) not in above:
                    left.append(inner)
                above.setdefault(id(inner), []).append(each)
    while wanted:
        each = wanted.pop()
        if id(each) not in found:
            found[id(each)] = each
            wanted += above.get(id(each), ())
    if len(found) > MOST_USEFUL:
        raise LookupError
    return found


def _inner(schema: Schema, root: Schema) -> Iterator[Any]:
    yield from _here(schema, root)
    for word in (*_MEMBERS, *_ITEMS):
        yield from _all(schema.get(word), names=word in ("properties", "patternProperties"))


def _all(value: Any, *, names: bool) -> Iterator[Any]:
    yield from value.values() if names and isinstance(value, Mapping) else value if isinstance(value, list) else [value]


def _here(schema: Schema, root: Schema) -> list[Any]:
    """The schemas that speak of the same value as another."""
    found = [inner for word in _HERE if word in schema for inner in _all(schema[word], names=word.startswith("depend"))]
    return [*found, _target(schema["$ref"], root)] if "$ref" in schema else found


def _target(place: Any, root: Any) -> Any:
    """What a reference within the document stands for; LookupError if there is nothing."""
    if not isinstance(place, str) or place[:2] not in ("#", "#/") or "%" in place:
        raise InvalidRequest(f"the schema has `uniqueItems` beside a `$ref` to what is not in it: {place!s:.200}",
                             hint="write it as a path within the schema, as in `#/$defs/name`", param="grammar")
    found = root
    for step in place.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        found = found[int(name) if isinstance(found, list) else name]
    return found


def _named(schema: Schema) -> Mapping[str, Any]:
    members = schema.get("properties")
    return members if isinstance(members, Mapping) else {}


def _member(schema: Schema, name: str) -> Iterator[Any]:
    yield from _all(schema.get("patternProperties"), names=True)
    if name in _named(schema):
        yield _named(schema)[name]
    else:
        yield from (schema.get("additionalProperties"), schema.get("unevaluatedProperties"))


def _item(schema: Schema, number: int) -> Iterator[Any]:
    for word in _ITEMS:
        value = schema.get(word)
        yield from value[number:number + 1] if isinstance(value, list) else [value]
