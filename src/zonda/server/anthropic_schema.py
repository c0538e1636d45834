"""The shapes of Anthropic's Messages API: what is asked, the message that answers, its events, and errors."""
from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from zonda.server.chat_schema import MAX_MESSAGES, MAX_TOOLS
from zonda.server.schema import MAX_STOPS, Share, Stop, ThinkingFields

MOST_TOKENS = 10_000_000
StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "model_context_window_exceeded"]


class Source(Struct, kw_only=True):
    """Where a document's content is."""

    type: str | None = None
    data: str | None = None
    content: str | list[Block] | None = None


class Block(Struct, kw_only=True):
    """A piece of a message's content; which fields it has depends on its type."""

    type: str
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    id: str | None = None
    name: str | None = None
    input: Any = None
    tool_use_id: str | None = None
    content: str | list[Block] | Block | None = None
    is_error: bool | None = None
    source: Source | str | None = None
    title: str | None = None
    context: str | None = None
    tool_name: str | None = None
    url: str | None = None
    page_age: str | None = None
    file_id: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    stdout: str | None = None
    stderr: str | None = None
    return_code: int | None = None
    lines: list[str] | None = None
    is_file_update: bool | None = None
    tool_references: list[Block] | None = None
    tabs: list[dict[str, Any]] = []
    state_changes: list[dict[str, Any]] | None = None


class AnthropicMessage(Struct, kw_only=True):
    """One turn of a conversation."""

    role: Literal["user", "assistant", "system"]
    content: str | list[Block]
    clear_at: Literal["next_user_message", "never"] | None = None


class AnthropicTool(Struct, kw_only=True):
    """A tool that the client runs."""

    name: str
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None


class AnthropicChoice(Struct, kw_only=True):
    """Which tool must be used, or may be."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(Struct, kw_only=True):
    """Whether the model thinks first, and whether it shows what."""

    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: Annotated[int, Meta(ge=1024, le=MOST_TOKENS)] | None = None
    display: Literal["summarized", "omitted"] | None = None


class OutputFormat(Struct, kw_only=True):
    """The form that the answer's text must have."""

    type: Literal["json_schema"]
    schema: dict[str, Any]


class OutputConfig(Struct, kw_only=True):
    """How the answer is made."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: OutputFormat | None = None


class CountRequest(ThinkingFields, kw_only=True):
    """What makes the prompt; and the sampling fields of the other routes, beside those of Anthropic's own."""

    model: str
    messages: Annotated[list[AnthropicMessage], Meta(min_length=1, max_length=MAX_MESSAGES)]
    system: str | list[Block] | None = None
    tools: Annotated[list[AnthropicTool], Meta(max_length=MAX_TOOLS)] | None = None
    tool_choice: AnthropicChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    output_format: OutputFormat | None = None
    container: Any = None
    context_management: dict[str, Any] | None = None
    compaction: dict[str, Any] | None = None
    thread: dict[str, Any] | None = None
    mcp_servers: Annotated[list[Any], Meta(extra_json_schema={"maxItems": 0})] | None = None


class MessageMetadata(Struct, kw_only=True):
    """Who asks."""

    user_id: Annotated[str, Meta(max_length=512)] | None = None


class MessageRequest(CountRequest, kw_only=True):
    """A conversation to answer."""

    max_tokens: Annotated[int, Meta(ge=0, le=MOST_TOKENS)]
    stop_sequences: Annotated[list[Stop], Meta(max_length=MAX_STOPS)] | None = None
    temperature: Share | None = None
    top_p: Share | None = None
    top_k: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    metadata: MessageMetadata | None = None
    service_tier: Literal["auto", "standard_only"] | None = None


class Managed(Struct):
    """What was taken out of the context to keep it small: nothing is."""

    applied_edits: list[Any] = []


class TextBlock(Struct, tag="text", tag_field="type"):
    """Text that the model wrote. It has no citations; clients differ in whether that may be null."""

    text: str
    citations: list[Any] = []


class ThinkingBlock(Struct, tag="thinking", tag_field="type"):
    """What it thought before."""

    thinking: str
    signature: str


