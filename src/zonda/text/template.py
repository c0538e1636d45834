"""Chat templates: conversations to the text that a model was trained on."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from types import CodeType
from typing import Any

from jinja2 import TemplateSyntaxError, nodes
from jinja2.meta import find_undeclared_variables

from zonda.errors import InvalidModel, InvalidRequest, ZondaError
from zonda.text import conversation, told_tools
from zonda.text.sandbox import Exceeded, Raised, Sandbox

LONGEST_SOURCE = 1 << 19
ANOTHER = "pass another with `chat_template`"
TOOL_USE = "tool_use"
DEFAULT = "default"
NINE = "length 9"
"""What a template complains with that takes only ids of this length."""
OWN = frozenset({"self", "messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token",
                 "unk_token"})
"""Variables that the caller may not set beside the arguments that are for them."""
KNOWN = frozenset({"enable_thinking", "thinking", "thinking_budget", "reasoning_effort", "preserve_thinking",
                   "clear_thinking", "date_string"})
"""Variables that may be set for every template, whether or not it reads them."""


class ChatTemplate:
    """A Jinja template, or several by name, of which `tool_use` is for conversations with tools, in a sandbox.

    `bos`, `eos` and `unk` are the texts of those tokens. The template renders BOS itself if it wants to;
    `Tokenizer.encode_chat` sees to it that there is not a second one.
    """

    def __init__(self, source: str | Mapping[str, str], *, bos: str | None = None, eos: str | None = None,
                 unk: str | None = None, now: Callable[[], datetime] = datetime.now) -> None:
        self.sources = dict(source) if isinstance(source, Mapping) else {DEFAULT: source}
        if not self.sources or not all(isinstance(each, str) for each in self.sources.values()):
            raise InvalidModel("the chat template is no text", hint="pass one as a .jinja file")
        tokens = {"bos_token": bos, "eos_token": eos, "unk_token": unk}
        self._tokens = {name: token for name, token in tokens.items() if token is not None}
        self._sandbox = Sandbox(now)
        self._programs = {name: Program(text, self._sandbox) for name, text in self.sources.items()}

    def render(self, messages: Sequence[Mapping[str, Any]], /, *, tools: Sequence[Mapping[str, Any]] | None = None,
               add_generation_prompt: bool = True, **variables: Any) -> str:
        """The prompt for a conversation; `variables` such as `enable_thinking` are what templates may ask for.

        A conversation that the template does not take, such as one with a system message, is changed to one that it
        takes where that says the same. Raises `InvalidRequest` when the template refuses the conversation, and
        `InvalidModel` when it is broken or costs too much, with its line.
        """
        given = conversation.checked(messages)
        program = self._programs[self._name(tools=bool(tools))]
        offered = conversation.checked_tools(tools) if tools else None
        settings = {**self._variables(program, variables), "add_generation_prompt": bool(add_generation_prompt),
                    "tools": offered, "documents": None}
        failure: Failure | None = None
        for form in conversation.forms(_adapted(program, given, offered or ())):
            try:
                return program.run({**settings, "messages": form})
            except Failure as error:
                failure = failure or error
        assert failure is not None
        raise _blame(program, settings, failure)

    def _name(self, *, tools: bool) -> str:
        wanted = (TOOL_USE, DEFAULT) if tools else (DEFAULT,)
        return next((name for name in wanted if name in self.sources), next(iter(self.sources)))

    def _variables(self, program: Program, given: Mapping[str, Any]) -> dict[str, Any]:
        refused = given.keys() & (OWN | self._sandbox.globals.keys())
        if refused:
            raise InvalidRequest(f"the chat template's variable {min(refused)!r} cannot be set",
                                 param="chat_template_kwargs")
        read = KNOWN | program.compiled.reads - OWN - self._sandbox.globals.keys()
        if given.keys() - read:
            raise InvalidRequest("`chat_template_kwargs` has a variable that the chat template does not read",
                                 param="chat_template_kwargs", hint=f"known: {', '.join(sorted(read))}")
        known: dict[str, Any] = {**self._tokens, **conversation.plain(given, "chat_template_kwargs")}
        if "reasoning_effort" in known:
            known.setdefault("reasoning_strength", known["reasoning_effort"])
        if "strftime_now" not in program.text:
            known.setdefault("date_string", datetime.now(UTC).strftime("%d %b %Y"))
        return known


@dataclass(frozen=True, slots=True)
class Compiled:
    """A template's code, whether it takes contents as lists of parts, and as texts, and the variables that it reads."""

    code: CodeType
    takes_parts: bool
    takes_text: bool
    reads: frozenset[str]


