"""Tools that OpenAI has named and clients run: a shell, and changes to files."""
from __future__ import annotations

import json
from typing import Any

import pytest
from fakes import Server
from scripted import scripted
from test_server_responses import asking, of_one_item, output

EXEC: Any = {"type": "exec", "command": ["ls", "-l"], "env": {}}
PATCH: Any = {"type": "create_file", "path": "a.txt", "diff": "+a"}
NAMED = [
    ("local_shell", {"command": ["ls", "-l"]}, "action", EXEC, "local_shell_call_output", "a.txt"),
    ("shell", {"commands": ["ls"], "timeout_ms": 9}, "action", {"commands": ["ls"], "timeout_ms": 9},
     "shell_call_output", [{"stdout": "a.txt", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}]),
    ("apply_patch", PATCH, "operation", PATCH, "apply_patch_call_output", "a.txt")]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(("tool", "arguments", "field", "action", "kind", "said"), NAMED,
                         ids=lambda each: str(each)[:9])
def test_a_named_tool_is_called_by_an_item_of_its_own(tool: str, arguments: Any, field: str, action: Any, kind: str,
                                                      said: Any, streamed: bool) -> None:
    llm = scripted()
    llm.says(f'<tool_call>{{"name": "{tool}", "arguments": {json.dumps(arguments)}}}</tool_call>')
    with asking(llm) as (client, server):
        forced = "required" if tool == "local_shell" else {"type": tool}
        fields: Any = {"model": "scripted", "input": "List.", "tools": [{"type": tool}], "tool_choice": forced}
        whole = of_one_item(client, fields, streamed=streamed)
        call = whole.output[0]
        done = {"call_id": call.call_id, "status": "completed"}
        assert output(whole) == [{"type": f"{tool}_call", field: action, **done}]
        assert whole.tools[0].type == tool
        told = server.get(f"/v1/responses/{whole.id}?stream=true").events
        assert told[3]["item"][field] == action and told[3]["type"] == "response.output_item.done"

        llm.says("There is one.")
        result: Any = {"type": kind, "id": call.call_id, "output": said, **done}
        client.responses.create(**fields | {"previous_response_id": whole.id, "input": [result], "tool_choice": "auto"})
        asked = llm.template.calls[-1]  # type: ignore[attr-defined]
        _, called, results = asked["messages"]
        function = called["tool_calls"][0]["function"]
        assert function["name"] == tool and json.loads(function["arguments"]) == arguments
        assert results == {"role": "tool", "tool_call_id": call.call_id, "content": "a.txt"}
        (offered,) = asked["tools"]
        assert offered["function"]["name"] == tool and offered["function"]["strict"]
        sent = [{"role": "user", "content": "List."}, call.model_dump(), result]
        client.responses.create(**fields | {"input": sent, "store": False, "tool_choice": "auto"})
        assert llm.template.calls[-1]["messages"] == asked["messages"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("arguments", ["[1]", '{"command": ["l', ""])
def test_a_call_without_sound_arguments_has_an_empty_action(arguments: str) -> None:
    llm = scripted()
    llm.says(f'<tool_call>{{"name": "local_shell", "arguments": {arguments}', finish="length")
    with asking(llm) as (_, server):
        made = server.post("/v1/responses", {"input": "x", "tools": [{"type": "local_shell"}]}).json["output"]
    assert [item["action"] for item in made] in ([], [EXEC | {"command": []}])


def test_a_forced_call_of_a_real_grammar_follows_the_tools_schema(server: Server) -> None:
    tools = [{"type": "apply_patch"}]
    made = server.post("/v1/responses", {"input": "x", "tools": tools, "tool_choice": "required"}).json
    assert made["output"][0]["type"] == "apply_patch_call"
    assert set(made["output"][0]["operation"]) == {"type", "path", "diff"}


@pytest.mark.parametrize(("tool", "param"), [
    ({"type": "shell", "environment": {"type": "container_auto"}}, "tools[0].environment"),
    ({"type": "namespace", "name": "a", "tools": [{"type": "shell"}]}, "tools[0].tools[0].type")])
def test_a_tool_that_the_client_does_not_run_is_refused(server: Server, tool: Any, param: str) -> None:
    assert server.post("/v1/responses", {"input": "x", "tools": [tool]}).error["param"] == param


def test_a_named_tool_can_be_among_those_that_are_allowed(server: Server) -> None:
    choice = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "shell"}]}
    tools = [{"type": "local_shell"}, {"type": "shell", "environment": {"type": "local"}}]
    made = server.post("/v1/responses", {"input": "x", "tools": tools, "tool_choice": choice}).json
    assert {item["type"] for item in made["output"]} == {"shell_call"}
    assert made["tools"] == [{"type": "local_shell"}, {"type": "shell", "environment": {"type": "local"}}]
