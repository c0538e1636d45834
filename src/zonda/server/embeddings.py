"""`/v1/embeddings` and `/v1/rerank`, for the models that can."""
from __future__ import annotations

import base64
import secrets
import struct
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Protocol, cast

from msgspec import Meta, Struct

from zonda.errors import InvalidRequest, Unsupported
from zonda.server.call import Call
from zonda.server.decode import several
from zonda.server.schema import MAX_PROMPTS

Items = Meta(min_length=1, max_length=MAX_PROMPTS)


class EmbeddingRequest(Struct, kw_only=True):
    """Texts or token ids to embed."""

    input: str | Annotated[list[str | int | list[int]], Meta(min_length=1)]
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    truncate_sequence: bool | None = None
    user: str | None = None


class Embedding(Struct, kw_only=True):
    """One vector, as numbers or as little-endian float32 in base64."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class PromptUsage(Struct):
    """Token counts of what was read."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(Struct, kw_only=True):
    """The vectors, in the order of the inputs."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: PromptUsage


class Document(Struct):
    """A text to rank."""

    text: str


class RerankRequest(Struct, kw_only=True):
    """Documents to sort by what they say about the query."""

    query: str
    documents: Annotated[list[str | Document], Items]
    model: str | None = None
    top_n: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    return_documents: bool | None = None


class Ranked(Struct, kw_only=True):
    """A document's place in the request, and its score."""

    index: int
    relevance_score: float
    document: Document | None = None


class Ranking(Struct, kw_only=True):
    """The best documents, the best first."""

    id: str
    model: str
    results: list[Ranked]
    usage: PromptUsage


class Embedder(Protocol):
    """What a model with the capability `embeddings` can do: a vector for each input, and the tokens that it read."""

    async def embed(self, inputs: Sequence[str | list[int]], *, truncate: bool,
                    dimensions: int | None) -> tuple[Sequence[Sequence[float]], int]: ...


class Ranker(Protocol):
    """What a model with the capability `rerank` can do: a score for each document, and the tokens that it read."""

    async def rerank(self, query: str, documents: Sequence[str]) -> tuple[Sequence[float], int]: ...


async def embed(call: Call, body: EmbeddingRequest) -> EmbeddingList:
    """A vector for each input."""
    inputs = _inputs(body)
    model = cast(Embedder, await _able(call, body.model, "embeddings"))
    async with call.flight():
        vectors, count = await model.embed(inputs, truncate=bool(body.truncate_sequence), dimensions=body.dimensions)
    data = [Embedding(index=index, embedding=_coded(vector, body.encoding_format))
            for index, vector in enumerate(vectors)]
    return EmbeddingList(data=data, model=call.model, usage=PromptUsage(count, count))


def _inputs(body: EmbeddingRequest) -> list[str | list[int]]:
    inputs = several(body.input, "input")
    if len(inputs) > MAX_PROMPTS:
        raise InvalidRequest(f"`input` has more than {MAX_PROMPTS} entries", param="input")
    if not all(inputs) and body.input:  # a lone text may be empty
        raise InvalidRequest("`input` has an empty entry", param="input")
    return inputs


def _coded(vector: Sequence[float], form: str | None) -> list[float] | str:
    if form != "base64":
        return list(vector)
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


async def rerank(call: Call, body: RerankRequest) -> Ranking:
    """The documents by their relevance."""
    texts = [each if isinstance(each, str) else each.text for each in body.documents]
    model = cast(Ranker, await _able(call, body.model, "rerank"))
    async with call.flight():
        scores, count = await model.rerank(body.query, texts)
    order = sorted(range(len(texts)), key=lambda index: -scores[index])[:body.top_n]
    results = [Ranked(index=index, relevance_score=scores[index],
                      document=Document(texts[index]) if body.return_documents else None) for index in order]
    return Ranking(id=f"rerank-{secrets.token_hex(12)}", model=call.model, results=results,
                   usage=PromptUsage(count, count))


async def _able(call: Call, name: str | None, capability: str) -> Any:
    """The model, if it can do this; each capability is also the name of the route."""
    llm = await call.use(name)
    if capability not in llm.capabilities:
        can = ", ".join(llm.capabilities)
        raise Unsupported(f"{call.model} does not do {capability}", param="model", code="unsupported_capability",
                          hint=f"it does {can}; /v1/models lists what each model does")
    return llm
