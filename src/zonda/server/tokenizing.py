"""`/tokenize` and `/detokenize`: between text and token ids, with the fields that vLLM and llama.cpp know."""
from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from msgspec import Meta, Struct

from zonda.errors import InvalidRequest
from zonda.server.bulk import MAX_VALUES
from zonda.server.call import Call
from zonda.server.chat_schema import MAX_MESSAGES, MAX_TOOLS, ChatMessage
from zonda.server.conversation import ending, messages
from zonda.server.decode import check_ids, missing
from zonda.server.schema import Count, TokenBudget
from zonda.server.thinking import told
from zonda.server.tools import function_tools
from zonda.turns import Turn
from zonda.types import Effort

if TYPE_CHECKING:
    from zonda.sdk import AsyncLLM

class TokenizeRequest(Struct, kw_only=True):
    """A text, as `prompt` or `content`, or the messages of a conversation."""

    EITHER: ClassVar = ("prompt", "content", "messages")

    model: str | None = None
    prompt: str | None = None
    content: str | None = None
    messages: Annotated[list[ChatMessage], Meta(min_length=1, max_length=MAX_MESSAGES)] | None = None
    add_special_tokens: bool | None = None
    add_special: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    tools: Annotated[list[dict[str, Any]], Meta(max_length=MAX_TOOLS)] | None = None
    enable_thinking: bool | None = None
    reasoning_effort: Effort | None = None
    thinking_budget: TokenBudget | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    return_token_strs: bool | None = None


MAX_TEXT = 4_000_000
"""Characters of a text that is tokenized."""
MAX_TOKENS = 1 << 17
"""Tokens that are detokenized, whatever the model's context."""


class Tokenized(Struct, kw_only=True):
    """The ids of a text's tokens, and the tokens' own texts if asked for."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None


class DetokenizeRequest(Struct, kw_only=True):
    """Token ids."""

    tokens: list[Count]
    model: str | None = None
    skip_special_tokens: bool | None = None


class Detokenized(Struct, kw_only=True):
    """The text of token ids, under both names that clients look for."""

    prompt: str
    content: str


async def tokenize(call: Call, body: TokenizeRequest) -> Tokenized:
    """The token ids of a text, or of what the chat template makes of messages."""
    llm = await call.use(body.model)
    return await asyncio.to_thread(_tokenized, llm, body)


def _tokenized(llm: AsyncLLM, body: TokenizeRequest) -> Tokenized:
    field = next((name for name in TokenizeRequest.EITHER if getattr(body, name) is not None), "prompt")
    ids = _ids(llm, body)
    if len(ids) > MAX_VALUES:
        raise InvalidRequest(f"`{field}` has {len(ids):,} tokens, too many to be listed", param=field,
                             hint=f"expected at most {MAX_VALUES:,}")
    result = Tokenized(count=len(ids), max_model_len=llm.engine.max_len, tokens=ids)
    if body.return_token_strs:
        result.token_strs = [llm.tokenizer.token_bytes(id).decode("utf-8", "replace") for id in ids]
    return result


def _ids(llm: AsyncLLM, body: TokenizeRequest) -> list[int]:
    text = body.content if body.prompt is None else body.prompt
    special = body.add_special if body.add_special_tokens is None else body.add_special_tokens
    if body.messages is None and text is None:
        raise missing("prompt")
    if text and len(text) > MAX_TEXT:
        field = "content" if body.prompt is None else "prompt"
        raise InvalidRequest(f"`{field}` has {len(text):,} characters, too many to be tokenized at once", param=field,
                             hint=f"expected at most {MAX_TEXT:,}")
    if body.messages is None:
        return llm.tokenize(text or "", add_special=special is not False)
    if text is not None:
        raise InvalidRequest("`prompt` and `messages` exclude each other", param="messages")
    said, given = messages(body.messages), told(body)
    begun, end = ending(said, body.continue_final_message, body.add_generation_prompt,
                        thinks=bool(given.get("enable_thinking")))
    return llm.prompt(Turn(messages=said, tools=function_tools(body.tools or ()), variables=given | end, begun=begun))


async def detokenize(call: Call, body: DetokenizeRequest) -> Detokenized:
    """The text of token ids."""
    llm = await call.use(body.model)
    return await asyncio.to_thread(_detokenized, llm, body)


def _detokenized(llm: AsyncLLM, body: DetokenizeRequest) -> Detokenized:
    if len(body.tokens) > (most := max(MAX_TOKENS, llm.engine.max_len)):
        raise InvalidRequest(f"`tokens` has {len(body.tokens):,} entries, too many for one text", param="tokens",
                             hint=f"expected at most {most:,}")
    check_ids(body.tokens, llm.engine.vocab, "tokens")
    text = llm.detokenize(body.tokens, skip_special=bool(body.skip_special_tokens))
    return Detokenized(prompt=text, content=text)
