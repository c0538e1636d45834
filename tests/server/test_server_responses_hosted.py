"""Histories of OpenAI's own service go on here: every item that its package knows is told or refused."""
from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

import pytest
from fakes import Server, serving
from openai.types.responses import ResponseInputItemParam, ResponseItem
from pydantic import TypeAdapter
from script import speaking

DONE = {"status": "completed"}
CALLED = {"call_id": "call_a", **DONE}
SEARCH = {"type": "web_search_call", "id": "ws_a", **DONE}
RUN = {"type": "code_interpreter_call", "id": "ci_a", "container_id": "c", "code": "1", **DONE}
MCP = {"type": "mcp_call", "id": "mcp_a", "server_label": "s", "name": "look", "arguments": "{}"}
EXEC = {"type": "exec", "command": ["ls"], "env": {}}
PATCH = {"type": "delete_file", "path": "a"}
BOTH: list[tuple[dict[str, Any], str, dict[str, Any], str]] = [
    (SEARCH | {"action": {"type": "search", "query": "q", "sources": [{"type": "url", "url": "http://a"},
                                                                     {"type": "url", "url": "http://b"}]}},
     "web_search", {"type": "search", "query": "q"}, "http://a\nhttp://b"),
    (SEARCH | {"action": {"type": "open_page", "url": "http://a"}}, "web_search",
     {"type": "open_page", "url": "http://a"}, ""),
    ({"type": "file_search_call", "id": "fs_a", "queries": ["q"], "results": [{"filename": "f", "text": "t"}], **DONE},
     "file_search", {"queries": ["q"]}, "f\nt"),
    (RUN | {"outputs": [{"type": "logs", "logs": "1\n"}, {"type": "logs", "logs": "2"}]}, "code_interpreter",
     {"code": "1"}, "1\n2"),
    (RUN | {"outputs": None}, "code_interpreter", {"code": "1"}, ""),
    (MCP | {"output": "4"}, "look", {}, "4"),
    (MCP | {"error": {"type": "mcp_protocol_error", "code": 1, "message": "no"}}, "look", {},
     'Error: {"type":"mcp_protocol_error","code":1,"message":"no"}')]
PAIRS: list[tuple[dict[str, Any], dict[str, Any], str, dict[str, Any], str]] = [
    ({"type": "local_shell_call", "id": "lsh_a", "action": EXEC, **CALLED},
     {"type": "local_shell_call_output", "id": "call_a", "output": "a.txt", **DONE}, "local_shell", {"command": ["ls"]},
     "a.txt"),
    ({"type": "shell_call", "action": {"commands": ["ls"]}, **CALLED},
     {"type": "shell_call_output", "call_id": "call_a", "output": [
         {"stdout": "a\n", "stderr": "b", "outcome": {"type": "exit", "exit_code": 2}},
         {"stdout": "", "stderr": "", "outcome": {"type": "timeout"}}]}, "shell", {"commands": ["ls"]},
     "a\nb\nExit code: 2\nTimed out"),
    ({"type": "apply_patch_call", "operation": PATCH, **CALLED},
     {"type": "apply_patch_call_output", "call_id": "call_a", "status": "failed", "output": "no"}, "apply_patch", PATCH,
     "Error: no")]
KNOWN: list[dict[str, Any]] = [
    {"type": "message", "role": "user", "content": "x"},
    {"type": "function_call", "name": "f", "arguments": "{}", **CALLED},
    {"type": "function_call_output", "call_id": "call_a", "output": "x"},
    {"type": "custom_tool_call", "call_id": "call_a", "name": "f", "input": "x"},
    {"type": "custom_tool_call_output", "call_id": "call_a", "output": "x"},
    {"type": "reasoning", "id": "rs_a", "summary": []}, {"type": "item_reference", "id": "msg_a"},
    {"type": "compaction", "encrypted_content": "E"}, {"type": "compaction_trigger"},
    {"type": "mcp_list_tools", "id": "mcpl_a", "server_label": "s", "tools": []}]
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"type": "computer_call", "id": "cu_a", "pending_safety_checks": [], "action": {"type": "screenshot"}, **CALLED},
     ""),
    ({"type": "computer_call_output", "call_id": "call_a", "output": {"type": "computer_screenshot"}}, ""),
    ({"type": "image_generation_call", "id": "ig_a", "result": "eA==", **DONE}, ""),
    (RUN | {"outputs": [{"type": "image", "url": "http://i"}]}, ".outputs[0]"),
    ({"type": "mcp_approval_request", "id": "a", "arguments": "{}", "name": "f", "server_label": "s"}, ".type"),
    ({"type": "mcp_approval_response", "approval_request_id": "a", "approve": True}, ".type"),
    ({"type": "tool_search_call", "arguments": "{}"}, ".type"), ({"type": "tool_search_output", "tools": []}, ".type"),
    ({"type": "additional_tools", "role": "developer", "tools": []}, ".type"),
    ({"type": "configuration_update"}, ".type"),
    ({"type": "program", "id": "p", "call_id": "call_a", "code": "1", "fingerprint": "f"}, ".type"),
    ({"type": "program_output", "id": "p", "call_id": "call_a", "result": "1", "status": "completed"}, ".type")]