class Failure(Exception):
    """A template that stopped at a line."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(f"{cause}" or type(cause).__name__)
        self.cause = cause
        self.where = _place(cause)


class Program:
    """One template, compiled when it is first needed."""

    def __init__(self, text: str, sandbox: Sandbox) -> None:
        self.text = text
        self._sandbox = sandbox

    @cached_property
    def compiled(self) -> Compiled:
        """The template, ready to run; raises `InvalidModel` if it is broken."""
        if len(self.text) > LONGEST_SOURCE:
            raise InvalidModel(f"the chat template has {len(self.text)} characters, expected at most {LONGEST_SOURCE}")
        try:
            return self._compile()
        except TemplateSyntaxError as error:
            raise InvalidModel(f"line {error.lineno} of the chat template is broken: {error.message}",
                               hint=ANOTHER) from error
        except Exception as error:
            raise InvalidModel(f"the chat template cannot be compiled: {error!s:.300}", hint=ANOTHER) from error

    def _compile(self) -> Compiled:
        tree = self._sandbox.parse(self.text)
        parts = any(_is_content(loop.iter) for loop in tree.find_all(nodes.For))
        texts = not parts or any(test.name == "string" and _is_content(test.node) for test in tree.find_all(nodes.Test))
        reads = frozenset(find_undeclared_variables(tree))
        return Compiled(self._sandbox.compile(tree), takes_parts=parts, takes_text=texts, reads=reads)

    def run(self, variables: Mapping[str, Any]) -> str:
        """The rendered text; raises `InvalidModel` when the template goes too far, else `Failure`."""
        code = self.compiled.code
        try:
            return self._sandbox.render(code, variables)
        except Exceeded as error:
            raise InvalidModel(f"{_place(error)} was stopped: {error}", hint=ANOTHER) from error
        except Exception as error:
            raise Failure(error) from error


def _is_content(node: Any) -> bool:
    """Whether an expression is a message's content, or a variable of that name, or a part of one."""
    if isinstance(node, nodes.Filter | nodes.Call):
        return node.node is not None and _is_content(node.node)
    if isinstance(node, nodes.Getitem):
        return isinstance(node.arg, nodes.Const) and node.arg.value == "content"
    return (isinstance(node, nodes.Getattr) and node.attr == "content") or (
        isinstance(node, nodes.Name) and node.name == "content")


def _adapted(program: Program, messages: list[conversation.Message],
             tools: Sequence[Mapping[str, Any]] = ()) -> list[conversation.Message]:
    """The conversation with roles, contents and tool calls as this template takes them."""
    messages = conversation.thoughts_named(conversation.parsed_arguments(messages))
    if "tools" not in program.text and "tool_calls" not in program.text:
        messages = told_tools.told(messages, tools)
    elif NINE in program.text:
        messages = told_tools.short_ids(messages)
    if "developer" not in program.text:
        messages = conversation.without_developer(messages)
    if not program.compiled.takes_parts:
        return conversation.flat(messages)
    return messages if program.compiled.takes_text else conversation.in_parts(messages)


def _blame(program: Program, settings: Mapping[str, Any], failure: Failure) -> ZondaError:
    """The error for a template that failed: the request's fault, unless the simplest conversation fails as well."""
    if isinstance(failure.cause, Raised):
        return InvalidRequest(f"{failure.where} refuses the conversation: {failure}", param="messages")
    simplest = _adapted(program, [{"role": "user", "content": "a"}])
    try:
        program.run({**settings, "messages": simplest})
    except Failure as error:
        if not isinstance(error.cause, Raised):
            return InvalidModel(f"{error.where} is broken: {error}", hint=ANOTHER)
    return InvalidRequest(f"{failure.where} cannot render the conversation: {failure}", param="messages")


def _place(error: Exception) -> str:
    """Where in the template an error came up."""
    line, trace = None, error.__traceback__
    while trace is not None:
        template = trace.tb_frame.f_globals.get("__jinja_template__")
        line = template.get_corresponding_lineno(trace.tb_lineno) if template is not None else line
        trace = trace.tb_next
    return f"line {line} of the chat template" if line else "the chat template"
