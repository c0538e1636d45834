"""Writes the JSON schema of values that do not fit another: of all of them, or of those that can be told."""
from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from zonda.engine.apart import ANNOTATIONS, ANY, Apart, kind_of, named, target

Schema = dict[str, Any]
MOST = 12
"""Alternatives and names that are turned around: the compiler's work may double with each."""
_WORDS, _WORD = 2000, 200  # characters of texts that are excluded, of all and of one
_DEPTH = 4
_CLASS = re.compile(r"\^\[(\^?)((?:\\.|[^\]\\\[])+)\]([*+])\$")  # texts of one class of characters
_TURNS = frozenset({"not", "oneOf", "if"})
_COUNTS = {"minLength": ("string", "maxLength", -1), "maxLength": ("string", "minLength", 1),
           "minItems": ("array", "maxItems", -1), "maxItems": ("array", "minItems", 1)}
_BOUNDS = {"minimum": "exclusiveMaximum", "exclusiveMinimum": "maximum", "maximum": "exclusiveMinimum",
           "exclusiveMaximum": "minimum"}


class Outside:
    """Turns schemas of one document around. `names` are those that objects may have beside the schema's own."""

    def __init__(self, apart: Apart, names: Iterable[str] = ()) -> None:
        self._apart, self._names = apart, list(names)[:MOST]

    def of(self, schema: Any, depth: int = _DEPTH) -> Schema | bool | None:
        """A schema that no value fits which fits this one; False where all do, None where it cannot be written."""
        schema = target(schema, self._apart.root)
        if isinstance(schema, bool):
            return not schema
        if not isinstance(schema, Mapping) or depth == 0 or not self._apart.spend(len(schema)):
            return None
        return some(self._turned(word, value, schema, depth - 1) for word, value in schema.items()
                    if word not in ANNOTATIONS)

    def _turned(self, word: str, value: Any, schema: Mapping[str, Any], depth: int) -> Schema | bool | None:
        """Values that a keyword forbids."""
        if word == "not":
            return value if isinstance(value, dict | bool) and self._plain(value) else None
        if word in _PLAIN:
            return _PLAIN[word](value)
        if word in _COUNTS and isinstance(value, int):
            return _count(value, *_COUNTS[word])
        if word in _BOUNDS and isinstance(value, int | float) and not isinstance(value, bool):
            return {"type": "number", _BOUNDS[word]: value}
        if word == "additionalProperties" and value is False and not schema.get("patternProperties"):
            known = schema.get("properties", {})
            return some(_with(name) for name in self._names if name not in known) if isinstance(known, dict) else None
        if word == "properties" and isinstance(value, Mapping) and len(value) <= MOST:
            return some(_with(name, self.of(inner, depth)) for name, inner in value.items())
        if word not in ("anyOf", "allOf", "oneOf") or not isinstance(value, list) or len(value) > MOST:
            return None
        inner = [self.of(each, depth) for each in value]
        return some(inner) if word == "allOf" else None if None in inner else {"allOf": inner}

    def _plain(self, schema: Any) -> bool:
        """Whether a schema has nothing in it that is turned around."""
        left = [schema]
        while left and self._apart.spend():
            each = left.pop()
            if isinstance(each, dict) and each.keys() & _TURNS:
                return False
            left += each.values() if isinstance(each, dict) else each if isinstance(each, list) else ()
        return not left


def some(schemas: Iterable[Schema | bool | None]) -> Schema | bool | None:
    """The schema of what fits one of these at least, as far as they are known."""
    each = list(schemas)
    known = [one for one in each if one is not None and one is not False]
    if True in known:
        return True
    return {"anyOf": known} if len(known) > 1 else known[0] if known else None if None in each else False


def _with(name: str, inner: Any = True) -> Schema | bool | None:
    """Objects that have a member of this name, and of this schema."""
    if inner is None or inner is False:
        return inner
    return {"type": "object", "required": [name], **({} if inner is True else {"properties": {name: inner}})}


def _without(names: Any) -> Schema | bool | None:
    if not isinstance(names, list) or len(names) > MOST or not all(isinstance(name, str) for name in names):
        return None
    return some({"type": "object", "properties": {name: False}} for name in names)


def _count(value: int, kind: str, word: str, step: int) -> Schema | bool:
    return {"type": kind, word: value + step} if value + step >= 0 else False


def _other_types(types: Any) -> Schema | bool | None:
    return _of_kinds(ANY - named(types))


def _of_kinds(kinds: frozenset[str]) -> Schema | bool | None:
    if kinds == {"fraction"}:
        return None  # no keyword has these alone
    numbers = {"number"} if kinds >= {"fraction", "integer"} else kinds & {"integer"}
    return {"type": sorted(kinds - {"fraction", "integer"} | numbers)} if kinds else False


def _other_values(values: Any) -> Schema | bool | None:
    if not isinstance(values, list):
        return None
    kinds = frozenset(map(kind_of, values))
    numbers = sorted({each for each in values if kind_of(each) in ("integer", "fraction")})
    texts = {each for each in values if isinstance(each, str)}
    flags = {each for each in values if isinstance(each, bool)}
    other = [_of_kinds(ANY - kinds - ({"fraction", "integer"} if numbers else set()))]
    if len(flags) == 1:
        other.append({"enum": [not flags.pop()]})
    if numbers and len(numbers) <= MOST:
        edges = [None, *numbers, None]
        other += [{"type": "number", **({} if low is None else {"exclusiveMinimum": low}),
                   **({} if high is None else {"exclusiveMaximum": high})} for low, high in itertools.pairwise(edges)]
    if texts and sum(map(len, texts)) <= _WORDS and max(map(len, texts)) <= _WORD:
        other.append({"type": "string", "pattern": f"^{_other_texts(texts)}$"})
    return some(other)


def _other_texts(texts: set[str]) -> str:
    """An expression of all texts but these."""
    rests: dict[str, set[str]] = {}
    for text in texts - {""}:
        rests.setdefault(text[0], set()).add(text[1:])
    first = "".join(map(re.escape, sorted(rests)))
    parts = [f"[^{first}](?s:.*)" if first else "(?s:.+)"]
    parts += [f"{re.escape(char)}{_other_texts(rest)}" for char, rest in sorted(rests.items())]
    return f"(?:{'|'.join(parts)}){'' if '' in texts else '?'}"


def _other_pattern(pattern: Any) -> Schema | bool | None:
    """Texts with another character than those of which a pattern wants all to be."""
    found = _CLASS.fullmatch(pattern) if isinstance(pattern, str) else None
    if not found:
        return None
    other = f"[{'' if found[1] else '^'}{found[2]}]"
    return {"type": "string", "pattern": f"^$|{other}" if found[3] == "+" else other}


_PLAIN: dict[str, Callable[[Any], Schema | bool | None]] = {
    "type": _other_types, "required": _without, "enum": _other_values, "const": lambda value: _other_values([value]),
    "pattern": _other_pattern}
