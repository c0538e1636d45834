"""`zonda run`: chat with a model, or answer one prompt."""
from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Any

import click

from zonda.cli.ask import ask, grammar, recorded, show
from zonda.cli.flags import flags
from zonda.cli.progress import Bars
from zonda.cli.screen import Meter, Plain
from zonda.effort import asked
from zonda.errors import InvalidRequest
from zonda.options import EngineOptions, ModelOptions, RunOptions, SamplingOptions, given, sampling_of
from zonda.payloads import append
from zonda.types import Sampling

if TYPE_CHECKING:
    from zonda.sdk import LLM

_LIVELY = Sampling(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05)  # where the model brings no generation_config


@click.command()
@flags(ModelOptions, RunOptions, SamplingOptions, EngineOptions)
def run(model: ModelOptions, options: RunOptions, sampling: SamplingOptions, engine: EngineOptions) -> None:
    """Chat with a model, or answer one prompt.

    Give the prompt with `-i`, or on standard input; without either, a conversation begins.

    Examples: zonda run -m smollm2 -i hi; zonda run -f model.gguf
    """
    start(model, options, sampling, engine)


def start(model: ModelOptions, options: RunOptions, sampling: SamplingOptions, engine: EngineOptions) -> None:
    """Load the model, then answer once or hold a conversation."""
    grammar(options)  # so that what is wrong is told of before the model is loaded
    asked(options.thinking, options.reasoning_effort, options.thinking_budget)
    if options.log:
        append(options.log)
    text = _prompt(options)
    with load(model, engine) as llm:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # which stops an answer, and not always the command
        drawn = sampling_of(given(sampling), base=Sampling() if llm.defaults else _LIVELY)
        if text is not None:
            answer_once(llm, text, options, drawn)
            return
        from zonda.cli.repl import converse

        converse(llm, options, drawn)


def load(model: ModelOptions, engine: EngineOptions) -> LLM:
    """The model that the options name, with its progress on standard error."""
    from zonda.sdk import LLM

    with Bars() as bars:
        return LLM.from_options(model, engine, progress=bars)


def _prompt(options: RunOptions) -> str | None:
    """The one prompt, or None for a conversation."""
    if options.input is not None and options.input != "-":
        return options.input
    if options.input is None and sys.stdin.isatty():
        return None
    try:
        text = sys.stdin.buffer.read().decode()  # some locales would let anything pass as text
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"standard input is no text in {error.encoding}: {error.reason} at byte {error.start}",
                             hint="convert it to UTF-8") from None
    if not text.strip():
        raise InvalidRequest("standard input is empty, expected a prompt", hint="give it with `-i TEXT`")
    return text


def answer_once(llm: LLM, text: str, options: RunOptions, sampling: Sampling) -> None:
    """Print one answer on standard output and its speed on standard error."""
    if llm.template is None and not options.raw:
        click.echo("note: the model has no chat template; it continues the text", err=True)
    meter, messages = Meter(), _messages(text, options)
    with recorded(llm, messages, options, meter):
        show(ask(llm, messages, options, sampling), Plain(), meter)
    click.secho(meter.line(), dim=True, err=True)


def _messages(text: str, options: RunOptions) -> list[dict[str, Any]]:
    head = [{"role": "system", "content": options.system}] if options.system else []
    return [*head, {"role": "user", "content": text}]
