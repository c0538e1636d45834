"""Writes what the grammar compiler does not know in a JSON schema by keywords that it knows, where they mean the same.

What cannot be written so stays, and the compiler refuses it by name.
"""
from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from zonda.engine.apart import ANNOTATIONS, ANY, MANY, Apart, kind_of, kinds, named, required, target, values
from zonda.engine.formats import spelled
from zonda.engine.outside import MOST, Outside

Schema = dict[str, Any]
MOST_COUNTED = (1 << 32) - 1
"""The compiler's largest count of characters; no answer has as many of anything."""
MOST_WAYS = 64
"""Choices of members that an object must have, which are written out."""
FEW = 2
"""Overlapping alternatives that one is told from by all that differs; of more, the combinations would be too many."""
LARGEST = (1 << 63) - 1024
"""The compiler's largest bound, as a 64-bit float below 2^63."""
_ALL = re.compile(r"\^?(?:(?:\.|\[(?:\\.|[^\]\\[])+\])\*)?")
"""Patterns that every text matches."""
_UUID = "^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_BOUNDS = {"minimum": max, "exclusiveMinimum": max, "maximum": min, "exclusiveMaximum": min}
_WORDS = frozenset({*_COUNTS, *_BOUNDS, "$ref", "allOf", "anyOf", "oneOf", "not", "if", "then", "else", "contains",
                    "minContains", "maxContains", "uniqueItems", "propertyNames", "unevaluatedProperties",
                    "unevaluatedItems", "patternProperties", "dependentRequired", "dependentSchemas", "dependencies"})
"""What any rule looks for."""
_ELSEWHERE = frozenset({"$ref", "$dynamicRef", "$recursiveRef", "allOf", "anyOf", "oneOf", "if", "not", "dependencies",
                        "dependentSchemas", "contains"})
"""What may evaluate properties and items beside the plain keywords."""
MOVED = re.compile(r'"\$ref": "[^"]*/(?:oneOf|if|then|else|not|dependen\w*|propertyNames|unevaluated\w*)[/"]')
"""A reference into what would be moved; a schema that has one is left as it is."""


def rewritten(schema: Schema, apart: Apart) -> Schema:
    """A schema whose inner ones are as they were; `apart` compares schemas of its document."""
    result = dict(schema)
    for rule in _RULES if schema.keys() & _WORDS else ():
        rule(result, apart)
    return result


def _numbers(schema: Schema, _: Apart) -> None:
    for name in _COUNTS:
        count = schema.get(name)
        if isinstance(count, int | float) and not isinstance(count, bool) and count % 1 == 0:
            schema[name] = int(min(count, MOST_COUNTED))
    for name, nearer in _BOUNDS.items():
        bound, most = schema.get(name), -LARGEST if nearer is max else LARGEST
        if isinstance(bound, int | float) and nearer(bound, most) != bound and not isinstance(bound, bool):
            schema[name] = most


def _idle(schema: Schema, _: Apart) -> None:
    """Leave out what restricts nothing."""
    if "if" not in schema or not schema.keys() & {"then", "else"}:
        _drop(schema, "if", "then", "else")
    if "contains" not in schema:
        _drop(schema, "minContains", "maxContains")
    most = schema.get("maxItems")
    if schema.get("uniqueItems") is False or "array" not in kinds(schema) or (isinstance(most, int) and most <= 1):
        _drop(schema, "uniqueItems")
    for word in ("propertyNames", "unevaluatedProperties", "unevaluatedItems"):
        if schema.get(word) in (True, {}):
            _drop(schema, word)


def _unevaluated(schema: Schema, _: Apart) -> None:
    """What no part of the schema speaks of is what its plain keywords leave."""
    if schema.keys() & _ELSEWHERE:
        return
    if "unevaluatedProperties" in schema:
        schema.setdefault("additionalProperties", schema.pop("unevaluatedProperties"))
    if "unevaluatedItems" in schema:
        rest = "additionalItems" if isinstance(schema.get("items"), list) else "items"
        schema.setdefault(rest, schema.pop("unevaluatedItems"))


