"""What cannot be compiled is refused with the place of the fault; what would hurt is bounded."""
from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakerunner import Collector
from spelled import VOCAB, Spelling, constrained, running

from zonda.engine import grammar as module
from zonda.engine import trial
from zonda.engine.engine import Engine
from zonda.engine.grammar import Grammars
from zonda.errors import InvalidRequest
from zonda.types import Grammar


@pytest.fixture(scope="module")
def grammars() -> Grammars:
    return Grammars(Spelling(), VOCAB)


def refusal(grammars: Grammars, kind: Any, source: Any) -> str:
    text = source if isinstance(source, str) else json.dumps(source)
    with pytest.raises(InvalidRequest) as caught:
        grammars.compile(Grammar(kind, text))
    assert caught.value.param == "grammar" and caught.value.status == 400
    assert len(caught.value.message) <= 300
    return str(caught.value)


TRIO: dict[str, Any] = {"type": "object", "properties": {name: {"type": "null"} for name in "abc"}}
BRANCHING = {"type": "string", "if": {"pattern": "a|b"}, "then": {"minLength": 3}}


@pytest.mark.parametrize(("schema", "words"), [
    ({"not": {"pattern": "a"}}, ["`not`", "$.not"]),
    ({"type": "object", "properties": {"a": {"type": "array", "contains": {"const": 1}}}},
     ["`contains` at `$.properties.a.contains`"]),
    ({"type": "object", "properties": {"if": {"type": "null"}, "b": BRANCHING}},
     ["`if` at `$.properties.b.if`", "`then`"]),
    ({"type": "string", "pattern": "a(?=b)"}, ["look-ahead"]),
    ({"type": "string", "pattern": "(["}, ["unclosed"]),
    ({"type": "text"}, ["text"]),
    ({"$ref": "https://example.com/schema.json"}, ["https://example.com/schema.json"]),
    ({"$ref": "file:///etc/passwd"}, ["file:///etc/passwd"]),
    ({"$ref": "#/$defs/absent"}, ["/$defs/absent"]),
    ({"$ref": "#"}, ["no text at all"]),
    ({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}, ["no text at all"]),
    ({"type": "integer", "minimum": 5, "maximum": 1}, ["minimum"]),
    ({"type": "object", "required": ["a"], "additionalProperties": False}, ["'a'"]),
    ({"type": "integer", "multipleOf": 123456}, ["multipleOf"]),
    ({"oneOf": [{"type": "object"}, {"properties": {"a": {}}, "type": "object"}]}, ["`oneOf`", "not told apart"]),
    (TRIO | {"maxProperties": 2}, ["`maxProperties` at `$.maxProperties`", "may be left out"]),
    ({"properties": {"maxProperties": TRIO | {"minProperties": 1},
                     "b": {"type": "object", "maxProperties": 1}, "c": {"items": TRIO | {"minProperties": 4}}}},
     ["`minProperties` at `$.properties.c.items.minProperties`"]),
    ({"$defs": {"a": {"allOf": [TRIO, {"maxProperties": 2}]}}, "$ref": "#/$defs/a"},
     ["`maxProperties` at `$.$defs.a.allOf[1].maxProperties`"]),
    (False, ["not an object"]), ([], ["not an object"]), ("{", ["not valid JSON", "line 1"]),
    ('{"const": NaN}', ["NaN"]), ('{"const": "\\ud800"}', ["cannot be compiled", "escape"])],
    ids=lambda value: str(value)[:60])
def test_a_refused_schema_says_what_and_where(grammars: Grammars, schema: Any, words: list[str]) -> None:
    message = refusal(grammars, "json_schema", schema)
    assert all(word in message for word in words), message


