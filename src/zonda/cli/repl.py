"""The conversation at a terminal: a prompt with history and several lines, answers as markdown."""
from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from zonda.cli.ask import ask, recorded, show
from zonda.cli.chat import COMMANDS, Chat
from zonda.cli.screen import Meter, Plain, Screen
from zonda.environment import config_folder
from zonda.errors import ZondaError
from zonda.options import RunOptions
from zonda.terminal import unechoed
from zonda.types import Sampling

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession

    from zonda.sdk import LLM


def converse(llm: LLM, options: RunOptions, sampling: Sampling) -> None:
    """Ask, answer, and again until the user leaves."""
    chat = Chat(sampling, system=options.system)
    session = _session()
    click.echo(f"{llm.name}, context of {llm.engine.max_len} tokens\n/help lists commands, Ctrl-D leaves", err=True)
    with unechoed():
        while not chat.left and (line := _line(session)) is not None:
            if line.startswith("/"):
                click.echo(chat.command(line), err=True)
            elif line:
                _answer(llm, chat, line.strip(), options)


def _line(session: PromptSession[str]) -> str | None:
    """What the user enters, None to leave."""
    try:
        return session.prompt("> ", prompt_continuation="  ").rstrip()
    except KeyboardInterrupt:
        if not session.default_buffer.text:
            click.echo("Ctrl-D leaves", err=True)
        return ""
    except EOFError:
        return None


def _answer(llm: LLM, chat: Chat, text: str, options: RunOptions) -> None:
    chat.ask(text)
    meter = Meter()
    told = ""
    click.echo(err=True)
    try:
        with recorded(llm, chat.messages, options, meter):
            show(ask(llm, chat.messages, options, chat.sampling), _screen(), meter)
        told = meter.line()
    except KeyboardInterrupt:
        told = "stopped"
    except ZondaError as error:
        click.echo(f"error: {error}", err=True)
    finally:
        click.secho(f"\n{told}\n" if told else "", dim=True, err=True)
        chat.answered(meter.text)


def _screen() -> Screen:
    if not sys.stdout.isatty():
        return Plain()
    from rich.console import Console

    from zonda.cli.markdown import Markdown

    return Markdown(Console())


def _session() -> PromptSession[str]:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import WordCompleter
    from prompt_toolkit.history import FileHistory, History, InMemoryHistory
    from prompt_toolkit.output import create_output

    history: History = InMemoryHistory()
    try:
        config_folder().mkdir(parents=True, exist_ok=True)
        history = FileHistory(str(config_folder() / "history.txt"))
    except OSError as error:
        click.echo(f"note: no history: {error}", err=True)
    commands = WordCompleter([f"/{name}" for name in COMMANDS], sentence=True)
    output = create_output(sys.stdout if sys.stdout.isatty() else sys.stderr)  # a file gets the answers alone
    return PromptSession(history=history, multiline=True, key_bindings=_keys(), completer=commands,
                         complete_while_typing=False, output=output)


def _keys():  # type: ignore[no-untyped-def]
    """Enter sends, unless the line ends in a backslash; Alt-Enter begins another line."""
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    keys = KeyBindings()

    @keys.add("enter")
    def send(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.text_before_cursor.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def another_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys
