"""The shapes of requests and responses: decoded, checked, encoded and documented from these definitions alone."""
from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from zonda.server.formats import FormatFields
from zonda.types import Effort

MAX_STOPS = 16
MAX_PROMPTS = 1024
MAX_SEED = 2**63

Stop = Annotated[str, Meta(min_length=1, max_length=4096)]
Name = Annotated[str, Meta(min_length=1)]
Finish = Literal["stop", "length"]
Share = Annotated[float, Meta(ge=0, le=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Salt = Annotated[str, Meta(max_length=256)]
"""Keeps cached prefixes apart from those of requests with another one."""
Identifier = Annotated[str, Meta(max_length=512)]
Metadata = Annotated[dict[Annotated[str, Meta(max_length=64)], Identifier], Meta(max_length=16)]
Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
TokenBudget = Annotated[int, Meta(ge=-1, le=2**31 - 1)]
"""The most tokens of something; -1 for any number."""
Length = Annotated[int, Meta(ge=1, le=2**31 - 1)]
"""Tokens to write at the most. An answer ends with the context in any case."""


class StreamOptions(Struct, kw_only=True):
    """How a stream is reported: with its usage at the end, with padding that hides the lengths of its pieces."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class SamplingFields(FormatFields, kw_only=True):
    """The fields that say how tokens are drawn; null or absent means: as the model's own defaults say."""

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Share | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    stop: Stop | Annotated[list[Stop], Meta(max_length=MAX_STOPS)] | None = None
    stop_token_ids: Annotated[list[Count], Meta(max_length=128)] | None = None
    seed: Annotated[int, Meta(ge=-MAX_SEED, le=MAX_SEED - 1)] | None = None
    logit_bias: dict[int, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Meta(ge=0.01, le=100)] | None = None
    top_k: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    min_p: Share | None = None
    typical_p: Share | None = None
    top_n_sigma: Annotated[float, Meta(ge=-1, le=1e6)] | None = None
    xtc_probability: Share | None = None
    xtc_threshold: Share | None = None
    mirostat: Literal[0, 2] | None = None
    mirostat_tau: Annotated[float, Meta(ge=0, le=1000)] | None = None
    mirostat_eta: Share | None = None
    dry_multiplier: Annotated[float, Meta(ge=0, le=100)] | None = None
    dry_base: Annotated[float, Meta(ge=0, le=100)] | None = None
    dry_allowed_length: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    dry_sequence_breakers: Annotated[list[Stop], Meta(max_length=128)] | None = None
    min_tokens: Count | None = None
    ignore_eos: bool | None = None
    cache_salt: Salt | None = None
    truncate_sequence: bool | None = None
    adapter: Any = None

    @property
    def reported(self) -> StreamOptions:
        """How the stream is reported, if it is one."""
        return self.stream_options or StreamOptions()


class ThinkingFields(SamplingFields, kw_only=True):
    """And what the chat template is told beside the messages: of reasoning, and in variables that it reads.

    The budget has three names, each that of some other server. The last four are known and refused: the server runs no
    tools.
    """

    enable_thinking: bool | None = None
    reasoning_effort: Effort | None = None
    thinking_budget: TokenBudget | None = None
    thinking_token_budget: TokenBudget | None = None
    thinking_budget_tokens: TokenBudget | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    web_search_options: dict[str, Any] | None = None
    files: list[Any] | None = None
    enable_code_execution: bool | None = None
    enable_shell: bool | None = None


class ConversationFields(ThinkingFields, kw_only=True):
    """And how the prompt ends: with what begins an answer, or within the last message, which goes on."""

    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None


class CompletionRequest(SamplingFields, kw_only=True):
    """Texts or token ids to continue as they stand."""

    prompt: str | Annotated[list[str | int | list[int]], Meta(min_length=1)]
    max_tokens: Count | None = None
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    echo: bool | None = None
    best_of: Annotated[int, Meta(ge=1, le=128)] | None = None
    suffix: str | None = None


class PromptDetails(Struct):
    """What the prompt's tokens are made of."""

    cached_tokens: int


class CompletionDetails(Struct):
    """What the generated tokens are made of."""

    reasoning_tokens: int = 0


class UsageReport(Struct):
    """Token counts of one request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails


class Timings(Struct):
    """Where a request's time went, in milliseconds and tokens per second."""

    queue_ms: float
    prompt_n: int
    cache_n: int
    prompt_ms: float
    prompt_per_second: float
    predicted_n: int
    predicted_ms: float
    predicted_per_second: float


class TopLogprob(Struct):
    """An alternative token."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(Struct):
    """A generated token, with the likeliest ones in its place."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob]


class ChatLogprobs(Struct):
    """Log-probabilities of a choice's tokens."""

    content: list[TokenLogprob]
    refusal: None = None


class TextLogprobs(Struct):
    """Log-probabilities of a completion's tokens, as parallel lists; offsets count characters of the text."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class TextChoice(Struct, kw_only=True):
    """One completion, or what a chunk adds to it."""

    index: int
    text: str
    logprobs: TextLogprobs | None = None
    finish_reason: Finish | None = None


class TextCompletion(Struct, kw_only=True):
    """The continuations of the prompts, or a piece of them."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[TextChoice]
    usage: UsageReport | UnsetType | None = UNSET
    timings: Timings | UnsetType = UNSET


class ModelCard(Struct, kw_only=True):
    """A model that can be asked; what is null is not known before it has been loaded once."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "local"
    root: str
    parent: str | None = None
    aliases: list[str]
    max_model_len: int | None
    capabilities: list[str] | None
    status: str


class ModelList(Struct, kw_only=True):
    """All models."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class ModelRequest(Struct, kw_only=True):
    """Which model to load, unload or tell about; either field names it."""

    EITHER: ClassVar = ("model_id", "model")

    model_id: Name | None = None
    model: Name | None = None


class ErrorObject(Struct):
    """What was wrong; `param` names the field."""

    message: str
    type: str
    param: str | None
    code: str | None


class ModelStatus(Struct, kw_only=True):
    """What a model is doing: loaded, unloaded, loading, reloading, unloading, stuck, dead, failed, not_found or
    no_loader_config."""

    model_id: str
    status: str
    error: ErrorObject | None = None


class Health(Struct):
    """Whether requests are taken: the server's state, and each model's."""

    status: Literal["ok", "loading", "draining", "stuck", "dead"]
    models: dict[str, str]


class About(Struct):
    """Who answers here."""

    name: str
    version: str
    docs: str


class Machine(Struct):
    """What the server runs on: versions, the processor and its instructions that matter, and free memory."""

    zonda: str
    python: str
    system: str
    processor: str
    cores: int
    features: str
    memory_available: str
    packages: dict[str, str]


class MachineCheck(Struct):
    """What was looked at, how it is, and what to do about it."""

    name: str
    status: Literal["ok", "warning", "error", "skipped"]
    message: str
    hint: str | None


class Diagnosis(Struct):
    """The machine, and what it lacks."""

    checks: list[MachineCheck]
    system: Machine


class ErrorReply(Struct):
    """OpenAI's envelope of an error."""

    error: ErrorObject
