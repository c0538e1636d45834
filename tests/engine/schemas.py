"""JSON schemas of the kinds that people write."""
from __future__ import annotations

from typing import Any


def record(required: tuple[str, ...] | None = None, **properties: Any) -> dict[str, Any]:
    """A closed object."""
    return {"type": "object", "properties": properties, "additionalProperties": False,
            "required": [*(properties if required is None else required)]}


def listed(items: Any, **more: Any) -> dict[str, Any]:
    return {"type": "array", "items": items, **more}


TEXT = {"type": "string", "maxLength": 12}
WHOLE = {"type": "integer", "minimum": -99, "maximum": 999}
FLAG = {"type": "boolean"}
TREE = record(("value",), value=WHOLE, children=listed({"$ref": "#/$defs/node"}, maxItems=2))
LINKED = record(value=TEXT, next={"anyOf": [{"$ref": "#/$defs/link"}, {"type": "null"}]})
CIRCLE = record(kind={"const": "circle"}, radius={"type": "number", "exclusiveMinimum": 0, "maximum": 100})
SQUARE = record(kind={"const": "square"}, side={"type": "number", "exclusiveMinimum": 0, "maximum": 100})
ADDRESS = record(street=TEXT, city=TEXT, zip={"type": "string", "pattern": "^[0-9]{5}$"},
                 country={"enum": ["DE", "FR", "JP"]})

