"""`zonda bench`: measure a model's speed."""
from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from zonda.cli.flags import flags
from zonda.cli.measure import Case, Measure, Result, cases, check, in_process, measured
from zonda.cli.progress import Bars
from zonda.options import BenchOptions, EngineOptions, ModelOptions

if TYPE_CHECKING:
    from zonda.engine.engine import Engine


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
    running = _load(model, options, _settings(engine, options))
    try:
        for case in todo:
            check(case, running.max_len)
        with _ways(running, options) as way:
            results = [_one(i, case, options, way(case)) for i, case in enumerate(todo)]
    finally:
        running.close()
    _table(results)


def _settings(engine: EngineOptions, options: BenchOptions) -> EngineOptions:
    streams = max((1, *options.concurrency))
    return dataclasses.replace(engine, prefix_cache=False, max_seqs=max(engine.max_seqs, streams),
                               max_queue=max(engine.max_queue, streams))


def _load(model: ModelOptions, options: BenchOptions, engine: EngineOptions) -> Engine:
    from zonda.model import start_random

    with Bars() as bars:
        if options.random_weights is None:
            return load_model(model, engine, progress=bars).engine
        return start_random(options.random_weights, model.quant or options.dtype, engine, threads=model.threads,
                            progress=bars)


@contextmanager
def _ways(engine: Engine, options: BenchOptions) -> Iterator[Callable[[Case], Measure]]:
    """How each case is measured: through the engine's queue, or streams over HTTP when asked."""
    direct = in_process(engine)
    if not (options.http and options.concurrency):
        yield lambda case: direct
        return
    from zonda.cli.loopback import loopback

    with loopback(engine) as streams:
        yield lambda case: streams if case.case == "serve" else direct


def _one(number: int, case: Case, options: BenchOptions, measure: Measure) -> Result:
    result = measured(number, case, options, measure)
    if options.json:
        click.echo(json.dumps(dataclasses.asdict(result)))
    return result


def _table(results: Sequence[Result]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for column in ("case", "prompt", "generated", "depth", "streams", "tok/s", "least", "most"):
        table.add_column(column, justify="left" if column == "case" else "right")
    for each in results:
        counts = (each.prompt_len, each.gen_len, each.depth, each.concurrency)
        table.add_row(each.case, *map(str, counts), *(f"{speed:,.1f}" for speed in (each.tok_s, each.min, each.max)))
    Console(stderr=True).print(table)
