"""`zonda bench`: measure a model's speed."""
from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from zonda.cli.flags import flags
from zonda.cli.measure import Case, Measure, Result, cases, check, in_process, measured
from zonda.cli.progress import Bars
from zonda.errors import InvalidRequest
from zonda.options import BenchOptions, EngineOptions, ModelOptions

if TYPE_CHECKING:
    from zonda.sdk import AsyncLLM


@click.command()
@flags(ModelOptions, BenchOptions, EngineOptions)
def bench(model: ModelOptions, options: BenchOptions, engine: EngineOptions) -> None:
    """Measure a model's speed.

    prefill: a prompt until its first token. decode: tokens after the first, behind a prompt of `depth`. serve: all
    tokens of several streams that start together, each behind such a prompt. Greedy, no end-of-text, no prefix cache;
    median, least and most of the iterations. A table on standard error; with --json, one object a line on standard
    output.
    """
    todo = list(cases(options))
    if not todo:
        raise InvalidRequest("there is nothing to measure", hint="give a --prompt-len, or a --gen-len with a --depth")
    llm = _load(model, options, _settings(engine, options))
    try:
        for case in todo:
            check(case, llm.engine.max_len)
        with _ways(llm, options) as way:
            results = [_one(i, case, options, way(case)) for i, case in enumerate(todo)]
    finally:
        llm.engine.close()
    _table(llm.name, results)


def _settings(engine: EngineOptions, options: BenchOptions) -> EngineOptions:
    streams = max((1, *options.concurrency))
    seqs = max(engine.max_seqs or 0, streams) if streams > 1 else engine.max_seqs
    return dataclasses.replace(engine, prefix_cache=False, max_seqs=seqs,
                               max_queue=max(engine.max_queue, streams))


def _load(model: ModelOptions, options: BenchOptions, engine: EngineOptions) -> AsyncLLM:
    from zonda.sdk import AsyncLLM

    with Bars() as bars:
        if options.random_weights is None:
            return AsyncLLM.from_options(model, engine, progress=bars)
        from zonda.cli.numbers import Numbers
        from zonda.model import start_random

        dtype = model.quant or "q4_0"
        running = start_random(options.random_weights, dtype, model, engine, progress=bars)
    numbers: Any = Numbers(running.vocab)
    return AsyncLLM.from_parts(running, numbers, name=f"{options.random_weights} {dtype}")


@contextmanager
def _ways(llm: AsyncLLM, options: BenchOptions) -> Iterator[Callable[[Case], Measure]]:
    """How each case is measured: through the engine's queue, or streams over HTTP when asked."""
    direct = in_process(llm.engine)
    if not (options.http and options.concurrency):
        yield lambda case: direct
        return
    from zonda.cli.loopback import loopback

    with loopback(llm) as streams:
        yield lambda case: streams if case.case == "serve" else direct


def _one(number: int, case: Case, options: BenchOptions, measure: Measure) -> Result:
    result = measured(number, case, options, measure)
    if options.json:
        click.echo(json.dumps(dataclasses.asdict(result)))
    return result


def _table(name: str, results: Sequence[Result]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=name)
    for column in ("case", "prompt", "generated", "depth", "streams", "tok/s", "least", "most"):
        table.add_column(column, justify="left" if column == "case" else "right")
    for each in results:
        counts = (each.prompt_len, each.gen_len, each.depth, each.concurrency)
        table.add_row(each.case, *map(str, counts), *(f"{speed:,.1f}" for speed in (each.tok_s, each.min, each.max)))
    Console(stderr=True).print(table)
