"""Compiles grammars, one a line of standard input, and says for each what is wrong with it, or an empty text.

A process of its own, to be killed. It is run by its path and knows nothing of Zonda. The first line is a JSON object:
the `special` tokens' texts, the `limits` of a parser, the bytes of a thread's `stack`, the `seconds` of processor time
and the bytes of `memory` that one grammar may take, and how many characters may be `said` of it.
"""
from __future__ import annotations

import json
import math
import sys
import threading
from typing import Any

from llguidance import LLMatcher, LLParserLimits, LLTokenizer


class Spelled:
    """A vocabulary of single bytes and the special tokens, in the form that llguidance reads."""

    is_tokenizer_wrapper = True
    eos_token_id = None
    bos_token_id = None

    def __init__(self, special: list[str]) -> None:
        self.tokens = [bytes([each]) for each in range(255)] + [b""] + [text.encode() for text in special]
        self.special_token_ids = list(range(256, len(self.tokens)))

    def __call__(self, text: bytes | str) -> list[int]:
        return list(text.encode() if isinstance(text, str) else text)


def bound(seconds: float, memory: int) -> None:
    """Let the system end this process when it takes more than it has and so much beside."""
    try:
        import resource
    except ImportError:  # Windows: the parent's patience is the only limit
        return
    spent = resource.getrusage(resource.RUSAGE_SELF)
    used = math.ceil(spent.ru_utime + spent.ru_stime + seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (used, resource.getrlimit(resource.RLIMIT_CPU)[1]))
    if sys.platform == "linux":
        with open("/proc/self/statm") as statm:
            mapped = int(statm.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + memory, resource.getrlimit(resource.RLIMIT_AS)[1]))


def work(told: dict[str, Any]) -> None:
    """Compile until there are no more lines."""
    tokenizer = LLTokenizer(Spelled(told["special"]))  # type: ignore[arg-type]
    print("ready", flush=True)
    for line in sys.stdin:
        bound(told["seconds"], told["memory"])
        matcher = LLMatcher(tokenizer, json.loads(line), log_level=0, limits=LLParserLimits(**told["limits"]))
        matcher.compute_bitmask()
        print(json.dumps(matcher.get_error()[:told["said"]] if matcher.is_error() else ""), flush=True)


if __name__ == "__main__":
    first = json.loads(sys.stdin.readline())
    threading.stack_size(first["stack"])
    thread = threading.Thread(target=work, args=(first,))
    thread.start()
    thread.join()
