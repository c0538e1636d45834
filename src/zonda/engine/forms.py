"""Grammars of all kinds in the form of llguidance, checked and within limits."""
from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from zonda.engine.places import Place, unique_places
from zonda.engine.schema import check, prepared
from zonda.errors import InvalidRequest
from zonda.types import Grammar

MAX_SCHEMA = 1 << 19
"""Characters of a JSON schema, a list of choices or an llguidance grammar."""
MAX_READY = 1 << 21
"""Characters of a schema as the compiler gets it, with formats and unknown keywords written out."""
MAX_TEXT = 1 << 17
"""Characters of a regular expression or a Lark grammar."""
MAX_CHOICES = 10_000
MAX_LINKS = 4000
"""References of a schema, or rules of a grammar: what the compiler may have to follow one inside the other."""
LAYOUT = {"whitespace_flexible": False, "item_separator": ", ?", "key_separator": ": ?", "lenient": False}
"""White space in JSON: a space after commas and colons, or none; more could go on forever."""
_SCHEMA = re.compile(r"%json\s*(?={)")
_DECODER = json.JSONDecoder()
_ASCII = "d"  # what \\d stands for in expressions; words and spaces are those of Unicode
_RULE = re.compile(r"(?m)^[ \t]*[?!]?\w[^\s:\"/]*[^:\n\"/]*:")
Forms = list[dict[str, Any]]
"""Grammars as llguidance has them in its own form."""


def internal_form(grammar: Grammar) -> tuple[str, Place | None]:
    """The grammar in llguidance's own form, and what this cannot say."""
    places = None
    if grammar.kind == "json_schema":
        schema = _schema(grammar.source)
        if "uniqueItems" in grammar.source:
            check(schema)
            places = unique_places(schema)
        forms = [_laid_out(schema, left_out="uniqueItems" if places else "")]
    else:
        forms = _FORMS[grammar.kind](grammar.source)
    return json.dumps({"grammars": forms}), places


def _schema(source: str) -> dict[str, Any]:
    _check_size(source, MAX_SCHEMA)
    schema = _json(source)
    schema = {} if schema is True else schema
    if not isinstance(schema, dict):
        raise InvalidRequest("the schema is not an object", hint="expected a JSON schema", param="grammar")
    return schema


def _laid_out(schema: Mapping[str, Any], left_out: str = "") -> dict[str, Any]:
    """A schema, checked, with our say on white space: a client's own could be without end."""
    ready = prepared(schema, left_out=left_out)
    text = json.dumps(ready)
    _check_size(text, MAX_READY)
    _check_links(text.count('"$ref"'), "references")
    return {"json_schema": {**ready, "x-guidance": LAYOUT}}


def _regex(source: str) -> Forms:
    from llguidance import regex_to_lark

    _check_size(source, MAX_TEXT)
    return [{"lark_grammar": f"start: /{regex_to_lark(source, _ASCII)}/"}]


def _lark(source: str) -> Forms:
    _check_size(source, MAX_TEXT)
    _check_links(len(_RULE.findall(source)), "rules")
    return [{"lark_grammar": _with_schemas(source)}]


def _with_schemas(source: str) -> str:
    """The grammar with its schemas checked and laid out as others are; every line keeps its number."""
    parts, done = [], 0
    for place in _SCHEMA.finditer(source):
        try:
            schema, end = _DECODER.raw_decode(source, place.end())
        except (ValueError, RecursionError):
            continue  # the compiler tells where
        if place.start() >= done and isinstance(schema, dict):
            lines = "\n" * source.count("\n", place.end(), end)
            parts += [source[done:place.end()], "{", lines, json.dumps(_laid_out(schema)["json_schema"])[1:]]
            done = end
    return "".join([*parts, source[done:]])


def _choice(source: str) -> Forms:
    _check_size(source, MAX_SCHEMA)
    texts = _json(source)
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
        raise InvalidRequest("the choices are not a list of texts", hint="expected at least one text, none empty",
                             param="grammar")
    if len(texts) > MAX_CHOICES:
        raise InvalidRequest(f"there are {len(texts)} choices", hint=f"at most {MAX_CHOICES}", param="grammar")
    check(texts)
    return [{"lark_grammar": "start: CHOICE\nCHOICE: " + " | ".join(map(json.dumps, texts))}]


def _own(source: str) -> Forms:
    _check_size(source, MAX_SCHEMA)
    value = _json(source)
    grammars = value.get("grammars") if isinstance(value, dict) else None
    if not isinstance(grammars, list) or not all(isinstance(each, dict) for each in grammars):
        raise InvalidRequest("the llguidance grammar has no list of `grammars`", param="grammar",
                             hint='expected {"grammars": [{"json_schema": ...}, {"name": ..., "lark_grammar": ...}]}')
    return [each | _part(each) for each in grammars]


def _part(each: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(each.get("lark_grammar"), str):
        return _lark(each["lark_grammar"])[0]
    return _laid_out(each["json_schema"]) if isinstance(each.get("json_schema"), dict) else {}


_FORMS: dict[str, Callable[[str], Forms]] = {"regex": _regex, "lark": _lark, "choice": _choice, "llguidance": _own}
KINDS = ("json_schema", *_FORMS)


def _json(source: str) -> Any:
    try:
        return json.loads(source, parse_constant=_no_number)
    except RecursionError:
        raise InvalidRequest("the grammar is nested too deeply", param="grammar") from None
    except ValueError as error:
        raise InvalidRequest(f"the grammar is not valid JSON: {error}", param="grammar") from None


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _check_size(source: str, most: int) -> None:
    if len(source) > most:
        raise InvalidRequest(f"the grammar has {len(source)} characters", hint=f"at most {most}", param="grammar")


def _check_links(count: int, what: str) -> None:
    if count > MAX_LINKS:
        raise InvalidRequest(f"the grammar has {count} {what}", hint=f"at most {MAX_LINKS}", param="grammar")
