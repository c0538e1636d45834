"""From a request to a group of sequences: every field checked, defaults filled in, limits applied."""
from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import fields, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np

from zonda.engine.budget import Spending, before_answer
from zonda.engine.grammar import Compiled, Grammars, Words
from zonda.engine.request import Group, Params, Sink
from zonda.errors import ContextExceeded, InvalidModel, InvalidRequest, Unsupported
from zonda.kernels import sample
from zonda.types import Budget, Request, Sampling

MAX_N = 128
MAX_STOPS = 16
MAX_STOP_IDS = 128
MAX_BREAKERS = 128
ROOM = 256
"""Tokens kept free for the answer when a prompt is cut and the request does not say how many it wants."""
_MOST = 1e9
_RANGES: dict[str, tuple[float, float]] = {
    "temperature": (0, _MOST), "top_p": (0, 1), "min_p": (0, 1), "typical_p": (0, 1), "top_n_sigma": (-_MOST, _MOST),
    "xtc_probability": (0, 1), "xtc_threshold": (0, 1), "mirostat_tau": (0, _MOST), "mirostat_eta": (0, 1),
    "presence_penalty": (-100, 100), "frequency_penalty": (-100, 100), "repetition_penalty": (0.01, 100),
    "dry_multiplier": (0, 100), "dry_base": (0, 100)}
_COUNTS: dict[str, tuple[int, int]] = {
    "max_tokens": (0, 2**31), "min_tokens": (0, 2**31), "top_k": (-2**31, 2**31),
    "dry_allowed_length": (1, sample.DRY_REACH), "n": (1, MAX_N), "logprobs": (0, sample.TOP),
    "seed": (-2**63, 2**64 - 1)}
_SIZES = {"stop": MAX_STOPS, "stop_token_ids": MAX_STOP_IDS, "dry_sequence_breakers": MAX_BREAKERS}
_OPEN = frozenset(field.name for field in fields(Sampling) if field.default is None)
"""What a request may leave open."""
_DEFAULTS = ("temperature", "top_k", "top_p", "min_p", "typical_p", "repetition_penalty")
_BIAS_LIMIT = 1e9
_SUPPRESSED = -1e9


