"""One turn of `zonda run`: what is asked of the model, and how its answer is shown."""
from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zonda.cli.screen import Meter, Screen
from zonda.effort import asked
from zonda.errors import InvalidRequest
from zonda.options import RunOptions
from zonda.payloads import append
from zonda.text.parts import Text, Thought
from zonda.turns import Spoken, Turn
from zonda.types import Grammar, Sampling

if TYPE_CHECKING:
    from zonda.sdk import LLM


def ask(llm: LLM, messages: list[dict[str, Any]], options: RunOptions, sampling: Sampling) -> Iterator[Spoken]:
    """The answer to a conversation; without a chat template, the continuation of its texts."""
    form = grammar(options)
    if options.raw or llm.template is None:
        return _continued(llm, "\n".join(each["content"] for each in messages), sampling, form)
    wanted = asked(options.thinking, options.reasoning_effort, options.thinking_budget)
    return llm.converse(Turn(messages=messages, sampling=sampling, format=form, variables=wanted))


def grammar(options: RunOptions) -> Grammar | None:
    """What answers must look like, by the options."""
    if options.json_schema and options.regex:
        raise InvalidRequest("--json-schema and --regex exclude each other")
    if options.regex:
        return Grammar("regex", options.regex)
    if not options.json_schema:
        return None
    try:
        text = Path(options.json_schema).read_text("utf-8")
        json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"{options.json_schema} cannot be read: {_why(error)}",
                             hint="expected a file with a JSON schema") from None
    return Grammar("json_schema", text)


def _why(error: Exception) -> str:
    if isinstance(error, OSError):
        return str(error.strerror)
    return "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else f"it is not JSON: {error}"


def _continued(llm: LLM, text: str, sampling: Sampling, form: Grammar | None) -> Iterator[Spoken]:
    with closing(llm.generate(text, sampling, grammar=form)) as chunks:  # type: ignore[type-var]
        for chunk in chunks:
            yield Spoken(chunk.index, (Text(chunk.text),), chunk, chunk.finish)


@contextmanager
def recorded(llm: LLM, messages: list[dict[str, Any]], options: RunOptions, meter: Meter) -> Iterator[None]:
    """Add to the log, if there is to be one, what is answered within."""
    try:
        yield
    finally:
        if options.log:
            append(options.log, {"model": llm.name, "messages": messages, **meter.record})


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
