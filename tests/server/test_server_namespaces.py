"""Tools in namespaces: the Responses API driven by the official client, against a model that makes scripted calls."""
from __future__ import annotations

from typing import Any

import openai
import pytest
from fakes import Server, serving
from script import speaking

from zonda.text.parts import CallArguments, CallStart, Part

FIND: dict[str, Any] = {"type": "function", "name": "find", "description": "Finds.", "strict": False,
                        "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}}}
EDIT = {"type": "custom", "name": "edit"}
CRM: Any = {"type": "namespace", "name": "crm", "description": "Customers.", "tools": [FIND, EDIT]}
MAIL: Any = {"type": "namespace", "name": "mail", "description": "Letters.", "tools": [FIND]}
PLAIN: Any = FIND | {"name": "plain"}
CALLS: tuple[Part, ...] = (
    CallStart(0, "c0", "crm__find"), CallArguments(0, '{"x":1}'), CallStart(1, "c1", "crm__edit"),
    CallArguments(1, '{"input":"a"}'), CallStart(2, "c2", "plain"), CallArguments(2, "{}"))


def test_calls_of_tools_in_namespaces_go_out_and_come_back() -> None:
    llm: Any = speaking(CALLS)
    with serving(llm, access_log=False) as server, openai.OpenAI(base_url=f"{server.url}/v1", api_key="x") as client:
        asked: Any = {"model": "chain", "tools": [CRM, MAIL, PLAIN]}
        response = client.responses.create(input="x", **asked)
        events = list(client.responses.create(input="x", stream=True, **asked))
        again: Any = [item.model_dump(exclude_none=True) for item in response.output]
        results: Any = [{"type": kind, "call_id": id, "output": "ok"} for kind, id in (
            ("function_call_output", "c0"), ("custom_tool_call_output", "c1"), ("function_call_output", "c2"))]
        client.responses.create(input=[{"role": "user", "content": "x"}, *again, *results], **asked)
        shown = server.get(f"/v1/responses/{response.id}?stream=true").events
    wanted = [("function_call", "find", "crm"), ("custom_tool_call", "edit", "crm"), ("function_call", "plain", None)]
    assert [(each.type, each.name, each.namespace) for each in response.output] == wanted  # type: ignore[union-attr]
    for found in (events[-1].response.output, [each.item for each in events if each.type.endswith("item.done")]):
        assert [(each.type, each.name, each.namespace) for each in found] == wanted
    assert [each["item"].get("namespace") for each in shown[:-1] if each["type"].endswith("item.added")] == [
        "crm", "crm", None]
    assert [tool.type for tool in response.tools] == ["namespace", "namespace", "function"]
    told = [each["function"] for each in llm.turns[0].tools]
    assert [each["name"] for each in told] == ["crm__find", "crm__edit", "mail__find", "plain"]
    assert [each["description"] for each in told] == ["Customers.\n\nFinds.", "Customers.", "Letters.\n\nFinds.",
                                                      "Finds."]
    said = next(each for each in llm.turns[-1].messages if "tool_calls" in each)
    assert [call["function"]["name"] for call in said["tool_calls"]] == ["crm__find", "crm__edit", "plain"]


@pytest.mark.parametrize(("choice", "named", "allowed"), [
    ({"type": "function", "name": "plain"}, "plain", ()),
    ({"type": "function", "name": "mail__find"}, "mail__find", ()),
    ({"type": "custom", "name": "edit"}, "crm__edit", ()),
    ({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "namespace", "name": "crm"},
                                                         {"type": "function", "name": "plain"}]},
     None, ("crm__find", "crm__edit", "plain"))])
def test_a_choice_names_tools_in_namespaces(choice: Any, named: str | None, allowed: tuple[str, ...]) -> None:
    llm: Any = speaking(CALLS)
    with serving(llm, access_log=False) as server:
        body = {"input": "x", "tools": [CRM, MAIL, PLAIN], "tool_choice": choice}
        assert server.post("/v1/responses", body).status == 200
    assert (getattr(llm.turns[0].choice, "name", None), llm.turns[0].allowed) == (named, allowed)


@pytest.mark.parametrize(("tool", "param"), [
    ({"type": "namespace", "tools": [FIND]}, "tools[0].name"), ({"type": "namespace", "name": "a"}, "tools[0].tools"),
    (CRM | {"tools": []}, "tools[0].tools"), (CRM | {"tools": [FIND, {}]}, "tools[0].tools[1]"),
    (CRM | {"tools": [{"type": "function"}]}, "tools[0].tools[0].name"),
    (CRM | {"tools": [CRM]}, "tools[0].tools[0].type"),
    (CRM | {"tools": [EDIT | {"format": {"type": "grammar", "syntax": "lark", "definition": "start: ("}}]},
     "tools[0].tools[0].format.definition")])
def test_a_namespace_that_cannot_be_had_is_named(server: Server, tool: dict[str, Any], param: str) -> None:
    reply = server.post("/v1/responses", {"input": "x", "tools": [tool]})
    assert (reply.status, reply.error["param"]) == (400, param)


def test_a_tool_in_a_namespace_can_be_forced(server: Server) -> None:
    body = {"input": "x", "tools": [CRM], "tool_choice": {"type": "function", "name": "find"}, "max_output_tokens": 500}
    (item,) = server.post("/v1/responses", body).json["output"]
    assert (item["type"], item["name"], item["namespace"]) == ("function_call", "find", "crm")
