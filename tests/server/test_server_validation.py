"""What is wrong with a request is said in OpenAI's envelope, with the field's name and without what was sent."""
from __future__ import annotations

import json
import re
from typing import Any

import pytest
from fakes import Server, model, serving

CHAT = {"messages": [{"role": "user", "content": "x"}]}
TEXT = {"prompt": "x"}
HUGE = 10**30
SECRET = "s3cr3t"

COMMON = [
    ({"temperature": -0.1}, "temperature"), ({"temperature": 2.1}, "temperature"),
    ({"temperature": SECRET}, "temperature"), ({"temperature": True}, "temperature"),
    ({"temperature": [1]}, "temperature"), ({"temperature": HUGE}, "temperature"),
    ({"top_p": 1.5}, "top_p"), ({"top_p": -1}, "top_p"), ({"top_k": -2}, "top_k"), ({"top_k": 1.5}, "top_k"),
    ({"min_p": 2}, "min_p"), ({"typical_p": 2}, "typical_p"), ({"top_n_sigma": SECRET}, "top_n_sigma"),
    ({"xtc_probability": 2}, "xtc_probability"), ({"xtc_threshold": -1}, "xtc_threshold"),
    ({"mirostat": 1}, "mirostat"), ({"mirostat_tau": -1}, "mirostat_tau"), ({"mirostat_eta": 2}, "mirostat_eta"),
    ({"repetition_penalty": 0}, "repetition_penalty"), ({"presence_penalty": 3}, "presence_penalty"),
    ({"frequency_penalty": -3}, "frequency_penalty"), ({"dry_multiplier": -1}, "dry_multiplier"),
    ({"dry_allowed_length": 0}, "dry_allowed_length"), ({"dry_sequence_breakers": [""]}, "dry_sequence_breakers[0]"),
    ({"n": 0}, "n"), ({"n": 129}, "n"), ({"n": HUGE}, "n"), ({"n": -1}, "n"), ({"n": "2"}, "n"),
    ({"max_tokens": -1}, "max_tokens"), ({"max_tokens": 2**31}, "max_tokens"), ({"max_tokens": HUGE}, "max_tokens"),
    ({"max_tokens": 1.5}, "max_tokens"), ({"max_tokens": "9"}, "max_tokens"),
    ({"min_tokens": -1}, "min_tokens"), ({"min_tokens": 9, "max_tokens": 3}, "min_tokens"),
    ({"stop": ["a"] * 17}, "stop"), ({"stop": ""}, "stop"), ({"stop": ["a", ""]}, "stop[1]"), ({"stop": 5}, "stop"),
    ({"stop": ["a", 5]}, "stop[1]"), ({"stop": "a" * 5000}, "stop"), ({"stop_token_ids": [999]}, "stop_token_ids"),
    ({"stop_token_ids": [-1]}, "stop_token_ids[0]"), ({"seed": 2**63}, "seed"), ({"seed": 1.5}, "seed"),
    ({"logit_bias": {"5": 101}}, "logit_bias"), ({"logit_bias": {SECRET: 1}}, "logit_bias"),
    ({"logit_bias": {"258": 1}}, "logit_bias"), ({"logit_bias": {"-1": 1}}, "logit_bias"),
    ({"logit_bias": {str(HUGE): 1}}, "logit_bias"), ({"logit_bias": [1]}, "logit_bias"),
    ({"stream": "yes"}, "stream"), ({"stream": 1}, "stream"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"stream": True, "stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
    ({"model": 5}, "model"), ({"ignore_eos": "no"}, "ignore_eos"), ({"truncate_sequence": 1}, "truncate_sequence"),
]
CHAT_ONLY = [
    ({"messages": []}, "messages"), ({"messages": None}, "messages"), ({"messages": 5}, "messages"),
    ({"messages": [5]}, "messages[0]"), ({"messages": [{"content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": SECRET, "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
    ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages[0].content[0].type"),
    ({"messages": [{"role": "user", "content": [{"type": SECRET, "text": "x"}]}]}, "messages[0].content[0].type"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": SECRET}}]}]},
     "messages[0].content[0]"),
    ({"messages": [{"role": "user", "content": "x"}] * 4097}, "messages"),
    ({"max_tokens": 0}, "max_tokens"), ({"max_completion_tokens": 2**31}, "max_completion_tokens"),
    ({"logprobs": 5}, "logprobs"), ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"top_logprobs": 5}, "top_logprobs"), ({"logprobs": True, "top_logprobs": -1}, "top_logprobs"),
    ({"response_format": {"type": "xml"}}, "response_format.type"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    ({"response_format": {}}, "response_format.type"),
    ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format.json_schema.name"),
    ({"tools": [{"type": "function", "function": {"name": "f"}}] * 513}, "tools"),
    ({"tools": [{}]}, "tools[0]"), ({"tools": ["x"]}, "tools[0]"), ({"tools": {}}, "tools"),
    ({"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "sometimes"}, "tool_choice"),
    ({"tools": [{"type": "function", "function": {"name": "f g"}}]}, "tools[0].function.name"),
    ({"tools": [{"type": "function", "name": "f", "parameters": 5}]}, "tools[0].parameters"),
    ({"tools": [{"type": "function", "name": "f", "parameters": {"type": "array"}}]}, "tools[0].parameters.type"),
    ({"moderation": {"model": "omni-moderation-latest"}}, "moderation"),
    ({"tools": [{"type": "mcp", "name": "f"}]}, "tools[0]"),
    ({"tool_choice": "required"}, "tool_choice"), ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice"),
    ({"tool_choice": {"type": "function"}}, "tool_choice"),
    ({"functions": [{"name": "f"}], "function_call": {"name": "g"}}, "tool_choice"),
    ({"functions": [{}]}, "functions[0].name"), ({"functions": [], "tools": [{}]}, "tools[0]"),
    ({"modalities": ["text", "audio"]}, "modalities"),
    ({"messages": [{"role": "assistant", "tool_calls": [{"id": "c"}]}]}, "messages[0].tool_calls[0]"),
    ({"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": 5}}]}]},
     "messages[0].tool_calls[0].function.arguments"),
    ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
    ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs"),
    ({"chat_template_kwargs": {"thinking": [1]}}, "chat_template_kwargs.thinking"),
    ({"reasoning_effort": SECRET}, "reasoning_effort"),
    ({"reasoning_effort": "none", "enable_thinking": True}, "reasoning_effort"),
    ({"thinking_budget": 0, "enable_thinking": True}, "thinking_budget"), ({"thinking_budget": -2}, "thinking_budget"),
]
TEXT_ONLY = [
    ({"prompt": None}, "prompt"), ({"prompt": 5}, "prompt"), ({"prompt": []}, "prompt"),
    ({"prompt": ["x", 5]}, "prompt"), ({"prompt": [5, [5]]}, "prompt"), ({"prompt": [[]]}, "prompt"),
    ({"prompt": [258]}, "prompt"), ({"prompt": [-1]}, "prompt"),
    ({"prompt": [HUGE]}, "prompt"), ({"prompt": [True]}, "prompt[0]"), ({"prompt": [[1.5]]}, "prompt[0][0]"),
    ({"prompt": ["x"] * 1025}, "prompt"), ({"prompt": ["x"] * 512, "n": 3}, "prompt"), ({"prompt": {"a": 1}}, "prompt"),
    ({"logprobs": 21}, "logprobs"), ({"logprobs": True}, "logprobs"), ({"echo": "yes"}, "echo"),
    ({"best_of": 3, "stream": True}, "best_of"),
    ({"best_of": 1, "n": 2}, "best_of"), ({"best_of": 0}, "best_of"), ({"suffix": SECRET}, "suffix"),
]


def shown(case: Any) -> str:
    return json.dumps(case)[:50]


def check(server: Server, path: str, body: Any, param: str) -> None:
    reply = server.post(path, body)
    assert (reply.status, reply.error["param"]) == (400, param), reply.body
    assert reply.error["type"] == "invalid_request_error" and reply.error["code"]
    assert SECRET not in reply.body.decode() and len(reply.body) < 800


@pytest.mark.parametrize(("fields", "param"), COMMON, ids=shown)
def test_a_wrong_field_is_named(server: Server, fields: dict[str, Any], param: str) -> None:
    check(server, "/v1/chat/completions", CHAT | fields, param)
    check(server, "/v1/completions", TEXT | fields, param)


@pytest.mark.parametrize(("fields", "param"), CHAT_ONLY, ids=shown)
def test_a_wrong_field_of_a_chat_is_named(server: Server, fields: dict[str, Any], param: str) -> None:
    check(server, "/v1/chat/completions", CHAT | fields, param)


@pytest.mark.parametrize(("fields", "param"), TEXT_ONLY, ids=shown)
def test_a_wrong_field_of_a_completion_is_named(server: Server, fields: dict[str, Any], param: str) -> None:
    check(server, "/v1/completions", TEXT | fields, param)


@pytest.mark.parametrize("body", [
    b"", b"{", b"nonsense", b"[]", b"5", b"null", b'"text"', b"{} {}", b'{"prompt": "\xff"}', b'{"prompt": "\\ud800"}',
    b"\xef\xbb\xbf{}", b"{'prompt': 'x'}", b'{"prompt": "x",}', b'{"prompt": "x"', b"prompt=x"], ids=repr)
def test_a_body_that_is_no_json_object_is_refused(server: Server, body: bytes) -> None:
    reply = server.post("/v1/completions", body)
    assert reply.status == 400 and reply.error["type"] == "invalid_request_error"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "[NaN]"])
