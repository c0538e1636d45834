"""Between text and tokens, and what only some models do: embeddings and ranking."""
from __future__ import annotations

import base64
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import openai
import pytest
from fakes import BEGIN, ByteTokenizer, PlainTemplate, Server, model, serving

from zonda.sdk import AsyncLLM


class Vectors(AsyncLLM):
    """A model that measures texts."""

    capabilities = ("embeddings", "rerank")  # type: ignore[assignment]

    async def embed(self, inputs: Sequence[str | list[int]], *, truncate: bool,
                    dimensions: int | None) -> tuple[list[list[float]], int]:
        return [[float(len(each)), 0.5][:dimensions] for each in inputs], sum(map(len, inputs))

    async def rerank(self, query: str, documents: Sequence[str]) -> tuple[list[float], int]:
        return [each.count(query) / 4 for each in documents], len(documents)


@pytest.fixture(scope="module")
def able() -> Iterator[Server]:
    owner = model()
    llm = Vectors.from_parts(owner.engine, ByteTokenizer(), PlainTemplate(), name="vectors")  # type: ignore[arg-type]
    with serving(llm, access_log=False) as server:
        yield server


@pytest.mark.parametrize(("body", "tokens"), [
    ({"prompt": "ab"}, [BEGIN, 97, 98]), ({"content": "ab"}, [BEGIN, 97, 98]), ({"prompt": ""}, [BEGIN]),
    ({"prompt": "ab", "add_special_tokens": False}, [97, 98]), ({"content": "ab", "add_special": False}, [97, 98]),
    ({"messages": [{"role": "user", "content": "x"}]}, list(b"user:x"))])
def test_text_becomes_tokens(server: Server, body: dict[str, Any], tokens: list[int]) -> None:
    assert server.post("/tokenize", body).json == {
        "count": len(tokens), "max_model_len": 2000, "tokens": tokens, "token_strs": None}


def test_a_chat_is_tokenized_as_it_would_be_answered() -> None:
    body = {"messages": [{"role": "user", "content": "x"}], "reasoning_effort": "low", "thinking_budget": 9,
            "tools": [{"type": "function", "function": {"name": "f"}}], "chat_template_kwargs": {"date_string": "d"}}
    with serving(model(), access_log=False) as server:
        assert server.post("/tokenize", body).status == server.post("/v1/chat/completions", body).status == 200
        tokenized, answered = server.llm.template.calls  # type: ignore[union-attr]
    assert tokenized == answered and len(answered) == 6


def test_tokens_are_spelled_when_asked_for(server: Server) -> None:
    reply = server.post("/tokenize", {"prompt": "ab", "return_token_strs": True})
    assert reply.json["token_strs"] == ["<begin>", "a", "b"]


def test_tokens_become_text(server: Server) -> None:
    assert server.post("/detokenize", {"tokens": [BEGIN, 97]}).json == {"prompt": "<begin>a", "content": "<begin>a"}
    assert server.post("/detokenize", {"tokens": [BEGIN, 97], "skip_special_tokens": True}).json["prompt"] == "a"


@pytest.mark.parametrize(("path", "body", "param"), [
    ("/tokenize", {}, "prompt"), ("/tokenize", {"prompt": 5}, "prompt"), ("/tokenize", {"messages": []}, "messages"),
    ("/tokenize", {"messages": [{}]}, "messages[0].role"),
    ("/tokenize", {"prompt": "x", "messages": [{"role": "user", "content": "x"}]}, "messages"),
    ("/detokenize", {}, "tokens"), ("/detokenize", {"tokens": [258]}, "tokens"),
    ("/detokenize", {"tokens": [-1]}, "tokens[0]"), ("/detokenize", {"tokens": ["a"]}, "tokens[0]"),
    ("/v1/embeddings", {}, "input"), ("/v1/embeddings", {"input": []}, "input"),
    ("/v1/embeddings", {"input": ["a", 1]}, "input"), ("/v1/embeddings", {"input": [""]}, "input"),
    ("/v1/embeddings", {"input": ["a"] * 1025}, "input"),
    ("/v1/embeddings", {"input": "a", "dimensions": 0}, "dimensions"),
    ("/v1/embeddings", {"input": "a", "encoding_format": "hex"}, "encoding_format"),
    ("/v1/rerank", {"documents": ["a"]}, "query"), ("/v1/rerank", {"query": "a", "documents": []}, "documents"),
    ("/rerank", {"query": "a", "documents": [5]}, "documents[0]"),
    ("/rerank", {"query": "a", "documents": ["a"], "top_n": 0}, "top_n")])
def test_what_is_wrong_is_named(server: Server, path: str, body: dict[str, Any], param: str) -> None:
    reply = server.post(path, body)
    assert (reply.status, reply.error["param"]) == (400, param), reply.body


@pytest.mark.parametrize(("path", "body"), [
    ("/v1/embeddings", {"input": "a"}), ("/v1/rerank", {"query": "a", "documents": ["a"]}),
    ("/rerank", {"query": "a", "documents": ["a"]})])
def test_a_model_that_cannot_says_what_it_can(server: Server, path: str, body: dict[str, Any]) -> None:
    reply = server.post(path, body)
    assert (reply.status, reply.error["code"]) == (400, "unsupported_capability")
    assert "completion, chat" in reply.error["message"]


def test_the_official_client_gets_vectors(able: Server) -> None:
    with openai.OpenAI(base_url=f"{able.url}/v1", api_key="none", max_retries=0) as client:
        answer = client.embeddings.create(model="vectors", input=["ab", "c"])
        assert [each.embedding for each in answer.data] == [[2.0, 0.5], [1.0, 0.5]]
        assert answer.usage.prompt_tokens == 3


def test_vectors_come_as_numbers_or_bytes(able: Server) -> None:
    plain = able.post("/v1/embeddings", {"input": [1, 2, 3], "dimensions": 1}).json
    assert plain["data"] == [{"object": "embedding", "index": 0, "embedding": [3.0]}]
    coded = able.post("/v1/embeddings", {"input": [[1], [2, 3]], "encoding_format": "base64"}).json["data"][1]
    assert struct.unpack("<2f", base64.b64decode(coded["embedding"])) == (2.0, 0.5)


def test_documents_are_sorted_by_relevance(able: Server) -> None:
    body = {"query": "a", "documents": ["b", {"text": "aa"}, "a"], "top_n": 2, "return_documents": True}
    assert able.post("/rerank", body).json["results"] == [
        {"index": 1, "relevance_score": 0.5, "document": {"text": "aa"}},
        {"index": 2, "relevance_score": 0.25, "document": {"text": "a"}}]


def test_the_version_is_told(server: Server) -> None:
    assert server.get("/version").json["version"]
