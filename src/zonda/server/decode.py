"""From a request body to a checked value, and from what is wrong with it to an error that names the field."""
from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Sequence
from functools import cache
from typing import Any, TypeVar, cast
from urllib.parse import parse_qsl

import msgspec
from msgspec import inspect

from zonda.errors import InvalidRequest, Unsupported
from zonda.server.bulk import LARGE, check_bulk

T = TypeVar("T")

MAX_DEPTH = 64
"""Levels that objects and lists of free form may be nested."""
_NESTS = frozenset({dict, list})
_SAID = re.compile(r"^(?P<what>.*?)(?: - at (?:`key` in )?`\$\.?(?P<path>.*)`)?$", re.DOTALL)
_MISSING = re.compile(r"missing required field `(\w+)`")
_KEY_BEFORE = re.compile(rb'"([A-Za-z0-9_]{1,64})"\s*:\s*\[?\s*-?$')
_MEMBER = re.compile(r"([^\[\]]+)\[([^\]]+)\]")
"""A name in a query that stands for a member of an object."""
_STEP = re.compile(r"([^.\[\]]+)|\[[^\]]*\]")


def missing(field: str) -> InvalidRequest:
    """The error of a request without this field."""
    return InvalidRequest(f"`{field}` is missing", param=field, code="missing_required_parameter")


def needed(given: msgspec.Struct, field: str, place: str) -> str:
    """A field that must be there; `place` is what has it."""
    value = getattr(given, field)
    if value is None:
        raise missing(f"{place}.{field}")
    return str(value)


def no_text(kind: str, place: str) -> Unsupported:
    """The refusal of a part of this type. Claude Code knows it by its first words, and asks again without the part."""
    known = {"image": "image", "screenshot": "image", "audio": "audio", "video": "video", "document": "pdf"}
    what = next((word for sign, word in known.items() if sign in kind), "file")
    return Unsupported(f"could not process {what}: `{place}` is not text, and this model takes text alone", param=place)


def several(given: str | list[Any], field: str) -> list[str | list[int]]:
    """Prompts, of a field that holds one text, several texts, one list of token ids, or several."""
    if isinstance(given, str):
        return [given]
    kinds = {type(each) for each in given}
    if len(kinds) > 1:
        raise InvalidRequest(f"`{field}` mixes kinds", param=field,
                             hint="expected a text, token ids, a list of texts, or a list of lists of token ids")
    return [given] if kinds == {int} else given


def check_ids(ids: Sequence[int], vocab: int, field: str) -> None:
    """Refuse numbers that are no token ids."""
    if ids and not 0 <= min(ids) <= max(ids) < vocab:
        raise InvalidRequest(f"`{field}` has a number that is no token id", hint=f"ids are 0 to {vocab - 1}",
                             param=field)


def decode(body: bytes, kind: type[T]) -> T:
    """The body as a value of this kind, or `InvalidRequest`; what the client sent is never repeated."""
    if len(body) > LARGE:
        check_bulk(body)
    try:
        return cast(T, _decoder(cast(Hashable, kind)).decode(body))
    except msgspec.ValidationError as error:
        raise _invalid(str(error), kind) from None
    except msgspec.DecodeError as error:
        raise _malformed(str(error), body) from None
    except UnicodeDecodeError:
        raise InvalidRequest("the body is not valid UTF-8", code="invalid_json") from None
    except RecursionError:
        raise InvalidRequest("the body is nested too deeply", code="invalid_json") from None


def decode_query(query: bytes, kind: type[T]) -> T:
    """What stands behind the `?` of a path as a value of this kind, or `InvalidRequest`."""
    given: dict[str, Any] = {}
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if member := _MEMBER.fullmatch(name):
            inner = given.setdefault(member[1], {})
            if isinstance(inner, dict):
                inner[member[2]] = value
        else:
            given[name] = value
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        raise _invalid(str(error), kind) from None


@cache
def _decoder(kind: Hashable) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


def check_depth(value: Any, field: str) -> None:
    """Refuse free-form values that are nested more deeply than anyone needs."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for each in level for inner in _inside(each) if type(inner) in _NESTS]
        if not level:
            return
    raise InvalidRequest(f"`{field}` is nested too deeply", hint=f"at most {MAX_DEPTH} levels", param=field)


def _inside(value: Any) -> Any:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _malformed(said: str, body: bytes) -> InvalidRequest:
    place = re.search(r"byte (\d+)", said)
    key = _KEY_BEFORE.search(body[:int(place[1])][-100:]) if place else None
    param = key[1].decode() if key else None
    where = f" at `{param}`" if param else ""
    offset = f", byte {place[1]}" if place else ""
    return InvalidRequest(f"the body is not valid JSON{where}{offset}", param=param, code="invalid_json",
                          hint="expected a JSON object; NaN and Infinity are not JSON")


def _invalid(said: str, kind: type) -> InvalidRequest:
    match = _SAID.match(said)
    what, path = (match["what"], (match["path"] or "").replace("[...]", "")) if match else (said, "")
    if absent := _MISSING.search(what):
        return missing(f"{path}.{absent[1]}".lstrip("."))
    if what.startswith("Invalid enum value"):
        known = ", ".join(repr(each) for each in _choices(inspect.type_info(kind), path))
        what = f"expected one of {known}"
    what = what[:1].lower() + what[1:]
    return InvalidRequest(f"`{path}`: {what}" if path else f"the body: {what}", param=path or None)


def _choices(node: Any, path: str) -> list[Any]:
    """The literals that the field at the path may be."""
    nodes = [node]
    for step in _STEP.finditer(path):
        nodes = [child for each in nodes for child in _children(each, step[1])]
    return [value for each in nodes for leaf in _plain(each) if isinstance(leaf, inspect.LiteralType)
            for value in leaf.values]


def _children(node: Any, field: str | None) -> Iterator[Any]:
    for each in _plain(node):
        if field is None and isinstance(each, inspect.ListType):
            yield each.item_type
        elif field is not None and isinstance(each, inspect.StructType):
            yield from (known.type for known in each.fields if known.encode_name == field)


def _plain(node: Any) -> list[Any]:
    """The alternatives of a union; anything else alone."""
    return list(node.types) if isinstance(node, inspect.UnionType) else [node]
