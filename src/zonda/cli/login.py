"""`zonda login`: store a Hugging Face token."""
from __future__ import annotations

import os
import sys

import click

from zonda.environment import token_file
from zonda.errors import InvalidRequest


@click.command()
@click.option("--token", metavar="hf_...", help="the token; asked for unless given here or on standard input")
def login(token: str | None) -> None:
    """Store a Hugging Face token, for repositories that need one."""
    token = (token or _asked()).strip()
    if not token.startswith("hf_"):
        raise InvalidRequest("the token does not begin with `hf_`", hint="copy it from your Hugging Face settings")
    path = token_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(token)
    click.echo(f"stored in {path}", err=True)


def _asked() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline()
    answer: str = click.prompt("Hugging Face token", hide_input=True, err=True)
    return answer
