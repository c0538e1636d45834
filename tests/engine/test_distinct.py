"""Items that must differ do, wherever a schema says so and however an answer is cut into tokens."""
from __future__ import annotations

import contextlib
import itertools
import json
import random
from typing import Any

import jsonschema_rs
import numpy as np
import pytest
from schemas import record
from spelled import END, VOCAB, Spelling, answer, running, said

from zonda.engine import distinct, places
from zonda.engine.grammar import Compiled, Grammars
from zonda.engine.masks import Constraint
from zonda.errors import InvalidRequest
from zonda.types import Grammar

COLOURS = ["red", "reddish", "blue"]
SEVERAL = ["[1,1]", "1,1", "1,2", '"a","a"', '"]', '],["', "true,true]", '","a"', '","', '", "a', "[[],[]]", "},{",
           "2, "]


class Several(Spelling):
    """A vocabulary with tokens in which whole items are."""

    def token_bytes(self, id: int, /) -> bytes:
        return SEVERAL[id - VOCAB].encode() if id >= VOCAB else super().token_bytes(id)


WORDS = VOCAB + len(SEVERAL)
WORD = {text: VOCAB + place for place, text in enumerate(SEVERAL)}
CLOSING = np.array([not {*b'"]}'}.isdisjoint(Several().token_bytes(id)) or id == END for id in range(WORDS)])


@pytest.fixture(scope="module")
def grammars() -> Grammars:
    return Grammars(Several(), WORDS)


def compiled(grammars: Grammars, schema: Any) -> Compiled:
    return grammars.compile(Grammar("json_schema", json.dumps(schema)))


class Writer:
    """Draws tokens one by one."""

    def __init__(self, grammar: Compiled) -> None:
        self.constraint = Constraint(grammar, frozenset({END}))
        self.row, self._bits = np.zeros(WORDS, np.bool_), np.zeros(WORDS // 32 + 1, np.uint32)
        self.text = b""
        self._look()

    def _look(self) -> None:
        matcher = self.constraint.ready()
        while self.constraint.behind:
            matcher.consume_token(self.constraint.behind.pop(0))
        matcher.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)
        self.constraint.forbid(self.row, self._bits)

    def draw(self, token: int) -> bool:
        if self.row[token]:
            return False
        self.text += Several().token_bytes(token)
        self.constraint.advance(token)
        self._look()
        return True

    @property
    def may_end(self) -> bool:
        return self.constraint.over or not self.row[END]

    @property
    def allowed(self) -> list[str]:
        return [Several().token_bytes(id).decode(errors="replace") for id in np.flatnonzero(~self.row)]


def takes(grammar: Compiled, value: Any, separators: tuple[str, str] = (", ", ": ")) -> bool:
    """Whether a value can be written byte by byte."""
    writer = Writer(grammar)
    text = json.dumps(value, ensure_ascii=False, separators=separators)
    return all(map(writer.draw, text.encode())) and writer.may_end


def unique(items: Any = None, **more: Any) -> dict[str, Any]:
    return {"type": "array", "uniqueItems": True, **({} if items is None else {"items": items}), **more}


@pytest.mark.parametrize("separators", [(", ", ": "), (",", ":")])
def test_every_row_of_different_values_can_be_written_and_no_other(grammars: Grammars,
                                                                   separators: tuple[str, str]) -> None:
    grammar = compiled(grammars, unique({"enum": COLOURS}))
    for count in range(4):
        for values in itertools.product(COLOURS, repeat=count):
            assert takes(grammar, list(values), separators) == (len({*values}) == count), values
    assert not takes(grammar, [*COLOURS, "red"], separators)


def test_long_values_that_begin_alike_can_all_be_written(grammars: Grammars) -> None:
    long = ["a" * 1500, "a" * 1500 + "b", "b"]
    grammar = compiled(grammars, unique({"enum": long}))
    assert takes(grammar, long) and not takes(grammar, [*long, "b"])
    writer = Writer(grammar)
    assert all(map(writer.draw, json.dumps(long[:2])[:-1].encode()))
    assert all(map(writer.draw, b',"')) and writer.allowed == ["b"]


