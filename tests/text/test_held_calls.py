"""Grammars of answers that are free but for their calls: whatever they take has calls that fit the tools."""
from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import numpy as np
import pytest
from llguidance import LLMatcher, LLTokenizer
from test_dialects import NAMES, ONE, PIECES, TWO
from test_forced_calls import PICKY, SPOKEN, TOOLS

from zonda.text import dialects
from zonda.text.dialects.tools import Tools
from zonda.text.manner import Manner
from zonda.text.parts import CallArguments, CallStart, Part, Thought
from zonda.text.reasoning import named

LOOSE = {"type": "object", "properties": {"n": {"type": "integer"}, "s": {"type": "string"}}, "required": ["n", "s"]}
MIXED = Tools([{"function": {"name": "weather", "parameters": PICKY}},
               {"function": {"name": "get", "parameters": LOOSE}},
               {"function": {"name": "get-b", "parameters": LOOSE}}], held=("weather", "get-b"))
SMALL = Tools([{"function": each} for each in TOOLS.functions.values()], held=TOOLS.functions)
STARTS = ["Well. ", "{", "[", "weather", "get", "get-b", "(", "\n", " ", '"name": "get-b"', '"type": "function"',
          '", "', "functools", "commentary to=functions.", "assistant", "final", ">>>", "function call", "all", ":",
          ", ", "<", ' tool="', '" index="1"', "response", "tools", "call", "think", "</", "```json", "n", "s", "7"]


class Vocabulary:
    """Bytes, then pieces of all formats, then a format's marks, which are special tokens or plain ones."""

    is_tokenizer_wrapper, eos_token_id, bos_token_id = True, None, None

    def __init__(self, marks: tuple[str, ...], *, special: bool) -> None:
        own = list(dict.fromkeys(filter(None, marks)))
        pieces = [each for each in dict.fromkeys(STARTS + PIECES) if len(each) > 1 and (not special or each not in own)]
        self.words = [*(bytes([byte]) for byte in range(256)), *(each.encode() for each in (*pieces, *own))]
        first = len(self.words) - len(own)
        self.marks = {mark: first + number for number, mark in enumerate(own)} if special else {}
        self.usual = range(256, len(self.words))
        self.special_token_ids = sorted(self.marks.values())
        self.tokens = [b"\xff" + word if number in self.special_token_ids else b"" if word == b"\xff" else word
                       for number, word in enumerate(self.words)]
        self.compiled = LLTokenizer(self)  # type: ignore[arg-type]

    def __call__(self, text: bytes | str) -> list[int]:
        return list(text.encode() if isinstance(text, str) else text)


BEGINNINGS = {name: [SPOKEN[name], ONE[name], TWO[name]] for name in NAMES}


class Answer:
    """An answer that is written token by token as a grammar allows."""

    def __init__(self, name: str, tools: Tools, *, special: bool = False, style: str = "none",
                 prompt: str = "") -> None:
        self.manner = Manner(dialects.named(name), named(style))
        self.words = Vocabulary(self.manner.marks(tools=True), special=special)
        self.tools, self.prompt, self.written = tools, prompt, bytearray()
        source = self.manner.held(tools, self.words.marks.get, self.words.marks.values(), prompt)
        self.matcher = LLMatcher(self.words.compiled, LLMatcher.grammar_from_lark(source), log_level=0)
        assert not self.matcher.is_error(), self.matcher.get_error()

    def allowed(self) -> np.ndarray:
        mask = np.frombuffer(self.matcher.compute_bitmask(), np.uint8)
        return np.flatnonzero(np.unpackbits(mask, bitorder="little")[:len(self.words.words)])

    def write(self, token: int) -> None:
        assert self.matcher.consume_token(token), self.matcher.get_error()
        self.written += self.words.words[token]

    def say(self, text: str) -> bool:
        """Write a text, marks by their tokens; tells whether it was allowed."""
        while text:
            mark = next((each for each in sorted(self.words.marks, key=len)[::-1] if text.startswith(each)), "")
            tokens = [self.words.marks[mark]] if mark else list(text[0].encode())
            for token in tokens:
                if token not in self.allowed():
                    return False
                self.write(token)
            text = text[len(mark or text[0]):]
        return True

    def wander(self, seed: int, steps: int, most: int) -> bool:
        """Write what chance wants, mostly pieces of calls, then go on to an end; tells whether there was one."""
        dice, usual = random.Random(seed), set(self.words.usual)
        for step in range(most):
            if step < steps and dice.random() < 0.1:
                self.say((began := dice.choice(BEGINNINGS[self.manner.dialect.name]))[:dice.randrange(len(began) + 1)])
            if step >= steps and self.matcher.is_accepting():
                return True
            allowed = self.allowed().tolist()
            pieces = [each for each in allowed if each in usual]
            closing = [each for each in allowed if self.words.words[each][-1:] in b'"]})>']
            liked = closing if step >= steps and closing and dice.random() < 0.5 else pieces
            self.write(dice.choice(liked if liked and dice.random() < 0.85 else allowed))
        return False

    def parts(self) -> list[Part]:
        parser = self.manner.parser(self.prompt, self.tools)
        return [*parser.feed(self.written.decode()), *parser.finish()]