@pytest.mark.parametrize(("kind", "source", "words"), [
    ("regex", "ab(c", ["unclosed group", "character 3"]), ("regex", r"(a)\1", ["backreferences"]),
    ("regex", r"\bfoo", ["lookarounds"]), ("regex", "[a&&b]", ["no text at all"]),
    ("lark", "start: \"a\" |\nfoo: ((", ["line 2, column 8"]),
    ("lark", "start: nothing", ["line 1, column 8", "nothing"]),
    ("lark", "foo: \"a\"", ["no start rule"]), ("lark", "start: <nosuch>", ["<nosuch>"]), ("lark", "", ["no start"]),
    ("lark", 'start: %json {"type": "string", "not": {"pattern": "a"}}', ["`not`"]), ("lark", "\0", ["line 1"]),
    ("lark", f'start: %json {json.dumps(TRIO | {"maxProperties": 2})}', ["a count of members"]),
    ("lark", "%import .files.X\nstart: X", ["line 1"]),
    ("lark", 'start: %json {\n"type":\n"null"} absent', ["line ", "absent"]),
    ("lark", 'start: a b\na: %json {\n"type":\n"null"}\nb: absent', ["line 5, column 4", "absent"]),
    ("choice", "[]", ["choices"]), ("choice", '["a", 1]', ["choices"]), ("choice", '[""]', ["choices"]),
    ("choice", "{", ["JSON"]),
    ("llguidance", "[1]", ["grammars"]), ("llguidance", '{"grammars": []}', ["empty"]),
    ("llguidance", '{"grammars": [{"x": 1}]}', ["lark_grammar or json_schema"])], ids=lambda value: str(value)[:40])
def test_a_refused_grammar_says_what_and_where(grammars: Grammars, kind: str, source: str, words: list[str]) -> None:
    message = refusal(grammars, kind, source)
    assert all(word in message for word in words), message


# ---- what is hostile

def nested(depth: int) -> str:
    return '{"type":"array","items":' * depth + "{}" + "}" * depth


def chained(count: int, link: Any) -> dict[str, Any]:
    return {"$ref": "#/$defs/d0", "$defs": {**{f"d{i}": link(f"#/$defs/d{i + 1}") for i in range(count)},
                                            f"d{count}": {"type": "null"}}}


