"""Compares a GGUF model in Zonda with the same weights dequantized to float32 in transformers (needs `accelerate`).

    python benchmarks/quality.py MODEL.gguf [--tokens 1024] [--prompts 10] [--length 64] [--json]

Perplexity of the bundled text by both, and for how many prompts the greedy continuations are equal.
"""
from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zonda import LLM

TEXT = Path(__file__).with_name("texts") / "pride_and_prejudice.txt"
PROMPT_TOKENS = 32


@dataclass(frozen=True)
class Quality:
    """What the two runs gave: perplexities, and the length of each common continuation."""

    perplexity: float
    reference: float
    common: list[int]
    length: int

    @property
    def excess(self) -> float:
        """By which share the perplexity exceeds the reference's."""
        return self.perplexity / self.reference - 1

    @property
    def equal(self) -> int:
        """For how many prompts all tokens agree."""
        return sum(count == self.length for count in self.common)

    def report(self) -> str:
        """The comparison as lines of text."""
        return (f"perplexity {self.perplexity:.3f}, dequantized {self.reference:.3f} ({self.excess:+.2%})\n"
                f"greedy: {self.equal} of {len(self.common)} continuations of {self.length} tokens are equal; "
                f"tokens until they part: {' '.join(map(str, self.common))}")


def common_length(ours: Sequence[int], theirs: Sequence[int]) -> int:
    """How many tokens two continuations share from their start."""
    pairs = zip(ours, theirs)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(ours), len(theirs)))


def paragraphs(text: str, count: int) -> list[str]:
    """The longest paragraphs, in the text's order."""
    every = [each for each in text.split("\n\n") if each.strip()]
    return [each for each in every if each in sorted(every, key=len, reverse=True)[:count]]


class Dequantized:
    """The model in transformers: weights expanded to float32 by the `gguf` package, independently of Zonda."""

    def __init__(self, path: Path) -> None:
        import torch
        import transformers

        torch.set_grad_enabled(False)
        self.torch = torch
        self.model = transformers.AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=torch.float32).eval()

    def perplexity(self, ids: Sequence[int]) -> float:
        """Of all tokens after the first."""
        tokens = self.torch.tensor([ids])
        logits = self.model(tokens).logits[0, :-1]
        return math.exp(self.torch.nn.functional.cross_entropy(logits, tokens[0, 1:]).item())

    def continuation(self, ids: Sequence[int], length: int) -> list[int]:
        """The likeliest tokens, past any end of text."""
        tokens, cache, out = self.torch.tensor([ids]), None, []
        for _ in range(length):
            result = self.model(tokens, past_key_values=cache, use_cache=True)
            tokens, cache = result.logits[:, -1:].argmax(-1), result.past_key_values
            out.append(int(tokens))
        return out


def perplexity(llm: LLM, ids: Sequence[int]) -> float:
    """Zonda's, of all tokens after the first."""
    scores = llm.complete(list(ids), max_tokens=1, temperature=0.0, prompt_logprobs=True).prompt_logprobs
    return math.exp(-math.fsum(score.logprob for score in scores or () if score) / (len(ids) - 1))


def continuations(llm: LLM, starts: Sequence[list[int]], length: int) -> list[list[int]]:
    """Zonda's likeliest tokens, all prompts in one batch."""
    answers = llm.complete(list(starts), max_tokens=length, temperature=0.0, repetition_penalty=1.0, ignore_eos=True)
    return [list(answer.tokens) for answer in answers]


def compare(path: Path, *, tokens: int, count: int, length: int) -> Quality:
    """Runs both, one after the other."""
    from zonda import LLM

    with LLM(str(path)) as llm:
        text = TEXT.read_text()
        ids = llm.tokenize(text)
        starts = [llm.tokenize(paragraph)[:PROMPT_TOKENS] for paragraph in paragraphs(text, count)]
        ours, score = continuations(llm, starts, length), perplexity(llm, ids[:tokens])
    reference = Dequantized(path)
    common = [common_length(mine, reference.continuation(start, length)) for mine, start in zip(ours, starts)]
    return Quality(score, reference.perplexity(ids[:tokens]), common, length)


def main() -> None:
    """Prints the comparison for one model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--tokens", type=int, default=1024, help="tokens of the text to score (default: 1024)")
    parser.add_argument("--prompts", type=int, default=10, help="greedy continuations to compare (default: 10)")
    parser.add_argument("--length", type=int, default=64, help="tokens of each continuation (default: 64)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    options = parser.parse_args()
    result = compare(options.model.absolute(), tokens=options.tokens, count=options.prompts, length=options.length)
    facts = {"perplexity": result.perplexity, "dequantized": result.reference, "excess": result.excess,
             "equal": result.equal, "prompts": len(result.common), "common": result.common, "length": result.length}
    print(json.dumps(facts) if options.json else result.report())


if __name__ == "__main__":
    main()
