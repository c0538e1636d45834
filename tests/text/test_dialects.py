"""Tool calls in every format: what is read of them, however the text is cut."""
from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zonda.errors import InvalidRequest
from zonda.text import dialects, manner
from zonda.text.dialects.tools import Tools
from zonda.text.manner import Manner
from zonda.text.parts import CallArguments, CallStart, Part, Text, Thought
from zonda.text.reasoning import named

WEATHER = {"type": "object", "required": ["city"], "properties": {
    "city": {"type": "string"}, "days": {"type": "integer"}, "metric": {"type": "boolean"},
    "tags": {"type": "array", "items": {"type": "string"}}}}
TOOLS = Tools([{"type": "function", "function": {"name": name, "parameters": WEATHER}}
               for name in ("weather", "get-b")])
CALL = {"city": "Paris", "days": 3, "metric": True}
J = '{"name": "weather", "arguments": {"city": "Paris", "days": 3, "metric": true}}'
B = '{"name": "get-b", "arguments": {}}'
A = '{"city": "Paris", "days": 3, "metric": true}'


def deep(words: str) -> str:
    return f"<\uff5c{words.replace(' ', chr(0x2581))}\uff5c>"


def suffixed(text: str) -> str:
    """Tags as Hy3 has them."""
    return re.sub(r"(</?[a-z_]+)>", r"\1:opensource>", text)


SEP, D, E = deep("tool sep"), deep("tool call begin"), deep("tool call end")
XML = ("<function=weather>\n<parameter=city>\nParis\n</parameter>\n<parameter=days>\n3\n</parameter>\n"
       "<parameter=metric>\ntrue\n</parameter>\n</function>")
INVOKE = ('<invoke name="weather">\n<parameter name="city">Paris</parameter>\n<parameter name="days">3</parameter>\n'
          '<parameter name="metric">true</parameter>\n</invoke>')
DSML = INVOKE.replace("</", "</\uff5cDSML\uff5c").replace("<i", "<\uff5cDSML\uff5ci").replace(
    "<p", "<\uff5cDSML\uff5cp").replace('"city"', '"city" string="true"').replace(
    '"days"', '"days" string="false"').replace('"metric"', '"metric" string="false"')
ATEM = INVOKE.replace("</", "</atem:").replace("<i", "<atem:i").replace("<p", "<atem:p")
COMMAND = J.replace('"name"', '"tool_name"').replace('"arguments"', '"parameters"')
GLM = ("weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n<arg_key>days</arg_key>\n"
       "<arg_value>3</arg_value>\n<arg_key>metric</arg_key>\n<arg_value>true</arg_value>\n")
SOLAR = f"<|tool_call:begin|>a1b2c3d4e5<|tool_call:name|>weather<|tool_call:args|>{A}<|tool_call:end|>"
M = "]<]minimax[>["
M3 = (f'{M}<invoke name="weather">{M}<city>Paris{M}</city>{M}<days>3{M}</days>{M}<metric>true{M}</metric>'
      f"{M}</invoke>")
HY3 = "weather<tool_sep>" + GLM[7:]
K3 = ('<|open|>call tool="weather" index="1"<|sep|><|open|>argument key="city" type="string"<|sep|>Paris'
      '<|close|>argument<|sep|><|open|>argument key="days" type="number"<|sep|>3<|close|>argument<|sep|>'
      '<|open|>argument key="metric" type="boolean"<|sep|>true<|close|>argument<|sep|><|close|>call<|sep|>')
K = "<|tool_call_argument_begin|>"
CPM = ('<function name="weather"><param name="city">Paris</param><param name="days">3</param>'
       '<param name="metric">true</param></function>')