DIFFERENT: dict[str, Any] = {
    "flags": unique({"type": "boolean"}), "both flags": unique({"type": "boolean"}, minItems=2),
    "words": unique({"enum": COLOURS}), "all words": unique({"enum": COLOURS}, minItems=3),
    "words that begin alike": unique({"enum": ["a b", "a c", "a d e", "a d f", "a  "]}),
    "short texts": unique({"type": "string", "maxLength": 1}), "texts": unique({"type": "string", "maxLength": 20}),
    "texts of a pattern": unique({"type": "string", "pattern": "^[ab]{1,2}$"}),
    "small numbers": unique({"type": "integer", "minimum": 1, "maximum": 12}),
    "numbers": unique({"type": "number", "minimum": 0, "maximum": 3}),
    "objects": unique({"type": "object", "properties": {"a": {"type": "boolean"}, "b": {"type": "boolean"}},
                       "additionalProperties": False}),
    "lists": unique({"type": "array", "items": {"type": "integer"}, "maxItems": 2}, maxItems=6),
    "a row": {"type": "array", "uniqueItems": True, "minItems": 3, "items": False, "prefixItems": [
        {"type": "boolean"}, {"type": "boolean"}, {"enum": [True, False, 1]}]},
    "either of two": unique(anyOf=[{"items": {"enum": ["x", "y", "a"]}}, {"items": {"enum": ["x", "y", "b"]}}]),
    "anything": {"uniqueItems": True, "maxItems": 5, "items": {"maxItems": 3, "maxProperties": 2}},
    "within": record(tags=unique({"type": "string", "maxLength": 2}), more=unique(unique({"type": "integer"})))}


@pytest.mark.parametrize("name", DIFFERENT)
def test_answers_that_end_are_valid_and_all_can_end(grammars: Grammars, name: str) -> None:
    schema = DIFFERENT[name]
    grammar, validator = compiled(grammars, schema), jsonschema_rs.validator_for(schema)
    for seed in range(25):
        dice, writer = random.Random(seed), Writer(grammar)
        for place in range(1000):
            allowed = np.flatnonzero(~writer.row)
            assert writer.constraint.error is None and (len(allowed) or writer.may_end), writer.text
            closing = allowed[CLOSING[allowed]]
            some = closing if len(closing) and dice.random() < 0.1 + place / 400 else allowed
            if not len(allowed) or not writer.draw(token := int(dice.choice(some))) or token == END:
                text = writer.text.removesuffix(b"<end>").decode()
                assert validator.is_valid(json.loads(text)), text
                break


def test_a_token_of_several_items_is_no_way_around(grammars: Grammars) -> None:
    numbers, texts = Writer(compiled(grammars, unique({"type": "integer"}))), unique({"type": "string"})
    assert "[" in numbers.allowed and "[1,1]" not in numbers.allowed
    assert numbers.draw(ord("["))
    assert {"1", "1,2", "1,1"} <= {*numbers.allowed} and numbers.draw(WORD["1,1"])
    assert "0" in numbers.allowed and not {"]", ",", ", "} & {*numbers.allowed}  # it may still be 10
    words = Writer(compiled(grammars, texts))
    assert words.draw(ord("[")) and '"a","a"' not in words.allowed
    assert all(map(words.draw, b'"a')) and '"]' in words.allowed and '","' in words.allowed
    assert '","a"' not in words.allowed
    assert "[[],[]]" not in Writer(compiled(grammars, {"uniqueItems": True})).allowed
    assert "[[],[]]" in Writer(compiled(grammars, {"items": {"uniqueItems": True}})).allowed


@pytest.mark.parametrize("values", [
    [1, 1.0], [10, "1e1"], [{"a": 1, "b": 2}, {"b": 2, "a": 1}], [[1, {"a": 2}], [1.0, {"a": 2}]], ["é", "é"],
    [None, None], ["\n", "\n"], [{}, {}], [[], []]], ids=str)
