"""Answers in the form that a request asks for, by each of the fields that can say it."""
from __future__ import annotations

import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pydantic
import pytest
from fakes import PATIENCE, Server, model, serving, until

OPEN = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"], "additionalProperties": False}
NAMED = {"type": "json_schema", "json_schema": {"name": "it", "schema": OPEN, "strict": True}}
CLOSING = {"125": 100}  # a liking for `}`
BAD = {"type": "object", "properties": {"a": {"type": "array", "contains": {"const": 1}}}}


def said(server: Server, path: str, **fields: Any) -> str:
    if path == "chat":
        return server.chat("x", temperature=0, max_tokens=40, **fields).json["choices"][0]["message"]["content"]
    return server.complete("x", temperature=0, max_tokens=40, **fields).json["choices"][0]["text"]


@pytest.mark.parametrize("path", ["chat", "completions"])
@pytest.mark.parametrize(("fields", "pattern"), [
    ({"response_format": NAMED}, r'\{"ok": ?(true|false)\}'),
    ({"response_format": {"type": "json_object"}, "logit_bias": CLOSING}, r"\{\}"),
    ({"response_format": {"type": "json_object", "schema": OPEN}}, r'\{"ok": ?(true|false)\}'),
    ({"response_format": {"type": "text"}, "guided_regex": "[0-9]{3}"}, "[0-9]{3}"),
    ({"grammar": {"type": "regex", "value": "(ab){3}"}}, "(ab){3}"),
    ({"grammar": {"type": "lark", "value": 'start: "x"'}}, "x"),
    ({"grammar": {"type": "json_schema", "value": {"enum": [7]}}}, "7"),
    ({"grammar": {"type": "json_schema", "value": '{"enum": [8]}'}}, "8"),
    ({"grammar": {"type": "llguidance", "value": {"grammars": [{"lark_grammar": 'start: "q"'}]}}}, "q"),
    ({"structured_outputs": {"choice": ["no", "yes"]}}, "no|yes"), ({"structured_outputs": {"json": OPEN}}, r"\{.*\}"),
    ({"structured_outputs": {"regex": "z{2}"}}, "zz"), ({"structured_outputs": {"grammar": 'start: "g"'}}, "g"),
    ({"structured_outputs": {"json_object": True}, "logit_bias": CLOSING}, r"\{\}"),
    ({"guided_json": OPEN}, r"\{.*\}"), ({"guided_choice": ["é"]}, "é"), ({"guided_grammar": 'start: "h"'}, "h")],
    ids=lambda value: str(value)[:60])
def test_answers_have_the_form_that_was_asked_for(server: Server, path: str, fields: dict[str, Any],
                                                  pattern: str) -> None:
    assert re.fullmatch(pattern, said(server, path, **fields))


def test_each_choice_and_each_prompt_has_the_form(server: Server) -> None:
    reply = server.complete(["a", "b"], n=2, guided_regex="[xy]{4}", temperature=1)
    choices = reply.json["choices"]
    assert len(choices) == 4 and all(re.fullmatch("[xy]{4}", each["text"]) for each in choices)


def test_a_stream_has_the_form(server: Server) -> None:
    events = server.chat("x", response_format=NAMED, stream=True).events
    text = "".join(each["choices"][0]["delta"].get("content", "") for each in events[:-1])
    assert set(json.loads(text)) == {"ok"} and events[-2]["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(("fields", "param"), [
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": BAD}}},
     "response_format.json_schema.schema"),
    ({"response_format": {"type": "json_object", "schema": BAD}}, "response_format.schema"),
    ({"guided_json": BAD}, "guided_json"), ({"structured_outputs": {"json": BAD}}, "structured_outputs.json"),
    ({"grammar": {"type": "json_schema", "value": BAD}}, "grammar.value")], ids=lambda value: str(value)[:40])
def test_a_schema_that_is_not_supported_names_the_keyword_and_the_field(server: Server, fields: dict[str, Any],
                                                                        param: str) -> None:
    reply = server.chat("x", **fields)
    assert reply.status == 400 and reply.error["param"] == param
    assert "`contains` at `$.properties.a.contains`" in reply.error["message"]


BAD_TOOL = {"type": "function", "name": "f", "parameters": BAD}


