"""Keywords that the compiler does not know are followed by others that mean the same, or refused by name."""
from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import pytest
from schemas import TEXT, WHOLE, record
from spelled import VOCAB, Spelling

from zonda.engine.apart import Apart
from zonda.engine.grammar import Compiled, Grammars
from zonda.engine.schema import prepared
from zonda.errors import InvalidRequest
from zonda.types import Grammar

PAIR = {"type": "object", "properties": {"a": WHOLE, "b": WHOLE}, "additionalProperties": False}
ONE, TWO, BOTH, NONE = {"a": 1}, {"b": 2}, {"a": 1, "b": 2}, dict[str, int]()
NAMED = {"$defs": {"Color": {"enum": ["red", "blue"]}, "Id": {"type": "string", "pattern": "^x[0-9]$"}}}
CASES: dict[str, tuple[dict[str, Any], list[Any], list[Any]]] = {
    "never": ({"anyOf": [{"not": {}}, {"type": "string"}]}, ["x"], [1]),
    "a member that never is": (record((), a={"not": {}}, b=WHOLE), [NONE, TWO], [ONE]),
    "no null": ({"not": {"type": "null"}}, [1, "x", 1.5, {}], [None]),
    "no number": ({"not": {"type": ["number", "string"]}}, [None, []], [1, 1.5, "x"]),
    "not without": ({"not": {"not": {"type": "null"}}}, [None], [1]),
    "not a member": ({**PAIR, "not": {"required": ["a"]}}, [NONE, TWO], [ONE, BOTH]),
    "not both members": ({**PAIR, "not": {"required": ["a", "b"]}}, [NONE, ONE, TWO], [BOTH]),
    "neither member": ({**PAIR, "not": {"anyOf": [{"required": ["a"]}, {"required": ["b"]}]}}, [NONE], [ONE, TWO]),
    "dependencies": ({**PAIR, "dependencies": {"a": ["b"]}}, [NONE, TWO, BOTH], [ONE]),
    "dependentRequired": ({**PAIR, "dependentRequired": {"a": ["b"], "b": ["a"]}}, [NONE, BOTH], [ONE, TWO]),
    "dependentSchemas": ({**PAIR, "dependentSchemas": {"a": {"properties": {"a": {"maximum": 3}}}}}, [ONE], [{"a": 4}]),
    "names of any text": ({"type": "object", "propertyNames": {"type": "string"}, "additionalProperties": WHOLE},
                          [NONE, ONE], [{"a": "x"}]),
    "names of a list": ({**NAMED, "type": "object", "propertyNames": {"$ref": "#/$defs/Color"},
                         "additionalProperties": WHOLE}, [{"red": 1}, {"blue": 1}], [{"a": 1}, {"red": "x"}]),
    "names by a pattern": ({**NAMED, "type": "object", "propertyNames": {"$ref": "#/$defs/Id"},
                            "additionalProperties": WHOLE}, [{"x1": 1}], [{"a": 1}, {"x1": "x"}]),
    "names of a length": ({"type": "object", "propertyNames": {"minLength": 1, "maxLength": 2},
                           "additionalProperties": WHOLE}, [{"é": 1}, {"\n1": 1}, NONE], [{"": 1}, {"abc": 1}]),
    "names of a format": ({"type": "object", "propertyNames": {"format": "date"}, "additionalProperties": WHOLE},
                          [{"2020-01-02": 1}], [{"a": 1}, {"2020-01-32": 1}]),
    "names of a format that the compiler knows": (
        {"type": "object", "propertyNames": {"format": "uuid"}, "additionalProperties": WHOLE},
        [{"2eb8aa08-aa98-11ea-b4aa-73b441d16380": 1}], [{"a": 1}]),
    "names of a list or never": ({"type": "object", "propertyNames": {"anyOf": [{"enum": ["a"]}, {"not": {}}]}},
                                 [ONE, NONE], [TWO]),
    "an address as zod has it": (
        {"type": "string", "format": "email", "pattern": r"^(?!\.)(?!.*\.\.)([A-Za-z0-9_'+\-\.]*)[A-Za-z0-9_+-]@"
                                                         r"([A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}$"},
        ["a.b@c-d.org"], ["a..b@c.org", ".a@c.org", "x"]),
    "a time by a clock": ({"type": "string", "format": "time", "pattern": "^[0-9]{2}:[0-9]{2}:[0-9]{2}$"},
                          ["12:30:05"], ["12:30:05Z", "12:61:00"]),
    "unevaluated properties": ({"properties": {"a": WHOLE}, "unevaluatedProperties": False}, [ONE], [TWO]),
    "unevaluated items": ({"prefixItems": [WHOLE], "unevaluatedItems": False}, [[1]], [[1, 2]]),
    "one of two members": ({**PAIR, "oneOf": [{"required": ["a"]}, {"required": ["b"]}]}, [ONE, TWO], [BOTH, NONE]),
    "one of closed objects": ({"oneOf": [record(a=WHOLE), record(b=WHOLE)]}, [ONE, TWO], [BOTH]),
    "one of kinds in each other": ({"oneOf": [record(a={"type": ["integer", "null"]}), record(a=TEXT)]},
                                   [ONE, {"a": None}, {"a": "x"}], [{"a": True}]),
    "one of one": ({"oneOf": [{"anyOf": [WHOLE, TEXT]}]}, [1, "x"], [None]),
    "one of, and any of": ({**PAIR, "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
                            "anyOf": [{"properties": {"a": {"const": 1}}}]}, [ONE, TWO], [BOTH, {"a": 3}]),
    "else a type": ({"if": {"type": "string"}, "then": {"minLength": 2}, "else": {"type": "null"}},
                    ["xx", None], ["x", 1]),
    "if a member is there": ({**PAIR, "if": {"required": ["a"]}, "then": {"required": ["b"]}}, [NONE, BOTH], [ONE]),
    "then alone": ({"type": "integer", "then": {"minimum": 5}}, [1], ["x"]),
    "if alone": ({"type": "integer", "if": {"minimum": 5}}, [1], ["x"]),
    "not unique": ({"type": "array", "items": WHOLE, "uniqueItems": False}, [[1, 1]], [["x"]]),
    "unique, and alone": ({"type": "array", "items": WHOLE, "uniqueItems": True, "maxItems": 1}, [[1]], [[1, 1]]),
    "64 bits": ({"type": "integer", "minimum": -2**63, "maximum": 2**63 - 1}, [1, -2**62, 2**62], [2**64, 1.5]),
    "floats of 32 bits": ({"type": "number", "minimum": -3.4028235e38, "maximum": 3.4028235e38}, [1, -1.5], ["x"]),
    "tenths": ({"type": "number", "multipleOf": 0.1, "minimum": 0, "maximum": 9}, [0.3, 7], [0.25]),
    "counts as floats": ({"type": "string", "minLength": 1.0, "maxLength": 2.0}, ["x"], ["", "xxx"]),
    "a dialect of one's own": ({"$schema": "https://example.com/dialect", "type": "null"}, [None], [1]),
    "keywords as names": (record(**{"not": WHOLE, "oneOf": WHOLE, "default": {"type": "string", "format": "date"}}),
                          [{"not": 1, "oneOf": 2, "default": "2020-01-02"}], [{"not": 1, "oneOf": 2, "default": "x"}]),
    "base64": ({"type": "string", "contentEncoding": "base64"}, ["", "YQ==", "YWJj"], ["%", "YQ", "{}"]),
    "a reference into what moves": ({"oneOf": [WHOLE, {"type": "null"}], "properties": {"a": {"$ref": "#/oneOf/0"}}},
                                    [1, None], ["x"]),
}
NARROWED = {"base64", "a dialect of one's own", "keywords as names", "64 bits", "tenths", "names of a format",
            "an address as zod has it", "a time by a clock", "names of a format that the compiler knows"}
