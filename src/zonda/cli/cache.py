"""`zonda cache`: list or delete downloaded models."""
from __future__ import annotations

import time

import click


@click.group()
def cache() -> None:
    """List or delete downloaded models."""


@cache.command("list")
@click.option("--cache-dir", "--hf-cache", metavar="DIR", help="folder of the Hugging Face cache")
def list_models(cache_dir: str | None) -> None:
    """List downloaded models, largest first: size, last change, id."""
    from zonda.weights.hub import cache_list

    found = cache_list(cache_dir)
    for each in found:
        day = time.strftime("%Y-%m-%d", time.localtime(each.modified))
        click.echo(f"{size(each.size):>9}  {day}  {each.id}")
    click.echo(f"{len(found)} models, {size(sum(each.size for each in found))}", err=True)


@cache.command("delete")
@click.option("-m", "--model", "--model-id", "model", required=True, metavar="ID", help="its id, as the list has it")
@click.option("--cache-dir", "--hf-cache", metavar="DIR", help="folder of the Hugging Face cache")
def delete(model: str, cache_dir: str | None) -> None:
    """Delete a downloaded model."""
    from zonda.weights.hub import cache_delete

    click.echo(f"freed {size(cache_delete(model, cache_dir))}", err=True)


def size(count: float) -> str:
    """Bytes in the largest unit that keeps a whole number."""
    for unit in ("B", "KB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