@pytest.mark.parametrize(("path", "body", "param"), [
    ("/v1/responses", {"input": "x", "text": {"format": {"type": "json_schema", "name": "n", "schema": BAD}}},
     "text.format.schema"),
    ("/v1/responses", {"input": "x", "tools": [BAD_TOOL], "tool_choice": "required"}, "tools"),
    ("/v1/chat/completions", {"messages": "x", "tools": [{"type": "function", "function": BAD_TOOL}],
                              "tool_choice": "required"}, "tools"),
    ("/v1/messages", {"model": "chain", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}],
                      "output_config": {"format": {"type": "json_schema", "schema": BAD}}}, None)])
def test_every_protocol_tells_what_a_schema_cannot_have(server: Server, path: str, body: dict[str, Any],
                                                        param: str | None) -> None:
    reply = server.post(path, body)
    assert reply.status == 400 and b"`contains`" in reply.body, reply.body
    assert param is None or reply.error["param"] == param


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/completions"])
def test_a_grammar_that_takes_long_holds_nobody_up(path: str) -> None:
    """The event loop goes on, and so do the threads for large requests: other answers come while grammars wait."""
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    wanted = {"type": "json_schema", "name": "n", "schema": schema}
    said = {"model": "chain", "max_tokens": 16, "messages": [{"role": "user", "content": "x"}]}
    body = {"/v1/chat/completions": said | {"guided_json": schema},
            "/v1/completions": {"prompt": "x", "guided_json": schema},
            "/v1/messages": said | {"output_config": {"format": {"type": "json_schema", "schema": schema}}},
            "/v1/responses": {"input": "x", "text": {"format": wanted}}}[path]
    count = 40  # more than asyncio has threads
    with serving(model(), access_log=False) as server, ThreadPoolExecutor(count) as pool:
        grammars, begun, go_on = server.llm.engine.grammars, threading.Event(), threading.Event()  # type: ignore[union-attr]
        make = grammars._make

        def slowly(grammar: Any) -> Any:
            begun.set()
            assert go_on.wait(PATIENCE)
            return make(grammar)

        grammars._make = slowly  # type: ignore[method-assign]
        slow = [pool.submit(server.post, path, body) for _ in range(count)]
        assert begun.wait(PATIENCE)
        until(lambda: len(server.service.calls) == count)
        assert server.complete("x").status == 200
        assert server.complete("x" * 20_000, truncate_sequence=True, max_tokens=1).status == 200
        assert not any(each.done() for each in slow)
        go_on.set()
        assert {each.result(PATIENCE).status for each in slow} == {200}


@pytest.mark.parametrize(("fields", "param"), [
    ({"grammar": {"type": "regex", "value": "("}}, "grammar.value"),
    ({"grammar": {"type": "regex", "value": {}}}, "grammar.value"),
    ({"grammar": {"type": "ebnf", "value": "x"}}, "grammar.type"), ({"grammar": "root ::= x"}, "grammar"),
    ({"grammar": {"type": "lark", "value": "start: x"}}, "grammar.value"), ({"guided_json": "{"}, "guided_json"),
    ({"guided_choice": []}, "guided_choice"), ({"guided_choice": [1]}, "guided_choice[0]"),
    ({"guided_regex": "a" * 200_000}, "guided_regex"),
    ({"guided_json": {"$ref": "https://example.com/x"}}, "guided_json"),
    ({"response_format": NAMED, "guided_regex": "a"}, "guided_regex"),
    ({"response_format": NAMED, "grammar": {"type": "regex", "value": "a"}}, "grammar.value"),
    ({"structured_outputs": {"regex": "a", "choice": ["a"]}}, "structured_outputs.choice")],
    ids=lambda value: str(value)[:60])
def test_what_is_wrong_with_a_form_names_its_field(server: Server, fields: dict[str, Any], param: str) -> None:
    for reply in (server.chat("x", **fields), server.complete("x", **fields)):
        assert reply.status == 400 and reply.error["param"] == param


def test_a_schema_of_great_depth_is_refused(server: Server) -> None:
    body = b'{"messages": "x", "guided_json": ' + b'{"items":' * 50_000 + b"{}" + b"}" * 50_000 + b"}"
    assert server.post("/v1/chat/completions", body).status == 400


def test_the_official_client_parses_its_models(server: Server) -> None:
    class Verdict(pydantic.BaseModel):
        ok: bool
        level: int = pydantic.Field(ge=0, le=9)

    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
        answer = client.chat.completions.parse(
            model="chain", messages=[{"role": "user", "content": "x"}], response_format=Verdict, max_tokens=60)
    assert isinstance(answer.choices[0].message.parsed, Verdict)
