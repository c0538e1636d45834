"""Strict tools where no call is forced: text stays free, and calls fit their tools whatever the model would write."""
from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import pytest
from fakes import Server, serving
from scripted import scripted
from stubborn import stubborn

SCHEMA = {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}, "days": {"type": "integer"}},
          "required": ["city", "days"], "additionalProperties": False}
WORDS = {"type": "object", "properties": {"words": {"type": "array", "items": {"type": "string"}, "uniqueItems": True}}}
WRONG = '{"name": "whether", "arguments": {"city": "Oslo", "when": "today"}}'


def weather(**more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "weather", "parameters": SCHEMA, **more}}


def answer(wanted: str, *, dialect: str = "hermes", **fields: Any) -> Any:
    with serving(stubborn(wanted, dialect=dialect), access_log=False) as server:
        return server.chat("x", max_tokens=600, seed=1, **fields).json["choices"][0]


@pytest.mark.parametrize(("dialect", "wanted"), [
    ("hermes", f"<tool_call>\n{WRONG}\n</tool_call>"), ("mistral_list", f"[TOOL_CALLS][{WRONG}]"),
    ("mistral", '[TOOL_CALLS]whether[ARGS]{"city": 1}'), ("command", f"<|START_ACTION|>[{WRONG}]<|END_ACTION|>"),
    ("qwen_xml", "<tool_call>\n<function=whether>\n<parameter=city>\nOslo\n</parameter>\n</function>\n</tool_call>"),
    ("glm", "<tool_call>whether\n<arg_key>city</arg_key>\n<arg_value>Oslo</arg_value></tool_call>"),
    ("kimi", "<|tool_call_begin|>functions.whether:0<|tool_call_argument_begin|>{}<|tool_call_end|>"),
    ("minimax", '<minimax:tool_call>\n<invoke name="whether">\n</invoke>\n</minimax:tool_call>')])
def test_a_call_that_would_not_fit_becomes_one_that_does(dialect: str, wanted: str) -> None:
    choice = answer(f"Let me see.\n{wanted}", dialect=dialect, tools=[weather(strict=True)])
    assert choice["message"]["content"].startswith("Let me see.") and choice["finish_reason"] == "tool_calls"
    call = choice["message"]["tool_calls"][0]["function"]
    assert call["name"] == "weather"
    jsonschema_rs.validate(SCHEMA, json.loads(call["arguments"]))


@pytest.mark.parametrize("fields", [{}, {"parallel_tool_calls": False}, {"tool_choice": {
    "type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [weather()]}}}], ids=["auto", "one", "allowed"])
def test_every_choice_that_leaves_it_open_holds_calls(fields: dict[str, Any]) -> None:
    wanted = f"<think>A <tool_call>!</think>So: <tool_call>\n{WRONG}\n</tool_call>"
    choice = answer(wanted, tools=[weather(strict=True)], **fields)
    assert choice["message"]["reasoning_content"] == "A <tool_call>!"
    (call,) = choice["message"]["tool_calls"]
    jsonschema_rs.validate(SCHEMA, json.loads(call["function"]["arguments"]))


@pytest.mark.parametrize("strict", [{}, {"strict": None}, {"strict": False}], ids=str)
def test_without_strict_tools_the_answer_is_what_the_model_says(strict: dict[str, Any]) -> None:
    choice = answer(f"<tool_call>\n{WRONG}\n</tool_call>", tools=[weather(**strict)])
    (call,) = choice["message"]["tool_calls"]
    assert (call["function"]["name"], json.loads(call["function"]["arguments"])) == (
        "whether", {"city": "Oslo", "when": "today"})


@pytest.mark.parametrize("strict", [False, True])
def test_every_protocol_holds_to_strict_tools_alone(strict: bool) -> None:
    llm = scripted()
    llm.says("x")
    flat = {"name": "weather", "strict": strict}
    messages = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 5}
    bodies = {"/v1/chat/completions": {**messages, "tools": [weather(strict=strict)]},
              "/v1/messages": {**messages, "tools": [flat | {"input_schema": SCHEMA}]},
              "/v1/responses": {"input": "x", "tools": [flat | {"type": "function", "parameters": SCHEMA}]}}
    with serving(llm, access_log=False) as server:
        for path, body in bodies.items():
            reply = server.post(path, {"model": "scripted", **body})
            assert reply.status == 200, reply.json
            assert bool(llm.requests[-1].grammar) == strict


@pytest.mark.parametrize("choice", ["auto", "required"])
def test_a_schema_that_cannot_be_held_names_its_tool(server: Server, choice: str) -> None:
    bad = {"type": "function", "function": {"name": "f", "strict": True, "parameters": WORDS}}
    reply = server.chat("x", tools=[weather(strict=True), bad], tool_choice=choice)
    assert (reply.status, reply.error["param"]) == (400, "tools")
    assert "the tool 'f'" in reply.error["message"] and "uniqueItems" in reply.error["message"]


def test_a_schema_of_no_sense_names_its_tool() -> None:
    bad = {"type": "function", "function": {"name": "f", "strict": True, "parameters": {
        "type": "object", "properties": {"a": {}}, "required": 5}}}
    with serving(scripted(dialect="qwen_xml"), access_log=False) as server:
        reply = server.chat("x", tools=[bad])
    assert reply.status == 400 and "the tool 'f'" in reply.error["message"]


def test_a_schema_that_cannot_be_held_is_no_matter_where_its_tool_is_not_strict(server: Server) -> None:
    bad = {"type": "function", "function": {"name": "f", "parameters": WORDS}}
    assert server.chat("x", tools=[weather(strict=True), bad], max_tokens=5).status == 200


def test_a_begun_answer_goes_on_freely_up_to_a_call() -> None:
    with serving(stubborn(f"ee. <tool_call>\n{WRONG}"), access_log=False) as server:
        reply = server.post("/v1/chat/completions", {
            "model": "stubborn", "tools": [weather(strict=True)], "max_tokens": 600, "continue_final_message": True,
            "messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "Let me s"}]})
    message = reply.json["choices"][0]["message"]
    assert message["content"].startswith("ee.")
    jsonschema_rs.validate(SCHEMA, json.loads(message["tool_calls"][0]["function"]["arguments"]))
