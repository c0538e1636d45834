"""Jinja as chat templates are written for it, for templates that nobody trusts: closed, and bounded in time and size.

Loops, calls and operators pay from a budget, and nothing large is built before its size is known. Templates see plain
data only, so their values cannot change, and the size of each list and mapping needs to be counted but once.
"""
from __future__ import annotations

import copy
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from types import CodeType
from typing import Any, NoReturn

from jinja2 import Template, nodes
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.filters import FILTERS
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter
from jinja2.utils import Cycler, Joiner, Namespace, pass_context
from jinja2.visitor import NodeTransformer

STEPS = 4_000_000
SECONDS = 2.0
"""Of this thread's own time, so that a busy machine fails no template."""
STEPS_A_LOOK = 16
CHARACTERS = 1 << 24
CHARACTERS_OF_INPUT = 32
"""How many characters a rendering may make for each that it is given, beside `CHARACTERS`."""
INTEGER_BITS = 4096
WIDEST = 1000
WIDEST_INDENT = 16
LONGEST_FORMAT = 256
NUMBER = 24  # characters of the longest float
WORD = 8  # bytes of a reference, against one of a character

STRING_METHODS = frozenset({
    "capitalize", "casefold", "center", "count", "endswith", "find", "format", "index", "isalnum", "isalpha",
    "isascii", "isdecimal", "isdigit", "islower", "isnumeric", "isspace", "istitle", "isupper", "join", "ljust",
    "lower", "lstrip", "partition", "removeprefix", "removesuffix", "replace", "rfind", "rindex", "rjust",
    "rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "swapcase", "title",
    "upper", "zfill"})
UNKNOWN_FILTERS = frozenset({"pprint", "striptags", "urlize", "wordwrap", "xmlattr"})
"""Filters whose cost cannot be told beforehand; no chat template uses them."""
FILTERS_OF_WIDTH = frozenset({"batch", "center", "indent", "round", "slice"})
WIDE = {"%": re.compile(r"%(\([^)]*\))?[^a-zA-Z%]*?(\d{4}|\*)"), "{": re.compile(r"\{[^}]*(\d{4}|\{)")}
"""Formats of a width that is large, or that the values tell."""


class Raised(TemplateError):
    """The template itself refused, with `raise_exception`."""


class Exceeded(SecurityError):
    """The template used more time or room than it may."""


class Budget:
    """What one rendering may still use: steps, characters made, and seconds."""

    def __init__(self, given: int) -> None:
        self.most = self._characters = CHARACTERS + CHARACTERS_OF_INPUT * given
        self._steps = STEPS
        self._end = time.thread_time() + SECONDS

    def step(self) -> None:
        """Pay for one step."""
        self._steps -= 1
        if self._steps < 0:
            raise Exceeded(f"it takes more than {STEPS} steps")
        if self._steps % STEPS_A_LOOK == 0 and time.thread_time() > self._end:
            raise Exceeded(f"it takes more than {SECONDS} seconds")

    def make(self, characters: int) -> None:
        """Pay for characters that were made."""
        self._characters -= characters
        if self._characters < 0:
            raise Exceeded(f"it makes more than {self.most} characters")

    def fits(self, characters: int) -> None:
        """Refuse what could not be paid, before it is made."""
        if characters > self._characters:
            raise Exceeded(f"it makes more than {self.most} characters")


