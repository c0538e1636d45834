"""The official client, unchanged, against a running server."""
from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from fakes import WIND, Server, hold, let_go, model, serving, until


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def ask(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def test_the_client_lists_models(client: openai.OpenAI) -> None:
    assert [each.id for each in client.models.list()] == ["chain"]
    assert client.models.retrieve("chain").owned_by == "local"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("other")
    assert caught.value.code == "model_not_found"


def test_the_client_reads_a_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="chain", messages=ask("#"), logprobs=True, top_logprobs=1, n=2)
    assert [each.message.content for each in answer.choices] == [WIND, WIND]
    assert answer.choices[0].logprobs and answer.choices[0].logprobs.content
    assert answer.usage and answer.usage.prompt_tokens_details
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_the_client_reads_a_stream(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(model="chain", messages=ask("w"), stream=True,
                                                 stream_options={"include_usage": True}))
    assert "".join(each.choices[0].delta.content or "" for each in chunks if each.choices) == "xyz"
    assert chunks[0].choices[0].delta.role == "assistant" and chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage and chunks[-1].usage.completion_tokens == 4


def test_the_clients_stream_helper_gathers_the_answer(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model="chain", messages=ask("w")) as stream:
        for _ in stream:
            pass
        assert stream.get_final_completion().choices[0].message.content == "xyz"


def test_the_client_reads_completions(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="chain", prompt=["w", "x"], logprobs=1, echo=True)
    assert [each.text for each in answer.choices] == ["wxyz", "xyz"]
    assert answer.choices[0].logprobs and answer.choices[0].logprobs.tokens == ["<begin>", "w", "x", "y", "z"]
    pieces = client.completions.create(model="chain", prompt=[119], stream=True)
    assert "".join(each.choices[0].text for each in pieces) == "xyz"


def test_the_client_raises_what_was_wrong(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="chain", messages=ask("x"), temperature=3)
    assert (caught.value.param, caught.value.code) == ("temperature", "invalid_value")
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="chain", messages=ask("x" * 3000))
    assert caught.value.code == "context_length_exceeded"


def test_the_client_is_told_of_a_wrong_key_and_a_full_queue() -> None:
    with serving(model(max_seqs=1, max_queue=1), api_key=("good",), access_log=False) as server:
        hold(server.llm)  # type: ignore[arg-type]
        for key, error in (("bad", openai.AuthenticationError), ("good", None)):
            with openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0) as client:
                if error:
                    with pytest.raises(error):
                        client.models.list()
                    continue
                with pytest.raises(openai.RateLimitError) as caught:
                    client.completions.create(model="chain", prompt=["A", "B", "C"])
                assert caught.value.code == "queue_full"
                let_go(server.llm)  # type: ignore[arg-type]
                until(lambda: not server.llm.engine._groups)  # type: ignore[union-attr]
                assert client.completions.create(model="chain", prompt="x").choices[0].text == "yz"


async def test_the_async_client_runs_streams_side_by_side(server: Server) -> None:
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        async def one(letter: str) -> str:
            stream = await client.chat.completions.create(model="chain", messages=ask(letter), stream=True)
            return "".join([each.choices[0].delta.content or "" async for each in stream])

        assert await asyncio.gather(*map(one, "vwxy")) == ["wxyz", "xyz", "yz", "z"]
        answer = await client.completions.create(model="chain", prompt="w")
        assert answer.choices[0].text == "xyz"


async def test_leaving_a_stream_of_the_async_client_frees_the_sequence() -> None:
    with serving(model(), access_log=False) as server:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
            hold(server.llm).release(5)  # type: ignore[arg-type]
            stream = await client.chat.completions.create(model="chain", messages=ask("A"), stream=True)
            async for _ in stream:
                break
            await stream.close()
            let_go(server.llm)  # type: ignore[arg-type]
            engine = server.llm.engine  # type: ignore[union-attr]
            await asyncio.to_thread(until, lambda: engine.stats().finished["cancelled"] == 1)
