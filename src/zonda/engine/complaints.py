"""What is wrong with a grammar, in a sentence that says where."""
from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

from zonda.engine.apart import Apart
from zonda.engine.rewritten import optional, rewritten
from zonda.engine.schema import MAPS
from zonda.errors import InvalidRequest
from zonda.types import Grammar

MAX_SAID = 300
"""Characters that are kept of what the compiler says."""
_KEYWORDS = re.compile(r"Unimplemented keys: (\[.*?\])")
_COUNTED = "min/maxProperties only supported"
_OVERLAP = "oneOf constraints are not supported"
_PLACE = re.compile(r"(?:at )?(\d+)\((\d+)\): (.*)", re.DOTALL)
_REASON = re.compile(r"^error: (.*)$", re.MULTILINE)
_CARET = re.compile(r"^    ( *)\^", re.MULTILINE)
_MISSING = re.compile("(?:Resource|Anchor|Pointer) '([^']*)'")
_NAMES = {"json_schema": "schema", "regex": "regular expression", "choice": "list of choices"}


def complaint(grammar: Grammar, said: str) -> InvalidRequest:
    """The error for a grammar that the compiler has refused with these words."""
    keywords = _KEYWORDS.search(said)
    if keywords:
        return _unknown_keywords(grammar, json.loads(keywords[1]))
    name = _NAMES.get(grammar.kind, "grammar")
    what, _, _ = said.partition("\n<state>")
    if _OVERLAP in what:
        return InvalidRequest("the schema has a `oneOf` whose alternatives are not told apart", param="grammar",
                              hint="write `anyOf`, or give each a type, or a constant of one property, of its own")
    if _COUNTED in what:
        return _counted(_schema(grammar))
    if "NoExtension" in what:
        return InvalidRequest(f"the {name} allows no text at all", param="grammar")
    if missing := _MISSING.match(what):
        return InvalidRequest(f"the schema has a `$ref` to what is not in it: {missing[1]}"[:MAX_SAID], param="grammar")
    return InvalidRequest(f"the {name} cannot be compiled: {_reason(grammar, what)}"[:MAX_SAID], param="grammar")


def followed(said: str) -> InvalidRequest:
    """The error for a grammar that has failed while an answer was written."""
    what = said.partition("\n")[0].partition("<")[0].strip()
    return InvalidRequest(f"the grammar could not be followed to its end: {what}"[:MAX_SAID],
                          hint="make the grammar or the schema simpler")


def _reason(grammar: Grammar, said: str) -> str:
    if said.startswith("panic"):
        return "it is too large"
    reason, caret = _REASON.search(said), _CARET.search(said)
    if reason:  # of a regular expression, with a picture of it
        place = f" at character {len(caret[1]) + 1}" if caret and grammar.kind == "regex" else ""
        return f"{reason[1]}{place}"
    where = _PLACE.match(said)
    text = (where[3] if where else said).partition("\n")[0]
    return f"line {where[1]}, column {where[2]}: {text}" if where and grammar.kind == "lark" else text


def _unknown_keywords(grammar: Grammar, keywords: list[str]) -> InvalidRequest:
    """Names each keyword, with where the schema first has it."""
    found = dict.fromkeys(keywords, "")
    for place, keyword, _ in _keywords(_schema(grammar)):
        if found.get(keyword) == "":
            found[keyword] = f" at `{place}`"
    named = ", ".join(f"`{keyword}`{place}" for keyword, place in found.items())
    return InvalidRequest(f"the schema uses what is not supported: {named}"[:MAX_SAID], param="grammar",
                          hint="remove it, and check the answer for it")


def _counted(schema: Any) -> InvalidRequest:
    """Names the first count of members that stands beside optional ones and cannot be written out."""
    found, apart = [each for each in _keywords(schema) if each[1] in ("minProperties", "maxProperties")], Apart(schema)
    beside = (each for each in found if optional(each[2]) and each[1] in rewritten(each[2], apart))
    named = next((f"`{word}` at `{place}`" for place, word, _ in (*islice(beside, 1), *found)), "a count of members")
    return InvalidRequest(f"the schema has {named} beside members that may be left out"[:MAX_SAID], param="grammar",
                          hint="require all that `properties` names, or remove the count, and check the answer for it")


def _schema(grammar: Grammar) -> Any:
    """What may have keywords in a grammar; None where it is not JSON."""
    return json.loads(grammar.source) if grammar.kind in {"json_schema", "llguidance"} else None


def _keywords(schema: Any) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The keywords of a schema, where they are, and the schema that each stands in, the outer ones first."""
    level = [("$", schema, False)]
    while level:
        below = []
        for place, value, names in level:
            for key, inner in value.items() if isinstance(value, dict) else ():
                if not names:
                    yield f"{place}.{key}", key, value
                below.append((f"{place}.{key}", inner, not names and key in MAPS))
            for number, inner in enumerate(value if isinstance(value, list) else ()):
                below.append((f"{place}[{number}]", inner, False))
        level = below
