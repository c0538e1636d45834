"""Time of a grammar's mask per token, at a large vocabulary: python benchmarks/masks.py [--vocab 150000] [--json]"""
from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from zonda.engine.grammar import Compiled, Grammars
from zonda.engine.masks import Constraint
from zonda.types import Grammar

TEXT = {"type": "string", "maxLength": 60}
SCHEMAS: dict[str, Any] = {
    "record": {"type": "object", "properties": {"name": TEXT, "age": {"type": "integer"}, "ok": {"type": "boolean"}},
               "required": ["name", "age", "ok"], "additionalProperties": False},
    "tool call": {"type": "object", "properties": {"name": {"enum": ["search", "read", "write"]}, "arguments": {
        "type": "object", "properties": {"query": TEXT, "limit": {"type": "integer"}, "tags": {
            "type": "array", "items": TEXT}}, "required": ["query"], "additionalProperties": False}},
        "required": ["name", "arguments"], "additionalProperties": False},
    "tree": {"$defs": {"node": {"type": "object", "properties": {"value": TEXT, "children": {
        "type": "array", "items": {"$ref": "#/$defs/node"}}}, "required": ["value", "children"],
        "additionalProperties": False}}, "$ref": "#/$defs/node"},
    "formats": {"type": "object", "properties": {"at": {"type": "string", "format": "date-time"}, "mail": {
        "type": "string", "format": "email"}, "id": {"type": "string", "format": "uuid"}},
        "required": ["at", "mail", "id"], "additionalProperties": False},
    "any object": {"type": "object"},
}


class Synthetic:
    """A vocabulary like those of byte-pair encoding: bytes, then words, pieces, numbers and punctuation."""

    special_ids: frozenset[int] = frozenset()

    def __init__(self, count: int) -> None:
        draw = random.Random(0)
        starts, ends = "bcdfghklmnprstvw", ["a", "e", "i", "o", "u", "an", "er", "in", "or", "al"]
        found = dict.fromkeys([bytes([byte]) for byte in range(256)])
        found |= dict.fromkeys(text.encode() for text in ('{"', '":', '": "', '",', '", "', '"}', "[]", "{}", "],"))
        while len(found) < count:
            word = "".join(draw.choice(starts) + draw.choice(ends) for _ in range(draw.randint(1, 5)))
            kind = draw.random()
            shown = word.capitalize() if kind < 0.2 else str(draw.randint(0, 999)) if kind < 0.22 else word
            found[((" " if draw.random() < 0.5 else "") + shown).encode()] = None
        self._tokens = list(found)

    def token_bytes(self, id: int, /) -> bytes:
        return self._tokens[id]

    def encode(self, text: str, /, *, add_special: bool = True) -> list[int]:
        return list(text.encode())


@dataclass
class Walk:
    """An answer that was drawn under a grammar, and what each of its tokens took."""

    tokens: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    """Taking in the last token, and the mask for the next, with what keeps items apart that must differ."""
    ended: bool = False
    error: Exception | None = None


Choose = Callable[[np.ndarray, int], int]
"""One of the allowed tokens, for the place of this number."""


def walk(grammar: Compiled, vocab: int, choose: Choose, most: int, ends: frozenset[int] = frozenset()) -> Walk:
    """Draw an answer of at most so many tokens."""
    constraint, found = Constraint(grammar, ends), Walk()
    row, bits = np.zeros(vocab, np.bool_), np.zeros(vocab // 32 + 1, np.uint32)
    while len(found.seconds) < most:
        matcher = constraint.ready()
        began = time.perf_counter()
        while constraint.behind:
            matcher.consume_token(constraint.behind.pop(0))
        matcher.unsafe_compute_mask_ptr(bits.ctypes.data, bits.nbytes)
        took = time.perf_counter() - began
        constraint.forbid(row, bits)
        found.seconds.append(time.perf_counter() - began if constraint.distinct else took)
        allowed, found.error = np.flatnonzero(~row), constraint.error
        token = choose(allowed, len(found.tokens)) if len(allowed) else None
        found.ended = token in ends or (token is None and constraint.over)
        if token is None or found.ended:
            break
        found.tokens.append(token)
        constraint.advance(token)
    return found


def measure(grammars: Grammars, schema: Any, vocab: int, tokens: int) -> list[float]:
    """Seconds for each token of random answers."""
    grammar = grammars.compile(Grammar("json_schema", json.dumps(schema)))
    draw, times = random.Random(0), list[float]()
    while len(times) < tokens:
        times += walk(grammar, vocab, lambda allowed, _: int(draw.choice(allowed)), tokens - len(times)).seconds
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vocab", type=int, default=150_000)
    parser.add_argument("--tokens", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    grammars, every = Grammars(Synthetic(options.vocab), options.vocab), list[float]()
    for name, schema in SCHEMAS.items():
        times = measure(grammars, schema, options.vocab, options.tokens)
        every += times
        report(name, times, json_lines=options.json)
    report("all", every, json_lines=options.json)


def report(name: str, times: list[float], *, json_lines: bool) -> None:
    median, most = statistics.median(times) * 1e6, float(np.percentile(times, 99)) * 1e6
    if json_lines:
        print(json.dumps({"case": name, "median_us": round(median, 1), "p99_us": round(most, 1)}))
    else:
        print(f"{name:12} median {median:7.1f} us   99 % below {most:8.1f} us")


if __name__ == "__main__":
    main()
