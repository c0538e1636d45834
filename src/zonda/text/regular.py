"""Lark grammars as regular expressions, where their rules do not refer to themselves."""
from __future__ import annotations

import json
import re

LONGEST = 1 << 16
"""Characters of an expression that is made."""
DEEPEST = 100
"""Brackets within brackets."""
_NAME = r"[^\W\d][\w-]*"
_TEXT = r'"(?:[^"\\\n]|\\.)*"'
_TOKEN = re.compile(rf"""(?P<skip>\s+|//[^\n]*|\#[^\n]*|->\s*\w+) | (?P<range>{_TEXT}\s*\.\.\s*{_TEXT})
    | (?P<string>{_TEXT}i?) | (?P<regex>/(?:[^/\\]|\\.)+/[ims]*) | (?P<name>{_NAME})
    | (?P<count>\{{[\d,\s]*\}}|~\s*\d+(?:\s*\.\.\s*\d+)?) | (?P<open>[(\[]) | (?P<close>[)\]])
    | (?P<same>[|?*+]) | (?P<strange>.)""", re.DOTALL | re.VERBOSE)
_HEAD = re.compile(rf"""^[ \t]*(?: [?!]?(?P<name>{_NAME})[ \t]*(?:\.[ \t]*\d+[ \t]*)?:(?!:) | (?P<ignore>%ignore\b)
    | %import[ \t]+common(?:\.(?P<one>\w+)(?:[ \t]*->[ \t]*(?P<alias>\w+))?|[ \t]*\((?P<several>[\w\s,]+)\)))""",
    re.MULTILINE | re.VERBOSE)
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


def expression(source: str) -> str | None:
    """A regular expression for a Lark grammar; None if rules refer to themselves, or it is too long or strange."""
    try:
        return _Grammar(source).named("start") if len(source) <= LONGEST else None
    except (KeyError, ValueError, RecursionError):
        return None


class _Grammar:
    """Definitions by name; KeyError for names that are not there, ValueError for what is not known here."""

    def __init__(self, source: str) -> None:
        self._bodies, self._made, self._skip = dict[str, str](), dict[str, str](), ""
        heads, ignored = [*_HEAD.finditer(source)], list[str]()
        ends = [*(head.start() for head in heads), len(source)]
        rest = [source[:ends[0]]]
        for head, end in zip(heads, ends[1:]):
            body = source[head.end():end]
            if head["name"]:
                self._bodies[head["name"]] = body
            elif head["ignore"]:
                ignored.append(body)
            else:
                names = re.findall(r"\w+", head["one"] or head["several"])
                self._bodies |= {head["alias"] or name: f"/{_COMMON[name]}/" for name in names}
                rest.append(body)
        if self._expression(" ".join(rest), "") != "(?:)":
            raise ValueError
        if ignored:
            self._skip = f"(?:{'|'.join(self._expression(each, '') for each in ignored)})*"

    def named(self, name: str) -> str:
        """The expression of a rule or a terminal."""
        if name not in self._made:  # nor is the body there while it is read: it must not refer to itself
            self._made[name] = self._expression(self._bodies.pop(name), "" if _is_terminal(name) else self._skip)
        return self._made[name]

    def _expression(self, source: str, skip: str) -> str:
        """The right side of a definition; `skip` is what may stand behind its terminals."""
        found, length, depth = list[str](), 0, 0
        for token in _TOKEN.finditer(source):
            kind = token.lastgroup
            found.append(self._piece(kind, token[0], skip))
            length, depth = length + len(found[-1]), depth + (kind == "open") - (kind == "close")
            if kind == "strange" or length > LONGEST or not 0 <= depth <= DEEPEST:
                raise ValueError
        if depth:
            raise ValueError
        return f"(?:{''.join(found)})"

    def _piece(self, kind: str | None, text: str, skip: str) -> str:
        """What a token becomes."""
        match kind:
            case "name":
                made, skip = self.named(text), skip if _is_terminal(text) else ""
            case "string":
                made = f"(?{'i' * text.endswith('i')}:{exactly(json.loads(text.removesuffix('i')))})"
            case "range":
                ends = [json.loads(each) for each in re.findall(_TEXT, text)]
                if [*map(len, ends)] != [1, 1]:
                    raise ValueError
                made = "[{}-{}]".format(*map(exactly, ends))
            case "regex":
                body, _, flags = text[1:].rpartition("/")
                made = f"(?{flags}:{body})"
            case "count":
                numbers = re.sub(r"[{}~\s]", "", text).replace("..", ",")
                return f"{{{'0' * numbers.startswith(',')}{numbers}}}"
            case _:
                return {"open": "(?:", "close": ")" + "?" * (text == "]"), "skip": ""}.get(kind or "", text)
        return f"(?:{made}{skip})" if skip else made


def _is_terminal(name: str) -> bool:
    return name.strip("_")[:1].isupper()


def exactly(text: str) -> str:
    """A regular expression of this text alone."""
    return "".join(char if char.isalnum() else f"\\x{{{ord(char):x}}}" for char in text)