ONE = {
    "hermes": f"<tool_call>\n{J}\n</tool_call>",
    "qwen_xml": f"<tool_call>\n{XML}\n</tool_call>",
    "mistral": f"[TOOL_CALLS]weather[ARGS]{A}",
    "mistral_list": f"[TOOL_CALLS] [{J}]",
    "hunyuan": f"<tool_calls>[{J}]</tool_calls>",
    "granite": f"<|tool_call|>[{J}]",
    "phi": f"<|tool_call|>[{J}]<|/tool_call|>",
    "liquid": '<|tool_call_start|>[weather(city="Paris", days=3, metric=True)]<|tool_call_end|>',
    "pythonic": "[weather(city='Paris', days=3, metric=True)]",
    "llama": '{"name": "weather", "parameters": {"city": "Paris", "days": 3, "metric": true}}',
    "generic": f"```json\n{J}\n```",
    "deepseek": f"{deep('tool calls begin')}{D}function{SEP}weather\n```json\n{A}\n```{E}{deep('tool calls end')}",
    "deepseek_bare": f"{deep('tool calls begin')}{D}weather{SEP}{A}{E}{deep('tool calls end')}",
    "kimi": f"<|tool_calls_section_begin|><|tool_call_begin|>functions.weather:0{K}{A}<|tool_call_end|>"
            "<|tool_calls_section_end|>",
    "kimi3": f"<|open|>tools<|sep|>{K3}<|close|>tools<|sep|>",
    "glm": f"<tool_call>{GLM}</tool_call>",
    "minimax": f"<minimax:tool_call>\n{INVOKE}\n</minimax:tool_call>",
    "dsml": f"<\uff5cDSML\uff5cfunction_calls>\n{DSML}\n</\uff5cDSML\uff5cfunction_calls>",
    "dsml4": f"<\uff5cDSML\uff5ctool_calls>\n{DSML}\n</\uff5cDSML\uff5ctool_calls>",
    "atem": f"<atem:function_calls>\n{ATEM}\n</atem:function_calls>",
    "command": f"<|START_ACTION|>[{COMMAND}]<|END_ACTION|>",
    "nemotron": f"<TOOLCALL>[{J}]</TOOLCALL>",
    "minimax3": f"{M}<tool_call>\n{M3}\n{M}</tool_call>",
    "solar": f"<|tool_calls|>{SOLAR}<|calls|>",
    "functionary": f"weather\n{A}",
    "apertus": f'<|tools_prefix|>[{{"weather": {A}}}]<|tools_suffix|>',
    "gigachat": f"<|function_call|>{J}",
    "gigachat3": f"function call<|role_sep|>\n{J}",
    "hy3": suffixed(f"<tool_calls>\n<tool_call>{HY3}</tool_call>\n</tool_calls>"),
    "minicpm": CPM,
    "gemma": '<|tool_call>call:weather{city:<|"|>Paris<|"|>,days:3,metric:true}<tool_call|>',
    "functiongemma": "<start_function_call>call:weather{city:<escape>Paris<escape>,days:3,metric:true}"
                     "<end_function_call>",
    "harmony": f"<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{A}",
}
TWO = {
    "hermes": f"<tool_call>\n{J}\n</tool_call>\n<tool_call>\n{B}\n</tool_call>",
    "qwen_xml": f"<tool_call>\n{XML}\n</tool_call>\n<tool_call>\n<function=get-b>\n</function>\n</tool_call>",
    "mistral": f"[TOOL_CALLS]weather[ARGS]{A}[TOOL_CALLS]get-b[ARGS]{{}}",
    "mistral_list": f"[TOOL_CALLS][{J}, {B}]",
    "hunyuan": f"<tool_calls>[{J}, {B}]</tool_calls>",
    "granite": f"<|tool_call|>[{J}, {B}]",
    "phi": f"functools[{J}, {B}]",
    "liquid": '<|tool_call_start|>[weather(city="Paris", days=3, metric=True), get-b()]<|tool_call_end|>',
    "pythonic": "[weather(city='Paris', days=3, metric=True), get-b()]",
    "llama": f"<|python_tag|>{J}; {B}",
    "generic": f"[{J}, {B}]",
    "deepseek": f"{D}function{SEP}weather\n```json\n{A}\n```{E}\n{D}function{SEP}get-b\n```json\n{{}}\n```{E}",
    "deepseek_bare": f"{D}weather{SEP}{A}{E}{D}get-b{SEP}{{}}{E}",
    "kimi": f"<|tool_call_begin|>functions.weather:0{K}{A}<|tool_call_end|>"
            f"<|tool_call_begin|>functions.get-b:1{K}{{}}<|tool_call_end|>",
    "kimi3": f'<|open|>tools<|sep|>{K3}<|open|>call tool="get-b" index="2"<|sep|><|close|>call<|sep|>'
             "<|close|>tools<|sep|>",
    "glm": f"<tool_call>{GLM}</tool_call>\n<tool_call>get-b\n</tool_call>",
    "minimax": f'<minimax:tool_call>{INVOKE}\n<invoke name="get-b">\n</invoke></minimax:tool_call>',
    "dsml": f'{DSML}\n<\uff5cDSML\uff5cinvoke name="get-b"></\uff5cDSML\uff5cinvoke>',
    "dsml4": f'{DSML}\n<\uff5cDSML\uff5cinvoke name="get-b"></\uff5cDSML\uff5cinvoke>',
    "atem": f'<atem:function_calls>{ATEM}<atem:invoke name="get-b"></atem:invoke></atem:function_calls>',
    "command": '<|START_ACTION|>[\n    {"tool_call_id": "0", ' + COMMAND[1:] + ',\n    {"tool_call_id": "1", '
               '"tool_name": "get-b", "parameters": {}}\n]<|END_ACTION|>',
    "nemotron": f"<TOOLCALL>[{J}, {B}]</TOOLCALL>",
    "functionary": f"weather\n{A}>>>get-b\n{{}}",
    "solar": f"<|tool_calls|>{SOLAR}"
             "<|tool_call:begin|>f1b2c3d4e5<|tool_call:name|>get-b<|tool_call:args|>{}<|tool_call:end|><|calls|>",
    "minimax3": f'{M}<tool_call>\n{M3}\n{M}<invoke name="get-b">{M}</invoke>\n{M}</tool_call>',
    "apertus": f'<|tools_prefix|>[{{"weather": {A}}}, {{"get-b": {{}}}}]<|tools_suffix|>',
    "gigachat": f"<|function_call|>{J}<|function_call|>{B}",
    "gigachat3": f"function call<|role_sep|>\n{J}function call<|role_sep|>\n{B}",
    "hy3": suffixed(f"<tool_calls>\n<tool_call>{HY3}</tool_call>\n"
                    "<tool_call>get-b<tool_sep>\n</tool_call>\n</tool_calls>"),
    "minicpm": f'{CPM}<function name="get-b"></function>',
    "gemma": '<|tool_call>call:weather{city:<|"|>Paris<|"|>,days:3,metric:true}<tool_call|>'
             "<|tool_call>call:get-b{}<tool_call|>",
    "functiongemma": "<start_function_call>call:weather{city:<escape>Paris<escape>,days:3,metric:true}"
                     "<end_function_call><start_function_call>call:get-b{}<end_function_call>",
    "harmony": f"<|channel|>commentary to=functions.weather<|message|>{A}<|call|><|start|>assistant"
               "<|channel|>commentary to=functions.get-b<|message|>{}",
}
NAMES = [each.name for each in dialects.DIALECTS]
FIRST = ("pythonic", "llama", "generic", "harmony", "functionary")  # whose calls begin the answer
PIECES = [mark for each in dialects.DIALECTS for mark in each.marks] + [
    "<function=", "<parameter=", "<think>", "</think>", "</parameter>", '"name"', '"arguments"', "weather", "get-b",
    "(", ")", "=", ":", ",", "{", "}", "[", "]", '"', "'", "\\", "\\u00", "```json", "\n", " ", "x", "true", "1", "-",
    "<"]


