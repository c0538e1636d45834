"""Real small models on a GPU and on the processor: the same tokens, but for a close call, and texts as likely."""
from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakerunner import Collector, request

from tests.nearness import on_card
from zonda.engine.engine import Engine
from zonda.engine.torch_runner import TorchRunner
from zonda.kernels.torch.ops import TorchOps
from zonda.model import load_model, resolve_model
from zonda.models import build
from zonda.options import EngineOptions, ModelOptions
from zonda.types import Event, Request, Sampling
from zonda.weights.hub import open_source

PROMPTS = ("The capital of France is", "Once upon a time, in a small village,", "def fibonacci(n):",
           "The three laws of thermodynamics are", "To bake a cake, first", "Q: What is 12 times 12?\nA:",
           "In 1969, people first", "The best way to learn a language is", "Dear Sir or Madam,",
           "Photosynthesis is the process by which")

TEXT = (
    "Photosynthesis is the process by which green plants use sunlight to make their own food. It takes place in the "
    "leaves, where water from the roots and carbon dioxide from the air become sugar and oxygen. In 1969, people first "
    "walked on the Moon; the journey took three days, and millions watched it on television. def fibonacci(n): return "
    "n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2). The capital of France is Paris, which lies on the river "
    "Seine. To bake a cake, first mix flour, sugar and butter, then add two eggs and a little milk.")
SMOLLM, GEMMA = "smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "gemma3-270m/gemma-3-270m-q4_k_m.gguf"
PLAIN = EngineOptions(max_seq_len=256, prefix_cache=False)


def answers(path: Path, **options: Any) -> list[list[int]]:
    parts = load_model(ModelOptions(model=str(path), **options), PLAIN)
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
    (SMOLLM, "f32", 9), (SMOLLM, "auto", 9), (GEMMA, "f32", 9), (GEMMA, "auto", 8)])
def test_a_gpu_says_what_the_processor_says(
        name: str, compute: str, same: int, real_model: Callable[[str], Path],
        cpu_answers: Callable[[Path], list[list[int]]], record_property: Callable[[str, object], None]) -> None:
    path = real_model(name)
    pairs = list(zip(answers(path, compute_dtype=compute), cpu_answers(path)))
    parted = [next((i for i, (one, other) in enumerate(zip(*pair)) if one != other), 64) for pair in pairs]
    record_property("told", f"{path.stem} {compute}: {parted.count(64)} of {len(pairs)} answers are the processor's")
    assert parted.count(64) >= same, f"the answers part after {parted} tokens"


def likeliness(engine: Engine, tokens: Sequence[int]) -> np.ndarray:
    """The log-probability of each token of a text but the first."""
    collector = Collector()
    engine.submit(request("text", tokens, max_tokens=1, prompt_logprobs=True, logprobs=0), collector)
    collector.wait("text", timeout=300)
    engine.close()
    told = next(event.prompt_logprobs for event in collector.events["text"] if event.prompt_logprobs)
    return np.array([each.logprob for each in told[1:] if each])


@pytest.fixture(scope="module")
def on_processor() -> Callable[[Path], tuple[list[int], np.ndarray]]:
    """The tokens of the text, and their log-probabilities on the processor."""
    @cache
    def found(path: Path) -> tuple[list[int], np.ndarray]:
        parts = load_model(ModelOptions(model=str(path), cpu=True), PLAIN)
        tokens = parts.tokenizer.encode(TEXT)
        return tokens, likeliness(parts.engine, tokens)

    return found


def compare(found: np.ndarray, wanted: np.ndarray, limit: float) -> None:
    """Each token about as likely, and the text no less."""
    assert len(found) == len(wanted) > 100
    assert np.abs(found - wanted).mean() < limit and found.mean() > wanted.mean() - 0.04


@on_card
@pytest.mark.e2e
@pytest.mark.parametrize(("name", "options", "limit"), [
    (name, options, limit) for name in (SMOLLM, GEMMA) for options, limit in (
        ({"compute_dtype": "f32"}, 0.03), ({}, 0.03), ({"compute_dtype": "bf16"}, 0.06), ({"kv_dtype": "fp8"}, 0.12))])
def test_a_gpu_finds_a_text_as_likely_as_the_processor(
        name: str, options: dict[str, str], limit: float, real_model: Callable[[str], Path],
        on_processor: Callable[[Path], tuple[list[int], np.ndarray]]) -> None:
    path = real_model(name)
    tokens, wanted = on_processor(path)
    parts = load_model(ModelOptions(model=str(path), device="cuda:0", **options), PLAIN)  # type: ignore[arg-type]
    compare(likeliness(parts.engine, tokens), wanted, limit)


@pytest.mark.e2e
@pytest.mark.parametrize(("cache", "limit"), [(None, 0.03), (torch.float8_e4m3fn, 0.12)])
def test_plain_torch_with_a_cache_of_any_type_finds_a_text_as_likely_as_the_processor(
        cache: torch.dtype | None, limit: float, real_model: Callable[[str], Path],
        on_processor: Callable[[Path], tuple[list[int], np.ndarray]]) -> None:
    path = real_model(SMOLLM)
    tokens, wanted = on_processor(path)
    source = open_source(resolve_model(ModelOptions(model=str(path))))
    ops = TorchOps(torch.device("cpu"), torch.float16, cache_dtype=cache)
    runner = TorchRunner(build(source, max_len=256)[1], source, ops, max_len=256, kv_bytes=1 << 26, max_rows=256,
                         max_seqs=2)
    compare(likeliness(Engine(runner, PLAIN), tokens), wanted, limit)
