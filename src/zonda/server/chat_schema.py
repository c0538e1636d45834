"""The shapes of chat completions: requests, answers and the chunks of streams."""
from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from zonda.server.schema import (
    ChatLogprobs,
    ConversationFields,
    Length,
    Metadata,
    Timings,
    TokenBudget,
    UsageReport,
)
from zonda.types import Effort

MAX_MESSAGES = 4096
MAX_TOOLS = 512

Role = Literal["system", "developer", "user", "assistant", "tool", "function"]
Ending = Literal["stop", "length", "tool_calls", "function_call"]


class Part(Struct, kw_only=True):
    """A piece of a message's content."""

    type: str
    text: str | None = None
    refusal: str | None = None


class ChatMessage(Struct, kw_only=True):
    """One turn of a conversation."""

    role: Role
    content: str | list[Part] | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    function_call: dict[str, Any] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class ChatThinking(Struct, kw_only=True):
    """Whether the model reasons, and how much, as the services of some models ask for it."""

    type: Literal["enabled", "disabled", "auto", "adaptive"]
    budget_tokens: TokenBudget | None = None


class ChatReasoning(Struct, kw_only=True):
    """How the model reasons, as routers of requests ask for it; `exclude` leaves it out of the answer."""

    enabled: bool | None = None
    effort: Effort | None = None
    max_tokens: TokenBudget | None = None
    exclude: bool | None = None


class ChatRequest(ConversationFields, kw_only=True):
    """A conversation to answer; a lone text is one user message.

    `thinking` and `reasoning` are other names of the fields that say how much to reason, which go before them.
    `functions` and `function_call` are the old names of `tools` and `tool_choice`. With `store` the answer is kept,
    with its `metadata`. What only concerns OpenAI's own service is taken and changes nothing.
    """

    messages: str | Annotated[list[ChatMessage], Meta(min_length=1, max_length=MAX_MESSAGES)]
    max_tokens: Length | None = None
    max_completion_tokens: Length | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    tools: Annotated[list[dict[str, Any]], Meta(max_length=MAX_TOOLS)] | None = None
    thinking: bool | ChatThinking | None = None
    reasoning: ChatReasoning | None = None
    tool_choice: Literal["none", "auto", "required"] | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    functions: Annotated[list[dict[str, Any]], Meta(max_length=MAX_TOOLS)] | None = None
    function_call: Literal["none", "auto"] | dict[str, Any] | None = None
    modalities: list[str] | None = None
    moderation: dict[str, Any] | None = None
    store: bool | None = None
    metadata: Metadata | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    service_tier: str | None = None
    verbosity: str | None = None


class Function(Struct, kw_only=True):
    """The tool that a call is for, and its arguments as JSON."""

    name: str
    arguments: str


class ToolCall(Struct, tag="function", tag_field="type", kw_only=True):
    """A call that the model makes."""

    id: str
    function: Function


class CustomInput(Struct, kw_only=True):
    """The custom tool that a call is for, and the text for it."""

    name: str
    input: str


class CustomToolCall(Struct, tag="custom", tag_field="type", kw_only=True):
    """A call of a custom tool."""

    id: str
    custom: CustomInput


class AssistantMessage(Struct, kw_only=True):
    """The model's turn."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: str | None = None
    reasoning_content: str | UnsetType = UNSET
    reasoning: str | UnsetType = UNSET
    tool_calls: list[ToolCall | CustomToolCall] | UnsetType = UNSET
    function_call: Function | UnsetType = UNSET


class ChatChoice(Struct, kw_only=True):
    """One of the `n` answers."""

    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None = None
    finish_reason: Ending | None


class ChatCompletion(Struct, kw_only=True):
    """The answer to a conversation."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: UsageReport
    timings: Timings
    metadata: dict[str, str] | UnsetType = UNSET


class FunctionDelta(Struct, kw_only=True):
    """What a chunk adds to a call: its tool's name, or a piece of its arguments."""

    name: str | UnsetType = UNSET
    arguments: str


class CustomDelta(Struct, kw_only=True):
    """What a chunk adds to a call of a custom tool: its name, or a piece of the text."""

    name: str | UnsetType = UNSET
    input: str


class ToolCallDelta(Struct, kw_only=True):
    """A call that begins, with its id, or a piece of one."""

    index: int
    id: str | UnsetType = UNSET
    type: Literal["function", "custom"] | UnsetType = UNSET
    function: FunctionDelta | UnsetType = UNSET
    custom: CustomDelta | UnsetType = UNSET


class Delta(Struct, kw_only=True):
    """What a chunk adds to the model's turn."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType | None = UNSET
    reasoning_content: str | UnsetType = UNSET
    reasoning: str | UnsetType = UNSET
    tool_calls: list[ToolCallDelta] | UnsetType = UNSET
    function_call: FunctionDelta | UnsetType = UNSET


class ChunkChoice(Struct, kw_only=True):
    """What a chunk adds to one of the `n` answers."""

    index: int
    delta: Delta
    logprobs: ChatLogprobs | None = None
    finish_reason: Ending | None = None


class ChatChunk(Struct, kw_only=True):
    """A piece of a streamed answer."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChunkChoice]
    usage: UsageReport | UnsetType | None = UNSET
    timings: Timings | UnsetType = UNSET
    obfuscation: str | UnsetType = UNSET


class StoredMessage(Struct, kw_only=True):
    """A message that led to a stored answer; parts of a content are apart from a content of one text."""

    id: str
    role: Role
    content: str | None
    content_parts: list[dict[str, Any]] | None
    refusal: str | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | UnsetType = UNSET
    tool_call_id: str | UnsetType = UNSET
