"""The engine on a GPU: single streams, many streams, prefill, start. One JSON object a row.

`python benchmarks/gpu/engine.py [case …]`; cases: 1b, 8b, 8b-fp8, 8b-q4k, start.
"""
from __future__ import annotations

import json
import queue
import statistics
import subprocess
import sys
import time

import numpy as np

COPY = 3.0e12  # bytes a second, measured
STREAMS = (8, 32, 128, 256)
CASES = {"1b": ("llama-3.2-1b", "bf16"), "8b": ("llama-3.1-8b", "bf16"), "8b-fp8": ("llama-3.1-8b", "fp8"),
         "8b-q4k": ("llama-3.1-8b", "q4_k")}


def engine(shape: str, dtype: str, **options):
    """A running engine over random weights."""
    from zonda.model import start_random
    from zonda.options import EngineOptions, ModelOptions

    return start_random(shape, dtype, ModelOptions(**options),
                        EngineOptions(prefix_cache=False, max_seq_len=4096, max_seqs=256))


def drive(running, count: int, prompt: int, generated: int) -> tuple[float, float, float]:
    """Seconds from the first submission to the first token, to all first tokens, and to the end."""
    from zonda.types import Request, Sampling

    inbox: queue.SimpleQueue = queue.SimpleQueue()
    random = np.random.default_rng()
    sampling = Sampling(temperature=0.0, max_tokens=generated, ignore_eos=True)
    prompts = [tuple(random.integers(0, running.vocab, prompt).tolist()) for _ in range(count)]
    began = time.perf_counter()
    for i, tokens in enumerate(prompts):
        running.submit(Request(f"{began}-{i}", tokens, sampling), inbox.put)
    firsts, ended = {}, 0
    while ended < count:
        for event in inbox.get(timeout=300):
            if event.error:
                raise event.error
            firsts.setdefault(event.request, time.perf_counter() - began)
            ended += event.finish is not None
    return min(firsts.values()), max(firsts.values()), time.perf_counter() - began


def say(**row) -> None:
    print(json.dumps({key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()}),
          flush=True)


def weight_bytes(running) -> float:
    """Bytes that a decode step reads of weights."""
    import torch

    return float(torch.cuda.memory_allocated())


def measure(case: str) -> None:
    """All rows of one model."""
    shape, dtype = CASES[case]
    began = time.perf_counter()
    running = engine(shape, dtype)
    say(case=case, what="load", seconds=time.perf_counter() - began)
    drive(running, 1, 128, 16)
    drive(running, 1, 128, 16)
    speeds = []
    for _ in range(3):
        first, _, total = drive(running, 1, 128, 256)
        speeds.append(255 / (total - first))
    say(case=case, what="1 stream", tok_s=statistics.median(speeds))
    drive(running, 1, 2048, 1)
    say(case=case, what="first token of 2048", ms=1e3 * statistics.median(
        drive(running, 1, 2048, 1)[0] for _ in range(5)))
    drive(running, 4, 2048, 1)
    total = min(drive(running, 16, 2048, 1)[2] for _ in range(2))
    say(case=case, what="prefill 16 x 2048", tok_s=16 * 2048 / total)
    for count in STREAMS:
        drive(running, count, 512, 128)
        first, all_first, total = drive(running, count, 512, 128)
        say(case=case, what=f"{count} streams", tok_s=count * 128 / total, all_first_s=all_first,
            decode_ms=1e3 * (total - all_first) / 128)
    running.close()


def main() -> None:
    """Each case in a process of its own."""
    wanted = sys.argv[1:] or list(CASES)
    if len(wanted) == 1:
        measure(wanted[0])
        return
    for case in wanted:
        subprocess.run([sys.executable, __file__, case], check=False)


if __name__ == "__main__":
    main()