ALL = [*KNOWN, *(each for each, _ in REFUSED), *(case[0] for case in BOTH),
       *(each for case in PAIRS for each in case[:2])]


@pytest.fixture(scope="module")
def speaker() -> Iterator[Server]:
    with serving(speaking(), access_log=False) as server:
        yield server


def test_every_kind_of_item_is_tried() -> None:
    kinds = {kind for each in get_args(ResponseInputItemParam)
             for kind in re.findall(r"'(\w+)'", str(get_type_hints(each)["type"]))}
    assert len(kinds) > 20 and {each["type"] for each in ALL} >= kinds


@pytest.mark.parametrize("item", ALL, ids=lambda item: item["type"])
def test_what_is_tried_is_what_openais_package_sends(item: dict[str, Any]) -> None:
    TypeAdapter(ResponseInputItemParam).validate_python(item)


def heard(server: Server, *items: dict[str, Any]) -> tuple[Any, list[Any]]:
    """What the model is told of items between two messages, and how they are listed."""
    asked = {"role": "user", "content": "x"}
    reply = server.post("/v1/responses", {"input": [asked, *items, asked]})
    assert reply.status == 200, reply.body
    listed = server.get(f"/v1/responses/{reply.json['id']}/input_items?order=asc").json["data"]
    TypeAdapter(list[ResponseItem]).validate_python(listed)
    assert len({each["id"] for each in listed}) == len(listed)
    return server.llm.turns[-1].messages[1:-1], listed[1:-1]  # type: ignore[union-attr]


def check(told: Any, listed: list[Any], id: str, name: str, arguments: Any, output: str) -> None:
    call, result = told
    (asked,) = call["tool_calls"]
    assert (asked["id"], asked["function"]["name"], json.loads(asked["function"]["arguments"])) == (id, name, arguments)
    assert result == {"role": "tool", "tool_call_id": id, "content": output}
    assert [each["type"] for each in listed] == ["function_call", "function_call_output"]


@pytest.mark.parametrize(("item", "name", "arguments", "output"), BOTH, ids=lambda case: str(case)[:50])
def test_calls_that_servers_answered_are_calls_with_outputs(speaker: Server, item: dict[str, Any], name: str,
                                                             arguments: Any, output: str) -> None:
    check(*heard(speaker, item), item["id"], name, arguments, output)


@pytest.mark.parametrize(("call", "result", "name", "arguments", "output"), PAIRS, ids=lambda case: str(case)[:50])
def test_calls_that_clients_answered_are_calls_with_outputs(speaker: Server, call: dict[str, Any],
                                                            result: dict[str, Any], name: str, arguments: Any,
                                                            output: str) -> None:
    check(*heard(speaker, call, result), "call_a", name, arguments, output)
    alone = speaker.post("/v1/responses", {"input": [{"role": "user", "content": "x"}, result]})
    assert (alone.status, alone.error["param"]) == (400, "input[1].call_id")


def test_lists_of_tools_are_left_out_and_conversations_take_all_alike(speaker: Server) -> None:
    assert heard(speaker, KNOWN[-1]) == ([], [])
    made = speaker.post("/v1/conversations", {"items": [KNOWN[-1], BOTH[0][0]]}).json
    listed = speaker.get(f"/v1/conversations/{made['id']}/items?order=asc").json["data"]
    assert [each["type"] for each in listed] == ["function_call", "function_call_output"]


@pytest.mark.parametrize(("item", "place"), REFUSED, ids=lambda case: str(case)[:50])
def test_what_cannot_be_told_is_refused_with_its_place(speaker: Server, item: dict[str, Any], place: str) -> None:
    reply = speaker.post("/v1/responses", {"input": [{"role": "user", "content": "x"}, item]})
    assert (reply.status, reply.error["param"], reply.error["code"]) == (400, f"input[1]{place}", "unsupported")


@pytest.mark.parametrize(("item", "place"), [
    ({"type": "web_search_call", "id": "a"}, "action"), ({"type": "web_search_call", "action": {}}, "id"),
    ({"type": "mcp_call", "id": "a", "name": "f"}, "arguments"), ({"type": "shell_call", "action": {}}, "call_id"),
    ({"type": "shell_call_output", "output": []}, "call_id"), ({"type": "file_search_call"}, "id")], ids=str)
def test_what_an_item_lacks_is_named(speaker: Server, item: dict[str, Any], place: str) -> None:
    reply = speaker.post("/v1/responses", {"input": [item]})
    assert (reply.status, reply.error["param"]) == (400, f"input[0].{place}")