def test_a_number_that_is_not_finite_is_named(server: Server, number: str) -> None:
    reply = server.post("/v1/completions", b'{"prompt": "x", "top_p": %s}' % number.encode())
    assert (reply.status, reply.error["param"]) == (400, "top_p")


@pytest.mark.parametrize("field", ["tools", "unknown", "chat_template_kwargs"])
def test_deep_nesting_is_refused(server: Server, field: str) -> None:
    for depth in (200, 100_000):
        deep = b'[{"type": "function", "function": ' + b'{"a":' * depth + b"1" + b"}" * depth + b"}]"
        body = b'{"messages": "x", "%s": %s}' % (field.encode(), deep)
        reply = server.post("/v1/chat/completions", body)
        assert reply.status == (200 if (field, depth) == ("unknown", 200) else 400)


ROUTES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": CHAT, "/v1/responses": {"input": "x"}, "/v1/responses/input_tokens": {"input": "x"},
    "/v1/messages": {"model": "chain", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]}}


@pytest.mark.parametrize(("path", "fields", "param"), [
    *((path, {"reasoning_effort": "High"}, "reasoning_effort") for path in ROUTES),
    ("/tokenize", {"messages": [{"role": "user", "content": "x"}], "reasoning_effort": "High"}, "reasoning_effort"),
    ("/v1/responses", {"reasoning": {"effort": "High"}}, "reasoning.effort"),
    ("/v1/messages", {"output_config": {"effort": "High"}}, "output_config.effort")], ids=str)
