"""Reasoning ends with its budget on every route, whole and streamed, and the answer goes on."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from fakes import LETTERS, ByteTokenizer, PlainTemplate, Server, model, serving

from zonda.sdk import AsyncLLM

LIMIT: dict[str, Any] = {"thinking_budget": 20}
THOUGHT, CLOSED = "abcdefghi", len("\n</think>")
"""What fits beside the end of reasoning, which has eleven tokens here; after it the model says the alphabet."""
ASKED: Any = [{"role": "user", "content": "<think>"}]
"""Opens the reasoning, since the template adds nothing."""


@pytest.fixture(scope="module")
def thinker() -> Iterator[Server]:
    owner = model()
    llm = AsyncLLM.from_parts(owner.engine, ByteTokenizer(), PlainTemplate(), name="chain",  # type: ignore[arg-type]
                              reasoning="think")
    with serving(llm, access_log=False) as server:
        yield server


@pytest.fixture(scope="module")
def client(thinker: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{thinker.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_chats_keep_to_a_budget(client: openai.OpenAI) -> None:
    asked: Any = {"model": "chain", "messages": ASKED, "extra_body": LIMIT}
    answer: Any = client.chat.completions.create(**asked)
    message = answer.choices[0].message
    assert (message.reasoning_content, message.content) == (THOUGHT, LETTERS)
    assert answer.usage.completion_tokens_details.reasoning_tokens == len(THOUGHT) + CLOSED
    assert answer.choices[0].finish_reason == "stop"
    deltas: list[Any] = [chunk.choices[0].delta for chunk in client.chat.completions.create(**asked, stream=True)]
    assert "".join(getattr(each, "reasoning_content", "") for each in deltas) == THOUGHT
    assert "".join(each.content or "" for each in deltas) == LETTERS


def test_log_probabilities_of_a_chat_have_the_tokens_that_were_added(client: openai.OpenAI) -> None:
    answer: Any = client.chat.completions.create(model="chain", messages=ASKED, extra_body=LIMIT, logprobs=True)
    told = answer.choices[0].logprobs.content
    assert "".join(each.token for each in told) == f"{THOUGHT}\n</think>\n\n{LETTERS}"
    assert {each.logprob for each in told[len(THOUGHT):len(THOUGHT) + CLOSED]} == {0}


def test_responses_keep_to_a_budget(client: openai.OpenAI) -> None:
    asked: Any = {"model": "chain", "input": ASKED, "extra_body": LIMIT}
    whole: Any = client.responses.create(**asked)
    with client.responses.stream(**asked) as stream:
        streamed: Any = stream.get_final_response()
    for each in (whole, streamed):
        assert (each.output[0].content[0].text, each.output_text) == (THOUGHT, LETTERS)
        assert each.usage.output_tokens_details.reasoning_tokens == len(THOUGHT) + CLOSED


def test_messages_keep_to_a_budget(thinker: Server) -> None:
    asked: Any = {"model": "chain", "max_tokens": 200, "messages": ASKED, "thinking": {"type": "adaptive"},
                  "extra_body": LIMIT}
    with anthropic.Anthropic(base_url=thinker.url, api_key="none", max_retries=0) as client:
        whole: Any = client.messages.create(**asked)
        with client.messages.stream(**asked) as stream:
            streamed: Any = stream.get_final_message()
    for each in (whole, streamed):
        assert (each.content[0].thinking, each.content[1].text) == (THOUGHT, LETTERS)
        assert each.usage.output_tokens_details.thinking_tokens == len(THOUGHT) + CLOSED
        assert each.stop_reason == "end_turn"


def test_a_form_comes_after_a_budget(client: openai.OpenAI) -> None:
    form: Any = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"const": 5}}}
    answer: Any = client.chat.completions.create(model="chain", messages=ASKED, extra_body=LIMIT, max_tokens=200,
                                                 response_format=form)
    message = answer.choices[0].message
    assert (message.reasoning_content, message.content) == ("abcdefghijk", "5")
    assert answer.usage.completion_tokens_details.reasoning_tokens == 20
