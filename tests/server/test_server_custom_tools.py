"""Custom tools in chat completions: the model is asked for a function of one text, and clients see the text."""
from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from fakes import Server, model, serving
from scripted import ScriptedLLM, scripted
from stubborn import stubborn

TEXT = 'print("hi")\n'
RUN: Any = {"type": "custom", "custom": {"name": "run", "description": "Runs."}}
LOOK: Any = {"type": "function", "function": {"name": "look"}}


def called(name: str, arguments: dict[str, Any]) -> str:
    return f'<tool_call>\n{json.dumps({"name": name, "arguments": arguments})}\n</tool_call>\n'


@pytest.fixture
def llm() -> ScriptedLLM:
    return scripted()


@pytest.fixture
def client(llm: ScriptedLLM) -> Iterator[openai.OpenAI]:
    with serving(llm, access_log=False) as server, openai.OpenAI(
            base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def ask(client: openai.OpenAI, *more: Any, **fields: Any) -> Any:
    return client.chat.completions.create(model="scripted", messages=[{"role": "user", "content": "x"}, *more],
                                          tools=[RUN, LOOK], **fields)


def test_a_custom_tool_is_called_with_a_text(client: openai.OpenAI, llm: ScriptedLLM) -> None:
    llm.says(called("run", {"input": TEXT}) + called("look", {"x": 1}))
    run, look = ask(client).choices[0].message.tool_calls
    assert (run.type, run.custom.name, run.custom.input) == ("custom", "run", TEXT)
    assert (look.type, look.function.name, json.loads(look.function.arguments)) == ("function", "look", {"x": 1})


@pytest.mark.parametrize(("arguments", "told"), [({"input": TEXT}, TEXT), ({"code": 1}, '{"code":1}')], ids=str)
def test_the_text_is_streamed(client: openai.OpenAI, llm: ScriptedLLM, arguments: dict[str, Any], told: str) -> None:
    llm.says(called("run", arguments))
    chunks = [each.choices[0] for each in ask(client, stream=True)]
    deltas = [call.model_dump(exclude_none=True) for each in chunks for call in each.delta.tool_calls or ()]
    assert deltas[0]["type"] == "custom" and deltas[0]["id"] and deltas[0]["custom"] == {"name": "run", "input": ""}
    assert "".join(each["custom"]["input"] for each in deltas) == told and chunks[-1].finish_reason == "tool_calls"


def test_calls_and_results_go_back_to_the_model(client: openai.OpenAI, llm: ScriptedLLM) -> None:
    llm.says(called("run", {"input": TEXT}))
    message = ask(client).choices[0].message
    ask(client, message, {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "done"})
    told = llm.template.calls[-1]["messages"][1:]  # type: ignore[attr-defined]
    function = told[0]["tool_calls"][0]["function"]
    assert (function["name"], json.loads(function["arguments"])) == ("run", {"input": TEXT})
    assert told[1]["content"] == "done"


def test_a_pattern_is_followed_where_the_call_is_forced() -> None:
    grammar = {"syntax": "regex", "definition": "b[cd]+|x"}
    tool = {"type": "custom", "custom": {"name": "f", "format": {"type": "grammar", "grammar": grammar}}}
    named = {"type": "custom", "custom": {"name": "f"}}
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [named]}}
    with serving(model(), access_log=False) as server:
        for choice in (named, "required", allowed):
            reply = server.chat("x", tools=[tool], tool_choice=choice, parallel_tool_calls=False, max_tokens=500)
            (call,) = reply.json["choices"][0]["message"]["tool_calls"]
            assert re.fullmatch("b[cd]*|x", call["custom"]["input"])


@pytest.mark.parametrize(("custom", "param"), [
    ({}, "tools[0].custom"), ({"name": "a b"}, "tools[0].custom"), (1, "tools[0].custom"),
    ({"name": "f", "format": {"type": "peg"}}, "tools[0].custom"),
    ({"name": "f", "format": {"type": "grammar"}}, "tools[0].custom.format.grammar"),
    ({"name": "f", "format": {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: ("}}}, "tools")])
def test_a_custom_tool_that_cannot_be_had_is_named(server: Server, custom: Any, param: str) -> None:
    reply = server.chat("x", tools=[{"type": "custom", "custom": custom}])
    assert (reply.status, reply.error["param"]) == (400, param)


ADD = {"syntax": "lark", "definition": 'start: NUMBER ("+" NUMBER)+\nNUMBER: /[0-9]{1,3}/'}
LETTERS = {"syntax": "regex", "definition": "b[cd]{1,3}|x"}


@pytest.mark.parametrize("dialect", ["hermes", "qwen_xml", "mistral", "glm"])
@pytest.mark.parametrize(("grammar", "pattern"), [(ADD, r"\d{1,3}(\+\d{1,3})+"), (LETTERS, "b[cd]{1,3}|x")])
def test_a_grammar_is_followed_where_no_call_is_forced(dialect: str, grammar: dict[str, str], pattern: str) -> None:
    begun = {"hermes": '<tool_call>\n{"name": "f", "arguments": {"input": "?"}}',
             "mistral": '[TOOL_CALLS]f[ARGS]{"input": "?',
             "qwen_xml": "<tool_call>\n<function=f>\n<parameter=input>\n?", "glm": "<tool_call>f\n"}[dialect]
    tool = {"type": "custom", "custom": {"name": "f", "format": {"type": "grammar", "grammar": grammar}}}
    with serving(stubborn("So: " + begun, dialect=dialect), access_log=False) as server:
        reply = server.chat("x", tools=[tool, LOOK], max_tokens=300, seed=1)
    message = reply.json["choices"][0]["message"]
    assert message["content"].startswith("So:")
    assert re.fullmatch(pattern, message["tool_calls"][0]["custom"]["input"])


@pytest.mark.parametrize("choice", ["auto", "required"])
def test_responses_follow_grammars_too(choice: str) -> None:
    tool = {"type": "custom", "name": "f", "format": {"type": "grammar", **ADD}}
    wanted = '<tool_call>\n{"name": "f", "arguments": {"input": "?"}}'
    with serving(stubborn(wanted), access_log=False) as server:
        reply = server.post("/v1/responses", {"model": "stubborn", "input": "x", "tools": [tool], "tool_choice": choice,
                                              "max_output_tokens": 300})
    calls = [each for each in reply.json["output"] if each["type"] == "custom_tool_call"]
    assert re.fullmatch(r"\d{1,3}(\+\d{1,3})+", calls[0]["input"])


def test_a_grammar_that_refers_to_itself_is_told_alone() -> None:
    grammar = {"syntax": "lark", "definition": 'start: "(" start ")" | "a"'}
    tool = {"type": "custom", "custom": {"name": "f", "format": {"type": "grammar", "grammar": grammar}}}
    llm = scripted()
    llm.says("x")
    with serving(llm, access_log=False) as server:
        assert server.chat("x", tools=[tool]).status == 200
    assert llm.requests[-1].grammar is None
    assert grammar["definition"] in llm.template.calls[-1]["tools"][0]["function"]["description"]  # type: ignore
