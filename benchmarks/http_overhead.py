"""What HTTP costs: the same streams straight to the engine, and as streamed chat completions, in turns.

    python benchmarks/http_overhead.py --model SmolLM2-135M-Instruct.Q4_1.gguf [--streams 64] [--tokens 128] [--json]

The clients are a process of their own, on the same cores. CPU time is that of this process, which is engine and
server; that of the server's thread alone is given beside it. With --step-ms the model is replaced by a stand-in that
sleeps so long a step, as a device would that computes beside the host: what can the server keep up with?
"""
from __future__ import annotations

import argparse
import json
import queue
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import traffic

from zonda.cli.loopback import listening
from zonda.engine.batch import Batch
from zonda.engine.engine import Engine
from zonda.engine.runner import Drawing
from zonda.options import EngineOptions, ModelOptions
from zonda.sdk import AsyncLLM
from zonda.turns import Turn
from zonda.types import Event, Request, Sampling

Messages = list[dict[str, str]]
FIRST_TEXT = 1000  # ids below may be special tokens


@dataclass(frozen=True)
class Round:
    """One way's figures: tokens a second; microseconds of CPU time a token, of the process and of the server."""

    speed: float
    cpu: float
    server: float = 0.0


class StandIn:
    """A device that computes beside the host: its tokens, any that are text, come `seconds` after the last ones."""

    page_size = 32
    max_rows = 8192

    def __init__(self, vocab: int, max_len: int, streams: int, seconds: float) -> None:
        self.vocab, self.max_len, self.pages = vocab, max_len, streams * -(-max_len // self.page_size)
        self._seconds = seconds
        self._busy_until = 0.0
        self._dice = np.random.default_rng(0)

    def launch(self, batch: Batch, drawing: Drawing) -> Callable[[], np.ndarray]:
        """Draw as many tokens as the step has samples; what it returns waits until they are due."""
        tokens = self._dice.integers(FIRST_TEXT, self.vocab, len(batch.sample), np.int32)
        due = self._busy_until = max(self._busy_until, time.perf_counter()) + self._seconds

        def wait() -> np.ndarray:
            time.sleep(max(0.0, due - time.perf_counter()))
            return tokens

        return wait

    def idle(self) -> bool:
        return False

    def run(self, batch: Batch) -> np.ndarray:
        raise NotImplementedError

    def copy_page(self, source: int, target: int) -> None: ...

    def close(self) -> None: ...


def talk(number: int) -> Messages:
    """A short conversation that no other stream has."""
    return [{"role": "user", "content": f"Story {number}: tell me of a river, a bridge and those who cross it."}]


def direct(llm: AsyncLLM, prompts: Sequence[tuple[int, ...]], tokens: int, name: str) -> float:
    """Seconds of the streams by the engine's own queue."""
    began = time.perf_counter()
    inbox: queue.SimpleQueue[Sequence[Event]] = queue.SimpleQueue()
    sampling = Sampling(max_tokens=tokens, temperature=0.0, ignore_eos=True)
    for number, prompt in enumerate(prompts):
        llm.engine.submit(Request(f"{name}-{number}", prompt, sampling), inbox.put)
    running = len(prompts)
    while running:
        running -= sum(event.finish is not None for event in inbox.get())
    return time.perf_counter() - began


def over_http(port: int, talks: Sequence[Messages], tokens: int) -> float:
    """Seconds of the streams by a client that reads them in another process, without that process's start."""
    told = json.dumps({"port": port, "talks": talks, "tokens": tokens})
    client = [sys.executable, __file__, "--client"]
    return float(subprocess.run(client, input=told, text=True, check=True, stdout=subprocess.PIPE).stdout)


def client() -> None:
    """Be that process."""
    told = json.load(sys.stdin)
    bodies = [json.dumps({"messages": each, "max_tokens": told["tokens"], "temperature": 0, "ignore_eos": True,
                          "stream": True, "stream_options": {"include_usage": True}}).encode()
              for each in told["talks"]]
    requests = [traffic.request(told["port"], "/v1/chat/completions", body) for body in bodies]
    began = time.perf_counter()
    answers = traffic.answers(told["port"], requests)
    seconds = time.perf_counter() - began
    counts = list(map(traffic.completion_tokens, answers))
    if counts != [told["tokens"]] * len(counts):
        raise RuntimeError(f"expected {told['tokens']} tokens a stream, got {counts}")
    print(seconds)


def measured(run: Callable[[], float], tokens: int, clock: int) -> Round:
    """A run's figures. `clock` is the server thread's."""
    process, server = time.process_time(), time.clock_gettime(clock)
    seconds = run()
    process, server = time.process_time() - process, time.clock_gettime(clock) - server
    return Round(tokens / seconds, process / tokens * 1e6, server / tokens * 1e6)


def rounds(llm: AsyncLLM, options: argparse.Namespace, port: int, clock: int) -> list[tuple[Round, Round]]:
    """Both ways in turns, after a short round that is not counted; no two conversations are the same."""
    both(llm, options.streams, 8, port, clock, number=0)
    return [both(llm, options.streams, options.tokens, port, clock, number=number + 1)
            for number in range(options.rounds)]


def both(llm: AsyncLLM, streams: int, tokens: int, port: int, clock: int, *, number: int) -> tuple[Round, Round]:
    """The figures of the engine alone and of HTTP; which comes first changes with the number."""
    talks = [talk(number * streams + each) for each in range(streams)]
    prompts = [llm.prepare(Turn(messages=each)).prompt for each in talks]
    ways = (lambda: direct(llm, prompts, tokens, f"round-{number}"), lambda: over_http(port, talks, tokens))
    order = (0, 1) if number % 2 else (1, 0)
    figures = {way: measured(ways[way], streams * tokens, clock) for way in order}
    return figures[0], figures[1]


def summary(figures: Sequence[tuple[Round, Round]]) -> dict[str, float]:
    """Medians over the rounds, and that of their ratios."""
    alone, served = zip(*figures)
    return {"engine_tok_s": statistics.median(each.speed for each in alone),
            "http_tok_s": statistics.median(each.speed for each in served),
            "ratio": statistics.median(by.speed / to.speed for to, by in figures),
            "engine_cpu_us": statistics.median(each.cpu for each in alone),
            "http_cpu_us": statistics.median(each.cpu for each in served),
            "server_thread_us": statistics.median(each.server for each in served)}


def main() -> None:
    if "--client" in sys.argv:
        client()
        return
    options = arguments()
    llm = loaded(options)
    try:
        with listening(llm) as (port, server):
            assert server.ident is not None
            found = summary(rounds(llm, options, port, time.pthread_getcpuclockid(server.ident)))
    finally:
        llm.engine.close()
    report(found, as_json=options.json)


def loaded(options: argparse.Namespace) -> AsyncLLM:
    """The model, or what stands in for it."""
    engine = EngineOptions(max_seqs=options.streams, prefix_cache=False, max_seq_len=options.tokens + 128)
    llm = AsyncLLM.from_options(ModelOptions(model=options.model), engine)
    if not options.step_ms:
        return llm
    llm.engine.close()
    device = StandIn(llm.engine.vocab, llm.engine.max_len, options.streams, options.step_ms / 1000)
    return AsyncLLM.from_parts(Engine(device, engine), llm.tokenizer, llm.template)


def report(found: dict[str, float], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({name: round(value, 4) for name, value in found.items()}))
        return
    print(f"engine alone {found['engine_tok_s']:10,.1f} tok/s   {found['engine_cpu_us']:8.1f} us of CPU time a token")
    print(f"over HTTP    {found['http_tok_s']:10,.1f} tok/s   {found['http_cpu_us']:8.1f} us, of which the server's "
          f"thread {found['server_thread_us']:.1f} us")
    print(f"ratio        {found['ratio']:10.3f}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="file or folder of a model with a chat template")
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--step-ms", type=float, help="put a device that takes so long a step in the model's place")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
