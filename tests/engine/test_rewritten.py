"""Keywords that the compiler does not know are followed by others that mean the same, or refused by name."""
from __future__ import annotations

import contextlib
import json
import random
import re
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
KINDS_OF = {"type": "object", "properties": {"a": WHOLE, "b": WHOLE, "k": {"enum": ["x", "y", "z"]}}, "allOf": [
    {"if": {"properties": {"k": {"const": "x"}}}, "then": {"required": ["a"]}},
    {"if": {"properties": {"k": {"const": "y"}}}, "then": {"required": ["b"]}, "else": {"properties": {"b": False}}},
    {"minProperties": 0}], "additionalProperties": False}
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
    "not a text": ({"type": "string", "not": {"enum": ["", "ab", "a.", "é"]}}, ["a", "abc", "b", "a.b", "e", "\n"],
                   ["", "ab", "a.", "é"]),
    "not a number": ({"type": ["number", "string"], "not": {"enum": [3, 5]}}, [1, 3.5, 4, 6, "x"], [3, 5, None]),
    "not a flag": ({"not": {"const": True}}, [False, 1, "x", None, {}], [True]),
    "not a length": ({"type": "string", "not": {"minLength": 3}}, ["", "xx"], ["xxx"]),
    "not within bounds": ({"type": "integer", "not": {"minimum": 3, "maximum": 5}}, [2, 6, -7], [3, 4, 5]),
    "not of some characters": ({"type": "string", "not": {"pattern": r"^[\s.]+$"}}, ["", "x", " x."], [" ", ".."]),
    "not a member of a value": ({**PAIR, "not": {"properties": {"a": {"const": 1}}}}, [{"a": 2}], [ONE, BOTH, NONE]),
    "not a shared schema": ({**NAMED, "type": "string", "not": {"$ref": "#/$defs/Color"}}, ["green"], ["red", "blue"]),
    "one of texts by length": ({"oneOf": [{"type": "string", "maxLength": 3}, {"type": "string", "minLength": 2}]},
                               ["", "x", "xxxx"], ["xx", "xxx"]),
    "one of a list and any text": ({"type": "string", "oneOf": [{"enum": ["a", "b"]}, {}]}, ["c", "ab"], ["a", "b"]),
    "one of open objects": ({"type": "object", "oneOf": [{"required": ["a"], "properties": {"a": WHOLE}},
                                                         {"required": ["b"], "properties": {"b": WHOLE}}]},
                            [ONE, TWO], [NONE, BOTH]),
    "one of objects that may be empty": ({"oneOf": [record((), a=WHOLE), record((), b=WHOLE)]}, [ONE, TWO],
                                         [NONE, BOTH]),
    "one of parts that are put together": (
        {"oneOf": [{"allOf": [{"required": ["k"], "type": "object"}, {"properties": {"k": {"const": kind}}}]}
                   for kind in ("x", "y")]}, [{"k": "x"}, {"k": "y"}], [{"k": "z"}, NONE]),
    "if a member has a value": ({**PAIR, "if": {"properties": {"a": {"const": 1}}}, "then": {"required": ["b"]}},
                                [BOTH, TWO, {"a": 2}], [ONE]),
    "a member at least": ({**PAIR, "minProperties": 1}, [ONE, TWO, BOTH], [NONE]),
    "as many members as must be": ({**PAIR, "required": ["a"], "minProperties": 1}, [ONE, BOTH], [NONE, TWO]),
    "no members at least": ({**PAIR, "minProperties": 0}, [ONE, NONE], [{"c": 1}]),
    "two members at least": ({**PAIR, "properties": {"a": WHOLE, "b": WHOLE, "c": {}}, "minProperties": 2},
                             [BOTH, {"a": 1, "c": 1}, {"b": 2, "c": 1}], [ONE, TWO, NONE]),
    "two members at least, one of which must be": ({**PAIR, "required": ["a"], "minProperties": 2}, [BOTH], [ONE, TWO]),
    "one member": ({**PAIR, "minProperties": 1, "maxProperties": 1}, [ONE, TWO], [BOTH, NONE]),
    "a member at most": ({**PAIR, "maxProperties": 1}, [ONE, TWO, NONE], [BOTH]),
    "a member that must be at most": ({**PAIR, "maxProperties": 1, "required": ["a"]}, [ONE], [BOTH, TWO, NONE]),
    "a member at most of an open object": ({"type": "object", "properties": {"a": WHOLE}, "maxProperties": 1},
                                           [ONE, NONE], [BOTH]),
    "as many members as there are": ({**PAIR, "maxProperties": 2}, [ONE, BOTH, NONE], [{"c": 1}]),
    "names by a pattern of all": ({"properties": {"a": {"maximum": 9}}, "type": "object",
                                   "patternProperties": {"^[a-z]*": WHOLE}, "additionalProperties": False},
                                  [NONE, ONE, {"A": 3}], [{"a": 10}, {"b": "x"}]),
    "circles beside a type": ({"type": "object", "anyOf": [{"$ref": "#/$defs/A"}], "$defs": {
        "A": record((), a={"type": "array", "items": {"$ref": "#"}})}}, [NONE, {"a": [NONE]}], [[], {"a": [1]}]),
    "circles by a title": ({"$ref": "#/$defs/A", "$defs": {"A": record((), a={
        "$ref": "#/$defs/A", "title": "A", "type": "object"})}}, [NONE, {"a": NONE}], [[], {"a": 1}]),
    "circles by a reference that is explained": ({"$ref": "#/$defs/A", "$defs": {"A": record((), a={
        "$ref": "#/$defs/A", "type": "object", "deprecated": True, "readOnly": True})}}, [NONE, {"a": NONE}], [[]]),
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
    "conditions on a value": ({**KINDS_OF, "required": ["k"]}, [{"a": 1, "k": "x"}, {"b": 2, "k": "y"}, {"k": "z"}],
                              [{"k": "x"}, {"k": "y"}, NONE, {"b": 2, "k": "z"}, {"b": 2, "a": 1, "k": "x"}]),
    "conditions on a value that may be absent": (KINDS_OF, [{"a": 1, "b": 2}, {"a": 1, "k": "x"}, {"k": "z"}],
                                                 [NONE, ONE, {"k": "x"}, {"b": 2, "k": "z"}]),
    "conditions on a value that must be there": (
        {"type": "object", "properties": {"a": {}, "k": {}}, "allOf": [
            {"if": {"properties": {"k": {"enum": [1, True]}}, "required": ["k"]}, "then": {"required": ["a"]}},
            {"if": {"properties": {"k": {"const": None}}, "required": ["k"]}, "then": {"properties": {"a": False}}}]},
        [NONE, ONE, {"a": 1, "k": 1}, {"k": None}, {"k": "x"}, {"k": 2}, {"a": 1, "k": True}],
        [{"k": 1}, {"k": True}, {"a": 1, "k": None}]),
    "one of many by a member that may be absent": (
        {"oneOf": [{"type": "object", "properties": {"k": {"const": kind}, "a": {"const": kind}}}
                   for kind in range(5)]}, [{"k": 1}, {"k": 4, "a": 4}], [{"k": 5}, NONE, {"a": 1}]),
    "one of objects by patterns of texts": (
        {"oneOf": [{"type": "object", "required": ["k"], "properties": {"k": {"type": "string", "pattern": pattern}}}
                   for pattern in ("^A$", "^(B|C)$", "^D_1$")]}, [{"k": "A"}, {"k": "C"}, {"k": "D_1"}],
        [{"k": "B|C"}, NONE]),
    "then alone": ({"type": "integer", "then": {"minimum": 5}}, [1], ["x"]),
    "if alone": ({"type": "integer", "if": {"minimum": 5}}, [1], ["x"]),
    "not unique": ({"type": "array", "items": WHOLE, "uniqueItems": False}, [[1, 1]], [["x"]]),
    "unique, and alone": ({"type": "array", "items": WHOLE, "uniqueItems": True, "maxItems": 1}, [[1]], [[1, 1]]),
    "64 bits": ({"type": "integer", "minimum": -2**63, "maximum": 2**63 - 1}, [1, -2**62, 2**62], [2**64, 1.5]),
    "floats of 32 bits": ({"type": "number", "minimum": -3.4028235e38, "maximum": 3.4028235e38}, [1, -1.5], ["x"]),
    "tenths": ({"type": "number", "multipleOf": 0.1, "minimum": 0, "maximum": 9}, [0.3, 7], [0.25]),
    "counts beyond 32 bits": ({"type": "string", "minLength": 1, "maxLength": 2**53 - 1}, ["x"], ["", 1]),
    "counts as floats": ({"type": "string", "minLength": 1.0, "maxLength": 2.0}, ["x"], ["", "xxx"]),
    "a dialect of one's own": ({"$schema": "https://example.com/dialect", "type": "null"}, [None], [1]),
    "keywords as names": (record(**{"not": WHOLE, "oneOf": WHOLE, "default": {"type": "string", "format": "date"}}),
                          [{"not": 1, "oneOf": 2, "default": "2020-01-02"}], [{"not": 1, "oneOf": 2, "default": "x"}]),
    "base64": ({"type": "string", "contentEncoding": "base64"}, ["", "YQ==", "YWJj"], ["%", "YQ", "{}"]),
    "a reference into what moves": ({"oneOf": [WHOLE, {"type": "null"}], "properties": {"a": {"$ref": "#/oneOf/0"}}},
                                    [1, None], ["x"]),
}
NARROWED = {"base64", "a dialect of one's own", "keywords as names", "64 bits", "tenths", "names of a format",
            "an address as zod has it", "a time by a clock", "not a member of a value", "circles beside a type",
            "a member at most of an open object", "one of many by a member that may be absent",
            "not of some characters", "names of a format that the compiler knows"}
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
    ({"type": "string", "not": {"pattern": "a|b"}}, "not"),
    ({"if": {"properties": {"a": {"multipleOf": 3}}}, "then": {"required": ["b"]}}, "if"),
    ({"oneOf": [{"type": "string", "pattern": "^a"}, {"type": "string", "pattern": "b$"}]}, "oneOf"),
    ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf"),
    ({"oneOf": [record((), a=WHOLE)] * 201}, "oneOf"),
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


