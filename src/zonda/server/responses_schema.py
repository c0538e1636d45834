"""The shapes of the Responses API: what is asked, items that go in and come out, and the response itself."""
from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

from zonda.server.chat_schema import MAX_MESSAGES, MAX_TOOLS
from zonda.server.responses_actions import (
    ItemStatus,
    LocalShellCall,
    LocalShellTool,
    PatchCall,
    PatchTool,
    ShellCall,
    ShellTool,
)
from zonda.server.responses_tool_schema import Choice, CustomTool, FunctionTool, NamespaceTool, Tool
from zonda.server.schema import ConversationFields, Identifier, Length, Metadata, Name, TokenLogprob

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
Detail = Literal["auto", "concise", "detailed"]
Phase = Literal["commentary", "final_answer"]
Status = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
Include = Literal[
    "file_search_call.results", "web_search_call.results", "web_search_call.action.sources",
    "message.input_image.image_url", "computer_call_output.output.image_url", "code_interpreter_call.outputs",
    "reasoning.encrypted_content", "message.output_text.logprobs"]


class InputPart(Struct, kw_only=True):
    """A piece of a message's content, of a reasoning item or of a tool's output."""

    type: str | None = None
    text: str | None = None
    refusal: str | None = None
    stdout: str | None = None
    stderr: str | None = None
    outcome: dict[str, Any] | None = None


class InputItem(Struct, kw_only=True):
    """One item of the input; which fields it has depends on its type, and a message needs none."""

    type: str | None = None
    id: Identifier | None = None
    role: str | None = None
    phase: Phase | None = None
    content: str | list[InputPart] | None = None
    call_id: Identifier | None = None
    name: str | None = None
    namespace: str | None = None
    arguments: str | None = None
    input: str | None = None
    output: str | list[InputPart] | dict[str, Any] | None = None
    summary: list[InputPart] | None = None
    encrypted_content: str | None = None
    status: str | None = None
    action: dict[str, Any] | None = None
    operation: dict[str, Any] | None = None
    queries: list[str] | None = None
    results: list[dict[str, Any]] | None = None
    code: str | None = None
    outputs: list[dict[str, Any]] | None = None
    error: Any = None


class TextFormat(Struct, kw_only=True, omit_defaults=True):
    """The form that the answer's text must have."""

    type: Literal["text", "json_object", "json_schema"] = field(default="text")
    name: str | None = None
    description: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class TextOptions(Struct, kw_only=True):
    """How the answer's text is written."""

    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class Reasoning(Struct, kw_only=True):
    """How much the model reasons, and whether it tells."""

    effort: Effort | None = None
    summary: Detail | None = None
    generate_summary: Detail | None = None


class ConversationId(Struct):
    """A conversation that a response belongs to."""

    id: Identifier


