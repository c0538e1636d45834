"""Histories of Anthropic's own service go on here: every block that its package knows is told or refused."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

import pytest
from anthropic.types import ContentBlockParam
from anthropic.types.beta import BetaContentBlockParam
from fakes import Server, serving
from pydantic import TypeAdapter
from script import speaking

ID = {"tool_use_id": "srvtoolu_a"}
PDF = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}
PLAIN = {"type": "text", "media_type": "text/plain", "data": "D"}


def used(name: str) -> dict[str, Any]:
    return {"type": "server_tool_use", "id": "srvtoolu_a", "name": name, "input": {"q": "x"}}


def failed(kind: str, code: str = "unavailable") -> dict[str, Any]:
    return {"type": f"{kind}_result", **ID, "content": {"type": f"{kind}_result_error", "error_code": code}}


RAN = {"stdout": "1\n", "stderr": "warned", "return_code": 2}
RESULTS: list[tuple[dict[str, Any], str]] = [
    ({"type": "tool_result", **ID, "content": [{"type": "tool_reference", "tool_name": "look"}]}, "look"),
    ({"type": "mcp_tool_result", **ID, "content": [{"type": "text", "text": "4"}], "is_error": True}, "Error: 4"),
    ({"type": "mcp_tool_result", **ID, "content": "4"}, "4"),
    ({"type": "web_search_tool_result", **ID, "content": [
        {"type": "web_search_result", "title": "T", "url": "http://t", "encrypted_content": "E", "page_age": "today"},
        {"type": "web_search_result", "title": "U", "url": "http://u", "encrypted_content": "E"}]},
     "T\nhttp://t\ntoday\nU\nhttp://u"),
    (failed("web_search_tool"), "Error: unavailable"),
    ({"type": "web_fetch_tool_result", **ID, "content": {
        "type": "web_fetch_result", "url": "http://t", "content": {"type": "document", "title": "T", "source": PLAIN}}},
     "http://t\nT\nD"),
    (failed("web_fetch_tool"), "Error: unavailable"),
    ({"type": "code_execution_tool_result", **ID, "content": {"type": "code_execution_result", **RAN, "content": [
        {"type": "code_execution_output", "file_id": "file_1"}]}}, "1\nwarned\nFile: file_1\nReturn code: 2"),
    ({"type": "code_execution_tool_result", **ID, "content": {
        "type": "encrypted_code_execution_result", "encrypted_stdout": "E", "stderr": "", "return_code": 0,
        "content": []}}, ""),
    (failed("code_execution_tool"), "Error: unavailable"),
    ({"type": "bash_code_execution_tool_result", **ID, "content": {
        "type": "bash_code_execution_result", **RAN, "content": []}}, "1\nwarned\nReturn code: 2"),
    ({"type": "text_editor_code_execution_tool_result", **ID, "content": {
        "type": "text_editor_code_execution_view_result", "content": "F", "file_type": "text"}}, "F"),
    ({"type": "text_editor_code_execution_tool_result", **ID, "content": {
        "type": "text_editor_code_execution_create_result", "is_file_update": False}}, "The file is created."),
    ({"type": "text_editor_code_execution_tool_result", **ID, "content": {
        "type": "text_editor_code_execution_str_replace_result", "lines": ["-a", "+b"]}}, "-a\n+b"),
    (failed("text_editor_code_execution_tool"), "Error: unavailable"),
    ({"type": "tool_search_tool_result", **ID, "content": {
        "type": "tool_search_tool_search_result", "tool_references": [{"type": "tool_reference", "tool_name": "a"},
                                                                     {"type": "tool_reference", "tool_name": "b"}]}},
     "a\nb"),
    ({"type": "advisor_tool_result", **ID, "content": {"type": "advisor_result", "text": "No."}}, "No."),
    ({"type": "advisor_tool_result", **ID, "content": {"type": "advisor_redacted_result", "encrypted_content": "E"}},
     "")]
CALLS: list[dict[str, Any]] = [
    used("web_search"), {"type": "tool_use", "id": "toolu_a", "name": "look", "input": {"q": "x"}},
    {"type": "mcp_tool_use", "id": "mcptoolu_a", "name": "look", "server_name": "s", "input": {"q": "x"}}]
CITED = {"type": "web_search_result_location", "cited_text": "c", "encrypted_index": "E", "title": "T", "url": "http://t"}
TEXTS: list[tuple[dict[str, Any], str]] = [
    ({"type": "text", "text": "x", "citations": [CITED]}, "x"),
    ({"type": "document", "title": "T", "context": "C", "source": PLAIN, "citations": {"enabled": True}}, "T\nC\nD"),
    ({"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "a"},
                                                                    {"type": "text", "text": "b"}]}}, "a\nb"),
    ({"type": "search_result", "title": "T", "source": "http://t", "content": [{"type": "text", "text": "a"}]},
     "T\nhttp://t\na"),
    ({"type": "compaction", "content": "S"}, "S"), ({"type": "container_upload", "file_id": "f"}, "Uploaded file: f")]
THOUGHTS: list[dict[str, Any]] = [{"type": "thinking", "thinking": "Hm.", "signature": "s"},
                                  {"type": "redacted_thinking", "data": "foreign"}]
SILENT: list[dict[str, Any]] = [{"type": "fallback", "from": {"model": "a"}, "to": {"model": "b"}},
                                {"type": "mcp_tool_listing", "mcp_server_name": "s", "tools": []}]
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "eA=="}}, ""),
    ({"type": "document", "source": PDF}, ""), ({"type": "document", "source": {"type": "file", "file_id": "f"}}, ""),
    ({"type": "document", "source": {"type": "content", "content": [
        {"type": "image", "source": {"type": "url", "url": "http://i"}}]}}, ".source.content[0]"),
    ({"type": "tool_result", **ID, "content": [{"type": "image", "source": {"type": "url", "url": "http://i"}}]},
     ".content[0]"),
    ({"type": "web_fetch_tool_result", **ID, "content": {
        "type": "web_fetch_result", "url": "http://t", "content": {"type": "document", "source": PDF}}},
     ".content.content"),
    ({"type": "tool_addition", "tool": {"type": "tool_reference", "name": "look"}}, ".type"),
    ({"type": "tool_removal", "tool": {"type": "tool_reference", "name": "look"}}, ".type")]
ALL = [*CALLS, *THOUGHTS, *SILENT, *(each for each, _ in (*RESULTS, *TEXTS, *REFUSED))]


@pytest.fixture(scope="module")
def speaker() -> Iterator[Server]:
    with serving(speaking(), access_log=False) as server:
        yield server


def heard(server: Server, *content: dict[str, Any], role: str = "assistant") -> Any:
    """What the model is told of a message between two of the user."""
    asked = {"role": "user", "content": "x"}
    reply = server.post("/v1/messages", {"model": "chain", "max_tokens": 9,
                                         "messages": [asked, {"role": role, "content": content}, asked]})
    assert reply.status == 200, reply.body
    return server.llm.turns[-1].messages[1:-1]  # type: ignore[union-attr]


def test_every_kind_of_block_is_tried() -> None:
    kinds = {get_args(get_type_hints(each)["type"])[0] for union in (ContentBlockParam, BetaContentBlockParam)
             for each in get_args(union) if isinstance(each, type)}
    assert {each["type"] for each in ALL} >= kinds


@pytest.mark.parametrize("block", ALL, ids=lambda block: block["type"])
def test_what_is_tried_is_what_anthropics_package_sends(block: dict[str, Any]) -> None:
    TypeAdapter(BetaContentBlockParam).validate_python(block)


@pytest.mark.parametrize(("block", "said"), RESULTS, ids=lambda case: str(case)[:60])
def test_results_are_told_as_those_of_tools(speaker: Server, block: dict[str, Any], said: str) -> None:
    result = {"role": "tool", "tool_call_id": "srvtoolu_a", "content": said}
    call, found, text = heard(speaker, used("web_search"), block, {"type": "text", "text": "Yes."})
    assert call["tool_calls"] == [{"id": "srvtoolu_a", "type": "function", "function": {
        "name": "web_search", "arguments": '{"q":"x"}'}}]
    assert found == result and text == {"role": "assistant", "content": "Yes."}
    assert heard(speaker, block, role="user")[0] == result


def test_a_turn_with_several_tools_of_the_server_keeps_its_order(speaker: Server) -> None:
    first, second = used("web_search"), used("web_fetch") | {"id": "srvtoolu_b"}
    result = {"type": "web_search_tool_result", **ID, "content": []}
    mine = {"type": "tool_use", "id": "toolu_a", "name": "look", "input": {}}
    said = heard(speaker, THOUGHTS[0], {"type": "text", "text": "See:"}, first, second, result,
                 failed("web_fetch_tool") | {"tool_use_id": "srvtoolu_b"}, {"type": "text", "text": "So:"}, mine,
                 *SILENT)
    assert [(each["role"], each["content"], [call["id"] for call in each.get("tool_calls", ())]) for each in said] == [
        ("assistant", "See:", ["srvtoolu_a", "srvtoolu_b"]), ("tool", "", []), ("tool", "Error: unavailable", []),
        ("assistant", "So:", ["toolu_a"])]
    assert said[0]["reasoning_content"] == "Hm." and "reasoning_content" not in said[-1]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call["type"])
def test_calls_are_calls_whoever_ran_them(speaker: Server, call: dict[str, Any]) -> None:
    (said,) = heard(speaker, call)
    assert said["tool_calls"][0] == {"id": call["id"], "type": "function", "function": {
        "name": call["name"], "arguments": '{"q":"x"}'}}


@pytest.mark.parametrize(("block", "said"), TEXTS, ids=lambda case: str(case)[:60])
def test_what_can_be_said_is_said(speaker: Server, block: dict[str, Any], said: str) -> None:
    assert [heard(speaker, block, role=role)[0]["content"] for role in ("user", "assistant")] == [said, said]


@pytest.mark.parametrize("block", [*THOUGHTS, *SILENT], ids=lambda block: block["type"])
def test_what_is_for_nobody_here_is_left_out(speaker: Server, block: dict[str, Any]) -> None:
    (said,) = heard(speaker, block, {"type": "text", "text": "Yes."})
    assert (said["content"], said.get("reasoning_content")) == ("Yes.", block.get("thinking"))


def test_the_state_of_a_browser_is_told(speaker: Server) -> None:
    state = {"type": "browser_state", "tabs": [{"tab_id": "1", "title": "T", "url": "http://t", "active": True}]}
    (result,) = heard(speaker, {"type": "tool_result", **ID, "content": [state]}, role="user")
    assert result["content"] == '{"tab_id":"1","title":"T","url":"http://t","active":true}'


@pytest.mark.parametrize(("block", "place"), REFUSED, ids=lambda case: str(case)[:60])
def test_what_no_text_model_can_be_told_is_refused_with_its_place(speaker: Server, block: dict[str, Any],
                                                                  place: str) -> None:
    reply = speaker.post("/v1/messages", {"model": "chain", "max_tokens": 9, "messages": [
        {"role": "user", "content": [{"type": "text", "text": "x"}, block]}]})
    assert (reply.status, reply.json["error"]["type"]) == (400, "invalid_request_error")
    assert f"`messages[0].content[1]{place}`" in reply.json["error"]["message"]


def test_a_note_of_the_system_may_be_for_one_turn_alone(speaker: Server) -> None:
    note = {"role": "system", "content": "Briefly.", "clear_at": "next_user_message"}
    asked = {"role": "user", "content": "x"}
    for messages, count in (([asked, note], 2), ([asked, note, {"role": "assistant", "content": "y"}, asked], 3)):
        assert speaker.post("/v1/messages", {"model": "chain", "max_tokens": 9, "messages": messages}).status == 200
        assert len(speaker.llm.turns[-1].messages) == count  # type: ignore[union-attr]
