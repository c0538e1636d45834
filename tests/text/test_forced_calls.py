"""Grammars of forced calls: what they take is what the format's own parser reads as a call that fits its schema."""
from __future__ import annotations

import random

import jsonschema_rs
import numpy as np
import pytest
from llguidance import LLMatcher, LLTokenizer
from test_dialects import CALL, NAMES, ONE, TOOLS, TWO, XML, calls, said

from zonda.errors import InvalidRequest
from zonda.text import dialects
from zonda.text.dialects.lark import Lark
from zonda.text.dialects.tools import Tools

BYTES = LLTokenizer("byte")
SPOKEN = {name: text.replace("```json\n{\"name", "<tool_call>\n{\"name").replace("}}\n```", "}}\n</tool_call>")
          for name, text in ONE.items()}
SPOKEN |= {
    "mistral_list": SPOKEN["mistral_list"].replace("] [", "]["),
    "llama": SPOKEN["llama"],
    "qwen_xml": f"<tool_call>\n{XML}\n</tool_call>",
    "liquid": SPOKEN["liquid"].replace("True", "true"),
    "pythonic": "[weather(city=\"Paris\", days=3, metric=true)]",
    "glm": SPOKEN["glm"],
    "dsml": SPOKEN["dsml"],
}

SEVERAL = {"kimi": f"<|tool_calls_section_begin|>{TWO['kimi']}<|tool_calls_section_end|>"}


def taken(grammar: str, text: str) -> bool:
    """Whether the grammar takes a whole text."""
    matcher = LLMatcher(BYTES, LLMatcher.grammar_from_lark(grammar))
    return bool(matcher.consume_tokens(list(text.encode()))) and matcher.is_accepting()


def grammar(name: str, *, many: bool = False, tools: Tools = TOOLS) -> str:
    return dialects.named(name).grammar(Lark((), lambda mark: None), tools, many=many)


@pytest.mark.parametrize("name", NAMES)
def test_a_call_in_the_formats_own_marks_is_taken_and_read(name: str) -> None:
    assert taken(grammar(name), SPOKEN[name])
    assert calls(said(name, [SPOKEN[name]])) == [("weather", CALL)]


@pytest.mark.parametrize("name", NAMES)
def test_a_call_that_does_not_fit_is_refused(name: str) -> None:
    text = SPOKEN[name]
    assert not taken(grammar(name), text.replace("3", "many"))
    assert not taken(grammar(name), text.replace("weather", "whether"))
    assert not taken(grammar(name), "Sunny.")
    assert not taken(grammar(name, tools=TOOLS.only("get-b")), text)


@pytest.mark.parametrize("name", ["hermes", "mistral_list", "hunyuan", "granite", "qwen_xml", "gemma", "kimi"])
def test_several_calls_are_taken_where_they_are_wanted(name: str) -> None:
    free = Tools([{"function": {"name": "get-b"}}, {"function": TOOLS.functions["weather"]}])
    text = SEVERAL.get(name, TWO[name])
    assert taken(grammar(name, many=True, tools=free), text)
    assert not taken(grammar(name, tools=free), text)


@pytest.mark.parametrize("name", NAMES)
def test_marks_that_are_special_tokens_are_meant_as_such(name: str) -> None:
    ids = {mark: 1000 + index for index, mark in enumerate(dialects.named(name).marks)}
    source = dialects.named(name).grammar(Lark(tuple(ids), ids.get), TOOLS, many=True)
    assert not LLMatcher.validate_grammar(LLMatcher.grammar_from_lark(source), None)
    assert not any(f'"{mark}"' in source for mark in ids)


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_may_be_json_where_no_call_must_be_made(name: str) -> None:
    form = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    source = dialects.named(name).grammar(Lark((), lambda mark: None), TOOLS, many=True, form=form)
    head = dialects.named(name).text_head
    assert taken(source, head + '{"a": 1}') and taken(source, SPOKEN[name])
    assert not taken(source, head + '{"a": "b"}')