KINDS = ["string", "integer", "number", "boolean", "null", "array", "object"]
VALUES = [None, True, False, 0, 1, 2, 3, 1.5, -1, "", "a", "b", "ab", "abc", "x", [], [1], ["a", 2], {}, {"a": 1},
          {"a": "a"}, {"b": 2}, {"a": 1, "b": 2}, {"a": "ab", "c": None}, {"a": {"b": 1}}, {"c": True}, {"ab": 1}]


def any_schema(dice: random.Random, depth: int = 3) -> Any:
    """A schema of few keywords, chosen by chance."""
    def inner() -> Any:
        return any_schema(dice, depth - 1)

    leaf, names = depth == 0 or dice.random() < 0.25, dice.sample("abc", 2)
    return dice.choice([
        lambda: {"type": dice.sample(KINDS, dice.randint(1, 2))}, lambda: {"enum": dice.sample(VALUES, 2)},
        lambda: {"minLength": dice.randint(0, 3)}, lambda: {"maxLength": dice.randint(0, 3), "minItems": 1},
        lambda: {dice.choice(["minimum", "exclusiveMaximum"]): dice.choice([0, 1.5, 2])},
        lambda: {"required": names}, lambda: {"pattern": dice.choice(["^[ab]+$", "^[^a]*$", "a"])},
        lambda: dice.choice([{}, True, False]), lambda: {"$ref": f"#/$defs/{dice.choice('XY')}"}])() if leaf else {
        **dice.choice([
            lambda: {"properties": {name: inner() for name in names}, **{
                word: dice.randint(0, 2) for word in dice.sample(["minProperties", "maxProperties"], 1 + (depth > 1))}},
            lambda: {"oneOf": [inner() for _ in names]}, lambda: {"not": inner()},
            lambda: {"if": inner(), dice.choice(["then", "else"]): inner()},
            lambda: {"anyOf": [inner(), inner()]}, lambda: {"allOf": [inner(), inner()]},
            lambda: {"patternProperties": {dice.choice([".*", "^a"]): inner()}, "additionalProperties": False},
            lambda: {"dependentRequired": {"a": ["b"]}, "items": inner()},
            lambda: {"type": "object", "allOf": [inner(), *({"if": {"properties": {"a": {
                "enum": dice.sample([1, True, None, "a", "ab"], 2)}}, **dice.choice([{}, {"required": ["a"]}])},
                dice.choice(["then", "else"]): inner()} for _ in names)]}])(),
        **(found if isinstance(found := inner(), dict) and dice.random() < 0.4 else {})}


