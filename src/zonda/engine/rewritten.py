"""Writes what the grammar compiler does not know in a JSON schema by keywords that it knows, where they mean the same.

What cannot be written so stays, and the compiler refuses it by name.
"""
from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from zonda.engine.apart import ANY, Apart, kinds, named, target, values

Schema = dict[str, Any]
LARGEST = (1 << 63) - 1024
"""The compiler's largest bound, as a 64-bit float below 2^63."""
MOST = 8
"""Alternatives that are turned around, and names with dependencies: each doubles the compiler's work."""
SHORT = 400
"""Characters of a schema that is turned around."""
_UUID = "^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_BOUNDS = {"minimum": max, "exclusiveMinimum": max, "maximum": min, "exclusiveMaximum": min}
_ELSEWHERE = frozenset({"$ref", "$dynamicRef", "$recursiveRef", "allOf", "anyOf", "oneOf", "if", "not", "dependencies",
                        "dependentSchemas", "contains"})
"""What may evaluate properties and items beside the plain keywords."""
MOVED = re.compile(r'"\$ref": "[^"]*/(?:oneOf|if|then|else|not|dependen\w*|propertyNames|unevaluated\w*)[/"]')
"""A reference into what would be moved; a schema that has one is left as it is."""
_SAID = frozenset({"$comment", "default", "description", "examples", "title"})


def rewritten(schema: Schema, root: Mapping[str, Any]) -> Schema:
    """A schema whose inner ones are written so already; `root` is the document that references are looked up in."""
    result = dict(schema)
    for rule in _RULES:
        rule(result, root)
    return result


def _numbers(schema: Schema, _: Any) -> None:
    for name in _COUNTS:
        if isinstance(schema.get(name), float) and schema[name].is_integer():
            schema[name] = int(schema[name])
    for name, nearer in _BOUNDS.items():
        bound, most = schema.get(name), -LARGEST if nearer is max else LARGEST
        if isinstance(bound, int | float) and nearer(bound, most) != bound and not isinstance(bound, bool):
            schema[name] = most


def _idle(schema: Schema, _: Any) -> None:
    """Leave out what restricts nothing."""
    if "if" not in schema or not schema.keys() & {"then", "else"}:
        _drop(schema, "if", "then", "else")
    if "contains" not in schema:
        _drop(schema, "minContains", "maxContains")
    most = schema.get("maxItems")
    if schema.get("uniqueItems") is False or (isinstance(most, int) and most <= 1):
        _drop(schema, "uniqueItems")
    for word in ("propertyNames", "unevaluatedProperties", "unevaluatedItems"):
        if schema.get(word) in (True, {}):
            _drop(schema, word)


def _unevaluated(schema: Schema, _: Any) -> None:
    """What no part of the schema speaks of is what its plain keywords leave."""
    if schema.keys() & _ELSEWHERE:
        return
    if "unevaluatedProperties" in schema:
        schema.setdefault("additionalProperties", schema.pop("unevaluatedProperties"))
    if "unevaluatedItems" in schema:
        rest = "additionalItems" if isinstance(schema.get("items"), list) else "items"
        schema.setdefault(rest, schema.pop("unevaluatedItems"))


def _names(schema: Schema, root: Any) -> None:
    """Names from a list, or by a pattern, are properties of these names and no others."""
    names, members = _plain(schema.get("propertyNames"), root), schema.get("properties", {})
    if not isinstance(names, Mapping) or schema.get("patternProperties") or not isinstance(members, Mapping)\
            or "string" not in kinds(names):
        return
    rest, known = schema.get("additionalProperties", True), values(names)
    pattern = _pattern(names)
    if known is not None and _only(names, "type", "enum", "const"):
        listed = {name: members.get(name, rest) for name in known if isinstance(name, str)}
        schema.update(properties=listed, additionalProperties=False)
    elif pattern and not members:
        schema.update(patternProperties={pattern: rest}, additionalProperties=False)
    elif pattern != "":
        return
    _drop(schema, "propertyNames")


def _plain(schema: Any, root: Any) -> Any:
    """A schema without a reference, or an `anyOf` of which but one part can be, around it."""
    schema = target(schema, root)
    parts = schema.get("anyOf") if isinstance(schema, Mapping) and _only(schema, "anyOf") else None
    left = [each for each in parts if each not in (False, {"enum": []})] if isinstance(parts, list) else []
    return target(left[0], root) if len(left) == 1 else schema


