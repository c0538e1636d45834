"""What a request cost, in tokens and time."""
from __future__ import annotations

from collections.abc import Sequence

from zonda import __version__
from zonda.server.schema import CompletionDetails, Finish, PromptDetails, Timings, UsageReport
from zonda.types import Usage

FINGERPRINT = f"zonda-{__version__}"
"""What answers name as the system that made them."""


def total(usages: Sequence[Usage]) -> Usage:
    """The usage of several prompts that were answered side by side: tokens add up, times overlap."""
    if len(usages) == 1:
        return usages[0]
    return Usage(
        prompt_tokens=sum(each.prompt_tokens for each in usages),
        completion_tokens=sum(each.completion_tokens for each in usages),
        cached_tokens=sum(each.cached_tokens for each in usages),
        queue_seconds=max(each.queue_seconds for each in usages),
        prompt_seconds=max(each.prompt_seconds for each in usages),
        completion_seconds=max(each.completion_seconds for each in usages))


def finish_of(reason: str | None) -> Finish | None:
    """A sequence's end in OpenAI's words."""
    if reason is None:
        return None
    return "length" if reason == "length" else "stop"


def usage_report(usage: Usage, reasoning: int = 0) -> UsageReport:
    """Token counts as OpenAI reports them; `reasoning` counts the tokens of reasoning among the generated ones."""
    return UsageReport(usage.prompt_tokens, usage.completion_tokens, usage.prompt_tokens + usage.completion_tokens,
                       PromptDetails(usage.cached_tokens), CompletionDetails(reasoning))


def timings(usage: Usage) -> Timings:
    """Where the time went."""
    computed = usage.prompt_tokens - usage.cached_tokens
    return Timings(_ms(usage.queue_seconds), computed, usage.cached_tokens,
                   _ms(usage.prompt_seconds), _rate(computed, usage.prompt_seconds),
                   usage.completion_tokens, _ms(usage.completion_seconds),
                   _rate(usage.completion_tokens, usage.completion_seconds))


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _rate(count: int, seconds: float) -> float:
    return round(count / seconds, 2) if seconds > 0 else 0.0