def _every(schema: Schema, _: Apart) -> None:
    """A pattern that all names match says what any other member is, and named ones, too."""
    patterns, members = schema.get("patternProperties"), schema.get("properties", {})
    if not isinstance(patterns, Mapping) or not isinstance(members, Mapping) or len(patterns) != 1:
        return
    ((pattern, rest),) = patterns.items()
    if _ALL.fullmatch(pattern):
        del schema["patternProperties"]
        both = {name: each if _told(each) == _told(rest) else {"allOf": [each, rest]} for name, each in members.items()}
        schema.update(additionalProperties=rest, **({"properties": both} if members else {}))


def _told(schema: Any) -> Any:
    if not isinstance(schema, Mapping):
        return schema
    return {word: each for word, each in schema.items() if word not in ANNOTATIONS}


def _names(schema: Schema, apart: Apart) -> None:
    """Names from a list, or by a pattern, are properties of these names and no others."""
    names, members = _plain(schema.get("propertyNames"), apart.root), schema.get("properties", {})
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
    never: tuple[Any, ...] = (False, {"not": {}}, {"not": True})
    left = [each for each in parts if each not in never] if isinstance(parts, list) else []
    return target(left[0], root) if len(left) == 1 else schema


def _pattern(names: Mapping[str, Any]) -> str | None:
    """The expression that names must match; empty where any name will do, None where it takes more than one."""
    if _only(names, "type"):
        return ""
    least, most, parts = names.get("minLength", 0), names.get("maxLength"), names.get("allOf")
    if _only(names, "type", "minLength", "maxLength") and isinstance(least, int) and isinstance(most, int | None):
        return f"^(?s:.){{{least},{'' if most is None else most}}}$"
    if names.keys() - spelled(names).keys():
        return _pattern(spelled(names))
    if _only(names, "type", "allOf") and isinstance(parts, list) and len(parts) == 1 and isinstance(parts[0], Mapping):
        return _pattern(parts[0])
    if _only(names, "type", "format") and names["format"] == "uuid":
        return _UUID
    pattern = names.get("pattern")
    return pattern if isinstance(pattern, str) and _only(names, "type", "pattern") else None


def _dependent(schema: Schema, _: Apart) -> None:
    """A name that needs others, or a schema, is not there, or they hold."""
    for word in ("dependentRequired", "dependentSchemas", "dependencies"):
        needs = schema.get(word)
        if isinstance(needs, Mapping) and len(needs) <= MOST:
            del schema[word]
            for name, need in needs.items():
                more = {"required": need} if isinstance(need, list) else need
                there = {"allOf": [{"required": [name]}, more]}
                _also(schema, {"anyOf": [{"properties": {name: False}}, there]})


def _not(schema: Schema, apart: Apart) -> None:
    turned = Outside(apart, _members(schema)).of(schema["not"]) if "not" in schema else None
    if turned is None:
        return
    del schema["not"]
    if turned is False:
        schema["enum"] = []
    elif isinstance(turned, dict):
        _also(schema, turned)


