"""Prompts that ask for what stands between two texts, of models that have learnt to fill in."""
from __future__ import annotations

from zonda.text.tokenizer import Tokenizer

PREFIX, SUFFIX = 0, 1
_FORMATS: tuple[tuple[str | int, ...], ...] = (
    ("<|fim_prefix|>", PREFIX, "<|fim_suffix|>", SUFFIX, "<|fim_middle|>"),  # Qwen, CodeGemma
    ("<fim_prefix>", PREFIX, "<fim_suffix>", SUFFIX, "<fim_middle>"),  # StarCoder, Granite
    ("<｜fim▁begin｜>", PREFIX, "<｜fim▁hole｜>", SUFFIX, "<｜fim▁end｜>"),  # DeepSeek
    ("<[fim-suffix]>", SUFFIX, "<[fim-prefix]>", PREFIX, "<[fim-middle]>"),  # Seed
    ("[SUFFIX]", SUFFIX, "[PREFIX]", PREFIX))  # Codestral


def between(prefix: str, suffix: str, tokenizer: Tokenizer) -> str | None:
    """The prompt for what stands between two texts, None if the vocabulary has no tokens to ask for that."""
    for pieces in _FORMATS:
        if all(tokenizer.id(each) is not None for each in pieces if isinstance(each, str)):
            return "".join(each if isinstance(each, str) else (prefix, suffix)[each] for each in pieces)
    return None