def test_schemas_of_every_kind_make_a_grammar() -> None:
    tools = Tools([{"function": {"name": "f", "parameters": {
        "$defs": {"Place": {"type": "object", "properties": {"city": {"type": "string"}}}},
        "type": "object", "properties": {
            "place": {"$ref": "#/$defs/Place"}, "unit": {"enum": ["c", "f"], "type": "string"}, "any": {},
            "list": {"type": "array", "items": {"type": "integer"}}, "either": {"anyOf": [{"type": "null"}]}}}}}])
    for name in NAMES:
        source = grammar(name, tools=tools, many=True)
        assert not LLMatcher.validate_grammar(LLMatcher.grammar_from_lark(source), None), name


PICKY = {"type": "object", "additionalProperties": False, "$defs": {
    "Unit": {"enum": ["celsius", "kelvin"]},
    "Tree": {"type": "object", "required": ["v", "kids"], "additionalProperties": False, "properties": {
        "v": {"type": ["integer", "null"]},
        "kids": {"type": "array", "maxItems": 2, "items": {"$ref": "#/$defs/Tree"}}}}},
    "properties": {"unit": {"enum": ["celsius", "kelvin"]}, "size": {"type": "string", "enum": ["big", "small"]},
                   "kind": {"const": "forecast"}, "tree": {"$ref": "#/$defs/Tree"},
                   "other": {"anyOf": [{"$ref": "#/$defs/Unit"}, {"type": "boolean"}]},
                   "scale": {"description": "How.", "allOf": [{"$ref": "#/$defs/Unit"}]},
                   "word": {"oneOf": [{"const": "a"}, {"const": "b", "title": "B"}]},
                   "days": {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 2}},
    "required": ["unit", "size", "kind", "tree", "other", "scale", "word", "days"]}


def drawn(source: str, seed: int, most: int = 1500) -> str:
    """A text that a grammar takes, by chance, with a liking for what closes; empty where that is long."""
    dice, matcher, said = random.Random(seed), LLMatcher(BYTES, LLMatcher.grammar_from_lark(source)), bytearray()
    while not matcher.is_accepting():
        mask = np.frombuffer(matcher.compute_bitmask(), np.uint8)
        allowed = [int(each) for each in np.flatnonzero(np.unpackbits(mask, bitorder="little")) if each < 255]
        closing = [each for each in allowed if each in b'"]})>']
        said.append(dice.choice(closing if closing and dice.random() < 0.4 else allowed))
        matcher.consume_token(said[-1])
        if len(said) == most:
            return ""  # in free text, such as reasoning
    return said.decode()


@pytest.mark.parametrize("name", NAMES)
def test_whatever_the_grammar_takes_is_read_as_a_call_that_fits_the_schema(name: str) -> None:
    tools = Tools([{"function": {"name": "f", "parameters": PICKY}}])
    texts = [text for seed in range(8) if (text := drawn(grammar(name, tools=tools), seed))]
    assert texts
    for text in texts:
        for pieces in ([text], list(text)):
            ((called, arguments),) = calls(said(name, pieces, tools=tools))
            jsonschema_rs.validate(PICKY, arguments)
            assert called == "f"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("schema", [
    {"properties": 5}, {"properties": ["a"]}, {"properties": {"a": 5}}, {"required": 5, "properties": {"a": {}}},
    {"required": "a", "properties": {"a": {}}}, {"type": 7}, {"$defs": 7, "properties": {"a": {}}},
    *({"properties": {"a": inner}} for inner in (
        {"type": "string", "enum": 5}, {"type": "string", "enum": "abc"}, {"type": "array", "items": [1]},
        {"type": "array", "items": True}, {"type": "object", "properties": [3]}, {"type": ["string", "null"]},
        {"type": 5}, {"anyOf": 7}))])
def test_a_schema_of_no_sense_makes_a_grammar_or_is_the_requests_fault(name: str, schema: dict) -> None:
    tools = Tools([{"function": {"name": "f", "parameters": schema}}])
    try:
        assert grammar(name, tools=tools).startswith("start: ")
    except InvalidRequest as error:
        assert error.param == "tools" and error.hint


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("inner", [
    {"$ref": "#/$defs/A"}, {"allOf": [{"$ref": "#/$defs/A"}]}, {"anyOf": [{"$ref": "#/$defs/A"}] * 50},
    {"type": "array", "items": {"anyOf": [{"$ref": "#/$defs/A"}] * 50}},
    {"type": "object", "properties": {word: {"$ref": "#/$defs/A"} for word in "abcdefgh"}}])