def _pattern(names: Mapping[str, Any]) -> str | None:
    """The expression that names must match; empty where any name will do, None where it takes more than one."""
    if _only(names, "type"):
        return ""
    least, most, parts = names.get("minLength", 0), names.get("maxLength"), names.get("allOf")
    if _only(names, "type", "minLength", "maxLength") and isinstance(least, int) and isinstance(most, int | None):
        return f"^(?s:.){{{least},{'' if most is None else most}}}$"
    if _only(names, "type", "allOf") and isinstance(parts, list) and len(parts) == 1 and isinstance(parts[0], Mapping):
        return _pattern(parts[0])
    if _only(names, "type", "format") and names["format"] == "uuid":
        return _UUID
    return names.get("pattern") if _only(names, "type", "pattern") else None


def _dependent(schema: Schema, _: Any) -> None:
    """A name that needs others, or a schema, is not there, or they hold."""
    for word in ("dependentRequired", "dependentSchemas", "dependencies"):
        needs = schema.get(word)
        if isinstance(needs, Mapping) and len(needs) <= MOST:
            del schema[word]
            for name, need in needs.items():
                more = {"required": need} if isinstance(need, list) else need
                there = {"allOf": [{"required": [name]}, more]}
                _also(schema, {"anyOf": [{"properties": {name: False}}, there]})


def _not(schema: Schema, _: Any) -> None:
    turned = _without(schema["not"]) if "not" in schema else None
    if turned is None:
        return
    del schema["not"]
    if turned is False:
        schema["enum"] = []
    elif isinstance(turned, dict):
        _also(schema, turned)


def _condition(schema: Schema, _: Any) -> None:
    turned = _without(schema["if"]) if "if" in schema else None
    if turned is None:
        return
    first, then, other = (schema.pop(word, True) for word in ("if", "then", "else"))
    _also(schema, {"anyOf": [{"allOf": [first, then]}, {"allOf": [turned, other]}]})


def _one_of(schema: Schema, root: Any) -> None:
    """Alternatives that are told apart, or of which each can be told to be none of the others."""
    parts = schema.get("oneOf")
    if not isinstance(parts, list) or not parts:
        return
    if not Apart(root).all(parts, kinds(schema)):
        turned = [_without(each) for each in parts] if len(parts) <= MOST else [None]
        if None in turned:
            return
        parts = [{"allOf": [each, *turned[:number], *turned[number + 1:]]} for number, each in enumerate(parts)]
    del schema["oneOf"]
    _also(schema, {"anyOf": parts}) if "anyOf" in schema else schema.update(anyOf=parts)


_RULES: tuple[Callable[[Schema, Any], None], ...] = (_numbers, _idle, _unevaluated, _names, _dependent, _not,
                                                     _condition, _one_of)


def _without(schema: Any) -> Schema | bool | None:
    """The schema of all values that do not fit one; None where it cannot be written."""
    if isinstance(schema, bool):
        return not schema
    if not isinstance(schema, Mapping) or len(json.dumps(schema)) > SHORT:
        return None
    turned = [_turned(word, value) for word, value in schema.items() if word not in _SAID]
    found = [each for each in turned if each is not None]
    if len(found) < len(turned):
        return None
    return True if True in found else _any([each for each in found if each is not False])


def _turned(word: str, value: Any) -> Schema | bool | None:
    """The schema of all values that a keyword forbids."""
    if word == "not":
        return value if isinstance(value, dict | bool) else None
    if word == "type":
        return _other_types(value)
    if not isinstance(value, list) or len(value) > MOST:
        return None
    if word == "required":
        return _any([{"type": "object", "properties": {name: False}} for name in value])
    if word not in ("anyOf", "allOf"):
        return None
    inner = [_without(each) for each in value]
    if None in inner:
        return None
    return {"allOf": inner} if word == "anyOf" else _any(inner)


def _other_types(value: Any) -> Schema | bool | None:
    left = ANY - named(value)
    if "fraction" in left and "integer" not in left:
        return None
    return {"type": sorted((left - {"fraction", "integer"}) | ({"number"} if "fraction" in left else set()))}


def _any(schemas: list[Any]) -> Schema | bool:
    return {"anyOf": schemas} if len(schemas) > 1 else schemas[0] if schemas else False


def _also(schema: Schema, more: Schema) -> None:
    parts = schema.get("allOf")
    schema["allOf"] = [*(parts if isinstance(parts, list) else ()), more]


def _only(schema: Mapping[str, Any], *words: str) -> bool:
    return not schema.keys() - {*words, *_SAID}


def _drop(schema: Schema, *words: str) -> None:
    for word in words:
        schema.pop(word, None)