class Safe(Namespace):
    """A namespace that keeps to itself what it holds."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        attributes = dict(*args[1:], **kwargs)
        if any(str(name).startswith("_") for name in attributes):
            raise SecurityError("a namespace takes no names that begin with an underscore")
        Namespace.__init__(args[0], attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise SecurityError("a namespace takes no names that begin with an underscore")
        Namespace.__setitem__(self, name, value)

    def __repr__(self) -> str:
        return "<namespace>"


class Generation(Extension):
    """`{% generation %}`, which marks what the model wrote, renders what is in it."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class Metered(NodeTransformer):
    """Has every turn of a loop, and every list, mapping and joined text that a template writes, pay."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(_paid(nodes.Const(None), "step"), lineno=node.lineno))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _paid(nodes.List(node.nodes), "concatenated", node.lineno)

    def visit_List(self, node: nodes.List) -> nodes.Node:
        return _paid(self.generic_visit(node), "made", node.lineno)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:
        return _paid(self.generic_visit(node), "made", node.lineno)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        return node if node.ctx != "load" else _paid(node, "made", node.lineno)


def _paid(node: Any, filter: str, line: int | None = None) -> nodes.Filter:
    return nodes.Filter(node, f"zonda.{filter}", [], [], None, None, lineno=line)


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment of chat templates."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})
    budget: Budget

    def __init__(self, now: Callable[[], datetime]) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols], optimized=False,
                         finalize=_finalize)
        self._sizes: dict[int, tuple[int, Any]] = {}
        self.filters = {name: _limited(name, filter) for name, filter in FILTERS.items() if name not in UNKNOWN_FILTERS}
        self.filters |= {"tojson": _limited("tojson", _tojson), "zonda.step": _step, "zonda.made": _made,
                         "zonda.concatenated": _concatenated}
        self.globals = {"range": self.globals["range"], "dict": _dict, "namespace": Safe, "cycler": Cycler,
                        "joiner": Joiner, "raise_exception": _raise, "strftime_now": _clock(now)}

    def render(self, code: CodeType, variables: Mapping[str, Any]) -> str:
        """What a compiled template makes of plain data."""
        env = copy.copy(self)
        env._sizes, env.budget = {}, Budget(0)
        env.budget = Budget(env.size(variables))
        template = Template.from_code(env, code, self.globals)
        parts: list[str] = []
        for part in template.root_render_func(template.new_context(dict(variables))):
            env.budget.make(len(part))
            parts.append(part)
        return "".join(parts)

    def size(self, value: Any) -> int:
        """About how many characters a value would print as."""
        if isinstance(value, str):
            return len(value) + 1
        if not isinstance(value, list | tuple | dict | set):
            return NUMBER + (value.bit_length() // 3 if isinstance(value, int) else 0)
        known = self._sizes.get(id(value))
        if known is None:
            pairs = [*value.keys(), *value.values()] if isinstance(value, dict) else value
            known = self._sizes[id(value)] = 1 + sum(map(self.size, pairs)), value
        return known[0]

    def made(self, value: Any) -> Any:
        """A value that the template made, paid for."""
        if isinstance(value, str):
            self.budget.make(len(value))
        elif isinstance(value, list | tuple | dict | set):
            self.budget.make(WORD * len(value))
            self.budget.fits(self.size(value))
        return value

    def concat(self, parts: Iterable[str]) -> str:
        parts = list(parts)
        self.budget.make(sum(map(len, parts)))
        return "".join(parts)

    def call(self, context: Context, callee: Any, /, *args: Any, **kwargs: Any) -> Any:
        self.budget.step()
        text = getattr(callee, "__self__", None)
        if isinstance(text, str):
            args = _string_arguments(self, callee.__name__, text, args)
        return self.made(super().call(context, callee, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        self.budget.step()
        _check_operation(self, operator, left, right)
        found = super().call_binop(context, operator, left, right)
        if operator == "+" and isinstance(found, list | tuple):
            self._sizes[id(found)] = self.size(left) + self.size(right), found
        return self.made(found)

    def getitem(self, obj: Any, argument: Any) -> Any:
        found = super().getitem(obj, argument)
        return self.made(found) if isinstance(argument, slice) else found

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, str):
            return attr in STRING_METHODS
        return not isinstance(obj, int | float | complex | bytes) and super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        text = getattr(value, "__self__", None)
        if not isinstance(text, str) or getattr(value, "__name__", "") not in ("format", "format_map"):
            return None

        def format(*args: Any, **kwargs: Any) -> str:
            if value.__name__ == "format_map":
                args, kwargs = (), dict(*args)
            _check_format(self, text, (args, kwargs), "{")
            return self.made(SandboxedFormatter(self).vformat(text, args, kwargs))

        return format

    def _generate(self, source: nodes.Template, name: str | None, filename: str | None,
                  defer_init: bool = False) -> str:
        return super()._generate(Metered().visit(source), name, filename, defer_init)


def _check_operation(env: Sandbox, operator: str, left: Any, right: Any) -> None:
    if operator == "%" and isinstance(left, str):
        _check_format(env, left, right, "%")
    elif operator == "**" and isinstance(left, int) and isinstance(right, int):
        _check_bits(left.bit_length() * abs(right))
    elif operator == "*" and isinstance(left, int) and isinstance(right, int):
        _check_bits(left.bit_length() + right.bit_length())
    elif operator == "*":
        many, times = (right, left) if isinstance(left, int) else (left, right)
        if isinstance(many, str | list | tuple) and isinstance(times, int):
            env.budget.fits(WORD * env.size(many) * max(times, 0))


def _check_bits(bits: int) -> None:
    if bits > INTEGER_BITS:
        raise Exceeded(f"it makes a number of {bits} bits")


def _check_format(env: Sandbox, text: str, values: Any, sign: str) -> None:
    if WIDE[sign].search(text.replace(2 * sign, "")):
        raise Exceeded("it formats to a width that is too large, or not known")
    env.budget.fits(len(text) + text.count(sign) * env.size(values))


def _string_arguments(env: Sandbox, name: str, text: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments of a string's method, when what it would make fits."""
    if name in ("center", "ljust", "rjust", "zfill"):
        _check_width(args[0] if args else 0)
    elif name == "replace":
        _check_replace(env, text, *args)
    elif name == "join" and args:
        args = (_check_join(env, args[0], text), *args[1:])
    return args


