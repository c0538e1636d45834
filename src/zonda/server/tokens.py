"""Tokens as clients see them: their text, their bytes, their log-probabilities."""
from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence

from zonda.server.schema import ChatLogprobs, TextLogprobs, TokenLogprob, TopLogprob
from zonda.text.tokenizer import Tokenizer
from zonda.types import Logprob

LOWEST = -9999.0
"""What stands for a log-probability of minus infinity, which JSON lacks."""


def visible(logprobs: Sequence[Logprob], finish: str | None, stop: str | None) -> Sequence[Logprob]:
    """The log-probabilities of the tokens that become text: not that of the token that ended the sequence."""
    return logprobs[:-1] if finish in ("stop", "tool_calls") and stop is None else logprobs


def chat_logprobs(tokenizer: Tokenizer, logprobs: Iterable[Logprob]) -> ChatLogprobs:
    """Log-probabilities in the form of chat completions."""
    return ChatLogprobs([_token(tokenizer, each) for each in logprobs])


def _token(tokenizer: Tokenizer, each: Logprob) -> TokenLogprob:
    top = [TopLogprob(*_spelled(tokenizer, token, value)) for token, value in each.top]
    return TokenLogprob(*_spelled(tokenizer, each.token, each.logprob), top)


def _spelled(tokenizer: Tokenizer, token: int, value: float) -> tuple[str, float, list[int]]:
    raw = tokenizer.token_bytes(token)
    return raw.decode("utf-8", "replace"), max(value, LOWEST), list(raw)


class TextSpelling:
    """Log-probabilities of one choice in the form of completions, with offsets that go on from call to call."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._offset = 0

    def spell(self, tokens: Sequence[int], logprobs: Sequence[Logprob | None]) -> TextLogprobs:
        """The lists for the next tokens of the choice."""
        result = TextLogprobs([], [], [], [])
        for token, each in zip(tokens, logprobs):
            result.tokens.append(self._name(token))
            result.token_logprobs.append(None if each is None else max(each.logprob, LOWEST))
            result.top_logprobs.append(None if each is None else self._top(each))
            result.text_offset.append(self._offset)
            self._advance(token)
        return result

    def _advance(self, token: int) -> None:
        if token not in self._tokenizer.special_ids:
            self._offset += len(self._decoder.decode(self._tokenizer.token_bytes(token)))

    def _top(self, each: Logprob) -> dict[str, float]:
        return {self._name(token): max(value, LOWEST) for token, value in ((each.token, each.logprob), *each.top)}

    def _name(self, token: int) -> str:
        raw = self._tokenizer.token_bytes(token)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)