def merged(parts: Iterable[Part]) -> list[Part]:
    """Parts with neighbours joined, and ids without their random part."""
    result: list[Part] = []
    for part in parts:
        match (result[-1] if result else None), part:
            case Text(a), Text(b):
                result[-1] = Text(a + b)
            case Thought(a), Thought(b):
                result[-1] = Thought(a + b)
            case CallArguments(i, a), CallArguments(j, b) if i == j:
                result[-1] = CallArguments(i, a + b)
            case _, CallStart(index, id, name):
                result.append(CallStart(index, "" if id.startswith("call_") else id, name))
            case _:
                result.append(part)
    return result


def said(name: str, pieces: Sequence[str], *, tools: Tools = TOOLS, style: str = "none",
         prompt: str = "") -> list[Part]:
    parser = Manner(dialects.named(name), named(style)).parser(prompt, tools)
    parts = [part for piece in pieces for part in parser.feed(piece)]
    return merged([*parts, *parser.finish()])


def calls(parts: Iterable[Part]) -> list[tuple[str, Any]]:
    """The calls, which must be whole."""
    found: list[tuple[str, Any]] = []
    names = list[str]()
    for part in parts:
        if isinstance(part, CallStart):
            assert part.index == len(names)
            names.append(part.name)
        elif isinstance(part, CallArguments):
            assert part.index == len(names) - 1
            found.append((names[-1], json.loads(part.json)))
    assert len(found) == len(names)
    return found