def test_an_effort_is_written_in_small_letters_and_an_error_lists_all(server: Server, path: str,
                                                                     fields: dict[str, Any], param: str) -> None:
    reply = server.post(path, ROUTES.get(path, {}) | fields)
    assert reply.status == 400
    assert f"`{param}`: expected one of 'high', 'low', 'max'" in reply.json["error"]["message"]


@pytest.mark.parametrize(("fields", "param"), [
    ({"web_search_options": {}}, "web_search_options"), ({"files": [{"name": "a.txt"}]}, "files"),
    ({"enable_shell": True}, "enable_shell"), ({"enable_code_execution": True}, "enable_code_execution"),
    ({"adapter": "a"}, "adapter"), ({"adapter": {"generation": "a"}}, "adapter")], ids=str)
def test_what_other_engines_offer_is_refused_in_words(server: Server, fields: dict[str, Any], param: str) -> None:
    for path, body in (ROUTES | ({"/v1/completions": TEXT} if param == "adapter" else {})).items():
        reply = server.post(path, body | fields)
        assert reply.status == 400 and f"`{param}` is not offered" in reply.json["error"]["message"], path


def test_what_bounds_tools_of_a_server_changes_nothing_where_it_runs_none(server: Server) -> None:
    fields = {"web_search_options": {"external_web_access": False}, "files": [], "enable_shell": False,
              "enable_code_execution": False, "session_id": "a", "max_tool_rounds": 3, "agent_permission": "ask"}
    for path, body in ROUTES.items():
        assert server.post(path, body | fields).status == 200, path


def test_a_missing_field_has_openais_code(server: Server) -> None:
    error = server.post("/v1/chat/completions", {}).error
    assert (error["param"], error["code"]) == ("messages", "missing_required_parameter")


