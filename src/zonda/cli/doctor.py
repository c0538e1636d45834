"""`zonda doctor`: look at this machine and say what is missing."""
from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click

from zonda.gpu import choices
from zonda.machine import Check, examine, facts


@click.command()
@click.option("--json", "as_json", is_flag=True, help="one JSON object on standard output")
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Look at this machine and say what is missing. Exit code 1 if a check fails."""
    checks = examine()
    system = facts()
    kernels = [asdict(each) for each in choices()]
    if as_json:
        told = {"checks": [asdict(each) for each in checks], "system": system, "kernels": kernels}
        click.echo(json.dumps(told, indent=2))
    else:
        _print(checks, system)
        for each in kernels:
            click.echo("{status:>13}  {kernels} for {work}: {why}".format(**each))
    ctx.exit(int(any(each.status == "error" for each in checks)))


def _print(checks: list[Check], system: dict[str, Any]) -> None:
    for name, value in system.items():
        shown = ", ".join(f"{key} {each}" for key, each in value.items()) if isinstance(value, dict) else value
        click.echo(f"{name}: {shown}")
    for each in checks:
        click.echo(f"{each.status:>8}  {each.name}: {each.message}")
        if each.hint:
            click.echo(f"          hint: {each.hint}")
