"""The options of Zonda: frozen dataclasses from which flags, TOML keys, keyword arguments and docs derive."""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


def option(default: Any, text: str) -> Any:
    """A dataclass field with its default and its help text, found in `metadata["help"]`."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """How many requests the engine serves at once, and the memory of their cache."""

    max_seqs: int = option(32, "sequences that run at the same time")
    max_num_batched_tokens: int = option(512, "tokens of one step, over all sequences")
    max_queue: int = option(1024, "sequences that may wait; more are refused with status 429")
    max_seq_len: int | None = option(None, "positions of one sequence; default: the model's context, as memory allows")
    kv_memory_mb: int | None = option(None, "memory of the key-value cache in MB; default: from what is free")
    kv_memory_fraction: float | None = option(None, "share of free memory that the key-value cache takes, 0 to 1")
    prefix_cache: bool = option(True, "reuse the cached pages of a shared beginning of prompts")
    seed: int = option(0, "seed from which requests without their own seed draw one")
