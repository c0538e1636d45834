"""Real small models, greedy, on a GPU and on the processor: the same tokens, but for a close call."""
from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest

from tests.nearness import on_card
from zonda.model import load_model
from zonda.options import EngineOptions, ModelOptions
from zonda.types import Event, Request, Sampling

PROMPTS = ("The capital of France is", "Once upon a time, in a small village,", "def fibonacci(n):",
           "The three laws of thermodynamics are", "To bake a cake, first", "Q: What is 12 times 12?\nA:",
           "In 1969, people first", "The best way to learn a language is", "Dear Sir or Madam,",
           "Photosynthesis is the process by which")


def answers(path: Path, **options: Any) -> list[list[int]]:
    parts = load_model(ModelOptions(model=str(path), **options), EngineOptions(max_seq_len=256, prefix_cache=False))
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


@pytest.fixture(scope="module")
def cpu_answers() -> Callable[[Path], list[list[int]]]:
    return cache(partial(answers, cpu=True))


@on_card
@pytest.mark.e2e
@pytest.mark.parametrize(("name", "compute", "same"), [
    ("smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "f32", 9), ("smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "auto", 9),
    ("gemma3-270m/gemma-3-270m-q4_k_m.gguf", "f32", 9), ("gemma3-270m/gemma-3-270m-q4_k_m.gguf", "auto", 8)])
def test_a_gpu_says_what_the_processor_says(
        name: str, compute: str, same: int, real_model: Callable[[str], Path],
        cpu_answers: Callable[[Path], list[list[int]]]) -> None:
    path = real_model(name)
    pairs = list(zip(answers(path, compute_dtype=compute), cpu_answers(path)))
    parted = [next((i for i, (one, other) in enumerate(zip(*pair)) if one != other), 64) for pair in pairs]
    assert parted.count(64) >= same, f"the answers part after {parted} tokens"
