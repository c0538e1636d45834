"""`zonda run`: chat with a model, or answer one prompt."""
from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zonda.cli.flags import flags
from zonda.cli.progress import Bars
from zonda.cli.screen import Meter, Plain, Screen
from zonda.errors import InvalidRequest
from zonda.options import EngineOptions, ModelOptions, RunOptions, SamplingOptions, given, sampling_of
from zonda.text.parts import Text, Thought
from zonda.turns import Spoken, Turn
from zonda.types import Grammar, Sampling

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
    text = _prompt(options)
    with load(model, engine) as llm:
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
    text = sys.stdin.read()
    if not text.strip():
        raise InvalidRequest("standard input is empty, expected a prompt", hint="give it with `-i TEXT`")
    return text


def answer_once(llm: LLM, text: str, options: RunOptions, sampling: Sampling) -> None:
    """Print one answer on standard output and its speed on standard error."""
    if llm.template is None and not options.raw:
        click.echo("note: the model has no chat template; it continues the text", err=True)
    meter = Meter()
    show(ask(llm, _messages(text, options), options, sampling), Plain(), meter)
    click.echo(meter.line(), err=True)


def _messages(text: str, options: RunOptions) -> list[dict[str, Any]]:
    head = [{"role": "system", "content": options.system}] if options.system else []
    return [*head, {"role": "user", "content": text}]


def ask(llm: LLM, messages: list[dict[str, Any]], options: RunOptions, sampling: Sampling) -> Iterator[Spoken]:
    """The answer to a conversation; without a chat template, the continuation of its texts."""
    form = grammar(options)
    if options.raw or llm.template is None:
        return _continued(llm, "\n".join(each["content"] for each in messages), sampling, form)
    wanted = {} if options.thinking is None else {"enable_thinking": options.thinking}
    return llm.converse(Turn(messages=messages, sampling=sampling, variables=wanted, format=form))


def grammar(options: RunOptions) -> Grammar | None:
    """What answers must look like, by the options."""
    if options.json_schema and options.regex:
        raise InvalidRequest("--json-schema and --regex exclude each other")
    if options.regex:
        return Grammar("regex", options.regex)
    if not options.json_schema:
        return None
    try:
        return Grammar("json_schema", Path(options.json_schema).read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{options.json_schema} cannot be read: {error}", hint="expected a file") from None


def _continued(llm: LLM, text: str, sampling: Sampling, form: Grammar | None) -> Iterator[Spoken]:
    with closing(llm.generate(text, sampling, grammar=form)) as chunks:  # type: ignore[type-var]
        for chunk in chunks:
            yield Spoken(chunk.index, (Text(chunk.text),), chunk, chunk.finish)


def show(answer: Iterator[Spoken], screen: Screen, meter: Meter) -> None:
    """Write an answer to the screen as it comes, its reasoning dimmed."""
    with closing(answer), screen:  # type: ignore[type-var]
        for spoken in answer:
            texts = [part.text for part in spoken.parts if isinstance(part, Text)]
            for part in spoken.parts:
                if isinstance(part, Thought):
                    screen.think(part.text)
            meter.add(spoken.chunk, "".join(texts))
            screen.write("".join(texts))
