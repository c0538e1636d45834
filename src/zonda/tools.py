"""Python functions as tools that a model may call: `@tool`, their schemas, and the loop that calls them."""
from __future__ import annotations

import asyncio
import functools
import inspect
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import msgspec

from zonda.completion import Call, Choice, Completion
from zonda.errors import InvalidRequest

_ARGUMENTS = re.compile(r"^\s*(?:Args|Arguments|Parameters):\s*$")
_SECTION = re.compile(r"^\s*(?:Returns|Raises|Yields|Examples?|Notes?):\s*$")
_ARGUMENT = re.compile(r"^\s+\*{0,2}(\w+)(?:\s*\([^)]*\))?:\s*(.*)$")
_FIELD = re.compile(r"^\s*:param (?:[\w\[\], ]+ )?(\w+):\s*(.*)$")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}$")
_LONGEST = 500  # characters of an error that the model is told


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that a model may call: it is still called as before."""

    function: Callable[..., Any]
    name: str
    description: str
    parameters: Mapping[str, Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    @property
    def schema(self) -> dict[str, Any]:
        """The tool in the shape of OpenAI's chat."""
        return {"type": "function", "function": {"name": self.name, "description": self.description,
                                                 "parameters": dict(self.parameters)}}

    @property
    def awaited(self) -> bool:
        """Whether its result is awaited, as that of a coroutine function."""
        return any(map(inspect.iscoroutinefunction, (self.function, type(self.function).__call__)))

    def call(self, arguments: str) -> str:
        """The result for arguments as JSON, as text; an error becomes the text, for the model to mend its call."""
        try:
            return _text(self._begun(arguments))
        except Exception as error:
            return _complaint(error)

    async def acall(self, arguments: str) -> str:
        """As `call`, from an event loop: a coroutine function runs in the loop, another one in a thread."""
        if not self.awaited:
            return await asyncio.to_thread(self.call, arguments)
        try:
            return _text(await self._begun(arguments))
        except Exception as error:
            return _complaint(error)

    def _begun(self, arguments: str) -> Any:
        given = msgspec.json.decode(arguments or "{}", type=dict[str, Any])
        return self.function(**_converted(self.function, given))


def _text(result: Any) -> str:
    return result if isinstance(result, str) else msgspec.json.encode(result, enc_hook=_plain).decode()


def _complaint(error: Exception) -> str:
    return f"error: {type(error).__name__}: {error!s:.{_LONGEST}}"


@overload
def tool(function: Callable[..., Any]) -> Tool: ...


@overload
def tool(*, name: str | None = None, description: str | None = None) -> Callable[[Callable[..., Any]], Tool]: ...


def tool(function: Callable[..., Any] | None = None, *, name: str | None = None, description: str | None = None) -> Any:
    """Make a tool of a function, by its type hints and its docstring."""
    if function is None:
        return lambda function: _made(function, name, description)
    return _made(function, name, description)


def _made(function: Callable[..., Any], name: str | None = None, description: str | None = None) -> Tool:
    if not callable(function):
        raise InvalidRequest(f"`tools` has {type(function).__name__}, expected a function", param="tools",
                             hint="pass functions, or use @tool")
    name = name or str(getattr(function, "__name__", type(function).__name__))
    if not _NAME.match(name):
        raise InvalidRequest(f"{name!r:.100} is no name for a tool", param="tools", hint='use @tool(name="...")')
    about, arguments = _documented(inspect.getdoc(function) or "")
    try:
        return Tool(function, name, description or about, _parameters(function, arguments))
    except TypeError as error:
        raise InvalidRequest(f"the arguments of {name} cannot be told to a model: {str(error).splitlines()[-1]}",
                             param="tools", hint="use types that JSON has, dataclasses or pydantic models") from None


def _documented(text: str) -> tuple[str, dict[str, str]]:
    """A docstring's words on the function, and those on its arguments."""
    about: list[str] = []
    arguments: dict[str, str] = {}
    section, last = "", ""
    for line in text.splitlines():
        if _ARGUMENTS.match(line) or _SECTION.match(line):
            section = "arguments" if _ARGUMENTS.match(line) else "other"
        elif found := _FIELD.match(line) or (_ARGUMENT.match(line) if section == "arguments" else None):
            last = found[1]
            arguments[last] = found[2].strip()
        elif section == "arguments" and last and line.strip():
            arguments[last] = f"{arguments[last]} {line.strip()}".strip()
        elif not section and not line.lstrip().startswith(":"):
            about.append(line)
    return "\n".join(about).strip(), arguments


def _parameters(function: Callable[..., Any], documented: Mapping[str, str]) -> dict[str, Any]:
    hints, more = _hints(function), dict[str, Any]()

    def described(kind: Any) -> dict[str, Any]:
        if not hasattr(kind, "model_json_schema"):
            raise NotImplementedError
        schema: dict[str, Any] = kind.model_json_schema()
        more.update(schema.pop("$defs", {}))
        return schema

    signature = inspect.signature(function).parameters.values()
    if nameless := [each.name for each in signature if each.kind == each.POSITIONAL_ONLY]:
        raise TypeError(f"`{nameless[0]}` cannot be given by its name")
    known = {each.name: each for each in signature if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)}
    types = [hints.get(name, Any) for name in known]
    schemas, shared = msgspec.json.schema_components(types, schema_hook=described, ref_template="#/$defs/{name}")
    shared = {**shared, **more}
    properties = {name: _property(schema, hint, documented.get(name, ""), known[name].default)
                  for name, schema, hint in zip(known, schemas, types)}
    required = [name for name, each in known.items() if each.default is each.empty]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False,
            **({"$defs": shared} if shared else {})}


