"""Lark grammars as regular expressions, where their rules do not refer to themselves."""
from __future__ import annotations

import json
import re

LONGEST = 1 << 16
"""Characters of an expression that is made."""
_TOKEN = re.compile(r"""(?P<skip>\s+|//[^\n]*|\#[^\n]*|->\s*\w+) | (?P<string>"(?:[^"\\\n]|\\.)*"i?)
    | (?P<regex>/(?:[^/\\]|\\.)+/[ims]*) | (?P<name>[^\W\d][\w-]*) | (?P<count>\{[\d,\s]*\}|~\s*\d+(?:\s*\.\.\s*\d+)?)
    | (?P<other>\.\.|[|()\[\]?*+])""", re.DOTALL | re.VERBOSE)
_HEAD = re.compile(r"[ \t]*[?!]?([^\W\d][\w-]*)[ \t]*(?:\.[ \t]*\d+[ \t]*)?:(?!:)")
_LINE = re.compile(r"\n(?=[ \t]*[?!]?[^\W\d][\w-]*[ \t]*(?:\.[ \t]*\d+[ \t]*)?:(?!:)|[ \t]*%)")
_IMPORT = re.compile(r"[ \t]*%import[ \t]+common(?:\.(\w+)(?:[ \t]*->[ \t]*(\w+))?|[ \t]*\(([\w\s,]+)\))\s*")
_IGNORE = re.compile(r"[ \t]*%ignore\b")
_NUMBER = r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+\-]?[0-9]+)?"
_DECIMAL = r"(?:[0-9]+\.[0-9]*|\.[0-9]+)"
_FLOAT = rf"(?:[0-9]+[eE][+\-]?[0-9]+|{_DECIMAL}(?:[eE][+\-]?[0-9]+)?)"
_COMMON = {
    "DIGIT": "[0-9]", "HEXDIGIT": "[a-fA-F0-9]", "INT": "[0-9]+", "SIGNED_INT": r"[+\-]?[0-9]+", "DECIMAL": _DECIMAL,
    "FLOAT": _FLOAT, "SIGNED_FLOAT": rf"[+\-]?{_FLOAT}", "NUMBER": _NUMBER, "SIGNED_NUMBER": rf"[+\-]?{_NUMBER}",
    "LCASE_LETTER": "[a-z]", "UCASE_LETTER": "[A-Z]", "LETTER": "[A-Za-z]", "WORD": "[A-Za-z]+",
    "CNAME": "[_A-Za-z][_A-Za-z0-9]*", "WS_INLINE": r"[ \t]+", "WS": r"[ \t\f\r\n]+", "CR": r"\r", "LF": r"\n",
    "NEWLINE": r"(?:\r?\n)+", "ESCAPED_STRING": r'"(?:[^"\\\n]|\\.)*"'}
"""What may be imported, as expressions."""


class _Irregular(Exception):
    """The grammar is no regular one, or has what is not known here."""


def expression(source: str) -> str | None:
    """A regular expression for a Lark grammar; None if rules refer to themselves, or it is too long or strange."""
    try:
        return _Grammar(source).whole() if len(source) <= LONGEST else None
    except (_Irregular, RecursionError):
        return None


def _tokens(source: str) -> list[tuple[str, str]]:
    """Tokens with their kinds."""
    found, at = list[tuple[str, str]](), 0
    while at < len(source):
        token = _TOKEN.match(source, at)
        if token is None:
            raise _Irregular
        found.append((str(token.lastgroup), token[0]))
        at = token.end()
    return [each for each in found if each[0] != "skip"]