def checked(answer: Answer) -> Iterator[tuple[str, Any]]:
    """The calls of an answer, which must fit the tools."""
    names: dict[int, str] = {}
    given: dict[int, str] = {}
    for part in answer.parts():
        if isinstance(part, CallStart):
            names[part.index], given[part.index] = part.name, ""
        elif isinstance(part, CallArguments):
            given[part.index] += part.json
    for index, name in names.items():
        assert name in answer.tools, bytes(answer.written)
        if name in answer.tools.held:
            arguments = json.loads(given[index])
            jsonschema_rs.validate(answer.tools.schema(name), arguments)
            yield name, arguments
        else:
            yield name, given[index]


FIRST = ("pythonic", "llama", "functionary", "harmony")  # whose calls begin the answer, or have a head
AFTER = {"functionary": ">>>all\nDone.", "harmony": "<|call|>"}
NAMED = [each for each in NAMES if each not in ("pythonic", "llama", "functionary")]  # whose wrapper tells a call


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_calls_between_texts_are_taken_and_read(name: str, special: bool) -> None:
    answer = Answer(name, SMALL, special=special)
    assert answer.matcher.is_accepting()
    assert answer.say(("" if name in FIRST else "Let me see, a < b.\n") + SPOKEN[name]), bytes(answer.written)
    assert answer.say(AFTER.get(name, "\nDone.")) and answer.matcher.is_accepting()
    assert [called for called, _ in checked(answer)] == ["weather"]


@pytest.mark.parametrize("name", NAMES)
def test_arguments_that_do_not_fit_and_names_that_are_not_listed_cannot_be_written(name: str) -> None:
    for old, new in [("3", "many"), ("3", "true"), *([("weather", "whether")] if name in NAMED else [])]:
        assert not Answer(name, SMALL).say(SPOKEN[name].replace(old, new))
    assert name not in NAMED or not Answer(name, SMALL.only("get-b")).say(SPOKEN[name])