def _property(schema: dict[str, Any], hint: Any, documented: str, default: Any) -> dict[str, Any]:
    noted = next((each for each in getattr(hint, "__metadata__", ()) if isinstance(each, str)), documented)
    extra = {"description": noted} if noted else {}
    if default is not inspect.Parameter.empty and default is not None:
        extra["default"] = msgspec.to_builtins(default, enc_hook=_plain)
    return schema | extra


def _converted(function: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments as values of the types that the function declares."""
    hints = _hints(function)
    return {name: msgspec.convert(value, hints[name], strict=False, dec_hook=_validated) if name in hints else value
            for name, value in given.items()}


def _validated(kind: Any, value: Any) -> Any:
    return kind.model_validate(value)


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """The types of its arguments, also of an object that can be called, and of a function with some arguments given."""
    plain = function.func if isinstance(function, functools.partial) else function
    return typing.get_type_hints(plain if inspect.isroutine(plain) else plain.__call__,  # type: ignore[operator]
                                 include_extras=True)


def _plain(value: Any) -> Any:
    """What JSON has no form for: a pydantic model as its fields, anything else as text."""
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else str(value)


Offered = Tool | Callable[..., Any] | Mapping[str, Any]
"""A tool, a function that becomes one, or a tool in the shape of OpenAI's chat."""


def schemas(tools: Sequence[Offered] | None) -> list[Mapping[str, Any]]:
    """Tools in the shape of OpenAI's chat."""
    if tools is not None and not isinstance(tools, Sequence):
        raise InvalidRequest(f"`tools` is {type(tools).__name__}, expected a list", param="tools")
    return [each if isinstance(each, Mapping) else _tool(each).schema for each in tools or ()]


def _tool(each: Tool | Callable[..., Any]) -> Tool:
    return each if isinstance(each, Tool) else _made(each)


@dataclass(frozen=True, slots=True)
class ToolRun:
    """What came of a conversation with tools: the last answer, and all messages up to and with it."""

    answer: Completion
    messages: list[dict[str, Any]]

    @property
    def text(self) -> str:
        return self.answer.text

    def __str__(self) -> str:
        return self.text


class ToolTalk:
    """A conversation in which the model's calls are answered; `open` while it goes on, for so many rounds at most.

    `awaits` says that it is held in an event loop, so that tools may be coroutine functions.
    """

    def __init__(self, messages: list[dict[str, Any]], tools: Sequence[Tool | Callable[..., Any]], rounds: int, *,
                 awaits: bool = False) -> None:
        if not tools:
            raise InvalidRequest("`tools` has no functions to call", param="tools", hint="pass functions, or use @tool")
        if rounds < 1:
            raise InvalidRequest(f"`max_rounds` is {rounds}, expected at least 1", param="max_rounds")
        self.messages = messages
        self.tools = [_tool(each) for each in tools]
        if awaited := [each.name for each in self.tools if each.awaited and not awaits]:
            raise InvalidRequest(f"{awaited[0]} is a coroutine function, expected a plain one", param="tools",
                                 hint="AsyncLLM awaits tools")
        self._left = rounds
        self._answers: list[Completion] = []

    @property
    def open(self) -> bool:
        return self._left > 0

    @property
    def run(self) -> ToolRun:
        """What came of it so far."""
        return ToolRun(self._answers[-1], self.messages)

    def add(self, answer: Completion, results: Sequence[dict[str, Any]]) -> None:
        """Go on by an answer and the results of its calls."""
        self._answers.append(answer)
        self.messages += [_said(answer.choices[0]), *results]
        self._left = self._left - 1 if answer.calls else 0

    def result(self, call: Call) -> dict[str, Any]:
        """The message with a call's result."""
        known = self._known(call)
        return _told(call, known.call(call.arguments) if known else None)

    async def aresult(self, call: Call) -> dict[str, Any]:
        """As `result`, from an event loop."""
        known = self._known(call)
        return _told(call, await known.acall(call.arguments) if known else None)

    def _known(self, call: Call) -> Tool | None:
        return next((each for each in self.tools if each.name == call.name), None)


def _told(call: Call, text: str | None) -> dict[str, Any]:
    """A call's result as a message, None where there is no such tool."""
    content = f"error: there is no tool {call.name!r:.100}" if text is None else text
    return {"role": "tool", "tool_call_id": call.id, "name": call.name, "content": content}


def _said(choice: Choice) -> dict[str, Any]:
    """An answer as a message, for the conversation to go on."""
    calls = [{"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
             for call in choice.calls]
    return {"role": "assistant", "content": choice.text or (None if calls else ""),
            **({"reasoning_content": choice.thought} if choice.thought else {}),
            **({"tool_calls": calls} if calls else {})}
