"""Do schemas of real kinds give valid answers, and at what cost?

    python benchmarks/json_schemas.py FOLDER --model MODEL [--answers 4] [--tokens 400] [--vocab 150000] [--json]

FOLDER has one JSON schema a file. Each is compiled for the model's tokenizer; answers are drawn at random, with a
liking for what closes, and those that come to their end are judged by jsonschema-rs; then masks are timed at a large
vocabulary. A line for each schema that is not simply fine, and a summary. Exit status 1 if an answer was invalid, a
schema could not be followed, or one stalled.
"""
from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema_rs
import numpy as np
from masks import Choose, Synthetic, walk

from zonda.engine.grammar import Compiled, Grammars, Words
from zonda.errors import ZondaError
from zonda.text.tokenizer import Tokenizer
from zonda.types import Grammar
from zonda.weights.gguf import GGUFSource

STALL = 5.0  # seconds to compile, or for one mask
CLOSING = frozenset(b'"]}')
BAD = frozenset({"invalid", "stuck", "stalled", "crashed"})


@dataclass
class Verdict:
    """What became of one schema."""

    name: str
    kind: str = "fine"
    why: str = ""
    compile: float = 0.0
    seconds: list[float] = field(default_factory=list)
    whole: int = 0
    """Answers that came to their end."""


class Judge:
    """Tries schemas with one tokenizer, and times them with a large vocabulary."""

    def __init__(self, words: Words, vocab: int, ends: frozenset[int], options: argparse.Namespace) -> None:
        self._words, self._vocab, self._ends, self._options = words, vocab, ends, options
        self._small = Grammars(words, vocab)
        self._large = Grammars(Synthetic(options.vocab), options.vocab)
        self._closing = np.array([bool(CLOSING & set(words.token_bytes(id))) for id in range(vocab)])
        self._closing[list(ends)] = True

    def judge(self, name: str, schema: Any) -> Verdict:
        """Compile, draw, check and time."""
        verdict = Verdict(name)
        try:
            self._try(verdict, schema)
        except ZondaError as error:
            verdict.kind, verdict.why = "refused", f"{error}"
        except Exception as error:
            verdict.kind, verdict.why = "crashed", repr(error)
        if max([verdict.compile, *verdict.seconds]) > STALL:
            verdict.kind, verdict.why = "stalled", f"{verdict.compile:.1f} s, {max(verdict.seconds, default=0):.1f} s"
        return verdict

    def _try(self, verdict: Verdict, schema: Any) -> None:
        form = Grammar("json_schema", json.dumps(schema))
        began = time.perf_counter()
        try:
            grammar = self._small.compile(form)
        finally:
            verdict.compile = time.perf_counter() - began
        self._draw(verdict, schema, grammar)
        dice = random.Random(0)
        verdict.seconds = walk(self._large.compile(form), self._options.vocab,
                               lambda allowed, _: int(dice.choice(allowed)), self._options.masks).seconds

    def _draw(self, verdict: Verdict, schema: Any, grammar: Compiled) -> None:
        validator = _validator(schema)
        for number in range(self._options.answers):
            found = walk(grammar, self._vocab, self._choice(number), self._options.tokens, self._ends)
            if found.error or not (found.ended or len(found.seconds) == self._options.tokens):
                verdict.kind, verdict.why = "stuck", f"{found.error}"
                return
            verdict.whole += found.ended
            text = b"".join(map(self._words.token_bytes, found.tokens)).decode() if found.ended else ""
            if text and (wrong := _wrong(validator, text)):
                verdict.kind, verdict.why = "invalid", f"{wrong:.200} in {text:.300}"
                return
        if not verdict.whole:
            verdict.kind = "long"

    def _choice(self, seed: int) -> Choose:
        """Any token that is allowed; the longer the answer, the likelier one that closes something."""
        dice = random.Random(seed)

        def choose(allowed: np.ndarray, place: int) -> int:
            closing = allowed[self._closing[allowed]]
            some = closing if len(closing) and dice.random() < 0.2 + place / 100 else allowed
            return int(dice.choice(some))

        return choose


def _validator(schema: Any) -> Any:
    """None where the checker itself cannot read the schema."""
    try:
        return jsonschema_rs.validator_for(schema, validate_formats=True)
    except Exception:
        return None


def _wrong(validator: Any, text: str) -> str:
    """What is wrong with an answer."""
    try:
        value = json.loads(text, parse_float=Decimal)  # no number of JSON is too large
    except ValueError as error:
        return f"{error}"
    error = next(validator.iter_errors(value), None) if validator else None
    return f"{error.message:.150} at {'/'.join(map(str, error.schema_path))}" if error else ""


def summary(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Counts, and times over all schemas that were followed."""
    masks = np.array([second for each in verdicts for second in each.seconds] or [0.0]) * 1e6
    compiled = np.array([each.compile for each in verdicts]) * 1e3
    return {**Counter(each.kind for each in verdicts), "answers": sum(each.whole for each in verdicts),
            "compile_median_ms": round(float(np.median(compiled)), 1), "compile_most_ms": round(compiled.max(), 1),
            "mask_median_us": round(float(np.median(masks)), 1),
            "mask_p99_us": round(float(np.percentile(masks, 99)), 1), "mask_most_us": round(masks.max(), 1)}


def main() -> int:
    options = _arguments()
    tokenizer = Tokenizer.from_gguf(GGUFSource(options.model).metadata)
    judge = Judge(tokenizer, tokenizer.vocab_size, tokenizer.eos_ids, options)
    verdicts = []
    for path in sorted(options.folder.rglob("*.json")):
        verdicts.append(judge.judge(path.name, json.loads(path.read_text())))
        if verdicts[-1].kind != "fine" and not options.json:
            print(f"{verdicts[-1].kind:8} {path.name}: {verdicts[-1].why}", flush=True)
    found = summary(verdicts)
    print(json.dumps(found) if options.json else "\n".join(f"{name:18} {value}" for name, value in found.items()))
    return int(any(each.kind in BAD for each in verdicts))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", required=True, help="a GGUF file, for its tokenizer")
    parser.add_argument("--answers", type=int, default=4, help="drawn of each schema")
    parser.add_argument("--tokens", type=int, default=400, help="at most, of one answer")
    parser.add_argument("--masks", type=int, default=100, help="timed of each schema")
    parser.add_argument("--vocab", type=int, default=150_000, help="tokens of the vocabulary that masks are timed at")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
