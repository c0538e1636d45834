"""The commands of `zonda`: a table, of which each is imported when it is called."""
from __future__ import annotations

from importlib import import_module

import click

from zonda import __version__
from zonda.cli import elvish as elvish  # makes its completion known
from zonda.cli import not_offered
from zonda.terminal import lines

# name -> what it does; the module and the function bear the same name, with underscores
COMMANDS = {
    "run": "Chat with a model, or answer one prompt.",
    "serve": "Serve a model over HTTP, as OpenAI's API.",
    "bench": "Measure a model's speed.",
    "plan": "Tell what memory a model would take, without loading it.",
    "tune": "Tell to what a model should be quantized while it is loaded.",
    "pull": "Download a model and print where it lies.",
    "cache": "List or delete downloaded models.",
    "from-config": "Run or serve as a TOML file says.",
    "doctor": "Look at this machine and say what is missing.",
    "login": "Store a Hugging Face token.",
    "completions": "Print a shell's completion script.",
}


class Lazy(click.Group):
    """A group that knows its commands by name and imports one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name in not_offered.COMMANDS:
            raise click.UsageError(f"{name} is not offered: {not_offered.COMMANDS[name]}.", ctx)
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

        logging.basicConfig(handlers=[lines()], format="%(levelname)s %(name)s: %(message)s")
        logging.getLogger("zonda").setLevel(logging.DEBUG)


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
             params=[_verbose()])
@click.version_option(__version__, message="%(version)s")
def cli() -> None:
    """Zonda runs language models: chat with one, serve it, measure it."""