def _by_value(schema: Schema, apart: Apart) -> None:
    """Conditions on the value of one member are alternatives by its values: together they would be all combinations."""
    parts = schema.get("allOf")
    asked = [(each, *_asked(each["if"])) for each in parts if isinstance(each, Mapping) and "if" in each
             and _only(each, "if", "then", "else")] if isinstance(parts, list) else []
    names = {name for _, name, _, _ in asked}
    if len(asked) < 2 or len(names) != 1 or names == {""} or kinds(schema) != {"object"}:
        return
    (name,) = names
    values_by_text = {text: value for _, _, known, _ in asked for text, value in known.items()}
    own = target(_member(schema, name), apart.root)
    listed = values(own) if isinstance(own, Mapping) else None
    rest = Outside(apart).of({"enum": [*values_by_text.values()]}) if listed is None or any(
        isinstance(value, float) for value in listed) else {
            "enum": [value for value in listed if json.dumps(value) not in values_by_text]}
    found = dict[str, tuple[list[Any], list[Any]]]()
    for text, value in values_by_text.items():
        then = [each.get("then" if text in known else "else", True) for each, _, known, _ in asked]
        found.setdefault(json.dumps(then), ([], then))[0].append(value)
    either = [_valued(name, {"enum": each}, then) for each, then in found.values()]
    if isinstance(rest, dict) and rest != {"enum": []}:
        either.append(_valued(name, rest, [each.get("else", True) for each, *_ in asked]))
    if name not in required(schema):
        absent = [each.get("else" if needed else "then", True) for each, _, _, needed in asked]
        either.append(_all_of({"properties": {name: False}}, absent))
    schema["allOf"] = [each for each in parts or () if all(each is not one for one, *_ in asked)]
    _also(schema, {"anyOf": either})


def _member(schema: Schema, name: str) -> Any:
    members = schema.get("properties")
    return members.get(name) if isinstance(members, Mapping) else None


def _valued(name: str, value: Schema, more: list[Any]) -> Schema:
    """Objects with a member of such a value that fit some more schemas."""
    return _all_of({"properties": {name: value}, "required": [name]}, more)


def _all_of(schema: Schema, more: list[Any]) -> Schema:
    others = [each for each in more if each is not True]
    return {**schema, "allOf": others} if others else schema


def _asked(condition: Any) -> tuple[str, dict[str, Any], bool]:
    """The member for whose value a condition asks, its values by their texts, and whether it must be there."""
    other: tuple[str, dict[str, Any], bool] = "", {}, False
    members = condition.get("properties") if isinstance(condition, Mapping) else None
    if not isinstance(members, Mapping) or len(members) != 1 or not _only(condition, "properties", "required", "type"):
        return other
    ((name, value),) = members.items()
    if not isinstance(value, Mapping) or not (_only(value, "const", "type") or _only(value, "enum", "type")):
        return other
    known = values(value)
    if not known or not all(isinstance(each, str | int | None) for each in known):
        return other
    fits = set(map(kind_of, known)) <= named(value.get("type", [*ANY])) and condition.get("type", "object") == "object"
    return (name, {json.dumps(each): each for each in known}, "required" in condition) \
        if fits and condition.get("required", [name]) == [name] else other


def _condition(schema: Schema, apart: Apart) -> None:
    turned = Outside(apart, _members(schema)).of(schema["if"]) if "if" in schema else None
    if turned is None:
        return
    first, then, other = (schema.pop(word, True) for word in ("if", "then", "else"))
    _also(schema, {"anyOf": [{"allOf": [first, then]}, {"allOf": [turned, other]}]})


def _one_of(schema: Schema, apart: Apart) -> None:
    """Each alternative as far as it is told to be none of the others."""
    parts, found = schema.get("oneOf"), list[Any]()
    if not isinstance(parts, list) or len(parts) > MANY:
        return
    around: Schema = {word: schema[word] for word in ("type", "required", "properties") if word in schema}
    for number, each in enumerate(parts):
        mine = {**around, "allOf": [each]}
        others = [other for place, other in enumerate(parts)
                  if place != number and not apart.pair(mine, {**around, "allOf": [other]})]
        if len(others) > FEW and (told := _told_by(each, others, around, apart)):
            found.append(told)
            continue
        outside = Outside(apart, [*_members(schema), *_members(target(each, apart.root))])
        turned = [outside.of(other) for other in itertools.islice(others, MOST + 1)]
        if len(turned) <= MOST and None not in turned and not any(apart.pair(each, one) for one in turned):
            found.append({"allOf": [each, *turned]} if turned else each)
    if found:
        del schema["oneOf"]
        _also(schema, {"anyOf": found}) if "anyOf" in schema else schema.update(anyOf=found)


