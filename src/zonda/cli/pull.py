"""`zonda pull`: download a model and print where it lies."""
from __future__ import annotations

from dataclasses import replace

import click

from zonda.cli.flags import flags
from zonda.options import ModelOptions


@click.command()
@click.argument("model")
@flags(ModelOptions, only=("file", "format", "quant", "revision", "cache_dir", "token_source"))
def pull(options: ModelOptions, model: str) -> None:
    """Download a model, or what is new of it, and print where its weights lie."""
    from zonda.model import resolve_model

    for path in resolve_model(replace(options, model=model), refresh=True, progress=True).weights:
        click.echo(path)
