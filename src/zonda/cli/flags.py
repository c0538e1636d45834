"""Command-line flags made from the option dataclasses."""
from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import wraps
from typing import Any

import click
from click.shell_completion import CompletionItem

from zonda.cli import not_offered
from zonda.errors import InvalidRequest
from zonda.options import ModelOptions, Option, make, options_of

_FILES = {"PATH": "file", "FILE": "file", "DIR": "dir"}
"""Words of what options take, and how a shell completes that."""


def flags(*groups: type, only: Collection[str] = ()) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command the flags of these groups; it is called with one instance of each, in order.

    `only` names the options that have flags, where not all have. A command that loads a model may name its kind.
    """
    options = {group: [each for each in options_of(group) if not only or each.name in only] for group in groups}

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(command)
        def call(**values: Any) -> Any:
            made = [_taken(group, options[group], values) for group in groups]
            return command(*made, **values)

        for group in reversed(groups):
            for each in reversed(options[group]):
                call = _flag(group, each)(call)
        if ModelOptions in groups and not only:
            call = click.argument("kind", required=False, expose_value=False, type=Kind())(call)
        return call

    return decorate


def words(*groups: Any) -> list[str]:
    """The flags that would make these instances."""
    found: list[str] = []
    for group in groups:
        for each in options_of(type(group)):
            flag, value = each.flags[0], getattr(group, each.name)
            if value == each.default:
                continue
            if each.type is bool:
                found.append(flag if value else each.negations[0])
            elif each.many and each.type is int:
                found += [flag, ",".join(map(str, value))]
            else:
                found += [part for one in (value if each.many else (value,)) for part in (flag, str(one))]
    return found


def _taken(group: type, options: Sequence[Option], values: dict[str, Any]) -> Any:
    given = {each.name: values.pop(_dest(group, each)) for each in options}
    try:
        return make(group, {name: value for name, value in given.items() if value not in (None, ())})
    except InvalidRequest as error:
        raise click.UsageError(error.message) from None


def _dest(group: type, each: Option) -> str:
    return f"{group.__name__.lower()}_{each.name}"


def _flag(group: type, each: Option) -> Callable[[Any], Any]:
    names = each.flags
    settings: dict[str, Any] = {"help": _help(each), "default": None, "metavar": each.metavar}
    if each.type is bool:
        if each.default is not False:
            names = (*names, *(f" /{name}" for name in each.negations))
        settings |= {"is_flag": True, "metavar": None}
    elif each.many:
        settings |= {"type": Commas()} if each.type is int else {"multiple": True}
    else:
        settings["type"] = click.Choice(each.choices) if each.choices else each.type
    if each.metavar and (kind := next((kind for word, kind in _FILES.items() if word in each.metavar), None)):
        settings["shell_complete"] = lambda ctx, param, start: [CompletionItem(start, type=kind)]
    return click.option(*names, _dest(group, each), **settings)


def _help(each: Option) -> str:
    text = f"{each.help} [{each.env}]" if each.env else each.help
    if each.default in (None, (), False, 0.0) or each.type is bool:
        return text
    shown = ",".join(map(str, each.default)) if isinstance(each.default, tuple) else each.default
    return f"{text} [{shown}]"


class Commas(click.ParamType):
    """Whole numbers with commas between them."""

    name = "N,N..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Sequence[int]:
        if not isinstance(value, str):
            return tuple(value)
        try:
            return tuple(int(part) for part in value.split(",") if part.strip())
        except ValueError:
            self.fail(f"{value!r} is not a list of whole numbers", param, ctx)


class Kind(click.ParamType):
    """The word for a kind of model, which may stand with the options; there is one kind, and it need not be named."""

    name = "auto|text"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return f"[{self.name}]"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value in not_offered.KINDS:
            raise click.UsageError(f"{value} is not offered: {not_offered.KINDS[value]}.", ctx)
        if value not in self.name.split("|"):
            hint = "Switches take no value." if value in ("true", "false") else f"Is it a model? Then -m {value}."
            raise click.UsageError(f"{value!r:.60} is neither an option nor a kind of model, auto or text. {hint}", ctx)
        return value