class _Grammar:
    def __init__(self, source: str) -> None:
        self._bodies: dict[str, str] = {}
        self._made: dict[str, str] = {}
        self._open: list[str] = []
        ignored = list[str]()
        for part in _LINE.split(source):
            if found := _IMPORT.match(part):
                self._import(re.findall(r"\w+", found[1] or found[3]), found[2])
            elif found := _IGNORE.match(part):
                ignored.append(part[found.end():])
            elif found := _HEAD.match(part):
                self._bodies[found[1]] = part[found.end():]
            elif _tokens(part):
                raise _Irregular
        self._skip = ""
        self._skip = f"(?:{'|'.join(_Body(self, each, '').whole() for each in ignored)})*" if ignored else ""

    def _import(self, names: list[str], alias: str | None) -> None:
        for name in names:
            if name not in _COMMON:
                raise _Irregular
            self._made[alias or name] = f"(?:{_COMMON[name]})"

    def whole(self) -> str:
        return self.named("start")

    def named(self, name: str) -> str:
        """The expression of a rule or a terminal."""
        if name not in self._made:
            if name in self._open or name not in self._bodies:
                raise _Irregular
            self._open.append(name)
            skip = self._skip if name.strip("_")[:1].islower() else ""
            self._made[name] = f"(?:{_Body(self, self._bodies[name], skip).whole()})"
            self._open.pop()
        if len(self._made[name]) > LONGEST:
            raise _Irregular
        return self._made[name]


class _Body:
    """The right side of a definition; `skip` is what may stand behind its terminals."""

    def __init__(self, grammar: _Grammar, source: str, skip: str) -> None:
        self._grammar, self._skip, self._at = grammar, skip, 0
        self._tokens = _tokens(source)

    def whole(self) -> str:
        found = self._choices()
        if self._at < len(self._tokens):
            raise _Irregular
        return found

    def _next(self) -> str:
        return self._tokens[self._at][1] if self._at < len(self._tokens) else ""

    def _choices(self) -> str:
        found = [self._row()]
        while self._next() == "|":
            self._at += 1
            found.append(self._row())
        return "|".join(found)

    def _row(self) -> str:
        found = ""
        while self._next() not in ("", "|", ")", "]"):
            found += self._repeated(self._one())
            if len(found) > LONGEST:
                raise _Irregular
        return found

    def _one(self) -> str:
        kind, text = self._tokens[self._at]
        self._at += 1
        if kind == "name":
            terminal = text.strip("_")[:1].isupper()
            return self._skipping(self._grammar.named(text)) if terminal else self._grammar.named(text)
        if kind in ("string", "regex"):
            made = self._range(text) if self._next() == ".." else _string(text) if kind == "string" else _regex(text)
            return self._skipping(made)
        if text not in ("(", "["):
            raise _Irregular
        inner = self._choices()
        if self._next() != {"(": ")", "[": "]"}[text]:
            raise _Irregular
        self._at += 1
        return f"(?:{inner})" + "?" * (text == "[")

    def _skipping(self, made: str) -> str:
        return f"(?:{made}{self._skip})" if self._skip else made

    def _range(self, first: str) -> str:
        last = self._tokens[self._at + 1][1] if self._at + 1 < len(self._tokens) else ""
        self._at += 2
        ends = [_loaded(each) for each in (first, last)]
        if not all(len(each) == 1 for each in ends):
            raise _Irregular
        return "[{}-{}]".format(*map(exactly, ends))

    def _repeated(self, one: str) -> str:
        kind, text = self._tokens[self._at] if self._at < len(self._tokens) else ("", "")
        if text in ("?", "*", "+"):
            self._at += 1
            return f"(?:{one}){text}"
        if kind == "count":
            self._at += 1
            numbers = re.findall(r"\d+", text)
            exact = len(numbers) == 1 and "," not in text
            least, most = ("0", numbers[0]) if text.startswith("{,") else (numbers[0], "".join(numbers[1:]))
            return f"(?:{one}){{{least}}}" if exact else f"(?:{one}){{{least},{most}}}"
        return one


def _string(text: str) -> str:
    made = exactly(_loaded(text.removesuffix("i")))
    return f"(?i:{made})" if text.endswith("i") else f"(?:{made})"


def _regex(text: str) -> str:
    body, _, flags = text[1:].rpartition("/")
    return f"(?{flags}:{body})"


def _loaded(text: str) -> str:
    try:
        return str(json.loads(text))
    except ValueError:
        raise _Irregular from None


def exactly(text: str) -> str:
    """A regular expression of this text alone."""
    return "".join(char if char.isalnum() else f"\\x{{{ord(char):x}}}" for char in text)
