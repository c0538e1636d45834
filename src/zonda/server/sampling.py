"""From a request's fields to how tokens are drawn."""
from __future__ import annotations

from typing import Any

from zonda.errors import InvalidRequest
from zonda.server.schema import SamplingFields
from zonda.types import Sampling

MIROSTAT_TAU = 5.0  # where a request asks for mirostat 2 and says no more
_SAME = ("temperature", "top_p", "n", "seed", "logit_bias", "presence_penalty", "frequency_penalty",
         "repetition_penalty", "top_k", "min_p", "typical_p", "top_n_sigma", "xtc_probability", "xtc_threshold",
         "mirostat_eta", "dry_multiplier", "dry_base", "dry_allowed_length", "min_tokens",
         "ignore_eos", "truncate_sequence")
_LISTS = ("stop_token_ids", "dry_sequence_breakers")


def sampling_of(body: SamplingFields, *, max_tokens: int | None, logprobs: int | None = None,
                prompt_logprobs: bool = False) -> Sampling:
    """The sampling that a request asks for."""
    given = {name: getattr(body, name) for name in _SAME}
    given |= {name: _tuple(getattr(body, name)) for name in _LISTS}
    given |= {"stop": (body.stop,) if isinstance(body.stop, str) else _tuple(body.stop)}
    given |= {"mirostat_tau": _mirostat(body), "max_tokens": max_tokens, "logprobs": logprobs}
    known = {name: value for name, value in given.items() if value is not None}
    return Sampling(**known, prompt_logprobs=prompt_logprobs)


def _tuple(values: list[Any] | None) -> tuple[Any, ...] | None:
    return None if values is None else tuple(values)


def _mirostat(body: SamplingFields) -> float | None:
    if body.mirostat == 0:
        return None
    return MIROSTAT_TAU if body.mirostat and body.mirostat_tau is None else body.mirostat_tau


def check_stream(body: SamplingFields) -> None:
    """Refuse what only a stream has a meaning for."""
    if body.stream_options and not body.stream:
        raise InvalidRequest("`stream_options` is only allowed when `stream` is true", param="stream_options")
