"""Measures OpenVINO GenAI inside its own environment: prints one JSON object, or the text of one answer."""
from __future__ import annotations

import argparse
import json
import statistics
import time

import numpy as np
import openvino
import openvino_genai


def greedy(length: int) -> openvino_genai.GenerationConfig:
    """Exactly `length` tokens, the likeliest ones."""
    config = openvino_genai.GenerationConfig()
    config.max_new_tokens, config.ignore_eos, config.do_sample = length, True, False
    return config


def tensor(ids: list[int]) -> openvino.Tensor:
    """Token ids as a batch of one."""
    return openvino.Tensor(np.array([ids], np.int64))


def bench(pipeline: openvino_genai.LLMPipeline, cases: list[dict], iterations: int) -> list[float]:
    """Median tokens/s of every case, after one run that is not counted."""
    return [statistics.median([speed(pipeline, case, i) for i in range(iterations + 1)][1:]) for case in cases]


def speed(pipeline: openvino_genai.LLMPipeline, case: dict, iteration: int) -> float:
    """Prompt tokens a second up to the first generated token, or generated tokens a second after it."""
    prompt = case["prompts"][iteration]
    inputs = openvino_genai.TokenizedInputs(tensor(prompt), tensor([1] * len(prompt)))
    metrics = pipeline.generate(inputs, greedy(case["gen_len"] or 1)).perf_metrics
    return 1000 / metrics.get_tpot().mean if case["gen_len"] else 1000 * len(prompt) / metrics.get_ttft().mean


def streams(model: str, prompts: list[list[int]], length: int) -> float:
    """Generated tokens a second over all prompts at once, after one run that is not counted."""
    scheduler = openvino_genai.SchedulerConfig()
    scheduler.enable_prefix_caching, scheduler.max_num_seqs, scheduler.cache_size = False, 32, 2
    pipeline = openvino_genai.ContinuousBatchingPipeline(model, scheduler, "CPU")
    seconds = 0.0
    for _ in range(2):
        start = time.perf_counter()
        results = pipeline.generate([tensor(prompt) for prompt in prompts], [greedy(length)] * len(prompts))
        seconds = time.perf_counter() - start
    return sum(len(result.m_generation_ids[0]) for result in results) / seconds


def answer(model: str, prompt: str, length: int) -> None:
    """Prints the continuation as it comes."""
    def show(text: str) -> None:
        print(text, end="", flush=True)

    openvino_genai.LLMPipeline(model, "CPU").generate(prompt, greedy(length), show)


def main() -> None:
    """Runs the job that the argument describes in JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("job", type=json.loads)
    job = parser.parse_args().job
    if job["kind"] == "answer":
        answer(job["model"], job["prompt"], job["length"])
    elif job["kind"] == "streams":
        print(json.dumps(streams(job["model"], job["prompts"], job["length"])))
    elif job["kind"] == "version":
        print(json.dumps(openvino_genai.get_version()))
    else:
        print(json.dumps(bench(openvino_genai.LLMPipeline(job["model"], "CPU"), job["cases"], job["iterations"])))


if __name__ == "__main__":
    main()