def _told_by(each: Any, others: list[Any], around: Schema, apart: Apart) -> Schema | None:
    """An alternative with a member that must be there, and whose value none of the others has."""
    whole = target(each, apart.root)
    for name in _members(whole):
        member = target(whole["properties"][name], apart.root)
        if isinstance(member, Mapping) and values(member):
            needed = {"allOf": [each, {"type": "object", "required": [name]}]}
            if all(apart.pair({**around, **needed}, {**around, "allOf": [other]}) for other in others):
                return needed
    return None


def _members(schema: Any) -> list[str]:
    """The names of an object's members."""
    found = schema.get("properties") if isinstance(schema, Mapping) else None
    return list(found) if isinstance(found, Mapping) else []


def optional(schema: Mapping[str, Any]) -> list[str]:
    """The names of an object's members that may be left out."""
    needed = set(required(schema))
    return [name for name in _members(schema) if name not in needed]


def _beside(schema: Schema, apart: Apart) -> None:
    """Leave out what says nothing beside references: the compiler would follow them at once, and not in circles."""
    found = [schema] if "$ref" in schema else schema.get("anyOf")
    if not isinstance(found, list) or not any(isinstance(each, Mapping) and "$ref" in each for each in found):
        return
    _drop(schema, *ANNOTATIONS, *(("$schema",) if not schema.keys() & {"$defs", "definitions"} else ()))
    if schema.get("additionalProperties") in (True, {}) and "unevaluatedProperties" not in schema:
        _drop(schema, "additionalProperties")
    places = ({"$ref": each["$ref"]} if "$ref" in each else each for each in found if isinstance(each, Mapping))
    inner = [target(each, apart.root) for each in places]
    if "type" in schema and all(isinstance(each, Mapping) and kinds(each) <= named(schema["type"]) for each in inner):
        del schema["type"]


def _least(schema: Schema, _: Apart) -> None:
    """An object that must have some members has as many of those that are named, or what must be there is enough."""
    least, needed, names = schema.get("minProperties"), set(required(schema)), optional(schema)
    if not isinstance(least, int) or not (names or least == 0):
        return
    count = least - len(needed)
    if count <= 0:
        del schema["minProperties"]
    elif count <= len(names) and (least == 1 or math.comb(len(names), count) <= MOST_WAYS):
        del schema["minProperties"]
        _also(schema, {"anyOf": [{"required": list(some)} for some in itertools.combinations(names, count)]})


def _most(schema: Schema, _: Apart) -> None:
    """An object that may have but one member has none or one of those that are named."""
    most, needed, names = schema.get("maxProperties"), required(schema), _members(schema)
    if not isinstance(most, int) or isinstance(most, bool):
        return
    if schema.get("additionalProperties") is False and "patternProperties" not in schema and most >= len(names):
        del schema["maxProperties"]
    elif most == 1 and set(names) > set(needed) and len(names) <= MOST_WAYS:
        del schema["maxProperties"]
        none, least = dict.fromkeys(names, False), schema.get("minProperties", 0)
        if least == 1:
            del schema["minProperties"]
        ways: list[Schema] = [{"properties": none | {name: True}, "required": [name], "additionalProperties": False}
                              for name in needed or names]
        if not (needed or least):
            ways.append({"properties": none, "additionalProperties": False})
        _also(schema, {"anyOf": ways})


_RULES: tuple[Callable[[Schema, Apart], None], ...] = (_numbers, _idle, _unevaluated, _every, _names, _most, _least,
                                                     _dependent, _not, _by_value, _condition, _one_of, _beside)


def _also(schema: Schema, more: Schema) -> None:
    parts = schema.get("allOf")
    schema["allOf"] = [*(parts if isinstance(parts, list) else ()), more]


def _only(schema: Mapping[str, Any], *words: str) -> bool:
    return not schema.keys() - {*words, *ANNOTATIONS}


def _drop(schema: Schema, *words: str) -> None:
    for word in words:
        schema.pop(word, None)
