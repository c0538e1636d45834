"""The `zonda` command: a table of commands, each imported when it is called, and what becomes of errors."""
from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

import click

from zonda import __version__
from zonda.errors import ZondaError

# name -> what it does; the module and the function bear the same name, with underscores
COMMANDS = {
    "run": "Chat with a model, or answer one prompt.",
    "serve": "Serve a model over HTTP, as OpenAI's API.",
    "bench": "Measure a model's speed.",
    "plan": "Tell what memory a model would take, without loading it.",
    "pull": "Download a model and print where it lies.",
    "cache": "List or delete downloaded models.",
    "from-config": "Run or serve as a TOML file says.",
    "doctor": "Look at this machine and say what is missing.",
    "login": "Store a Hugging Face token.",
    "completions": "Print a shell's completion script.",
}
INTERRUPTED = 130
STUCK = 70
"""The exit code of a server whose engine hangs."""


class Lazy(click.Group):
    """A group that knows its commands by name and imports one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        word = name.replace("-", "_")
        command: click.Command = getattr(import_module(f"zonda.cli.{word}"), word)
        command.help = command.help or COMMANDS[name]
        if not any(each.name == "verbose" for each in command.params):
            command.params.append(_verbose())
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _verbose() -> click.Option:
    return click.Option(["-v", "--verbose"], count=True, expose_value=False, callback=_louder,
                        help="tell more on standard error; twice for tracebacks")


def _louder(ctx: click.Context, param: click.Parameter, value: int) -> None:
    state = ctx.find_root().ensure_object(dict)
    state["verbose"] = state.get("verbose", 0) + value
    if state["verbose"]:
        import logging

        logging.basicConfig(stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
        logging.getLogger("zonda").setLevel(logging.DEBUG)


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
             params=[_verbose()])
@click.version_option(__version__, message="%(version)s")
def cli() -> None:
    """Zonda runs language models: chat with one, serve it, measure it."""


def main() -> None:
    """The console script."""
    leave(call())


def leave(code: int) -> NoReturn:
    """End the process; where a thread hangs, the interpreter's own end might wait for it."""
    if code == STUCK:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def call(args: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code; errors are told on standard error."""
    state: dict[str, Any] = {}
    try:
        code = cli.main(args=args, prog_name="zonda", standalone_mode=False, obj=state)
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if state.get("verbose", 0) > 1:
            raise
        return tell(error)


def tell(error: Exception) -> int:
    """Print an error and its hint, and return the exit code."""
    if isinstance(error, ZondaError):
        message, hint = error.message, error.hint
    elif isinstance(error, OSError) and error.strerror:
        message, hint = f"{error.filename}: {error.strerror}" if error.filename else error.strerror, "`-vv` shows where"
    else:
        message, hint = f"internal: {type(error).__name__}: {error}", "this is a fault of Zonda; `-vv` shows where"
    click.echo(f"error: {message}", err=True)
    if hint:
        click.echo(f"hint: {hint}", err=True)
    return error.exit_code if isinstance(error, ZondaError) else 1