def text(parts: Iterable[Part]) -> str:
    return "".join(part.text for part in parts if isinstance(part, Text))


@pytest.mark.parametrize("name", NAMES)
def test_a_call_is_read(name: str) -> None:
    parts = said(name, [ONE[name]])
    assert calls(parts) == [("weather", CALL)] and text(parts) == ""


@pytest.mark.parametrize("name", NAMES)
def test_several_calls_are_read(name: str) -> None:
    parts = said(name, [TWO[name]])
    assert calls(parts) == [("weather", CALL), ("get-b", {})] and text(parts) == ""


@pytest.mark.parametrize("name", NAMES)
def test_arguments_come_while_they_are_written(name: str) -> None:
    parser = Manner(dialects.named(name), None).parser("", TOOLS)
    written = ONE[name]
    before = [part for letter in written[:written.index("Pari") + 4] for part in parser.feed(letter)]
    assert any(isinstance(part, CallStart) and part.name == "weather" for part in before)
    assert "".join(part.json for part in before if isinstance(part, CallArguments)).endswith("Pari")


@pytest.mark.parametrize("name", [each for each in NAMES if each not in FIRST])
def test_text_before_a_call_is_kept_without_the_space_between(name: str) -> None:
    parts = said(name, ["Let me  look.\n\n", ONE[name]])
    assert text(parts) == "Let me  look." and calls(parts) == [("weather", CALL)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("answer", ["Hello, world.\n", "", " ", "{", "[1, 2]", '{"a": 1} and more', "a < b > c",
                                    "```\nx\n```", "[weather", "<tool", "[", "call:f{"])
def test_text_stays_as_it_is(name: str, answer: str) -> None:
    assert text(said(name, [answer])) == answer
    assert text(said(name, list(answer))) == answer


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_cutting_gives_the_same_parts(name: str, data: st.DataObject) -> None:
    written = data.draw(st.sampled_from([ONE[name], TWO[name], "Well.\n" + TWO[name] + "\nDone."]))
    if data.draw(st.booleans()):
        written = written[:data.draw(st.integers(0, len(written)))]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(written)), max_size=8)))
    pieces = [written[start:end] for start, end in zip([0, *cuts], [*cuts, len(written)])]
    assert said(name, pieces) == said(name, [written]) == said(name, list(written))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=24), st.sampled_from(["think", "none", "gemma"]), st.booleans())
def test_any_garbage_is_read_alike_however_it_is_cut(name: str, pieces: list[str], style: str, opened: bool) -> None:
    given_: dict[str, Any] = {"style": style, "prompt": "<think>" if opened else ""}
    whole = "".join(pieces)
    assert said(name, pieces, **given_) == said(name, [whole], **given_) == said(name, list(whole), **given_)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=30, deadline=None)
@given(st.data())
def test_letters_that_change_in_a_call_are_read_alike(name: str, data: st.DataObject) -> None:
    written = list(TWO[name])
    for _ in range(data.draw(st.integers(1, 3))):
        letter = data.draw(st.sampled_from(["", "{", '"', "}", "x", "<", "]", "\n"]))
        written[data.draw(st.integers(0, len(written) - 1))] = letter
    whole = "".join(written)
    assert said(name, [whole]) == said(name, list(whole))


