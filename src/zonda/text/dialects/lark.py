"""Writes grammars of tool calls in llguidance's Lark."""
from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

from zonda.errors import InvalidRequest
from zonda.text.dialects.tools import ANNOTATIONS, SHARED, Loose, alternatives, kinds_of, target, within
from zonda.text.regular import exactly

_VALUES = frozenset({"const", "enum"})
_MAPS = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_PIECE = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]|.", re.DOTALL)
_NO_TAG = "^([^<]|<+[^</])*<*$"
_COMPACT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


class Lark:
    """Expressions of one grammar. `special` gives the id of a special token, None for a text that is none."""

    def __init__(self, marks: Sequence[str], special: Callable[[str], int | None]) -> None:
        self.rules: list[str] = []
        """Rules that expressions refer to."""
        self._special = {mark: token for mark in marks if (token := special(mark)) is not None}
        self._named: dict[Hashable, str] = {}
        self._opening = ""
        self._cut = re.compile("|".join(map(re.escape, self._special)) or "(?!)")

    def text(self, text: str) -> str:
        """A fixed text; special tokens in it are meant as such."""
        if self._opening and self._opening in text:
            text, self._opening = text.partition(self._opening)[2], ""
        pieces, at = list[str](), 0
        for found in self._cut.finditer(text):
            pieces += [_quoted(text[at:found.start()]), f"<[{self._special[found[0]]}]>"]
            at = found.end()
        return " ".join(piece for piece in (*pieces, _quoted(text[at:])) if piece != '""')

    def parted(self, text: str) -> tuple[str, int | None]:
        """What comes before the first special token in a text, and this token; all and None where there is none."""
        found = self._cut.search(text)
        return (text[:found.start()], self._special[found[0]]) if found else (text, None)

    def behind(self, mark: str, make: Callable[[], str]) -> str:
        """What is made, but for its beginning up to and with this mark."""
        self._opening = mark
        made = make()
        assert not self._opening, f"no {mark!r} in {made!r:.80}"
        return made

    def value(self, schema: Mapping[str, Any]) -> str:
        """JSON of a schema, written compactly."""
        written = f"%json {json.dumps({**_changed(schema, _silent), 'x-guidance': _COMPACT})}"
        return self.named(written, lambda: written)

    def element(self, schema: Mapping[str, Any], end: str, line: str = "", never: Sequence[str] = ()) -> str:
        """An argument up to and with `end` and `line`: a text as it stands, with none of `never`; all else as JSON."""
        words = values(schema)
        if kinds_of(schema) != ("string",):
            return f"{self.value(without_tags(schema))} {self.text(end + line)}"
        if words is None:
            return f"{self.until(end, expressions(schema), never)} {self.text(line)}".rstrip()
        return f"{either(self.text(word) for word in words if isinstance(word, str))} {self.text(end + line)}"

    def until(self, end: str, expressions: Sequence[str] = (), never: Sequence[str] = ()) -> str:
        """Any text of all these expressions, which has none of `never`, up to and with `end`."""
        special = self._cut.match(end)
        inside = [exactly(each) for each in (*never, *(() if special else (end,)))]
        first = [exactly(each[1:]) for each in never if each.startswith("\n")]  # the line may be that of a tag before
        text = self.terminal(" & ".join([
            "/(?s:.*)/", *(f"/{each}/" for each in expressions),
            *([f"~/((?s:.*)({'|'.join(inside)})|({'|'.join(first) or inside[0]}))(?s:.*)/"] if inside else [])]))
        return f"{text} {self.text(end)}" if special else self.lazy(f"{text} {_quoted(end)}")

    def terminal(self, expression: str) -> str:
        """A terminal of its own for an expression of texts."""
        return self._defined("TEXT", expression)

    def lazy(self, expression: str) -> str:
        """The shortest text that an expression of texts takes."""
        return self._defined("short", self.terminal(expression), "[lazy]")

    def rule(self, expression: str) -> str:
        """A rule of its own for an expression."""
        return self._defined("rule", expression)

    def _defined(self, kind: str, expression: str, options: str = "") -> str:
        """The name of what is defined so, and but once."""
        key = kind, expression, options
        if key not in self._named:
            self._named[key] = f"{kind}{len(self.rules)}"
            self.rules.append(f"{self._named[key]}{options}: {expression}")
        return self._named[key]

    def named(self, key: Hashable, make: Callable[[], str]) -> str:
        """The rule of this key; what it makes may refer to itself."""
        if key not in self._named:
            place, name = len(self.rules), f"rule{len(self.rules)}"
            self._named[key] = name
            self.rules.append(name)
            self.rules[place] = f"{name}: {make()}"
        return self._named[key]


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def expressions(schema: Mapping[str, Any]) -> list[str]:
    """What a schema says of a text's letters, where its pattern is for all of them, as llguidance has expressions."""
    from llguidance import regex_to_lark

    said, found = schema.get("pattern"), list[str]()
    least, most = (schema.get(word) if type(schema.get(word)) is int else "" for word in ("minLength", "maxLength"))
    if least != "" or most != "":
        found.append(f"(?s:.{{{least or 0},{most}}})")
    if isinstance(said, str) and re.fullmatch(r"\^.*(?<!\\)\$", said, re.DOTALL) and not _parted(said):
        found.append(regex_to_lark(f"(?:{said[1:-1]})", "d"))
    return found