"""Where the checker is of another opinion, or less is allowed than might be."""


@pytest.fixture(scope="module")
def grammars() -> Grammars:
    return Grammars(Spelling(), VOCAB)


def compiled(grammars: Grammars, schema: Any) -> Compiled:
    return grammars.compile(Grammar("json_schema", json.dumps(schema)))


def takes(grammar: Compiled, value: Any) -> bool:
    tokens = list(json.dumps(value, ensure_ascii=False).encode())
    matcher = grammar.start.deep_copy()
    return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()


@pytest.mark.parametrize("name", CASES)
def test_a_schema_takes_what_is_valid_and_nothing_else(grammars: Grammars, name: str) -> None:
    schema, good, bad = CASES[name]
    grammar = compiled(grammars, schema)
    assert [value for value in good if not takes(grammar, value)] == []
    assert [value for value in bad if takes(grammar, value)] == []


@pytest.mark.parametrize("name", sorted(CASES.keys() - NARROWED))
def test_what_is_rewritten_means_the_same(name: str) -> None:
    schema, good, bad = CASES[name]
    before, after = (jsonschema_rs.Draft202012Validator(each) for each in (schema, prepared(schema)))
    for value in [*good, *bad, None, 0, -5, 1.5, "", "xxxx", [], [[]], {}, {"a": None}, {"c": 1}, True]:
        assert before.is_valid(value) == after.is_valid(value), value


@pytest.mark.parametrize(("schema", "keyword"), [
    ({"type": "string", "not": {"const": "a"}}, "not"),
    ({"not": {"type": "integer"}}, "not"),
    ({"if": {"properties": {"a": {"const": 1}}}, "then": {"required": ["b"]}}, "if"),
    ({"oneOf": [{"type": "string", "maxLength": 3}, {"type": "string", "minLength": 2}]}, "oneOf"),
    ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf"),
    ({"oneOf": [record((), a=WHOLE), record((), b=WHOLE)]}, "oneOf"),
    ({"type": "array", "items": TEXT, "uniqueItems": True}, "uniqueItems"),
    ({"contains": WHOLE}, "contains"),
    ({"allOf": [{"properties": {"a": WHOLE}}], "unevaluatedProperties": False}, "unevaluatedProperties"),
    ({"propertyNames": {"maxLength": 3}, "properties": {"a": WHOLE}}, "propertyNames"),
    ({"propertyNames": {"maxLength": 3, "pattern": "a"}}, "propertyNames"),
    ({"dependentRequired": {f"p{i}": ["q"] for i in range(20)}}, "dependentRequired"),
    ({"propertyNames": {"maxLength": "3"}}, "propertyNames"),
    ({"$ref": "#/$defs/none"}, "$ref"),
    ({"$ref": "https://example.com/other.json"}, "$ref")])
def test_what_cannot_be_followed_is_refused_by_its_name(grammars: Grammars, schema: Any, keyword: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        compiled(grammars, schema)
    assert f"`{keyword}`" in str(caught.value)


def test_circles_of_references_are_not_followed_forever() -> None:
    root = {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"},
                      "c": {"anyOf": [{"$ref": "#/$defs/c"}, {"$ref": "#/$defs/c"}]}}}
    for name in root["$defs"]:
        assert not Apart(root).pair({"$ref": f"#/$defs/{name}"}, {"$ref": f"#/$defs/{name}"})


def test_many_alternatives_are_compared_for_a_while_only() -> None:
    assert not Apart({}).all([record(kind={"const": number}) for number in range(1000)])
    assert Apart({}).all([record(kind={"const": number}) for number in range(30)])
