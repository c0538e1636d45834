"""Conversations, driven by the official client: responses continue them and add to them."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from fakes import Server, hold, let_go, model, serving, until


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def texts(client: openai.OpenAI, id: str) -> list[str]:
    items: Any = client.conversations.items.list(id, order="asc", limit=2)
    return [item.content[0].text for item in items]


def test_a_conversation_is_begun_noted_shown_and_forgotten(client: openai.OpenAI) -> None:
    made = client.conversations.create(items=[{"role": "user", "content": "x"}], metadata={"a": "b"})
    assert made.id.startswith("conv_") and made.created_at and client.conversations.retrieve(made.id) == made
    assert client.conversations.update(made.id, metadata={"c": "d"}).metadata == {"c": "d"}
    assert client.conversations.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.conversations.retrieve(made.id)


def test_items_are_listed_shown_added_and_taken_out(client: openai.OpenAI) -> None:
    id = client.conversations.create(items=[{"role": "user", "content": "a"}]).id
    added = client.conversations.items.create(id, items=[
        {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}])
    assert len({item.id for item in added.data}) == 2 and texts(client, id) == ["a", "b", "c"]
    assert client.conversations.items.retrieve(added.data[0].id, conversation_id=id) == added.data[0]
    assert client.conversations.items.delete(added.data[0].id, conversation_id=id).id == id
    assert texts(client, id) == ["a", "c"]
    with pytest.raises(openai.NotFoundError):
        client.conversations.items.retrieve(added.data[0].id, conversation_id=id)


@pytest.mark.parametrize("named", [str, lambda id: {"id": id}])
@pytest.mark.parametrize("streamed", [False, True])
def test_responses_continue_a_conversation(server: Server, client: openai.OpenAI, named: Any, streamed: bool) -> None:
    id = client.conversations.create(items=[{"role": "user", "content": "Q"}]).id
    for text in "wx":
        body = {"input": text, "conversation": named(id), "stream": streamed}
        reply = server.post("/v1/responses", body)
    response = reply.events[-2]["response"] if streamed else reply.json
    assert response["conversation"] == {"id": id} and response["output"][0]["content"][0]["text"] == "yz"
    assert texts(client, id) == ["Q", "w", "xyz", "x", "yz"]
    said = server.llm.template.calls[-1]["messages"]  # type: ignore[union-attr]
    assert [each["content"] for each in said] == ["Q", "w", "xyz", "x"]


def test_a_background_response_is_added_when_it_has_ended_and_a_cancelled_one_is_not() -> None:
    with serving(llm := model(), access_log=False) as server, openai.OpenAI(
            base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        id = client.conversations.create().id
        hold(llm)
        dropped = client.responses.create(model="chain", input="x", conversation=id, background=True)
        assert client.responses.cancel(dropped.id).status == "cancelled"
        run = client.responses.create(model="chain", input="w", conversation=id, background=True)
        assert texts(client, id) == []
        let_go(llm)
        until(lambda: client.responses.retrieve(run.id).status == "completed")
        until(lambda: texts(client, id) == ["w", "xyz"])


@pytest.mark.parametrize("how", [{"background": True}, {"stream": True}])
def test_one_response_at_a_time_goes_on_with_a_conversation(how: Any) -> None:
    with serving(llm := model(), access_log=False) as server, openai.OpenAI(
            base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        id, other = (client.conversations.create().id for _ in range(2))
        hold(llm)
        client.responses.create(model="chain", input="w", conversation=id, **how)
        refused = server.post("/v1/responses", {"input": "x", "conversation": id})
        assert refused.status == 400 and refused.json["error"]["code"] == "conversation_locked"
        assert client.responses.create(model="chain", input="x", conversation=other, background=True).id
        let_go(llm)
        until(lambda: server.post("/v1/responses", {"input": "w", "conversation": id}).status == 200)
        assert texts(client, id)[-2:] == ["w", "xyz"]


def test_a_response_that_fails_or_is_left_lets_its_conversation_go() -> None:
    with serving(llm := model(), access_log=False) as server, openai.OpenAI(
            base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        id = client.conversations.create().id
        assert server.post("/v1/responses", {"input": [], "conversation": id}).status == 400
        hold(llm)
        client.responses.create(model="chain", input="w", conversation=id, stream=True).close()
        let_go(llm)
        until(lambda: server.post("/v1/responses", {"input": "w", "conversation": id}).status == 200)
        assert texts(client, id)[-2:] == ["w", "xyz"]


def test_each_key_sees_its_own_conversations() -> None:
    with serving(model(), access_log=False, api_key=("a", "b")) as server:
        mine, other = ({"authorization": f"Bearer {key}"} for key in "ab")
        id = server.post("/v1/conversations", {}, **mine).json["id"]
        assert server.get(f"/v1/conversations/{id}", **mine).status == 200
        assert server.get(f"/v1/conversations/{id}", **other).status == 404
        assert server.post("/v1/responses", {"input": "x", "conversation": id}, **other).status == 404


@pytest.mark.parametrize(("path", "fields", "status", "param"), [
    ("/v1/responses", {"input": "x", "conversation": "conv_none"}, 404, "conversation"),
    ("/v1/conversations", {"items": [{"role": "user", "content": "x"}] * 21}, 400, "items"),
    ("/v1/conversations", {"items": [{"type": "strange"}]}, 400, "items[0].type"),
    ("/v1/conversations", {"metadata": {"a": "x" * 513}}, 400, "metadata")])
def test_what_is_wrong_is_named(server: Server, path: str, fields: dict[str, Any], status: int, param: str) -> None:
    reply = server.post(path, fields)
    assert (reply.status, reply.error["param"]) == (status, param), reply.body


def test_a_conversation_and_a_previous_response_exclude_each_other(server: Server, client: openai.OpenAI) -> None:
    id, before = client.conversations.create().id, client.responses.create(model="chain", input="x").id
    reply = server.post("/v1/responses", {"input": "x", "conversation": id, "previous_response_id": before})
    assert (reply.status, reply.error["param"]) == (400, "conversation")


def test_conversations_are_bounded() -> None:
    with serving(model(), access_log=False, stored_responses=2) as server:
        ids = [server.post("/v1/conversations", {}).json["id"] for _ in range(3)]
        assert [server.get(f"/v1/conversations/{id}").status for id in ids] == [404, 200, 200]
    with serving(model(), access_log=False, stored_responses=0) as server:
        assert server.post("/v1/conversations", {}).status == 400