def _parted(pattern: str) -> bool:
    """Whether a pattern has alternatives outside of all brackets."""
    depth = 0
    for piece in _PIECE.findall(pattern):
        depth += (piece == "(") - (piece == ")")
        if piece == "|" and not depth:
            return True
    return False


def without_tags(schema: Mapping[str, Any]) -> Any:
    """A schema whose texts have no `</`, by which the end of an element would be seen in them."""
    return _changed(schema, _tagless)


def _tagless(schema: dict[str, Any]) -> dict[str, Any]:
    said, parts = schema.get("type"), schema.get("allOf", [])
    if _VALUES & schema.keys() or "string" not in (said if isinstance(said, list) else [said]):
        return schema
    return {**schema, "allOf": [*(parts if isinstance(parts, list) else ()), {"pattern": _NO_TAG}]}


def _silent(schema: dict[str, Any]) -> dict[str, Any]:
    return {key: each for key, each in schema.items() if key not in ANNOTATIONS}


def _changed(schema: Any, change: Callable[[dict[str, Any]], dict[str, Any]], *, names: bool = False) -> Any:
    """A schema with all within it changed, from the inside; with `names` its keys are no keywords."""
    if isinstance(schema, list):
        return [_changed(each, change) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    found = {key: each if not names and key in _VALUES else _changed(each, change, names=not names and key in _MAPS)
             for key, each in schema.items()}
    return found if names else change(found)


def object_of(name: str, schema: Mapping[str, Any], called: str = "name",
              arguments: str = "arguments") -> dict[str, Any]:
    """The schema of a call as an object with a name and arguments, which have these names."""
    return _around(schema, arguments, {called: {"const": name}})


def keyed(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a call as an object whose only key is the name, and whose value are the arguments."""
    return _around(schema, name, {})


def _around(schema: Mapping[str, Any], key: str, others: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of an object that has the arguments under a key, behind others; what is shared stays outside."""
    members = {**others, key: {word: each for word, each in schema.items() if word not in SHARED}}
    return {"type": "object", "properties": members, "required": [*members], "additionalProperties": False,
            **{word: schema[word] for word in SHARED if word in schema}}


def properties(schema: Mapping[str, Any]) -> list[tuple[str, dict[str, Any], bool]]:
    """The arguments of a tool: name, schema, and whether it must be given."""
    required, found = entries(schema, "required", Sequence), dict(entries(schema, "properties", Mapping))
    return [(key, within(schema, each), key in required) for key, each in found.items()
            if isinstance(each, Mapping)]


def entries(schema: Mapping[str, Any], word: str, kind: type) -> Any:
    """What a tool's schema has under a keyword, empty where it has nothing; refuses another kind of value."""
    found = schema.get(word)
    if found is not None and (not isinstance(found, kind) or isinstance(found, str)):
        raise InvalidRequest(f"the schema of a tool has a `{word}` that is {type(found).__name__}", param="tools",
                             hint="expected an object" if kind is Mapping else "expected a list")
    return () if found is None else found


def values(schema: Mapping[str, Any]) -> list[Any] | None:
    """The only values that a schema takes, None where it does not list them."""
    found = list[str]()
    for each in alternatives(schema):
        listed = [each["const"]] if "const" in each else entries(each, "enum", Sequence)
        if not listed:
            return None
        found += dict.fromkeys(map(json.dumps, listed))
    count = Counter(found if "oneOf" in target(schema) else ())
    return [json.loads(each) for each in dict.fromkeys(found) if count[each] < 2] or None


def either(forms: Iterable[str]) -> str:
    """One of several expressions."""
    return f"({' | '.join(forms)})"


def repeated(item: str, schema: Mapping[str, Any], between: str = "") -> str:
    """Items of a list, as many as its schema says, with `between` between any two."""
    least, most = (found if isinstance(found := schema.get(word), int) else None for word in ("minItems", "maxItems"))
    if most is not None and most < 1:
        return '""'
    rest = f'({between} {item}){{{max((least or 1) - 1, 0)},{"" if most is None else most - 1}}}'
    return f"{item} {rest}" if least else f"({item} {rest})?"


def members(lark: Lark, schema: Mapping[str, Any], write: Callable[[str, Mapping[str, Any]], str], *,
            between: str = "") -> str:
    """Arguments one after another, first those that must be given; `between` stands between any two."""
    comma = lark.text(between)
    if isinstance(schema, Loose):
        items = [write(key, each) for key, each in schema.listed.items()]
        return repeated(lark.rule(either(items)), {}, comma) if items else '""'
    known = properties(schema)
    must = [write(key, each) for key, each, required in known if required]
    may = [write(key, each) for key, each, required in known if not required]
    if must or not between:
        joined = f" {comma} ".join(must) + "".join(f" ({comma} {each})?" for each in may)
        return lark.rule(joined.strip() or '""')
    first = rest = '""'
    for item in reversed([lark.rule(each) for each in may]):
        first, rest = lark.rule(f"{item} {rest} | {first}"), lark.rule(f"({comma} {item})? {rest}")
    return first
