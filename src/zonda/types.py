"""The values that cross the engine's border: sampling, requests, events. Frozen, and free of numpy and torch."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from msgspec import Struct

FinishReason = Literal["stop", "length", "cancelled", "error"]
Effort = Literal["off", "none", "minimal", "low", "medium", "high", "xhigh", "max"]
"""How much a model is asked to reason."""
Progress = Callable[[str, int, int], None]
"""Told of a load: a stage's name, how much of it is done, and its total, 0 if unknown."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn. `None` means: the model's `generation_config`, else the neutral value."""

    max_tokens: int | None = None
    min_tokens: int = 0
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    top_n_sigma: float | None = None
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    mirostat_tau: float | None = None
    mirostat_eta: float = 0.1
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float | None = None
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_sequence_breakers: tuple[str, ...] = ("\n", ":", '"', "*")
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    n: int = 1
    logprobs: int | None = None
    """Number of alternatives to report beside each sampled token's log-probability; 0 reports the token alone."""
    prompt_logprobs: bool = False
    truncate_sequence: bool = False
    """Drop the oldest prompt tokens instead of failing when the prompt does not fit."""


@dataclass(frozen=True, slots=True)
class Grammar:
    """What an answer may look like. `source` is a JSON schema as text, a regular expression, a Lark grammar, or
    llguidance's own JSON form; for `choice` a JSON list of texts. `after` is a token, or a text, that the grammar waits
    for: what comes up to and with it is free. `parts` are JSON schemas that are in it, each with what it belongs to,
    so that an error can say in which it is. `option` is what the caller gave it as, which errors name."""

    kind: Literal["json_schema", "regex", "lark", "choice", "llguidance"]
    source: str
    after: int | str | None = None
    parts: tuple[tuple[str, str], ...] = ()
    option: str = field(default="grammar", compare=False)


@dataclass(frozen=True, slots=True)
class Budget:
    """How many tokens an answer may reason, with those that end it.

    `open` is the text that begins reasoning, empty where the prompt has begun it. Any of `closes`, tokens or texts,
    ends it. Once the budget is spent the engine adds the first of `closings`, which end it too; the next one where
    reasoning has begun `again`, as it may after an end.
    """

    tokens: int
    open: str
    closes: tuple[int | str, ...]
    closings: tuple[tuple[int, ...], ...]
    again: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt to continue, as token ids."""

    id: str
    prompt: tuple[int, ...]
    sampling: Sampling = field(default_factory=Sampling)
    salt: str = ""
    """Requests with different salts never share prefix-cache pages."""
    grammar: Grammar | None = None
    budget: Budget | None = None


@dataclass(frozen=True, slots=True)
class Logprob:
    """A token's log-probability before top-k, top-p and min-p, with the likeliest alternatives."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one request over all its `n` sequences, and its times in seconds."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    queue_seconds: float = 0.0
    prompt_seconds: float = 0.0
    completion_seconds: float = 0.0


class Event(Struct, frozen=True):
    """News of one sequence of a request after one step.

    The event with a `finish` is the sequence's last. The last event of the last sequence carries `usage`; an event
    with `finish="error"` carries `error`. `prompt_logprobs` comes once, with the first event, when asked for.
    """

    request: str
    index: int
    tokens: tuple[int, ...] = ()
    logprobs: tuple[Logprob, ...] = ()
    finish: FinishReason | None = None
    usage: Usage | None = None
    error: Exception | None = None
    prompt_logprobs: tuple[Logprob | None, ...] | None = None


class Chunk(Struct, frozen=True):
    """A piece of generated text of sequence `index`, with the tokens and log-probabilities that it came from.

    `text` may be empty while a character or a stop string is still undecided. The last chunk of a sequence has a
    `finish`; the last chunk of the last sequence has `usage`. `stop` is the stop string that ended the sequence.
    `thought` is reasoning that was told apart from the text.
    """

    index: int
    text: str
    tokens: tuple[int, ...] = ()
    logprobs: tuple[Logprob, ...] = ()
    finish: FinishReason | None = None
    stop: str | None = None
    usage: Usage | None = None
    prompt_logprobs: tuple[Logprob | None, ...] | None = None
    thought: str = ""