def test_what_is_rewritten_never_takes_more() -> None:
    followed = 0
    for seed in range(600):
        dice = random.Random(seed)
        schema = {"allOf": [any_schema(dice)], "$defs": {name: any_schema(dice, 1) for name in "XY"}}
        ready = prepared(schema)
        if not re.search('"(not|oneOf|if|dependentRequired)":', json.dumps(ready)):
            before, after = (jsonschema_rs.Draft202012Validator(each) for each in (schema, ready))
            lax = [value for value in VALUES if after.is_valid(value) and not before.is_valid(value)]
            assert not lax, (seed, schema)
            followed += any(map(after.is_valid, VALUES))
    assert followed > 200


JUNK = [None, True, 0, -1, 1.5, float("inf"), 10**400, "", "a", "#", [], {}, [[]], [{}], ["a", 1], {"a": []},
        {"type": 5}]
WORDS = ["$ref", "type", "required", "properties", "additionalProperties", "minLength", "multipleOf", "enum", "format",
         "contentEncoding", "$schema", "items", "pattern", "minProperties", "propertyNames", "dependentRequired", "not",
         "allOf", "anyOf", "oneOf", "if", "patternProperties"]


def spoiled(dice: random.Random, schema: Any) -> Any:
    """A schema with things in it that make no sense."""
    if isinstance(schema, list):
        return [spoiled(dice, each) for each in schema]
    if not isinstance(schema, dict):
        return dice.choice(JUNK) if dice.random() < 0.05 else schema
    result = {word: spoiled(dice, each) for word, each in schema.items()}
    if dice.random() < 0.15:
        result[dice.choice([*schema, *WORDS])] = dice.choice(JUNK)
    return result


