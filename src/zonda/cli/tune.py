"""`zonda tune`: to what a model should be quantized while it is loaded, so that it fits into memory."""
from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zonda.cli.flags import flags, words
from zonda.errors import InvalidRequest, OutOfMemory
from zonda.options import EngineOptions, ModelOptions, TuneOptions, given

if TYPE_CHECKING:
    from zonda.model import Sized

QUALITY = {None: "baseline", "q8_0": "near-lossless", "q6k": "near-lossless", "q5k": "good", "q4k": "acceptable",
           "q3k": "degraded", "q2k": "degraded"}
"""Format -> what it leaves of a model."""
PROFILES = {"quality": ("q8_0", "q6k", "q5k", "q4k", "q3k", "q2k"), "balanced": ("q6k", "q5k", "q4k", "q3k"),
            "fast": ("q4k", "q3k", "q2k")}
"""What is wanted -> formats, best first."""


@click.command()
@flags(ModelOptions, TuneOptions, EngineOptions)
def tune(model: ModelOptions, options: TuneOptions, engine: EngineOptions) -> None:
    """Tell to what a model should be quantized while it is loaded.

    Sizes are estimates from what the files say; no weights are read, nor downloaded of a repository. Exit code 1 if
    nothing fits.
    """
    if model.quant or model.isq:
        raise InvalidRequest("tune looks for what --quant and --isq say", hint="leave them out")
    from zonda.model import forecasts

    sizes = dict(zip(QUALITY, forecasts(model, engine, list(QUALITY))))
    best = next((isq for isq in PROFILES[options.profile] if not isinstance(sizes[isq], OutOfMemory)), None)
    chosen = replace(model, isq=best, token_source="cache"), engine  # a token may be a secret
    found = facts(model, options, sizes, best) | {
        "recommended_isq": best, "recommended_command": best and shlex.join(["zonda", "serve", *words(*chosen)])}
    if options.json:
        click.echo(json.dumps(found))
    else:
        _print(found)
    if best is None:
        raise OutOfMemory("no format of the profile fits into memory",
                          hint="try --profile fast, ask for less by --max-seq-len, or take a smaller model")
    if options.emit_config:
        _write(options.emit_config, *chosen)


def facts(model: ModelOptions, options: TuneOptions, sizes: Mapping[str | None, Sized | OutOfMemory],
          best: str | None) -> dict[str, Any]:
    """What was found of each format; sizes in bytes."""
    one = next((sized for sized in sizes.values() if not isinstance(sized, OutOfMemory)), None)
    return {"model_id": model.model or ";".join(model.file), "profile": options.profile,
            "backend": one and one.device, "total_bytes": one and one.weight_bytes + one.free,
            "candidates": [_candidate(isq, sized) | {"recommended": best is not None and isq == best}
                           for isq, sized in sizes.items()]}


def _candidate(isq: str | None, sized: Sized | OutOfMemory) -> dict[str, Any]:
    told = {"isq": isq, "quality": QUALITY[isq]}
    if isinstance(sized, OutOfMemory):
        return told | {"fit_status": "too-large", "message": sized.message}
    longest = sized.cache.max_len
    return told | {"fit_status": "fits", "estimated_size_bytes": sized.weight_bytes,
                   "memory_percent": round(100 * sized.weight_bytes / (sized.weight_bytes + sized.free), 1),
                   "max_context_tokens": longest, "context_is_model_max": longest == sized.config.context}


def _print(found: dict[str, Any]) -> None:
    from zonda.memory import mb

    click.echo(f"{'isq':<6}{'size':>12}{'memory':>9}{'context':>12}  quality")
    for each in found["candidates"]:
        size, share, longest = "too large", "", ""
        if each["fit_status"] == "fits":
            size, share = mb(each["estimated_size_bytes"]), f"{each['memory_percent']:.1f} %"
            longest = f"{each['max_context_tokens']:,}"
        mark = "<- recommended" if each["recommended"] else ""
        click.echo(f"{each['isq'] or 'none':<6}{size:>12}{share:>9}{longest:>12}  {each['quality']:<15}{mark}".rstrip())
    if found["recommended_command"]:
        click.echo(f"\n{found['recommended_command']}")


def _write(path: str, model: ModelOptions, engine: EngineOptions) -> None:
    """A file for `zonda from-config` that serves the model so."""
    lines = ['command = "serve"']
    for name, group in (("model", model), ("engine", engine)):
        lines += ["", f"[{name}]"]
        lines += [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in given(group).items()]
    try:
        Path(path).expanduser().write_text("\n".join([*lines, ""]), "utf-8")
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be written: {error.strerror}", param="emit_config",
                             hint="name another file") from None
