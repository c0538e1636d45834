"""`zonda pull`: download a model and print where it lies."""
from __future__ import annotations

import click

from zonda.options import ModelOptions


@click.command()
@click.argument("model")
@click.option("-f", "--file", multiple=True, metavar="NAME", help="weight file in the repository; repeat it for shards")
@click.option("--quant", metavar="N|NAME", help="pick the file of this bit width (2-8) or name (q4_k_m)")
@click.option("--format", type=click.Choice(["plain", "gguf"]), help="weight format")
@click.option("--revision", metavar="REV", help="branch, tag or commit")
@click.option("--token-source", metavar="SPEC", help="where the hub's token comes from, as for `zonda run`")
@click.option("--cache-dir", "--hf-cache", metavar="DIR", help="folder of the Hugging Face cache")
def pull(model: str, token_source: str | None, **wish: str | None) -> None:
    """Download a model, or what is new of it, and print where its weights lie."""
    from zonda.model import resolve_model

    options = ModelOptions(model=model, token_source=token_source or "cache", **wish)  # type: ignore[arg-type]
    files = resolve_model(options, refresh=True, progress=True)
    for path in files.weights:
        click.echo(path)