@pytest.mark.parametrize("name", NAMES)
def test_a_call_that_is_cut_short_keeps_what_was_written(name: str) -> None:
    written = ONE[name]
    parts = said(name, [written[:written.index("Pari") + 4]])
    assert [part.name for part in parts if isinstance(part, CallStart)] == ["weather"]
    assert isinstance(parts[-1], CallArguments) and parts[-1].json.replace(" ", "") == '{"city":"Pari'


@pytest.mark.parametrize("name", [each for each in NAMES if each not in FIRST])
def test_no_piece_of_a_mark_is_text_where_a_call_is_cut_short(name: str) -> None:
    written = "Well. " + ONE[name]
    for end in range(8, len(written)):
        parser = Manner(dialects.named(name), None).parser("", TOOLS)
        assert text([*parser.feed(written[:end]), *parser.finish(cut=True)]).rstrip("\n <]") == "Well.", written[:end]


@pytest.mark.parametrize("answer", ["a <", '{"name": "weat', "a < b", "<tool_call>no", "[weath"])
def test_other_text_that_is_cut_short_stays(answer: str) -> None:
    for name in ("hermes", "generic", "pythonic"):
        parser = Manner(dialects.named(name), None).parser("", TOOLS)
        assert text([*parser.feed(answer), *parser.finish(cut=True)]) == answer


@pytest.mark.parametrize("name", NAMES)
def test_little_is_kept_unread_of_hostile_texts(name: str) -> None:
    """What is unread is looked at again with every piece: if it stays short, time is linear."""
    marks = dialects.named(name).marks[:2]
    for unit in (*marks, "{", "[[[[", " " * 8, "<|", '{"name": "a', "weather(", "9", "\\u0", "call:f{a:", "<think>"):
        parser = Manner(dialects.named(name), named("think")).parser("", TOOLS)
        for piece in (*marks, '{"a": "', *[unit] * 400):
            parser.feed(piece)
            assert len(parser.reader._text) - parser.reader._at < 64  # type: ignore[attr-defined]


def test_what_is_no_call_between_marks_is_text() -> None:
    assert said("hermes", ["<tool_call>hello</tool_call>"]) == [Text("<tool_call>hello</tool_call>")]
    assert said("mistral_list", ["[TOOL_CALLS] none"]) == [Text("[TOOL_CALLS] none")]
    assert text(said("gemma", ["<|tool_call>stop"])) == "<|tool_call>stop"
    nameless = '<tool_call>{"arguments": {"a": 1}}</tool_call>'
    assert text(said("hermes", [nameless])) == nameless


@pytest.mark.parametrize(("name", "written"), [
    ("qwen_xml", ONE["qwen_xml"].replace("</parameter>\n", "")),
    ("minimax", ONE["minimax"].replace("</parameter>\n", "\n")),
    ("gemma", ONE["gemma"].replace("call:", ":")),
    ("granite", f"<tool_call>[{J}]"),
    ("liquid", ONE["liquid"].replace("3", "003")),
    ("dsml", ONE["dsml"].replace('string="false"', 'string="true"'))])
def test_slips_of_a_format_are_mended(name: str, written: str) -> None:
    assert written != ONE[name]
    for pieces in ([written], list(written)):
        assert calls(said(name, pieces)) == [("weather", CALL)] and text(said(name, pieces)) == ""


def test_a_value_may_have_the_marks_of_others_within_a_line() -> None:
    written = ONE["qwen_xml"].replace("Paris", "a <parameter=b> and </function>")
    assert calls(said("qwen_xml", [written]))[0][1]["city"] == "a <parameter=b> and </function>"


def test_usual_slips_are_mended() -> None:
    for slip in ('{"name": "weather", "arguments": {"city": "Paris", "days": 3, "metric": True,}}',
                 "{'name': 'weather', 'arguments': {'city': 'Paris', 'days': 3, 'metric': true}}",
                 '{"arguments": {"city": "Paris", "days": 3, "metric": true}, "name": "weather"}',
                 '{"name": "weather", "arguments": ' + json.dumps(A) + "}",
                 '{"type": "function", "function": {"name": "weather", "parameters": ' + A + "}}",
                 '{"name": "weather", "arguments": {"city": "Paris", "days": 3, "metric": true}'):
        for end in ("\n</tool_call>", "</tool_call>"):
            parts = said("hermes", [f"<tool_call>{slip}{end}"])
            assert calls(parts) == [("weather", CALL)] and text(parts) == "", slip


