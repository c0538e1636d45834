"""JSON schemas as the grammar compiler should see them: not too large, and formats by patterns that all agree on."""
from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from zonda.engine.rewritten import MOVED, rewritten
from zonda.errors import InvalidRequest

MAX_LITERAL = 1 << 13
"""Characters of one text that an answer may have to repeat: each step looks at as many."""
MAX_DEPTH = 120
MAX_NAMES = 1000
"""Properties of one object: the compiler's time grows with their square."""
MAX_STEP = 10_000
"""Largest `multipleOf`, without the zeros around it: a step's remainders are all states."""
_DATE = (r"(?:[1-9][0-9]{3}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
         r"|02-(?:0[1-9]|1[0-9]|2[0-8]))"
         r"|(?:[1-9][0-9](?:0[48]|[2468][048]|[13579][26])|(?:[2468][048]|[13579][26])00)-02-29)")
_CLOCK = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?"
_TIME = rf"{_CLOCK}(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
_LABEL = r"[A-Za-z0-9]{1,20}(?:-[A-Za-z0-9]{1,20}){0,2}"
_HOST = rf"(?:{_LABEL}\.){{0,4}}[A-Za-z]{{2,12}}"
_EMAIL = rf"[A-Za-z0-9_]{{1,20}}(?:[.+-][A-Za-z0-9_]{{1,20}}){{0,2}}@(?:{_LABEL}\.){{1,4}}[A-Za-z]{{2,12}}"
_SEGMENTS = r"(?:/[A-Za-z0-9._~!$&'()*+,;=@-]{1,64}){0,16}/?"
_QUERY = r"(?:\?[A-Za-z0-9._~=&+-]{0,128})?(?:#[A-Za-z0-9._~-]{0,64})?"
_URI = (rf"(?:[a-z][a-z0-9]{{1,15}}://{_HOST}(?::[1-9][0-9]{{0,3}})?{_SEGMENTS}{_QUERY}"
        rf"|(?:urn:[a-z]{{2,12}}:[A-Za-z0-9._:-]{{1,64}}|mailto:{_EMAIL}))")
_POINTER = r"(?:/[A-Za-z0-9_-]{0,64}){0,16}"
PATTERNS = {
    "date": _DATE, "time": _TIME, "date-time": f"{_DATE}T{_TIME}", "email": _EMAIL, "idn-email": _EMAIL,
    "hostname": _HOST, "idn-hostname": _HOST, "uri": _URI, "iri": _URI, "url": _URI,
    "uri-reference": f"(?:{_URI}|{_SEGMENTS}{_QUERY})", "iri-reference": f"(?:{_URI}|{_SEGMENTS}{_QUERY})",
    "uri-template": _URI, "json-pointer": _POINTER,
    "relative-json-pointer": rf"(?:0|[1-9][0-9]{{0,2}})(?:#|{_POINTER})",
    "regex": r"[A-Za-z0-9 _-]{0,64}", "decimal": r"-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,9})?",
    "base64url": r"(?:[A-Za-z0-9_-]{4})*(?:[A-Za-z0-9_-][AQgw]==|[A-Za-z0-9_-]{2}[AEIMQUYcgkosw048]=)?",
    "byte": r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?"}
"""What answers have for these formats. Narrower than the standards, so that every checker takes it."""
_COMPILED = frozenset({"duration", "ipv4", "ipv6", "uuid"})
"""Formats that the compiler knows as all checkers do. Others restrict nothing, as the standard has it."""
_MET = frozenset({
    r"^(?!\.)(?!.*\.\.)([A-Za-z0-9_'+\-\.]*)[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}$",
    r"^P(?:(\d+W)|(?!.*W)(?=\d|T\d)(\d+Y)?(\d+M)?(\d+D)?(T(?=\d)(\d+H)?(\d+M)?(\d+([.,]\d+)?S)?)?)$"})
"""Patterns with look-arounds that zod writes beside `email` and `duration`, whose answers match them anyway."""
_VALUES = frozenset({"const", "default", "enum", "example", "examples"})
MAPS = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependencies", "dependentSchemas"})
"""Keywords whose values have names of the schema's own as keys."""
_WORDS = frozenset({"$comment", "description", "title"})


def prepared(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema with its formats spelled out, or InvalidRequest if it is too deep or has too long a text."""
    check(schema)
    ready = _spelled(schema, {} if MOVED.search(json.dumps(schema)) else schema)
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
    if isinstance(step, int | float) and _digits(step) > MAX_STEP:
        raise InvalidRequest(f"`multipleOf` is {step}", hint=f"at most {MAX_STEP}, and its zeros", param="grammar")


def _digits(number: float) -> int:
    """The digits of a number without the zeros around them."""
    return int("0" + repr(number).partition("e")[0].replace(".", "").strip("-0"))


def _inside(value: Any) -> Sequence[Any]:
    if isinstance(value, dict):
        return [*value, *(inner for name, inner in value.items() if name not in _WORDS)]
    return value if isinstance(value, list) else ()


def _spelled(schema: Any, root: Mapping[str, Any]) -> Any:
    if isinstance(schema, list):
        return [_spelled(each, root) for each in schema]
    if not isinstance(schema, dict):
        return schema
    result = {name: inner if name in _VALUES else _named(inner, root) if name in MAPS else _spelled(inner, root)
              for name, inner in schema.items()}
    return rewritten(_format(result), root) if root else _format(result)


def _named(schemas: Any, root: Mapping[str, Any]) -> Any:
    """Schemas by names, which are no keywords."""
    return {name: _spelled(each, root) for name, each in schemas.items()} if isinstance(schemas, dict) else schemas


def _format(result: dict[str, Any]) -> dict[str, Any]:
    format = "byte" if result.get("contentEncoding") == "base64" else result.get("format")
    if format in ("email", "duration") and str(result.get("pattern")) in _MET:
        del result["pattern"]
    if not isinstance(format, str) or format in _COMPILED:
        return result
    result.pop("format", None)
    if format in PATTERNS:
        known = f"{PATTERNS[format]}|{_CLOCK}" if format == "time" and "pattern" in result else PATTERNS[format]
        parts = result.get("allOf")
        result["allOf"] = [*(parts if isinstance(parts, list) else ()), {"pattern": f"^(?:{known})$"}]
    return result
