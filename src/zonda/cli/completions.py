"""`zonda completions`: a shell's completion script."""
from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from zonda.errors import Unsupported


@click.command()
@click.argument("shell", type=click.Choice(["bash", "elvish", "fish", "powershell", "zsh"]))
def completions(shell: str) -> None:
    """Print a shell's completion script.

    \b
    Bash, zsh:   eval "$(zonda completions bash)"
    Fish:        zonda completions fish | source
    Elvish:      eval (zonda completions elvish | slurp)
    PowerShell:  zonda completions powershell | Out-String | Invoke-Expression
    """
    from zonda.cli.commands import cli

    kind = get_completion_class(shell)
    if kind is None:
        raise Unsupported(f"no completion for {shell}")
    script = kind(cli, {}, "zonda", "_ZONDA_COMPLETE")
    click.echo(script.source_template % script.source_vars())