def test_equal_values_are_the_same_however_they_are_written(grammars: Grammars, values: list[Any]) -> None:
    text = ",".join(each if each == "1e1" else json.dumps(each, ensure_ascii=False, separators=(",", ":"))
                    for each in values)
    grammar = compiled(grammars, {"uniqueItems": True})
    assert not all(map(Writer(grammar).draw, f"[{text}]".encode())) and takes(grammar, values[:1])
    assert takes(grammar, [True, 1, "1", None, "null", [], {}, [1], ["1"]])


DOUBLE: list[Any] = [1, 1]
WANTED: dict[str, tuple[Any, Any]] = {
    "a reference": ({"$ref": "#/$defs/u", "$defs": {"u": {"uniqueItems": True}}}, DOUBLE),
    "a reference to a list's part": ({"anyOf": [{"uniqueItems": True}, {"$ref": "#/anyOf/0"}]}, DOUBLE),
    "all of": ({"allOf": [{"type": "array"}, {"uniqueItems": True}]}, DOUBLE),
    "a member": ({"properties": {"a": {"uniqueItems": True}}}, {"a": DOUBLE}),
    "any other member": ({"additionalProperties": {"uniqueItems": True}}, {"b": DOUBLE}),
    "a member by a pattern": ({"patternProperties": {"^a": {"uniqueItems": True}}}, {"ab": DOUBLE}),
    "an item": ({"items": {"uniqueItems": True}}, [2, DOUBLE]),
    "a later item": ({"prefixItems": [{"type": "null"}], "items": {"uniqueItems": True}}, [None, DOUBLE]),
    "one item": ({"prefixItems": [{}, {"uniqueItems": True}]}, [DOUBLE, DOUBLE]),
    "a circle": ({"uniqueItems": True, "items": {"$ref": "#"}}, [[DOUBLE]]),
    "a condition": ({"if": {"type": "array"}, "then": {"uniqueItems": True}}, DOUBLE),
    "a member's need": ({"properties": {"a": {}}, "dependentSchemas": {"a": {"properties": {"b": {
        "uniqueItems": True}}}}}, {"a": 1, "b": DOUBLE})}


@pytest.mark.parametrize("name", WANTED)
def test_items_differ_wherever_the_schema_wants_it(grammars: Grammars, name: str) -> None:
    schema, bad = WANTED[name]
    grammar = compiled(grammars, {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})
    assert not takes(grammar, bad) and takes(grammar, json.loads(json.dumps(bad).replace("1, 1", "1, 2")))


def test_where_it_does_not_they_need_not(grammars: Grammars) -> None:
    grammar = compiled(grammars, {"properties": {"uniqueItems": {}, "a": {"uniqueItems": True}, "b": {
        "items": {"uniqueItems": False}}}})
    assert takes(grammar, {"uniqueItems": DOUBLE, "b": [DOUBLE, DOUBLE]}) and not takes(grammar, {"a": DOUBLE})


@pytest.mark.parametrize("most", [0, 3])
def test_places_that_are_not_kept_are_found_again(grammars: Grammars, monkeypatch: pytest.MonkeyPatch,
                                                  most: int) -> None:
    monkeypatch.setattr(distinct, "_KEPT", most)
    grammar = compiled(grammars, {"properties": {"a": {"items": {"uniqueItems": True}}}})
    assert takes(grammar, {"a": [[1], [1, 2]]}) and not takes(grammar, {"a": [[1], DOUBLE]})


