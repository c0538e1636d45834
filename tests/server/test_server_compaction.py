"""Conversations that are put into fewer tokens, by a route of its own and by an item of the input."""
from __future__ import annotations

from typing import Any

import pytest
from scripted import scripted
from test_server_responses import LOOK, WHOLE_ITEM, asking, of_one_item

SAID = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Tea, please."}]
ANSWER = {"role": "assistant", "content": "Here it is, at length."}
CALL = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"}
RESULT = {"type": "function_call_output", "call_id": "c1", "output": "tea"}
SUMMARY = {"role": "assistant", "content": "Summary of the conversation so far:\n\nThey like tea."}
MORE = {"role": "user", "content": "Tea?"}
TRIGGER = {"type": "compaction_trigger"}


def saying(*texts: str, **options: Any) -> Any:
    llm = scripted()
    llm.says(*texts, **options)
    return llm


def seen(llm: Any) -> list[Any]:
    return llm.template.calls[-1]["messages"]


def test_a_conversation_is_continued_from_its_compaction() -> None:
    llm, said = saying("They like tea."), [*SAID, ANSWER]
    with asking(llm) as (client, server):
        compacted = client.responses.compact(model="scripted", input=said)  # type: ignore[arg-type]
        asked = seen(llm)
        assert asked[:3] == said and asked[3]["role"] == "user" and "Summarize" in asked[3]["content"]
        llm.says("Yes.")
        items = [each.model_dump(exclude_none=True, warnings=False) for each in compacted.output]
        client.responses.create(model="scripted", input=[*items, MORE])
        assert seen(llm) == [*SAID, SUMMARY, MORE]
        foreign = {"input": [{"type": "compaction", "encrypted_content": "gAAA"}]}
        assert server.post("/v1/responses", foreign).error["param"] == "input[0].encrypted_content"
        assert server.post("/v1/responses/compact", {"input": "x"}).error["param"] == "model"
    assert [each.type for each in compacted.output] == ["message", "message", "compaction"]
    assert compacted.usage.output_tokens == len("They like tea.")


@pytest.mark.parametrize("streamed", [False, True])
def test_a_response_is_what_stands_for_the_conversation_if_its_input_asks_for_that(streamed: bool) -> None:
    llm = saying("<think>Hm.</think>They like tea.", finish="length")
    with asking(llm) as (client, server):
        fields: Any = {"model": "scripted", "input": [*SAID, CALL, RESULT, ANSWER, TRIGGER], "tools": [LOOK],
                       "tool_choice": "required"}
        whole = of_one_item(client, fields, streamed=streamed)
        if streamed:
            told = server.get(f"/v1/responses/{whole.id}?stream=true").events
            assert [event["type"] for event in told[:-1]] == WHOLE_ITEM
            assert told[3]["item"]["encrypted_content"] == whole.output[0].encrypted_content
        call = llm.template.calls[-1]
        assert "Summarize" in seen(llm)[-1]["content"] and len(seen(llm)) == 6 and call["tools"]
        assert whole.status == "completed" and [item.type for item in whole.output] == ["compaction"]
        client.responses.create(model="scripted", previous_response_id=whole.id, input=[MORE])
        assert seen(llm) == [*SAID, SUMMARY, MORE]
        again = client.responses.create(model="scripted", previous_response_id=whole.id, input=[MORE, ANSWER, TRIGGER])
        client.responses.create(model="scripted", previous_response_id=again.id, input=[MORE])
        assert seen(llm) == [*SAID, MORE, SUMMARY, MORE]


def test_a_conversation_that_is_too_long_to_summarize_loses_its_oldest_rounds() -> None:
    llm = saying("They like tea.")
    rounds = [{"role": "user", "content": "x" * 900}, ANSWER] * 3
    with asking(llm) as (client, _):
        whole = client.responses.create(model="scripted", input=[SAID[0], *rounds, TRIGGER])  # type: ignore[list-item]
        assert [item.type for item in whole.output] == ["compaction"]
        assert len(seen(llm)) < 8 and seen(llm)[0] == SAID[0]