class Intake:
    """The rules for requests to one model.

    `defaults` is the model's generation_config. `breakers` gives the ids of the tokens that a breaker string of DRY
    stands for; without it DRY has no breakers. `grammars` compiles the grammars of requests; `words` is the vocabulary.
    """

    def __init__(self, *, vocab: int, max_len: int, stop_ids: frozenset[int], defaults: Mapping[str, Any], seed: int,
                 breakers: Callable[[str], Iterable[int]] | None = None, grammars: Grammars | None = None,
                 words: Words | None = None) -> None:
        self.vocab = vocab
        self.max_len = max_len
        self._stop_ids = frozenset(id for id in stop_ids if 0 <= id < vocab)
        self._defaults = _defaults(defaults)
        self._suppressed = [id for id in _suppressed(defaults) if 0 <= id < vocab]
        self._breakers = lru_cache(256)(lambda text: frozenset(breakers(text)) if breakers else frozenset())
        self._random = random.Random(seed)
        self._grammars = grammars or Grammars(None, vocab)
        self._words = words

    def accept(self, request: Request, sink: Sink) -> Group:
        """The request as a group ready to be queued, or InvalidRequest, ContextExceeded."""
        sampling = request.sampling
        check(sampling)
        prompt = self._prompt(request)
        params = self._params(fill(sampling, self._defaults), len(prompt), bound=request.grammar is not None)
        grammar = self._grammars.compile(request.grammar) if request.grammar else None
        return Group(request.id, prompt, params, sink, n=sampling.n, salt=request.salt, grammar=grammar,
                     spending=self._spending(request.budget, grammar, params.max_tokens))

    def _spending(self, budget: Budget | None, grammar: Compiled | None,
                  most: int) -> Callable[[], Spending] | None:
        """A budget for each sequence; where a grammar waits for the end of reasoning, there always is one."""
        if grammar and grammar.after is not None:
            assert self._words is not None  # it was compiled for them
            budget = before_answer(budget, grammar.after, most, partial(self._words.encode, add_special=False))
        if budget is None:
            return None
        if self._words is None:
            raise Unsupported("this engine has no vocabulary to know reasoning by", param="budget")
        return partial(Spending, budget, self._words.token_bytes)

    def _prompt(self, request: Request) -> np.ndarray:
        if not len(request.prompt):
            raise InvalidRequest("the prompt has no tokens", hint="send at least one token", param="prompt")
        prompt = self._ids(request.prompt, "prompt")
        if len(prompt) < self.max_len:
            return prompt
        if not request.sampling.truncate_sequence:
            raise ContextExceeded.by(len(prompt), self.max_len)
        wanted = request.sampling.max_tokens
        room = min(ROOM if wanted is None else max(wanted, 1), self.max_len // 2)
        return prompt[len(prompt) - (self.max_len - max(room, 1)):].copy()

    def _ids(self, ids: Iterable[int], field: str) -> np.ndarray:
        try:
            array = np.array(ids if isinstance(ids, (tuple, list, np.ndarray)) else list(ids))
            if array.size and array.dtype.kind not in "iu":
                raise TypeError
            valid = array.ndim == 1 and (not array.size or (array.min() >= 0 and array.max() < self.vocab))
        except (TypeError, ValueError, OverflowError):
            valid = False
        if not valid:
            raise InvalidRequest(f"{field} has something else than token ids", hint=f"ids are 0 to {self.vocab - 1}",
                                 param=field)
        return array.astype(np.int32)

    def _params(self, s: Sampling, prompt: int, *, bound: bool) -> Params:
        left = self.max_len - prompt
        stops = frozenset(self._ids(s.stop_token_ids, "stop_token_ids").tolist())
        floats, ints = _floats(s), _ints(s, prompt, self.vocab)
        bias_ids, bias_values = self._bias(s.logit_bias)
        dry = s.dry_sequence_breakers if s.dry_multiplier else ()
        simple = bool(_untouched(floats) and not len(bias_ids) and not s.min_tokens and s.logprobs is None
                      and not bound)
        return Params(
            floats=floats, ints=ints, min_tokens=s.min_tokens,
            max_tokens=left if s.max_tokens is None else min(s.max_tokens, left),
            stops=stops if s.ignore_eos else stops | self._stop_ids,
            bias_ids=bias_ids, bias_values=bias_values,
            breaks=frozenset().union(*map(self._breakers, dry)),
            plain=bool(simple and floats[sample.TEMPERATURE] < sample.GREEDY),
            hosted=not simple or s.prompt_logprobs or _narrowed(floats),
            logprobs=int(ints[sample.LOGPROBS]), prompt_logprobs=s.prompt_logprobs,
            seed=self._random.getrandbits(63) if s.seed is None else s.seed % 2**64)

    def _bias(self, bias: Mapping[int, float]) -> tuple[np.ndarray, np.ndarray]:
        if len(bias) > self.vocab:
            raise InvalidRequest(f"logit_bias has {len(bias)} entries for {self.vocab} tokens", param="logit_bias")
        ids = self._ids(list(bias), "logit_bias")
        for value in bias.values():
            _number("logit_bias", value, -_BIAS_LIMIT, _BIAS_LIMIT)
        values = [*bias.values(), *(_SUPPRESSED for _ in self._suppressed)]
        return np.concatenate([ids, np.array(self._suppressed, np.int32)]), np.array(values, np.float32)


def _defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a generation_config says about sampling, checked once."""
    known = {name: config[name] for name in _DEFAULTS if config.get(name) is not None}
    if config.get("do_sample") is False:
        known["temperature"] = 0.0
    try:
        check(Sampling(**known))
    except InvalidRequest as error:
        raise InvalidModel(f"the model's generation_config is invalid: {error.message}", hint=error.hint) from error
    return known


def _suppressed(config: Mapping[str, Any]) -> list[int]:
    """The tokens that a generation_config forbids."""
    found = config.get("suppress_tokens") or []
    if not isinstance(found, list) or not all(isinstance(id, int) for id in found):
        raise InvalidModel(f"suppress_tokens in the model's generation_config is {found!r:.60}, expected a list of ids")
    return found


def fill(sampling: Sampling, defaults: Mapping[str, Any]) -> Sampling:
    """Set what a request leaves open."""
    missing = {name: value for name, value in defaults.items() if getattr(sampling, name) is None}
    return replace(sampling, **missing) if missing else sampling


def check(s: Sampling) -> None:
    """Refuse values that are not numbers, not finite or out of range, and lists that are too long."""
    for name, (low, high) in (_RANGES | _COUNTS).items():
        if getattr(s, name) is not None or name not in _OPEN:
            _number(name, getattr(s, name), low, high, whole=name in _COUNTS)
    if not isinstance(s.logit_bias, Mapping):
        raise InvalidRequest(f"logit_bias is {_shown(s.logit_bias)}, expected values by token id", param="logit_bias")
    for name, most in _SIZES.items():
        values = getattr(s, name)
        if not isinstance(values, Collection) or isinstance(values, str | bytes):
            raise InvalidRequest(f"{name} is {_shown(values)}, expected a list", param=name)
        if len(values) > most:
            raise InvalidRequest(f"{name} has {len(values)} entries", hint=f"at most {most} may be given", param=name)
    for name in ("stop", "dry_sequence_breakers"):
        if not all(isinstance(text, str) and text for text in getattr(s, name)):
            raise InvalidRequest(f"{name} has an entry that is not a text, or empty", param=name)
    if s.max_tokens is not None and s.min_tokens > s.max_tokens:
        raise InvalidRequest(f"min_tokens {s.min_tokens} is more than max_tokens {s.max_tokens}", param="min_tokens")


def _number(name: str, value: Any, low: float, high: float, *, whole: bool = False) -> None:
    kinds = (int, np.integer) if whole else (int, float, np.integer, np.floating)
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        kind = "a whole number" if whole else "a finite number"
        limits = f" from {low:g} to {high:g}" if high < _MOST else f", at least {low:g}"
        raise InvalidRequest(f"{name} is {_shown(value)}", hint=f"expected {kind}{limits}", param=name)


def _shown(value: Any) -> str:
    return repr(value)[:40] if isinstance(value, (bool, int, float, np.number)) else f"a {type(value).__name__}"


def _floats(s: Sampling) -> np.ndarray:
    floats = np.zeros(sample.FLOATS, np.float32)
    floats[sample.TEMPERATURE] = 1.0 if s.temperature is None else s.temperature
    floats[sample.TOP_P] = 1.0 if s.top_p is None else s.top_p
    floats[sample.MIN_P] = s.min_p or 0.0
    floats[sample.TYPICAL_P] = 1.0 if s.typical_p is None else s.typical_p
    floats[sample.TOP_N_SIGMA] = max(s.top_n_sigma or 0.0, 0.0)
    floats[sample.XTC_PROBABILITY] = s.xtc_probability if s.xtc_threshold <= 0.5 else 0.0
    floats[sample.XTC_THRESHOLD] = s.xtc_threshold
    floats[sample.MIROSTAT_TAU] = s.mirostat_tau or 0.0
    floats[sample.MIROSTAT_ETA] = s.mirostat_eta
    floats[sample.PRESENCE] = s.presence_penalty
    floats[sample.FREQUENCY] = s.frequency_penalty
    floats[sample.REPETITION] = 1.0 if s.repetition_penalty is None else s.repetition_penalty
    floats[sample.DRY_MULTIPLIER] = s.dry_multiplier
    floats[sample.DRY_BASE] = s.dry_base
    return floats


def _ints(s: Sampling, prompt: int, vocab: int) -> np.ndarray:
    ints = np.zeros(sample.INTS, np.int64)
    ints[sample.TOP_K] = min(max(s.top_k or 0, 0), vocab)
    ints[sample.PROMPT] = prompt
    ints[sample.LOGPROBS] = -1 if s.logprobs is None else min(s.logprobs, vocab)
    ints[sample.DRY_ALLOWED] = s.dry_allowed_length
    return ints


def _untouched(floats: np.ndarray) -> bool:
    """Whether no penalty changes the logits."""
    additive = floats[[sample.PRESENCE, sample.FREQUENCY, sample.DRY_MULTIPLIER]]
    return bool(floats[sample.REPETITION] == 1 and not additive.any())


def _narrowed(floats: np.ndarray) -> bool:
    """Whether a filter beside top-k, top-p and min-p has a say."""
    return bool(floats[sample.TYPICAL_P] < 1
                or floats[[sample.TOP_N_SIGMA, sample.XTC_PROBABILITY, sample.MIROSTAT_TAU]].any())