def test_where_too_many_schemas_speak_of_a_value_all_items_differ(grammars: Grammars,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    schema = {"allOf": [{}, {"type": "object"}, {}], "properties": {"a": {"items": {"uniqueItems": True}}, "b": {}}}
    assert takes(compiled(grammars, schema), {"b": [[1], DOUBLE]})
    monkeypatch.setattr(places, "MOST", 3)
    grammar = compiled(grammars, {"title": "again", **schema})
    assert takes(grammar, {"b": [[1], [1, 2]], "c": [1]})
    assert not takes(grammar, {"b": [[1], DOUBLE]}) and not takes(grammar, {"c": DOUBLE})


def any_schema(dice: random.Random, depth: int = 4) -> Any:
    """A schema in which items must differ here and there."""
    def inner() -> Any:
        return any_schema(dice, depth - 1)

    return {} if depth == 0 else {**dice.choice([
        lambda: {"properties": {"a": inner(), "b": inner()}}, lambda: {"additionalProperties": inner()},
        lambda: {"items": inner()}, lambda: {"prefixItems": [inner()], "items": inner()},
        lambda: {"anyOf": [inner(), inner()]}, lambda: {"allOf": [inner(), inner()]}, lambda: {"not": inner()},
        lambda: {"oneOf": [{"type": "array", **inner()}, {"type": "object", **inner()}]},
        lambda: {"if": inner(), "then": inner(), "else": inner()}, lambda: {"$ref": f"#/$defs/{dice.choice('XY')}"},
        lambda: {"type": dice.choice(["array", "object", "integer"])},
        lambda: {"patternProperties": {"^a": inner()}}])(),
        **({"uniqueItems": True} if dice.random() < 0.4 else {})}


VALUES: list[Any] = [DOUBLE, [1, 2], [DOUBLE], [[1, 2], [1, 2]], {"a": DOUBLE}, {"a": [1], "b": [[], []]}, [1, DOUBLE],
                     {"b": {"a": DOUBLE}}, {"a": [{"b": 1}, {"b": 1}]}, 1, [[1, 2], [2, 1]], [{"a": DOUBLE}, 1]]


def test_what_is_taken_is_valid(grammars: Grammars) -> None:
    taken = refused = 0
    for seed in range(80):
        dice = random.Random(seed)
        schema = {"allOf": [any_schema(dice)], "$defs": {name: any_schema(dice, 2) for name in "XY"}}
        with contextlib.suppress(InvalidRequest):
            grammar, validator = compiled(grammars, schema), jsonschema_rs.Draft202012Validator(schema)
            for value in VALUES:
                good = takes(grammar, value)
                assert validator.is_valid(value) or not good, (schema, value)
                taken, refused = taken + good, refused + (not good)
    assert taken > 150 and refused > 50


@pytest.mark.parametrize(("schema", "words"), [
    ({"uniqueItems": True, "items": {"$ref": "other.json"}}, ["`uniqueItems`", "`$ref`", "other.json"]),
    ({"uniqueItems": True, "items": {"$ref": "#/$defs/none"}}, ["`uniqueItems` at `$.uniqueItems`"]),
    ({"uniqueItems": True, "items": {"$id": "https://example.com/x", "$ref": "#/$defs/a", "$defs": {"a": {}}}},
     ["`uniqueItems` at `$.uniqueItems`"])], ids=str)
def test_what_cannot_be_followed_is_refused(grammars: Grammars, schema: Any, words: list[str]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        compiled(grammars, schema)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_grammar_of_another_kind_does_not_take_the_keyword(grammars: Grammars) -> None:
    with pytest.raises(InvalidRequest, match="`uniqueItems`"):
        grammars.compile(Grammar("lark", 'start: %json {"type": "array", "uniqueItems": true}'))


def test_what_has_no_way_out_ends_with_an_error_alone() -> None:
    schema = json.dumps(unique({"type": "boolean"}, minItems=3))
    with running() as engine:
        got = answer(engine, Grammar("json_schema", schema))
        assert got.finish("r") == "error" and "all items that may come are there" in str(got.last("r").error)
        whole = answer(engine, Grammar("json_schema", json.dumps(unique({"type": "boolean"}, minItems=2))))
        assert sorted(json.loads(said(whole))) == [False, True]
