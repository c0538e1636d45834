"""`zonda plan`: what memory a model would take, without loading it."""
from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from zonda.cli.flags import flags
from zonda.options import EngineOptions, ModelOptions

if TYPE_CHECKING:
    from zonda.model import Sized


@click.command()
@flags(ModelOptions, EngineOptions)
@click.option("--json", "as_json", is_flag=True, help="one JSON object on standard output, sizes in bytes")
def plan(model: ModelOptions, engine: EngineOptions, as_json: bool) -> None:
    """Tell what memory a model would take, without loading it.

    Takes the options of `serve` that matter to memory. Reads no weights, and downloads none of a repository: of its
    GGUF files only the beginnings. Exit code 1 if the model does not fit, with what would have to change.
    """
    from zonda.model import forecast

    found = facts(forecast(model, engine))
    if as_json:
        click.echo(json.dumps(found))
        return
    for name, value, remark in rows(found):
        click.echo(f"{name:<14}{value:>12}   {remark}".rstrip())


def facts(sized: Sized) -> dict[str, Any]:
    """The plan in numbers; sizes in bytes."""
    position = sized.cache.position_bytes
    return {"device": sized.device, "weights": sized.weight_bytes, "free": sized.free, "cache": sized.cache.kv_bytes,
            "position": position, "positions": sized.cache.kv_bytes // position, "context": sized.config.context,
            "max_seq_len": sized.cache.max_len, "max_seqs": sized.options.max_seqs}


def rows(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The table: what, how much, and what that means."""
    from zonda.memory import mb

    context, most = found["context"], found["max_seq_len"]
    cut = "the model's own context" if most == context else f"of the model's context of {context:,}"
    whole = min(found["positions"] // most, found["max_seqs"])
    return [("weights", mb(found["weights"]), f"on {found['device']}"),
            ("free", mb(found["free"]), "beside the weights"),
            ("cache", mb(found["cache"]), f"of that, for {found['positions']:,} positions of {kb(found['position'])}"),
            ("max_seq_len", f"{most:,}", f"positions of a sequence, {cut}"),
            ("max_seqs", f"{found['max_seqs']:,}", f"sequences at a time, {whole:,} of them of that length")]


def kb(size: int) -> str:
    return f"{size / 1024:.1f} KB"