SCHEMAS: dict[str, Any] = {
    "anything": {"$defs": {}, "type": ["string", "number", "boolean", "null"], "maxLength": 20},
    "any object": {"type": "object", "additionalProperties": {"type": "string", "maxLength": 4}, "maxProperties": 3},
    "text": {"type": "string", "maxLength": 40},
    "text of a length": {"type": "string", "minLength": 3, "maxLength": 5},
    "whole number": WHOLE,
    "positive number": {"type": "integer", "exclusiveMinimum": 0, "maximum": 5},
    "negative number": {"type": "integer", "minimum": -1000, "maximum": -10},
    "number": {"type": "number", "minimum": -1.5, "maximum": 2.25},
    "number above": {"type": "number", "exclusiveMinimum": 0.5, "exclusiveMaximum": 0.75},
    "multiple": {"type": "integer", "multipleOf": 5, "minimum": 0, "maximum": 1000},
    "flag": FLAG,
    "null": {"type": "null"},
    "constant": {"const": {"a": [1, None, "x"]}},
    "enum": {"enum": ["red", "green", "blue"]},
    "mixed enum": {"enum": ["red", 1, 2.5, None, True, {"a": 1}, [1, 2]]},
    "unicode enum": {"enum": ["Grüße", "日本語", "🌬️", "a\"b\\c", "line\nbreak"]},
    "single property": record(answer=TEXT),
    "optional properties": record((), a=WHOLE, b=TEXT, c=FLAG),
    "some required": record(("b",), a=WHOLE, b=TEXT, c=FLAG),
    "many properties": record(**{f"field_{i}": WHOLE for i in range(20)}),
    "unicode names": record(**{"größe": WHOLE, "名前": TEXT, "a b": FLAG, "quo\"te": FLAG}),
    "nested": record(person=record(name=TEXT, home=ADDRESS), active=FLAG),
    "deeply nested": record(a=record(b=record(c=record(d=record(e=WHOLE))))),
    "address": ADDRESS,
    "list": listed(WHOLE, maxItems=4),
    "list of a length": listed(TEXT, minItems=2, maxItems=2),
    "list of objects": listed(record(id=WHOLE, tag=TEXT), maxItems=3),
    "list of lists": listed(listed(WHOLE, maxItems=2), maxItems=2),
    "tuple": {"type": "array", "prefixItems": [WHOLE, TEXT, FLAG], "items": False, "minItems": 3},
    "tuple and more": {"type": "array", "prefixItems": [TEXT], "items": WHOLE, "minItems": 1, "maxItems": 4},
    "empty list": {"type": "array", "maxItems": 0},
    "map": {"type": "object", "additionalProperties": WHOLE, "maxProperties": 3},
    "map by pattern": {"type": "object", "patternProperties": {"^x_[a-z]{1,3}$": WHOLE}, "maxProperties": 2,
                       "additionalProperties": False},
    "open object": {"type": "object", "properties": {"id": WHOLE}, "required": ["id"],
                    "additionalProperties": {"type": "boolean"}},
    "nullable": record(a={"type": ["string", "null"], "maxLength": 5}, b={"anyOf": [WHOLE, {"type": "null"}]}),
    "nullable in a list": listed({"type": ["integer", "null"], "minimum": 0, "maximum": 9}, maxItems=3),
    "any of": {"anyOf": [WHOLE, TEXT, record(x=FLAG)]},
    "shapes": {"anyOf": [CIRCLE, SQUARE]},
    "one of": {"oneOf": [{"type": "string", "maxLength": 9}, {"type": "integer", "minimum": 0, "maximum": 9}]},
    "discriminated": {"oneOf": [CIRCLE, SQUARE]},
    "all of": {"allOf": [{"type": "object", "properties": {"a": WHOLE}, "required": ["a"]},
                         {"properties": {"b": FLAG}, "required": ["b"]}], "maxProperties": 2},
    "reference": {"$defs": {"name": TEXT}, **record(first={"$ref": "#/$defs/name"}, last={"$ref": "#/$defs/name"})},
    "old definitions": {"definitions": {"n": WHOLE}, **record(n={"$ref": "#/definitions/n"})},
    "reference with siblings": {"$defs": {"n": {"type": "integer", "minimum": 0, "maximum": 1000}},
                                **record(n={"$ref": "#/$defs/n", "maximum": 10, "description": "small"})},
    "tree": {"$defs": {"node": TREE}, "$ref": "#/$defs/node"},
    "linked list": {"$defs": {"link": LINKED}, "$ref": "#/$defs/link"},
    "json value": {"$defs": {"value": {"anyOf": [
        WHOLE, TEXT, FLAG, {"type": "null"}, listed({"$ref": "#/$defs/value"}, maxItems=2)]}}, "$ref": "#/$defs/value"},
    "date": {"type": "string", "format": "date"},
    "time": {"type": "string", "format": "time"},
    "date-time": record(at={"type": "string", "format": "date-time"}),
    "duration": {"type": "string", "format": "duration"},
    "uuid": {"type": "string", "format": "uuid"},
    "ipv4": {"type": "string", "format": "ipv4"},
    "email": {"type": "string", "format": "email"},
    "email of a pattern": {"type": "string", "format": "email", "pattern": "^a.*com$"},
    "hostname": {"type": "string", "format": "hostname"},
    "ipv6": {"type": "string", "format": "ipv6"},
    "uri": {"type": "string", "format": "uri"},
    "reference to a uri": {"type": "string", "format": "uri-reference"},
    "pointer": {"type": "string", "format": "json-pointer"},
    "relative pointer": {"type": "string", "format": "relative-json-pointer"},
    "a format that nobody knows": record(colour={"type": "string", "format": "css-color", "maxLength": 5}),
    "long names": {"type": "object", "patternProperties": {"^.{1,40}$": FLAG}, "additionalProperties": False,
                   "maxProperties": 2},
    "a format that restricts nothing": record(secret={"type": "string", "format": "password", "maxLength": 5},
                                              count={"type": "integer", "format": "int32", "maximum": 99,
                                                     "minimum": 0}),
    "phone": record(phone={"type": "string", "pattern": r"^\+[1-9][0-9]{1,14}$"}),
    "version": {"type": "string", "pattern": r"^v?(0|[1-9]\d*)\.(0|[1-9]\d*)(-[a-z]+)?$", "maxLength": 12},
    "unanchored pattern": {"type": "string", "pattern": "abc", "maxLength": 9},
    "unicode pattern": {"type": "string", "pattern": r"^[äöüß]{1,4}$"},
    "colour": {"type": "string", "pattern": "^#[0-9a-fA-F]{6}$"},
    "weather tool": record(("location",), location=TEXT, unit={"type": "string", "enum": ["celsius", "fahrenheit"]},
                           days={"type": "integer", "minimum": 1, "maximum": 14, "default": 1}),
    "search tool": record(query=TEXT, filters=record((), tags=listed(TEXT, maxItems=2), since={
        "type": "string", "format": "date"}), limit={"type": ["integer", "null"], "minimum": 0, "maximum": 50}),
    "tool call": record(name={"enum": ["read", "write"]}, arguments={"anyOf": [
        record(path=TEXT), record(path=TEXT, text=TEXT)]}),
    "annotated": {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "https://example.com/x",
                  "title": "X", "description": "x", "examples": [{}], **record(a={**WHOLE, "title": "A", "default": 1,
                                                                                 "readOnly": True})},
    "pydantic's": {"$defs": {"Step": {"properties": {"explanation": {"title": "E", **TEXT}, "output": TEXT},
                                      "required": ["explanation", "output"], "title": "Step", "type": "object",
                                      "additionalProperties": False}},
                   "properties": {"steps": {"items": {"$ref": "#/$defs/Step"}, "title": "Steps", "type": "array",
                                            "maxItems": 2}, "final": TEXT},
                   "required": ["steps", "final"], "title": "Math", "type": "object", "additionalProperties": False},
}
