"""JSON schemas as the grammar compiler should see them: not too large, and formats by patterns that all agree on."""
from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

from zonda.engine.apart import Apart
from zonda.engine.formats import spelled
from zonda.engine.rewritten import MOVED, rewritten
from zonda.errors import InvalidRequest

MAX_LITERAL = 1 << 13
"""Characters of one text that an answer may have to repeat: each step looks at as many."""
MAX_DEPTH = 120
MAX_NAMES = 1000
"""Properties of one object: the compiler's time grows with their square."""
MAX_PARTS = 250_000
"""Keywords, schemas and values of a schema, with those that are written more than once."""
MAX_STEP = 10_000
"""Largest `multipleOf`, without the zeros around it: a step's remainders are all states."""
_VALUES = frozenset({"const", "default", "enum", "example", "examples"})
MAPS = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependencies", "dependentSchemas"})
"""Keywords whose values have names of the schema's own as keys."""
_WORDS = frozenset({"$comment", "description", "title"})


def prepared(schema: Mapping[str, Any], *, left_out: str = "") -> dict[str, Any]:
    """The schema with its formats spelled out, and without a keyword; or InvalidRequest if it is too deep or has too
    long a text."""
    check(schema)
    ready = _Spelling(None if MOVED.search(json.dumps(schema)) else Apart(schema), left_out).of(schema)
    if "json-schema.org" not in str(ready.get("$schema", "json-schema.org")):
        del ready["$schema"]  # a dialect of the client's own
    return cast(dict[str, Any], ready)


def check(value: Any) -> None:
    """Refuse what is nested too deeply, and long texts but for those that only explain."""
    level: Sequence[Any] = [value]
    for _ in range(MAX_DEPTH):
        for each in level:
            _check_one(each)
        level = [inner for each in level for inner in _inside(each)]
        if not level:
            return
    raise InvalidRequest("the schema is nested too deeply", hint=f"at most {MAX_DEPTH} levels", param="grammar")


def _check_one(value: Any) -> None:
    if isinstance(value, str) and len(value) > MAX_LITERAL:
        raise InvalidRequest(f"the grammar has a text of {len(value)} characters", hint=f"at most {MAX_LITERAL}",
                             param="grammar")
    names = value.get("properties") if isinstance(value, dict) else None
    if isinstance(names, dict) and len(names) > MAX_NAMES:
        raise InvalidRequest(f"the schema has an object of {len(names)} properties", hint=f"at most {MAX_NAMES}",
                             param="grammar")
    step = value.get("multipleOf") if isinstance(value, dict) else None
    if isinstance(step, int | float) and not isinstance(step, bool) and not 0 <= _digits(step) <= MAX_STEP:
        raise InvalidRequest(f"`multipleOf` is {step}", hint=f"at most {MAX_STEP}, and its zeros", param="grammar")


def _digits(number: float) -> int:
    """The digits of a number without the zeros around them; -1 where it has none."""
    return -1 if abs(number) == math.inf else int("0" + repr(number).partition("e")[0].replace(".", "").strip("-0"))


def _inside(value: Any) -> Sequence[Any]:
    if isinstance(value, dict):
        return [*value, *(inner for name, inner in value.items() if name not in _WORDS)]
    return value if isinstance(value, list) else ()


class _Spelling:
    """Writes out one document's schemas."""

    def __init__(self, apart: Apart | None, left_out: str) -> None:
        self._apart, self._left_out, self._left = apart, left_out, MAX_PARTS

    def of(self, schema: Any) -> Any:
        """A schema, or several, with all within."""
        self._count(schema)
        if isinstance(schema, list):
            return [self.of(each) for each in schema]
        if not isinstance(schema, dict):
            return schema
        schema = rewritten(schema, self._apart) if self._apart else schema
        return spelled({name: self._value(inner) if name in _VALUES else self._named(inner) if name in MAPS
                        else self.of(inner) for name, inner in schema.items() if name != self._left_out})

    def _count(self, part: Any) -> None:
        self._left -= len(part) if isinstance(part, dict | list) else 1
        if self._left < 0:
            raise InvalidRequest("the schema is too large", hint=f"at most {MAX_PARTS} parts, repeated ones included",
                                 param="grammar")

    def _value(self, value: Any) -> Any:
        left = [value]
        while left:
            self._count(each := left.pop())
            left += [inner for inner in _inside(each) if isinstance(inner, dict | list)]
        return value

    def _named(self, schemas: Any) -> Any:
        """Schemas by names, which are no keywords."""
        return {name: self.of(each) for name, each in schemas.items()} if isinstance(schemas, dict) else schemas