def test_raw_line_breaks_in_texts_are_escaped() -> None:
    parts = said("hermes", ['<tool_call>{"name": "weather", "arguments": {"city": "a\nb\\d\tc"}}</tool_call>'])
    assert calls(parts) == [("weather", {"city": "a\nb\\d\tc"})]


def test_broken_arguments_are_passed_on_as_they_are() -> None:
    parts = said("hermes", ['<tool_call>{"name": "weather", "arguments": {"city": ?? }}</tool_call>bye'])
    assert [part.json for part in parts if isinstance(part, CallArguments)] == ['{"city":?? }}']
    assert text(parts) == "bye"


def test_a_call_without_arguments_has_an_empty_object() -> None:
    for written in ('{"name": "weather"}', '{"name": "weather", "arguments": null}'):
        assert calls(said("hermes", [f"<tool_call>{written}</tool_call>"])) == [("weather", {})]


def test_bare_json_calls_known_tools_alone() -> None:
    unknown = '{"name": "other", "arguments": {}}'
    for name in ("generic", "llama", "pythonic"):
        assert said(name, [unknown]) == [Text(unknown)]
    assert text(said("pythonic", ["[other(a=1)]"])) == "[other(a=1)]"


def test_values_without_types_become_what_the_schema_says() -> None:
    tools = Tools([{"type": "function", "function": {"name": "f", "parameters": {"properties": {
        "text": {"type": "string"}, "count": {"type": "integer"},
        "share": {"type": "number"}, "on": {"type": "boolean"},
        "list": {"type": "array"}, "any": {}, "maybe": {"type": ["string", "null"]}, "nested": {"type": "object"},
        "either": {"anyOf": [{"type": "integer"}, {"type": "string"}]}}}}}])
    values = {"text": "12", "count": "12", "share": "1.5", "on": "True", "list": "['a']", "any": "7", "maybe": "null",
              "nested": '{"a": [1]}', "either": "x"}
    written = "".join(f"<parameter={key}>\n{value}\n</parameter>" for key, value in values.items())
    parts = said("qwen_xml", [f"<tool_call><function=f>{written}</function></tool_call>"], tools=tools)
    assert calls(parts) == [("f", {"text": "12", "count": 12, "share": 1.5, "on": True, "list": ["a"], "any": 7,
                                   "maybe": None, "nested": {"a": [1]}, "either": "x"})]


@pytest.mark.parametrize("explained", [{"title": "A"}, {"$comment": "a"}, {"deprecated": True}, {"readOnly": False}])
def test_what_only_explains_a_reference_does_not_hide_the_type(explained: dict[str, Any]) -> None:
    tools = Tools([{"function": {"name": "f", "parameters": {
        "$defs": {"A": {"type": "string"}}, "properties": {"a": {"$ref": "#/$defs/A", **explained}}}}}])
    written = "<tool_call><function=f><parameter=a>5</parameter></function></tool_call>"
    assert calls(said("qwen_xml", [written], tools=tools)) == [("f", {"a": "5"})]


def test_a_value_that_does_not_fit_its_schema_stays_a_text() -> None:
    written = "<tool_call><function=weather><parameter=days>\nmany\n</parameter></function></tool_call>"
    assert calls(said("qwen_xml", [written])) == [("weather", {"days": "many"})]
    infinite = written.replace("many", "1e999")
    assert calls(said("qwen_xml", [infinite])) == [("weather", {"days": "1e999"})]


def test_texts_with_line_breaks_and_quotes_keep_them() -> None:
    written = '<tool_call><function=weather><parameter=city>\n\n say "hi"\n\n</parameter></function></tool_call>'
    assert calls(said("qwen_xml", list(written))) == [("weather", {"city": '\n say "hi"\n'})]


