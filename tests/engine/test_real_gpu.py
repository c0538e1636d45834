"""Real small models, greedy, on a GPU and on the processor: the same tokens, but for a close call."""
from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.nearness import on_card
from zonda.model import load_model
from zonda.options import EngineOptions, ModelOptions
from zonda.types import Event, Request, Sampling

PROMPTS = ("The capital of France is", "Once upon a time, in a small village,", "def fibonacci(n):",
           "The three laws of thermodynamics are", "To bake a cake, first", "Q: What is 12 times 12?\nA:",
           "In 1969, people first", "The best way to learn a language is", "Dear Sir or Madam,",
           "Photosynthesis is the process by which")


def answers(path: Path, *, cpu: bool) -> list[list[int]]:
    parts = load_model(ModelOptions(model=str(path), cpu=cpu), EngineOptions(max_seq_len=256, prefix_cache=False))
    inbox: queue.SimpleQueue[Sequence[Event]] = queue.SimpleQueue()
    for prompt in PROMPTS:
        tokens = tuple(parts.tokenizer.encode(prompt))
        parts.engine.submit(Request(prompt, tokens, Sampling(temperature=0.0, max_tokens=64, ignore_eos=True)),
                            inbox.put)
    found: dict[str, list[int]] = {prompt: [] for prompt in PROMPTS}
    left = len(PROMPTS)
    while left:
        for event in inbox.get(timeout=120):
            assert not event.error
            found[event.request] += event.tokens
            left -= event.finish is not None
    parts.engine.close()
    return list(found.values())


@on_card
@pytest.mark.e2e
@pytest.mark.parametrize("name", ["smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "gemma3-270m/gemma-3-270m-q4_k_m.gguf"])
def test_a_gpu_says_what_the_processor_says(name: str, real_model: Callable[[str], Path]) -> None:
    path = real_model(name)
    pairs = list(zip(answers(path, cpu=False), answers(path, cpu=True)))
    parted = [next((i for i, (one, other) in enumerate(zip(*pair)) if one != other), 64) for pair in pairs]
    assert parted.count(64) >= 9, f"the answers part after {parted} tokens"