def test_references_in_circles_make_a_grammar_of_bounded_size(name: str, inner: dict) -> None:
    tools = Tools([{"function": {"name": "f", "parameters": {
        "$defs": {"A": inner}, "type": "object", "properties": {word: {"$ref": "#/$defs/A"} for word in "abcd"}}}}])
    assert len(grammar(name, tools=tools)) < 20_000


@pytest.mark.parametrize("name", NAMES)
def test_many_arguments_make_a_grammar_of_bounded_size(name: str) -> None:
    unions = {f"p{i}": {"anyOf": [{"$ref": "#/$defs/A"}]} for i in range(400)}
    tools = Tools([{"function": {"name": "f", "parameters": {"type": "object", "properties": unions, "$defs": {
        "A": {"anyOf": [{"$ref": f"#/$defs/B{i}"} for i in range(60)]},
        **{f"B{i}": {"type": "string"} for i in range(60)}}}}}])
    assert len(grammar(name, tools=tools)) < 3_000_000


@pytest.mark.parametrize("name", ["gemma", "pythonic"])
def test_any_of_the_arguments_that_may_be_left_out_may_come(name: str) -> None:
    tools = Tools([{"function": {"name": "f", "parameters": {"type": "object", "properties": {
        each: {"type": "integer"} for each in "abc"}}}}])
    written = {"gemma": "<|tool_call>call:f{T}<tool_call|>", "pythonic": "[f(T)]"}[name]
    colon = {"gemma": ":", "pythonic": "="}[name]
    between = {"gemma": ",", "pythonic": ", "}[name]
    for given in ("", "a", "b", "c", "ab", "ac", "bc", "abc", "ba", "aa"):
        text = written.replace("T", between.join(f"{each}{colon}1" for each in given))
        assert taken(grammar(name, tools=tools), text) == ("".join(sorted(set(given))) == given), text


def test_minimax_forces_values_within_values() -> None:
    tools = Tools([{"function": {"name": "plan", "parameters": {"type": "object", "required": ["stops"], "properties": {
        "stops": {"type": "array", "items": {"type": "object", "required": ["days"], "properties": {
            "days": {"type": "integer"}}}}}}}}])
    written = ('T<tool_call>\nT<invoke name="plan">T<stops>T<item>T<days>2T</days>T</item>T</stops>T</invoke>\n'
               "T</tool_call>")
    text = written.replace("T<", "]<]minimax[>[<")
    assert taken(grammar("minimax3", tools=tools), text)
    assert calls(said("minimax3", [text], tools=tools)) == [("plan", {"stops": [{"days": 2}]})]
    assert not taken(grammar("minimax3", tools=tools), text.replace("2", "two"))


@pytest.mark.parametrize(("more", "closed"), [
    ({}, True), ({"required": ["city"]}, True), ({"required": ["land"]}, False), ({"properties": {}}, True),
    ({"additionalProperties": {"type": "integer"}}, False), ({"anyOf": [{"required": ["city"]}]}, False)])
def test_a_call_has_the_listed_arguments_alone_unless_its_schema_speaks_of_others(more: dict, closed: bool) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, **more}
    tools = Tools([{"function": {"name": "weather", "parameters": schema}}])
    assert tools.schema("weather") == (schema | {"additionalProperties": False} if closed else schema)


@pytest.mark.parametrize("parameters", [{}, {"parameters": None}, {"parameters": {}}], ids=str)
def test_a_tool_without_a_schema_takes_no_arguments(parameters: dict) -> None:
    tools = Tools([{"function": {"name": "ping", **parameters}}])
    written = '<tool_call>\n{"name": "ping", "arguments": {}}\n</tool_call>'
    assert taken(grammar("hermes", tools=tools), written)
    assert not taken(grammar("hermes", tools=tools), written.replace("{}", '{"x": 1}'))