class ToolUseBlock(Struct, tag="tool_use", tag_field="type"):
    """A tool that it wants used."""

    id: str
    name: str
    input: dict[str, Any]


ContentBlock = TextBlock | ThinkingBlock | ToolUseBlock


class ThinkingCount(Struct):
    """What the generated tokens are made of."""

    thinking_tokens: int


class EndUsage(Struct, kw_only=True):
    """Token counts; what was found in the cache is not among `input_tokens`."""

    input_tokens: int
    output_tokens: int
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0
    output_tokens_details: ThinkingCount | None = None
    server_tool_use: None = None


class MessageUsage(EndUsage, kw_only=True):
    """Token counts, and what else Anthropic's own service tells there."""

    cache_creation: None = None
    inference_geo: None = None
    service_tier: Literal["standard"] = "standard"


class AnsweredMessage(Struct, tag="message", tag_field="type", kw_only=True):
    """The model's turn."""

    id: str
    role: Literal["assistant"] = "assistant"
    model: str
    content: list[ContentBlock]
    stop_reason: StopReason | None = None
    stop_sequence: str | None = None
    stop_details: None = None
    container: None = None
    context_management: Managed | UnsetType = UNSET
    usage: MessageUsage


class Unmanaged(Struct):
    """What the prompt's length was before anything was taken out."""

    original_input_tokens: int


class TokensCount(Struct):
    """The length of a prompt."""

    input_tokens: int
    context_management: Unmanaged | UnsetType = UNSET


class AnthropicModel(Struct, tag="model", tag_field="type", kw_only=True):
    """A model, as Anthropic's API describes it; what is null is not known before it has been loaded once."""

    id: str
    display_name: str
    created_at: str
    lifecycle: Literal["active"] = "active"
    max_input_tokens: int | None
    max_tokens: int | None


class ModelQuery(Struct, kw_only=True):
    """Which page of models Anthropic's clients see."""

    limit: Annotated[int, Meta(ge=1, le=1000)] = 20
    after_id: str | None = None
    before_id: str | None = None


class AnthropicModels(Struct, kw_only=True):
    """A page of models."""

    data: list[AnthropicModel]
    first_id: str | None
    last_id: str | None
    has_more: bool


class AddedText(Struct, tag="text_delta", tag_field="type"):
    """More text."""

    text: str


class AddedThinking(Struct, tag="thinking_delta", tag_field="type"):
    """More thinking."""

    thinking: str


class AddedSignature(Struct, tag="signature_delta", tag_field="type"):
    """What the thinking is handed in with again."""

    signature: str


class AddedJson(Struct, tag="input_json_delta", tag_field="type"):
    """More of a tool's input."""

    partial_json: str


class MessageStart(Struct, tag="message_start", tag_field="type"):
    """The message begins."""

    message: AnsweredMessage


class BlockStart(Struct, tag="content_block_start", tag_field="type"):
    """A block begins."""

    index: int
    content_block: ContentBlock


class BlockDelta(Struct, tag="content_block_delta", tag_field="type"):
    """A block goes on."""

    index: int
    delta: AddedText | AddedThinking | AddedSignature | AddedJson


class BlockStop(Struct, tag="content_block_stop", tag_field="type"):
    """A block is complete."""

    index: int


class Ending(Struct):
    """Why the message ended."""

    stop_reason: StopReason
    stop_sequence: str | None
    stop_details: None = None
    container: None = None


class MessageDelta(Struct, tag="message_delta", tag_field="type"):
    """How the message ended, and what it took."""

    delta: Ending
    usage: EndUsage
    context_management: Managed | UnsetType = UNSET


class MessageStop(Struct, tag="message_stop", tag_field="type"):
    """The message is complete."""


class Ping(Struct, tag="ping", tag_field="type"):
    """The connection lives."""


class AnthropicError(Struct):
    """What was wrong."""

    type: str
    message: str


class AnthropicErrorReply(Struct, tag="error", tag_field="type"):
    """Anthropic's envelope of an error."""

    error: AnthropicError
    request_id: str


MessageEvent = (MessageStart | BlockStart | BlockDelta | BlockStop | MessageDelta | MessageStop | Ping
                | AnthropicErrorReply)