def test_kimi_keeps_the_names_that_the_model_gives_its_calls() -> None:
    assert [part.id for part in said("kimi", [TWO["kimi"]]) if isinstance(part, CallStart)] == [
        "functions.weather:0", "functions.get-b:1"]


def test_kimi_3_tells_channels_apart() -> None:
    body = "<|open|>response<|sep|>Wait.<|close|>response<|sep|>"
    found = manner.find({"": "<|open|><|close|><|sep|>"}, lambda mark: None)

    def read(prompt: str, written: str, tools: Tools = TOOLS) -> list[Part]:
        parser = found.parser(prompt, tools)
        return merged([*(part for piece in written for part in parser.feed(piece)), *parser.finish()])

    thinking = read("<|open|>think<|sep|>", f"Hm.<|close|>think<|sep|>{body}{ONE['kimi3']}<|close|>message<|sep|>")
    assert thinking[0] == Thought("Hm.") and text(thinking) == "Wait." and calls(thinking) == [("weather", CALL)]
    plain = read("<|open|>response<|sep|>", "Hi.<|close|>response<|sep|><|close|>message<|sep|>", Tools())
    assert text(plain) == "Hi." and not calls(plain)
    assert found.closing("<|open|>think<|sep|>", lambda mark: None) == "<|close|>think<|sep|>"
    assert found.marks(tools=False)[:3] == ("<|open|>", "<|close|>", "<|sep|>")


def test_kimi_3_keeps_texts_as_they_stand_and_takes_whole_objects() -> None:
    raw = K3.replace("Paris", "\n&amp; \"a\"\n").replace('"city"', '"ci&quot;ty"')
    (_, arguments), = calls(said("kimi3", list(raw)))
    assert arguments['ci"ty'] == '\n&amp; "a"\n'
    whole = f'<|open|>call tool="weather" index="1"<|sep|><|open|>json type="object"<|sep|>{A}<|close|>json<|sep|>'
    assert calls(said("kimi3", list(f"{whole}<|close|>call<|sep|>"))) == [("weather", CALL)]


def test_solar_tells_reasoning_calls_and_the_answer_apart() -> None:
    written = f"<|think|>Let me see.<|end|><|begin|>assistant{ONE['solar']}<|begin|>assistant<|content|>Sunny.<|end|>"
    parts = said("solar", list(written))
    assert parts[0] == Thought("Let me see.") and parts[-1] == Text("Sunny.")
    assert calls(parts) == [("weather", CALL)]
    assert [part.id for part in parts if isinstance(part, CallStart)] == ["a1b2c3d4e5"]
    assert said("solar", ["<|content|>Hi."], tools=Tools()) == [Text("Hi.")]
    assert said("solar", ["<|think|>Hm.<|end|><|begin|>assistant<|content|>Hi."]) == [Thought("Hm."), Text("Hi.")]


def test_functionary_tells_whom_a_text_is_for() -> None:
    written = f"all\nSo:\n>>> 1 + 1\n2\n>>>weather\n{A}>>>all\nSunny."
    parts = said("functionary", list(written))
    assert text(parts) == "So:\n>>> 1 + 1\n2Sunny." and calls(parts) == [("weather", CALL)]
    assert said("functionary", ["all\nHi."], tools=Tools()) == [Text("Hi.")]
    assert text(said("functionary", ["whether\n{}"])) == "whether\n{}"


def test_minimax_reads_values_within_values() -> None:
    tool = {"name": "plan", "parameters": {"type": "object", "properties": {
        "stops": {"type": "array", "items": {"type": "object", "properties": {
            "place": {"type": "string"}, "days": {"type": "integer"}}}},
        "names": {"type": "array", "items": {"type": "string"}}, "none": {"type": "array"}}}}
    written = ('T<invoke name="plan">T<stops>T<item>T<place>5T</place>T<days>2T</days>T</item>T<item>T<place>a <b>'
               "T</place>T</item>T</stops>T<names>T<item>1T</item>T</names>T<none>T</none>T<more>T<x>1T</x>T</more>T</invoke>")
    found = calls(said("minimax3", list(written.replace("T", M)), tools=Tools([{"function": tool}])))
    assert found == [("plan", {"stops": [{"place": "5", "days": 2}, {"place": "a <b>"}], "names": ["1"], "none": [],
                               "more": {"x": 1}})]
    deep = f'{M}<invoke name="plan">' + f"{M}<x>" * 5000
    started = said("minimax3", [deep])[0]
    assert isinstance(started, CallStart) and started.name == "plan"


