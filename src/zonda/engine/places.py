"""Tells which arrays of an answer must have items that differ, by following a schema as the answer is written."""
from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from zonda.engine.schema import MAPS
from zonda.errors import InvalidRequest

Schema = Mapping[str, Any]
MOST = 1000
"""Schemas of one value that are followed; where there are more, items must differ in all arrays."""
_STRICT: dict[str, Any] = {"uniqueItems": True}
_STRICT |= {"items": _STRICT, "additionalProperties": _STRICT}
_HERE = ("$ref", "allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "dependencies")
_MEMBERS = ("properties", "patternProperties", "additionalProperties", "unevaluatedProperties")
_ITEMS = ("prefixItems", "items", "additionalItems", "unevaluatedItems")


class Place:
    """The schemas of a document that may have a say about one value; where any wants unique items, they are wanted."""

    def __init__(self, document: Schema, schemas: list[Any]) -> None:
        self._document, found = document, dict[int, Schema]()
        while schemas and len(found) <= MOST:
            each = schemas.pop()
            if isinstance(each, Mapping) and id(each) not in found:
                found[id(each)] = each
                schemas += _parts(each, document, _HERE)
        self._schemas = [*found.values()] if len(found) <= MOST else [_STRICT]
        self.unique = any(each.get("uniqueItems") is True for each in self._schemas)
        """Whether items must differ, if the value is an array."""
        lists = (each.get(word) for each in self._schemas for word in ("prefixItems", "items"))
        self.indexed = max((len(each) for each in lists if isinstance(each, list)), default=0)
        """Items that have schemas of their own."""

    def below(self, key: str | int) -> Place:
        """The place of an object's member of this name, or of an array's item of this number."""
        found = list[Any]()
        for each in self._schemas:
            members = each.get("properties")
            if isinstance(key, int):
                for value in map(each.get, _ITEMS):
                    found += value[key:key + 1] if isinstance(value, list) else [value]
            elif isinstance(members, Mapping) and key in members:
                found += [members[key], *_parts(each, self._document, ["patternProperties"])]
            else:
                found += _parts(each, self._document, _MEMBERS[1:])
        return Place(self._document, found)


def unique_places(document: Schema) -> Place | None:
    """The place of what has the document as member; None if that has nothing unique, or references beyond this."""
    left, known, wanted = [document], set[int](), False
    try:
        while left:
            each = left.pop()
            if isinstance(each, Mapping) and id(each) not in known:
                known.add(id(each))
                wanted |= each.get("uniqueItems") is True
                left += _parts(each, document, (*_HERE, *_MEMBERS, *_ITEMS))
                name = each.get("$id", each.get("id"))
                if each is not document and isinstance(name, str) and name[:1] != "#" and '"$ref"' in json.dumps(each):
                    return None  # references within are not to this document
    except (LookupError, TypeError, ValueError):
        return None
    return Place(document, [{"additionalProperties": document}]) if wanted else None


def _parts(schema: Schema, document: Schema, words: Iterable[str]) -> Iterator[Any]:
    """The schemas of keywords that have one, several, or some by names."""
    for word in words:
        value = _target(schema[word], document) if word == "$ref" and word in schema else schema.get(word)
        yield from value.values() if isinstance(value, Mapping) and word in MAPS else \
            value if isinstance(value, list) else [value]


def _target(place: Any, document: Any) -> Any:
    """What a reference within the document stands for; LookupError if there is nothing."""
    if not isinstance(place, str) or place[:2] not in ("#", "#/") or "%" in place:
        raise InvalidRequest(f"the schema has `uniqueItems` beside a `$ref` to what is not in it: {place!s:.200}",
                             hint="write it as a path within the schema, as in `#/$defs/name`", param="grammar")
    for step in place.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        document = document[int(name) if isinstance(document, list) else name]
    return document
