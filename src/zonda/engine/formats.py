"""Formats of texts as patterns, so narrow that all checkers agree on what matches them."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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


def spelled(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema with its own format spelled out."""
    result = dict(schema)
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