def test_minicpm_reads_values_as_data() -> None:
    written = '<function name="weather"><param name="city"><![CDATA[a <b> & </param>\n c]]></param></function>'
    assert calls(said("minicpm", list(written))) == [("weather", {"city": "a <b> & </param>\n c"})]


def test_without_tools_everything_is_text() -> None:
    assert said("hermes", [ONE["hermes"]], tools=Tools()) == [Text(ONE["hermes"])]


def test_harmony_tells_reasoning_calls_and_the_answer_apart() -> None:
    written = ("<|channel|>analysis<|message|>Let me see.<|end|><|start|>assistant<|channel|>commentary "
               f"to=functions.weather <|constrain|>json<|message|>{A}<|call|><|start|>assistant"
               "<|channel|>final<|message|>Sunny.")
    parts = said("harmony", list(written))
    assert parts[0] == Thought("Let me see.") and parts[-1] == Text("Sunny.")
    assert calls(parts) == [("weather", CALL)]
    assert said("harmony", ["<|channel|>final<|message|>Hi."], tools=Tools()) == [Text("Hi.")]


@pytest.mark.parametrize(("name", "template"), [
    ("hermes", "<tool_call>\n"), ("qwen_xml", "<tool_call><function=x><parameter=y>"),
    ("mistral", "[TOOL_CALLS]a[ARGS]"),
    ("mistral_list", "[TOOL_CALLS]"), ("hunyuan", "<tool_calls>"), ("granite", "<|tool_call|>"),
    ("phi", "<|tool_call|>a<|/tool_call|>"), ("liquid", "<|tool_list_start|>"), ("pythonic", "<|header_start|>"),
    ("llama", "<|start_header_id|>ipython<|end_header_id|>"), ("generic", "<|im_start|>"),
    ("deepseek", SEP + "```json"), ("deepseek_bare", SEP), ("kimi", "<|tool_call_begin|>"),
    ("kimi3", "{% macro tag(name) %}<|open|>{{ name }}<|sep|><|close|>{% endmacro %}"),
    ("glm", "<tool_call><arg_key>"),
    ("minimax", "<minimax:tool_call><invoke name="), ("gemma", '<|tool_call>call:<|"|>'),
    ("functiongemma", "<start_function_call>"), ("harmony", "<|channel|><|message|>"),
    ("dsml", "<\uff5cDSML\uff5cfunction_calls><\uff5cDSML\uff5cinvoke name="),
    ("dsml", "{% set mark = '\uff5cDSML\uff5c' %}{{ '<' + mark + 'function_calls>' if message.tool_calls }}"),
    ("dsml4", "{% set mark = '\uff5cDSML\uff5c' %}{{ '<' + mark + 'tool_calls>' if message.tool_calls }}"),
    ("atem", "<atem:function_calls><atem:invoke name="), ("command", "<|START_ACTION|>"), ("nemotron", "<TOOLCALL>["),
    ("minimax3", "{% set ns_token = ']<]minimax[>[' %}{{ ns_token ~ '<tool_call>' }}"),
    ("solar", "<|tool_call:begin|><|tool_call:name|>"), ("functionary", ">>>${recipient}"),
    ("apertus", "<|tools_prefix|>"), ("gigachat", "function call<|role_sep|><|function_call|>"),
    ("gigachat3", "'function call' + '<|role_sep|>'"), ("hy3", "{% set a = '<arg_key{}>'.format(':opensource') %}"),
    ("minicpm", '<function name="x"><param name="y">')])
def test_the_format_is_found_from_the_template(name: str, template: str) -> None:
    assert dialects.find(template).name == name


def test_an_unknown_format_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(InvalidRequest, match="hermes"):
        dialects.named("latin")
