"""From what an answer should look like to a grammar, and from the answer's text to the value it stands for."""
from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from zonda.errors import InvalidRequest
from zonda.types import Grammar

Read = Callable[[str], Any]
_WAYS = ("schema", "grammar", "regex", "choices")
_HINTS = {"schema": "expected a JSON schema, a pydantic model, or a type", "choices": "expected texts"}


@dataclass(frozen=True, slots=True)
class Format:
    """The form of an answer; `read` makes a value of its text."""

    grammar: Grammar | None = None
    read: Read | None = None


def take_format(options: dict[str, Any]) -> Format:
    """Take what is said of the answer's form out of the options: `schema`, `grammar`, `regex` or `choices`."""
    given = {name: options.pop(name) for name in _WAYS if name in options}
    wanted = {name: value for name, value in given.items() if value is not None}
    if len(wanted) > 1:
        raise InvalidRequest(f"{' and '.join(f'`{name}`' for name in wanted)} exclude each other", param=[*wanted][1])
    for name, value in wanted.items():
        try:
            form = _MADE[name](value)
            return Format(form.grammar and replace(form.grammar, option=name), form.read)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InvalidRequest(f"`{name}` is nothing that describes an answer: {error}", param=name,
                                 hint=_HINTS.get(name)) from None
    return Format()


def _by_schema(schema: Any) -> Format:
    """A JSON schema as a mapping or text; a pydantic model or type adapter; or a type that msgspec knows."""
    if isinstance(schema, Mapping | str):
        return Format(Grammar("json_schema", schema if isinstance(schema, str) else json.dumps(schema)), json.loads)
    if hasattr(schema, "model_json_schema"):
        return Format(_closed(schema.model_json_schema()), schema.model_validate_json)
    if hasattr(schema, "json_schema") and hasattr(schema, "validate_json"):
        return Format(_closed(schema.json_schema()), schema.validate_json)
    return Format(_closed(msgspec.json.schema(schema)), msgspec.json.Decoder(schema).decode)


def _closed(schema: dict[str, Any]) -> Grammar:
    """A type's schema, whose objects have only the members that the type reads, unless it speaks of others."""
    for each in (schema, *schema.get("$defs", {}).values()):
        if "properties" in each:
            each.setdefault("additionalProperties", False)
    return Grammar("json_schema", json.dumps(schema))


def _by_grammar(grammar: Any) -> Format:
    if not isinstance(grammar, Grammar):
        raise InvalidRequest(f"`grammar` is a {type(grammar).__name__}, expected a zonda.Grammar", param="grammar")
    return Format(grammar, json.loads if grammar.kind == "json_schema" else None)


def _by_regex(regex: Any) -> Format:
    if not isinstance(regex, str):
        raise InvalidRequest(f"`regex` is a {type(regex).__name__}, expected a text", param="regex")
    return Format(Grammar("regex", regex))


def _by_choices(choices: Any) -> Format:
    if isinstance(choices, str):
        raise InvalidRequest("`choices` is one text, expected several", param="choices")
    return Format(Grammar("choice", json.dumps(list(choices))))


_MADE: dict[str, Callable[[Any], Format]] = {"schema": _by_schema, "grammar": _by_grammar, "regex": _by_regex,
                                             "choices": _by_choices}