def test_what_makes_no_sense_is_left_or_refused() -> None:
    for seed in range(2000):
        dice = random.Random(seed)
        schema = spoiled(dice, {"allOf": [any_schema(dice)], "$defs": {name: any_schema(dice, 1) for name in "XY"}})
        with contextlib.suppress(InvalidRequest):
            assert isinstance(prepared(schema), dict)


@pytest.mark.parametrize("schema", [{"multipleOf": True}, {"multipleOf": 1e999}, {"propertyNames": {"pattern": []}},
                                    {"not": {"required": [{}]}}, {"oneOf": [
                                        {"additionalProperties": False, "properties": 5}, {"properties": {"a": {}}}]}])
def test_a_keyword_of_the_wrong_kind_is_refused(grammars: Grammars, schema: Any) -> None:
    with pytest.raises(InvalidRequest):
        compiled(grammars, schema)


@pytest.mark.parametrize("schema", [
    {"oneOf": [{"required": [f"a{i}"]} for i in range(200)]},
    {"allOf": [{"oneOf": [{"$ref": "#/$defs/A"}] * 20}] * 300, "$defs": {"A": {"enum": ["x" * 1000] * 150}}},
    {"not": {"anyOf": [{"not": {"anyOf": [{"not": {"properties": {"a": {}}}}] * 12}}] * 12}},
    {"patternProperties": {".*": {"enum": [*range(2000)]}},
     "properties": {f"a{i}": {"type": "null"} for i in range(900)}},
    {"propertyNames": {"enum": [f"a{i}" for i in range(200)]}, "additionalProperties": {"enum": [*range(20_000)]}}])
def test_what_would_grow_without_end_is_bounded(schema: Any) -> None:
    try:
        assert len(json.dumps(prepared(schema))) < 1 << 24
    except InvalidRequest as error:
        assert "too large" in str(error)


def test_circles_of_references_are_not_followed_forever() -> None:
    root = {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"},
                      "c": {"anyOf": [{"$ref": "#/$defs/c"}, {"$ref": "#/$defs/c"}]}}}
    for name in root["$defs"]:
        assert not Apart(root).pair({"$ref": f"#/$defs/{name}"}, {"$ref": f"#/$defs/{name}"})


def test_many_alternatives_are_compared_for_a_while_only() -> None:
    assert not Apart({}).all([record(kind={"const": number}) for number in range(1000)])
    assert Apart({}).all([record(kind={"const": number}) for number in range(30)])


def test_many_conditions_on_a_value_are_no_product(grammars: Grammars) -> None:
    schema = {"type": "object", "properties": {"k": {"type": "string"}}, "required": ["k"], "allOf": [
        {"if": {"properties": {"k": {"const": f"k{i}"}}}, "then": {"required": [f"a{i}"]}} for i in range(40)]}
    grammar = compiled(grammars, schema)
    assert takes(grammar, {"k": "k7", "a7": 1}) and takes(grammar, {"k": "x"}) and not takes(grammar, {"k": "k7"})