def _check_width(width: Any) -> None:
    if isinstance(width, int) and width > WIDEST:
        raise Exceeded(f"it fills up to a width of {width}")


def _check_replace(env: Sandbox, text: Any, old: Any = "", new: Any = "", *rest: Any, **options: Any) -> None:
    text, old, new = str(text), str(old), str(new)
    env.budget.fits(len(text) + (text.count(old) if old else len(text) + 1) * len(new))


def _check_join(env: Sandbox, values: Any, separator: Any) -> list[Any]:
    values = list(values)
    env.budget.fits(env.size(values) + len(values) * len(str(separator)))
    return values


def _filter_arguments(env: Sandbox, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """The arguments of a filter, when what it would make fits."""
    if name in FILTERS_OF_WIDTH:
        for value in (*args[1:], *kwargs.values()):
            _check_width(value)
    if name == "replace":
        _check_replace(env, *args, **kwargs)
    elif name == "join":
        args = (_check_join(env, args[0], kwargs.get("d", args[1] if args[1:] else "")), *args[1:])
    elif name == "format":
        _check_format(env, str(args[0]), (args[1:], kwargs), "%")
    elif name == "indent":
        text, width = str(args[0]), kwargs.get("width", args[1] if args[1:] else 4)
        env.budget.fits(len(text) + text.count("\n") * (len(width) if isinstance(width, str) else int(width)))
    elif name == "sum" and not isinstance(kwargs.get("start", args[2] if args[2:] else 0), int | float):
        raise Exceeded("it sums what are no numbers")
    return args


def _limited(name: str, filter: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that pays for what it makes; that it takes the context keeps it from being run while compiling."""
    passed = str(getattr(filter, "jinja_pass_arg", None)).rpartition(".")[2]

    @pass_context
    def limited(context: Context, *args: Any, **kwargs: Any) -> Any:
        env: Any = context.environment
        env.budget.step()
        args = _filter_arguments(env, name, args, kwargs)
        first = {"context": (context,), "eval_context": (context.eval_ctx,), "environment": (env,)}.get(passed, ())
        return env.made(filter(*first, *args, **kwargs))

    return limited


@pass_context
def _step(context: Context, value: Any) -> None:
    context.environment.budget.step()  # type: ignore[attr-defined]


@pass_context
def _made(context: Context, value: Any) -> Any:
    return context.environment.made(value)  # type: ignore[attr-defined]


@pass_context
def _concatenated(context: Context, values: list[Any]) -> str:
    return context.environment.concat(map(str, values))


@pass_context
def _finalize(context: Context, value: Any) -> str:
    return value if type(value) is str else context.environment.made(str(value))  # type: ignore[attr-defined]


@pass_context
def _tojson(context: Context, value: Any, ensure_ascii: bool = False, indent: int | None = None,
            separators: tuple[str, str] | None = None, sort_keys: bool = False) -> str:
    env: Any = context.environment
    if indent:
        env.budget.fits(env.size(value) * _depth(value) * _indent(indent))
    if separators and any(len(each) > WIDEST_INDENT for each in separators):
        raise Exceeded("it separates with long texts")
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _indent(indent: int | str) -> int:
    width = indent if isinstance(indent, int) else len(indent)
    if width > WIDEST_INDENT:
        raise Exceeded(f"it indents by {width}")
    return width


def _depth(value: Any) -> int:
    if not isinstance(value, list | tuple | dict):
        return 0
    return 1 + max(map(_depth, value.values() if isinstance(value, dict) else value), default=0)


def _dict(*args: Any, **kwargs: Any) -> dict[Any, Any]:
    return dict(*args, **kwargs)


def _raise(message: object = "") -> NoReturn:
    raise Raised(str(message))


def _clock(now: Callable[[], datetime]) -> Callable[[str], str]:
    def strftime_now(format: str) -> str:
        if len(format) > LONGEST_FORMAT:
            raise Exceeded("it formats the time at too great a length")
        return now().strftime(format)

    return strftime_now