class ContextFields(ConversationFields, kw_only=True):
    """What makes the prompt."""

    EITHER: ClassVar = ("input", "previous_response_id", "conversation")

    input: str | Annotated[list[InputItem], Meta(max_length=MAX_MESSAGES)] | None = None
    instructions: str | None = None
    previous_response_id: Identifier | None = None
    conversation: Identifier | ConversationId | None = None
    prompt: Any = None
    moderation: dict[str, Any] | None = None
    tools: Annotated[list[Tool], Meta(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | Choice | None = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    reasoning: Reasoning | None = None
    truncation: Literal["auto", "disabled"] | None = None


class InputTokensRequest(ContextFields, kw_only=True):
    """A prompt to count."""


class CompactRequest(ContextFields, kw_only=True):
    """A conversation to put into fewer tokens."""

    model: Name
    prompt_cache_key: Identifier | None = None


class ResponseRequest(ContextFields, kw_only=True):
    """What to answer, and how."""

    max_output_tokens: Length | None = None
    max_completion_tokens: Length | None = None
    max_tokens: Length | None = None
    max_tool_calls: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    store: bool | None = None
    background: bool | None = None
    metadata: Metadata | None = None
    include: Annotated[list[Include], Meta(max_length=32)] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast", "ultrafast"] | None = None
    user: Identifier | None = None
    safety_identifier: Identifier | None = None
    prompt_cache_key: Identifier | None = None


class InputText(Struct, tag="input_text", tag_field="type"):
    """Text that was given."""

    text: str


class OutputText(Struct, tag="output_text", tag_field="type"):
    """Text that the model wrote."""

    text: str
    annotations: list[dict[str, Any]] = []
    logprobs: list[TokenLogprob] = []


class Refusal(Struct, tag="refusal", tag_field="type"):
    """What a model wrote instead of an answer."""

    refusal: str


class ReasoningText(Struct, tag="reasoning_text", tag_field="type"):
    """A piece of reasoning."""

    text: str


class SummaryText(Struct, tag="summary_text", tag_field="type"):
    """A summary of reasoning."""

    text: str


class Message(Struct, tag="message", tag_field="type", kw_only=True):
    """A message to the model or from it."""

    id: str
    status: ItemStatus = "completed"
    role: Literal["user", "assistant", "system", "developer"]
    phase: Phase | UnsetType = UNSET
    content: list[InputText | OutputText | Refusal]


class FunctionCall(Struct, tag="function_call", tag_field="type", kw_only=True):
    """A call that the model wants made."""

    id: str
    call_id: str
    name: str
    namespace: str | UnsetType = UNSET
    arguments: str
    status: ItemStatus = "completed"


class FunctionCallOutput(Struct, tag="function_call_output", tag_field="type", kw_only=True):
    """What a call returned."""

    id: str
    call_id: str
    output: str | list[InputText]
    status: ItemStatus = "completed"


class CustomCall(Struct, tag="custom_tool_call", tag_field="type", kw_only=True):
    """A call of a custom tool, whose input is any text."""

    id: str
    call_id: str
    name: str
    namespace: str | UnsetType = UNSET
    input: str
    status: ItemStatus = "completed"


class CustomCallOutput(Struct, tag="custom_tool_call_output", tag_field="type", kw_only=True):
    """What such a call returned."""

    id: str
    call_id: str
    output: str | list[InputText]
    status: ItemStatus = "completed"


class ReasoningItem(Struct, tag="reasoning", tag_field="type", kw_only=True):
    """What the model thought before it answered."""

    id: str
    summary: list[SummaryText] = []
    content: list[ReasoningText] = []
    encrypted_content: str | None = None
    status: ItemStatus = "completed"


class Compaction(Struct, tag="compaction", tag_field="type", kw_only=True):
    """What stands for a part of a conversation: its summary, in a form that clients send back as it is."""

    id: str
    encrypted_content: str


Written = Message | FunctionCall | CustomCall | ReasoningItem | LocalShellCall | ShellCall | PatchCall
"""What an answer is made of."""
Item = Written | FunctionCallOutput | CustomCallOutput | Compaction


class InputDetails(Struct):
    """What the prompt's tokens are made of."""

    cached_tokens: int
    cache_write_tokens: int = 0


class OutputDetails(Struct):
    """What the generated tokens are made of."""

    reasoning_tokens: int


class ResponseUsage(Struct):
    """Token counts of a response."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class ResponseError(Struct):
    """Why a response failed."""

    code: str
    message: str


class Incomplete(Struct):
    """Why a response ended early."""

    reason: Literal["max_output_tokens", "content_filter"]


class TextUsed(Struct, kw_only=True):
    """How the answer's text had to be written."""

    format: dict[str, Any]
    verbosity: Literal["low", "medium", "high"]


class ReasoningUsed(Struct, kw_only=True):
    """How much the model was asked to reason."""

    effort: Effort | None
    summary: Detail | None


class Response(Struct, kw_only=True):
    """A response: what was asked for, and what has come of it."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    completed_at: int | None = None
    status: Status
    background: bool
    error: ResponseError | None = None
    incomplete_details: Incomplete | None = None
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    model: str
    output: list[Item] = []
    parallel_tool_calls: bool
    previous_response_id: str | None
    conversation: ConversationId | None = None
    reasoning: ReasoningUsed
    store: bool
    temperature: float
    top_p: float
    presence_penalty: float
    frequency_penalty: float
    text: TextUsed
    tool_choice: Literal["none", "auto", "required"] | Choice
    tools: list[FunctionTool | CustomTool | NamespaceTool | LocalShellTool | ShellTool | PatchTool]
    top_logprobs: int
    truncation: Literal["auto", "disabled"]
    usage: ResponseUsage | None = None
    metadata: dict[str, str]
    service_tier: str = "default"
    user: str | UnsetType = UNSET
    safety_identifier: str | None
    prompt_cache_key: str | None


class Compacted(Struct, kw_only=True):
    """The items that a conversation can be continued from."""

    id: str
    object: Literal["response.compaction"] = "response.compaction"
    created_at: int
    output: list[Item]
    usage: ResponseUsage


class Deleted(Struct):
    """A response that is no more."""

    id: str
    object: Literal["response"] = "response"
    deleted: bool = True


class TokenCount(Struct, kw_only=True):
    """The length of a prompt."""

    object: Literal["response.input_tokens"] = "response.input_tokens"
    input_tokens: int


class ResponseQuery(Struct, kw_only=True):
    """How a response is shown."""

    stream: bool | None = None
    starting_after: Annotated[int, Meta(ge=-1, le=2**53)] | None = None
    include_obfuscation: bool | None = None