def test_what_a_choice_may_be_is_told(server: Server) -> None:
    reply = server.post("/v1/chat/completions", {"messages": [{"role": "robot", "content": "x"}]})
    assert "'assistant', 'developer', 'function', 'system', 'tool', 'user'" in reply.error["message"]


def test_unknown_fields_are_ignored(server: Server) -> None:
    extra = {"user": "u", "metadata": {"a": "b"}, "store": True, "service_tier": "auto", "parallel_tool_calls": True,
             "nobody_knows": [1, {"x": None}]}
    assert server.chat("x", **extra).status == server.complete("x", **extra).status == 200


def test_null_means_absent(server: Server) -> None:
    names = [each for fields, _ in COMMON for each in fields]
    assert server.chat("x", **dict.fromkeys(names)).status == 200
    assert server.complete("x", **dict.fromkeys(names)).status == 200


@pytest.mark.parametrize("name", ["gpt-9", "/etc/passwd", "../chain", "./chain", "chain/../chain", "CHAIN", "\0"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_an_unknown_model_is_not_found_and_a_path_is_no_model(server: Server, path: str, name: str) -> None:
    reply = server.post(path, CHAT | TEXT | {"model": name})
    assert (reply.status, reply.error["code"], reply.error["param"]) == (404, "model_not_found", "model")
    assert server.get("/v1/models/..%2F..%2Fetc%2Fpasswd").error["code"] == "model_not_found"


def test_unknown_routes_and_methods_get_the_envelope(server: Server) -> None:
    assert server.get("/v1/nothing").status == 404 and server.get("/v1/nothing").error["code"] == "not_found"
    reply = server.get("/v1/completions")
    assert (reply.status, reply.headers["allow"]) == (405, "POST") and reply.error["code"] == "method_not_allowed"


def test_a_prompt_over_the_context_is_refused_with_the_numbers(server: Server) -> None:
    for reply, field in ((server.complete("x" * 2000), "prompt"), (server.chat("x" * 2000), "messages"),
                         (server.complete("x" * 2000, stream=True), "prompt"),
                         (server.chat("x" * 2000, stream=True), "messages")):
        assert (reply.status, reply.error["code"], reply.error["param"]) == (400, "context_length_exceeded", field)
        assert re.search("prompt is too long: .*; this model's maximum context length is 2000 ", reply.error["message"])
    assert server.complete("x" * 3000, truncate_sequence=True).status == 200


def test_a_body_over_the_limit_is_refused() -> None:
    with serving(model(), max_body_mb=1) as server:
        big = json.dumps({"prompt": "x" * (1 << 20)}).encode()
        reply = server.post("/v1/completions", big)
        assert (reply.status, reply.error["code"]) == (413, "request_too_large")
        chunked = server.call("POST", "/v1/completions", iter([big[:1000], big[1000:]]))  # type: ignore[arg-type]
        assert chunked.status == 413
        assert server.complete("x").status == 200


def test_a_failure_inside_tells_nothing_of_itself(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("/secret/path")

    monkeypatch.setattr(server.llm, "prepare", fail)
    reply = server.chat("x")
    assert (reply.status, reply.error["type"]) == (500, "server_error")
    assert "secret" not in reply.body.decode() and "Traceback" not in reply.body.decode()


def test_a_request_needs_no_content_type(server: Server) -> None:
    headers = {"content-type": "text/plain"}
    assert server.call("POST", "/v1/completions", {"prompt": "x"}, headers).status == 200


@pytest.mark.parametrize(("kind", "word"), [("image", "image"), ("document", "pdf"), ("input_image", "image"),
                                            ("input_file", "file"), ("image_url", "image"), ("input_audio", "audio"),
                                            ("video_url", "video")])
def test_what_is_no_text_is_refused_in_words_that_agents_know(server: Server, kind: str, word: str) -> None:
    said = [{"role": "user", "content": [{"type": kind}]}]
    path, field = {"image": ("messages", "messages"), "document": ("messages", "messages"),
                   "input_file": ("responses", "input"), "input_image": ("responses", "input")}.get(
                       kind, ("chat/completions", "messages"))
    reply = server.post(f"/v1/{path}", {"model": "chain", "max_tokens": 5, field: said})
    assert reply.status == 400 and reply.json["error"]["message"].startswith(f"could not process {word}: ")