@pytest.mark.parametrize("name", NAMES)
def test_a_tool_that_is_not_strict_takes_what_the_model_writes(name: str) -> None:
    tools = Tools([{"function": each} for each in TOOLS.functions.values()], held=("get-b",))
    written = SPOKEN[name]
    for text in (written, *([written.replace('"days": 3', '"days": "many"')] if '"days": 3' in written else [])):
        answer = Answer(name, tools)
        assert answer.say(text) and [called for called, _ in checked(answer)] == ["weather"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("text", ["", "Hello, world.\n", "{", '{"a": 1} and', "[1, 2]", "a < b </", "```\nx\n```", "[x",
                                  ">>> 1 + 1", '{"name": "Ada", "age": 36}', '[{"type": "x"}]', "call", "to=you",
                                  "wind", "weather is fine: weather(", "\x1b \t"])
def test_text_is_free(name: str, text: str) -> None:
    for special in (False, True):
        answer = Answer(name, SMALL, special=special)
        assert answer.say(text) and answer.matcher.is_accepting()


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("name", [each for each in NAMES if not dialects.named(each).reasons])
def test_reasoning_is_free(name: str, special: bool) -> None:
    mark = next(iter(dialects.named(name).openings), "[weather(") if name != "llama" else "<|python_tag|>"
    if mark in dialects.named(name).ends:
        mark = "weather"
    for prompt, begun in (("", "\n<think>"), ("<think>\n", "")):
        answer = Answer(name, SMALL, special=special, style="think", prompt=prompt)
        assert answer.say(f"{begun}Perhaps {mark} whether or not")
        assert answer.matcher.is_accepting()
        assert answer.say("</think>") and answer.say(SPOKEN[name]), bytes(answer.written)
        assert [called for called, _ in checked(answer)] == ["weather"]
        thought = next(part for part in answer.parts() if isinstance(part, Thought))
        assert thought.text.startswith("Perhaps")


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_whatever_is_drawn_has_calls_that_fit_the_tools(name: str, special: bool) -> None:
    found, styles = 0, (["none"] if dialects.named(name).reasons else ["none", "think", "think"])
    for seed in range(6):
        turn = seed % len(styles)
        answer = Answer(name, (MIXED, SMALL)[seed % 2], special=special, style=styles[turn],
                        prompt="<think>\n" * (turn == 2))
        if answer.wander(seed, 20, 1500):
            found += len(list(checked(answer)))
    assert found or name in FIRST


@pytest.mark.parametrize(("text", "called"), [
    ('{"name": "weather", "parameters": {"city": "Paris"}}', True),
    ('```json\n[{"type": "function", "name": "weather", "arguments": {"city": "Paris"}}', True),
    ('{"name": "weather", "parameters": {"city": "Paris"}}; {"name": "get-b", "parameters": {"city": ""}}', True),
    ('{"parameters": {}, "name": "weather"}', False), ('{"id": 1, "name": "weather", "parameters": {}}', False),
    ('{"type": "x", "name": "weather", "parameters": {}}', False), ('{"na\\u006de": "weather"}', False),
    ('{"function": {"name": "weather", "parameters": {}}}', False)])
def test_a_bare_object_is_a_call_if_it_begins_with_the_name_of_a_tool(text: str, called: bool) -> None:
    answer = Answer("llama", SMALL)
    assert answer.say(text) and answer.matcher.is_accepting()
    assert bool(list(checked(answer))) == called


@pytest.mark.parametrize("text", ['{"name": "weather", "parameters": {"city": 5', '{"name": "weather", "x',
                                  '{"type": "function", "name": "weather"}', "{'name': 'weather', 'x",
                                  '{"name": "weather", "parameters": {"city": ""}}\n{"name": "weather"}'])
def test_a_bare_object_that_begins_with_the_name_of_a_tool_is_held_to_it(text: str) -> None:
    assert not Answer("llama", SMALL).say(text)


def test_values_in_elements_do_not_end_them() -> None:
    for value in ('["a</arg_value>"]', '["a<\\/b"]'):
        text = SPOKEN["glm"].replace("metric", "tags").replace("true", value)
        assert not Answer("glm", SMALL).say(text)
    answer = Answer("glm", SMALL)
    assert answer.say(SPOKEN["glm"].replace("metric", "tags").replace("true", '["a < b", "<c>", "<"]'))
    assert [given["tags"] for _, given in checked(answer)] == [["a < b", "<c>", "<"]]


@pytest.mark.parametrize("value", ["a</parameter>b", "</function>", "a\n</function>", "<parameter=b>",
                                   "a\n<parameter=b>"])
def test_a_text_has_nothing_that_ends_its_element_early(value: str) -> None:
    assert not Answer("qwen_xml", SMALL).say(SPOKEN["qwen_xml"].replace("Paris", value))
    answer = Answer("qwen_xml", SMALL)
    assert answer.say(SPOKEN["qwen_xml"].replace("Paris", "a <parameter=b> and </function>"))
    assert next(checked(answer))[1]["city"] == "a <parameter=b> and </function>"


WORDS = {"type": "object", "required": ["a", "b", "c"], "properties": {
    "a": {"type": "string", "pattern": "^[a-c]+/?$"}, "b": {"type": "string", "pattern": "^(?:x|y<)$"},
    "c": {"type": "string", "minLength": 2, "maxLength": 3}}}


@pytest.mark.parametrize("name", NAMES)
def test_patterns_of_whole_texts_and_their_lengths_are_held(name: str) -> None:
    tools, found = Tools([{"function": {"name": "weather", "parameters": WORDS}}], held=("weather",)), 0
    for seed in range(6):
        answer = Answer(name, tools)
        begin = SPOKEN[name][:SPOKEN[name].index("weather") + 7]
        if answer.say(begin) and answer.wander(seed, 0, 400):
            found += len(list(checked(answer)))
    assert found or name in FIRST