HOSTILE: dict[str, tuple[str, Any]] = {
    "a deep schema": ("json_schema", nested(100_000 // 26)),
    "a schema too deep for any parser": ("json_schema", nested(500_000 // 26)),
    "a deep value": ("json_schema", '{"const":' + "[" * 200_000 + "]" * 200_000 + "}"),
    "a large schema": ("json_schema", {"description": "x" * 600_000}),
    "a long text": ("json_schema", {"const": "x" * 100_000}),
    "many long texts": ("json_schema", {"enum": [f"{'x' * 8000}{i}" for i in range(60)]}),
    "many values": ("json_schema", {"enum": [f"value {i}" for i in range(30_000)]}),
    "many properties": ("json_schema", {"type": "object", "properties": {f"p{i}": {} for i in range(30_000)}}),
    "many properties of many objects": ("json_schema", {"type": "array", "prefixItems": [
        {"type": "object", "properties": {f"p{i}": {} for i in range(1000)}}] * 25}),
    "long chains": ("json_schema", chained(3900, lambda ref: {"$ref": ref})),
    "long chains of properties": ("json_schema", chained(3900, lambda ref: {
        "type": "object", "properties": {"a": {"$ref": ref}}, "required": ["a"], "additionalProperties": False})),
    "chains too long": ("json_schema", chained(5000, lambda ref: {"$ref": ref})),
    "doubling references": ("json_schema", chained(30, lambda ref: {"allOf": [{"$ref": ref}, {"$ref": ref}]})),
    "a product of choices": ("json_schema", {"allOf": [{"anyOf": [
        {"type": "object", "properties": {f"p{i}{j}": {}}} for j in range(4)]} for i in range(14)]}),
    "a long string": ("json_schema", {"type": "string", "minLength": 10**6, "maxLength": 10**8}),
    "long lists of long lists": ("json_schema", {"type": "array", "minItems": 10**6, "items": {
        "type": "array", "minItems": 10**6}}),
    "counted repetitions": ("json_schema", {"type": "string", "pattern": "(((a{100}){100}){100}){100}"}),
    "nested stars": ("json_schema", {"type": "string", "pattern": "^((((a*)*)*)*)*b$"}),
    "a pattern of many states": ("json_schema", {"type": "string", "pattern": "^(.*a.{200}|.*b.{201}|.*c.{202})$"}),
    "a pattern of optionals": ("json_schema", {"type": "string", "pattern": "^(a?){500}a{500}$"}),
    "an intersection of patterns": ("json_schema", {"allOf": [
        {"type": "string", "pattern": f".*{chr(97 + i)}.{{{i + 20}}}x"} for i in range(12)]}),
    "a deep pattern": ("json_schema", {"type": "string", "pattern": "(" * 4000 + "a" + ")" * 4000}),
    "patterns of properties": ("json_schema", {"type": "object", "patternProperties": {
        f"^(.*{chr(97 + i)}.{{{i + 30}}})$": {} for i in range(8)}}),
    "a tiny step": ("json_schema", {"type": "number", "multipleOf": 1e-300}),
    "a large step": ("json_schema", {"type": "integer", "multipleOf": 123_456_789}),
    "steps that multiply": ("json_schema", {"allOf": [{"multipleOf": 9973 - i} for i in range(80)]}),
    "two steps that multiply": ("json_schema", {"allOf": [{"multipleOf": 9973}, {"multipleOf": 9967}]}),
    "a step that hides": ("lark", 'start: %json {"\\u0061llOf": [{"multipleOf": 9973}, {"multipleOf": 9967}]}'),
    "many patterns of properties": ("json_schema", {"type": "object", "patternProperties": {
        f"^p{i}_[0-9]{{1,{i + 2}}}$": {} for i in range(1000)}}),
    "many unique values": ("json_schema", {"type": "array", "uniqueItems": True, "minItems": 30, "items": {
        "enum": [f"a long value {i}" for i in range(900)]}}),
    "unique lists in unique lists": ("json_schema", {"uniqueItems": True, "minItems": 3, "items": {"$ref": "#"}}),
    "circles of unique items": ("json_schema", {"$ref": "#/$defs/n0", "$defs": {f"n{i}": {
        "uniqueItems": True, "anyOf": [{"items": {"$ref": f"#/$defs/n{j}"}} for j in range(30)]} for i in range(30)}}),
    "white space without end": ("json_schema", {"x-guidance": {"whitespace_pattern": " *"}, "type": "object"}),
    "a large regular expression": ("regex", "a" * 200_000),
    "a deep regular expression": ("regex", "(" * 50_000 + ")" * 50_000),
    "alternatives": ("regex", "|".join(f"(.*{i}.{{{i}}})" for i in range(500))),
    "deep brackets": ("lark", "start: " + "(" * 60_000 + '"a"' + ")" * 60_000),
    "long chains of rules": ("lark", "\n".join(f"r{i}: r{i + 1}" for i in range(3900)) + '\nr3900: "a"\nstart: r0'),
    "chains of rules too long": ("lark", "\n".join(f"r{i}: r{i + 1}" for i in range(9000)) + '\nr9000: "a"\nstart: r0'),
    "doubling terminals": ("lark", "\n".join(f"R{i}: R{i + 1} R{i + 1}" for i in range(60)) + '\nR60: "a"\nstart: R0'),
    "doubling rules": ("lark", "\n".join(f"r{i}: r{i + 1} r{i + 1}" for i in range(60)) + '\nr60: "a"\nstart: r0'),
    "ambiguity": ("lark", 'start: s\ns: s s | s s s | "a" | "aa" |'),
    "many words": ("lark", "start: " + " | ".join(f'"w{i}"' for i in range(9_000))),
    "many optional rules": ("lark", "start: " + "a? " * 5000 + '\na: "x"'),
    "a large step in a grammar": ("lark", 'start: %json {"type": "integer", "multipleOf": 123456789}'),
    "a large step in a grammar's part": ("llguidance", {"grammars": [
        {"lark_grammar": 'start: "a" %json {"type": "integer", "multipleOf": 123456789}'}]}),
    "many properties in a grammar": ("lark", "start: %json " + json.dumps({
        "type": "object", "properties": {f"p{i}": {} for i in range(9000)}})),
    "many choices": ("choice", [f"choice {i}" for i in range(20_000)]),
    "long choices": ("choice", ["x" * 9000]),
}


@pytest.fixture
def engine() -> Iterator[Engine]:
    with running() as engine:
        yield engine


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_grammars_are_refused_or_bounded(engine: Engine, name: str) -> None:
    kind, source = HOSTILE[name]
    text = source if isinstance(source, str) else json.dumps(source)
    before, got, began = memory(peak=False), Collector(), time.process_time()
    try:
        engine.submit(constrained("r", Grammar(kind, text), n=2, max_tokens=40), got)  # type: ignore[arg-type]
    except InvalidRequest as error:
        assert error.param == "grammar" and len(error.message) <= 300
    else:
        got.wait("r")
        assert got.finish("r") in {"stop", "length", "error"}
    assert time.process_time() - began < 15  # it is at most 2 s; a bomb would take minutes
    assert memory(peak=True) - before < 400 << 10
    assert engine.alive


def memory(*, peak: bool) -> int:
    """KB that the process has in memory; or the most that it had since this was asked for without."""
    if not peak:
        Path("/proc/self/clear_refs").write_text("5")
    found = re.search(rf"Vm{'HWM' if peak else 'RSS'}:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found
    return int(found[1])


# ---- the process that can be ended

def test_usual_grammars_start_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.Popen", lambda *given, **options: pytest.fail("a process was started"))
    own = Grammars(Spelling(), VOCAB)
    person = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0},
                                               "tags": {"type": "array", "items": {"enum": ["a", "b"]}}}}
    for kind, source in (("json_schema", json.dumps(person)), ("regex", "yes|no"), ("choice", '["a", "b"]')):
        own.compile(Grammar(kind, source))  # type: ignore[arg-type]


@pytest.mark.parametrize("source", ['{"allOf": []}', r'{"\u0061llOf": []}', '{"not": {}}', '{"patternProperties": {}}',
                                    '{"x": "' + "x" * 20_000 + '"}', '{"maxProperties": 1}', '{"unevaluatedItems": 0}'])
def test_what_could_take_long_is_tried(source: str) -> None:
    assert trial.needed("json_schema", source)
    assert not trial.needed("json_schema", '{"properties": {"notes": {"minimum": 1, "format": "uri"}}}')


def test_a_process_that_was_ended_is_started_again(grammars: Grammars) -> None:
    for text in ("a", "b"):
        grammars.compile(Grammar("json_schema", json.dumps({"type": "string", "pattern": f"^{text}+$"})))
        first = grammars._trials.all[0]
        assert first._process
        first._process.kill()
        first._process.wait()


def test_the_trial_knows_the_models_special_tokens(grammars: Grammars) -> None:
    """Else what stands behind one would never be tried."""
    bomb = '%json {"allOf": [{"multipleOf": 9973}, {"multipleOf": 9967}]}'
    assert "too much time or memory" in refusal(grammars, "lark", f"start: <end> {bomb}")


def test_the_process_ends_with_the_engine() -> None:
    with running() as engine:
        engine.grammars.compile(Grammar("lark", 'start: "a"'))
        first = engine.grammars._trials.all[0]
        assert first._process and first._process.poll() is None
    assert first._process.poll() is not None


# ---- the cache

def test_a_grammar_is_compiled_once(grammars: Grammars) -> None:
    first = grammars.compile(Grammar("regex", "once"))
    later = grammars.compile(Grammar("regex", "once", after=3))
    assert first.start is later.start and (first.after, later.after) == (None, 3)


def test_the_same_grammar_asked_for_at_once_is_compiled_once(grammars: Grammars) -> None:
    found: list[Any] = []
    asking = [threading.Thread(target=lambda: found.append(grammars.compile(Grammar("regex", "[a-z]{3}")).start))
              for _ in range(8)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert len(found) == 8 and len({id(each) for each in found}) == 1


def test_the_cache_forgets_what_was_not_used_for_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CACHED", 10)
    own = Grammars(Spelling(), VOCAB)
    first, second = own.compile(Grammar("regex", "aaaa")), own.compile(Grammar("regex", "bbbb"))
    assert own.compile(Grammar("regex", "aaaa")).start is first.start
    own.compile(Grammar("regex", "cccc"))
    assert own.compile(Grammar("regex", "aaaa")).start is first.start
    assert own.compile(Grammar("regex", "bbbb")).start is not second.start


def test_the_cache_holds_so_many_grammars_however_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_KEPT", 3)
    own = Grammars(Spelling(), VOCAB)
    first = own.compile(Grammar("regex", "a"))
    for source in "bcd":
        own.compile(Grammar("regex", source))
    assert own.compile(Grammar("regex", "a")).start is not first.start and len(own._cached) == 3


def test_the_kind_is_part_of_what_is_looked_up(grammars: Grammars) -> None:
    text = '["a"]'
    assert grammars.compile(Grammar("choice", text)).start is not grammars.compile(Grammar("regex", text)).start
