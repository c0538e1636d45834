"""Makes a turn ready to be answered: its prompt, what the answer must look like, and what takes it apart."""
from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from zonda.errors import ContextExceeded, InvalidRequest
from zonda.text.dialects.tools import Tools
from zonda.turns import Named, Prepared, Turn
from zonda.types import Budget, Grammar, Sampling

if TYPE_CHECKING:
    from zonda.text.manner import Manner
    from zonda.text.tokenizer import Tokenizer

_END = 64  # tokens at the end of a prompt that say how the answer begins
_SHORT = 1 << 16  # characters that are encoded whatever they may come to


def offered(turn: Turn) -> Sequence[Mapping[str, Any]]:
    """The tools that the model is told of; raises where the choice names one that is not there."""
    for index, tool in enumerate(turn.tools):
        function = tool.get("function")
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not function["name"]:
            raise InvalidRequest(f"`tools[{index}]` is not a function tool", param=f"tools[{index}]",
                                 hint='expected {"type": "function", "function": {"name": ...}}')
    names = {tool["function"]["name"] for tool in turn.tools}
    wanted = {*turn.allowed, *((turn.choice.name,) if isinstance(turn.choice, Named) else ())}
    if wanted - names:
        raise InvalidRequest(f"`tool_choice` names {min(wanted - names)!r:.80}, which is not among the tools",
                             param="tool_choice")
    if turn.choice == "required" and not turn.tools:
        raise InvalidRequest("`tool_choice` is required, but there are no tools", param="tool_choice")
    return () if turn.choice == "none" else turn.tools


def prepared(turn: Turn, prompt: tuple[int, ...], tools: Sequence[Mapping[str, Any]], manner: Manner,
             tokenizer: Tokenizer) -> Prepared:
    """A turn with its rendered prompt, ready to be answered."""
    callable_ = Tools([_matching(each, turn.patterns) for each in tools
                       if not turn.allowed or each["function"]["name"] in turn.allowed],
                      {*turn.patterns, *(each["function"]["name"] for each in tools if each["function"].get("strict"))})
    build = _Build(manner, tokenizer)
    grammar = _grammar(turn, callable_, build)
    end = tokenizer.decode(prompt[-_END:], skip_special=False)
    if turn.begun and grammar:
        raise InvalidRequest("the last of `messages` begins the answer, which then has no form and is no forced call",
                             param="messages", hint="end with a message of the user")
    lead = manner.head(end) + turn.begun if turn.begun else ""
    if grammar:
        silent = turn.variables.get("enable_thinking") is False
        lead = manner.lead(end, formed=grammar is turn.format, silent=silent)
    if lead:
        prompt, end = (*prompt, *tokenizer.encode(lead, add_special=False)), end + lead
    parsers = tuple(manner.parser(end, callable_) for _ in range(turn.sampling.n))
    visible = tokenizer.special_ids & {tokenizer.id(mark) for mark in manner.marks(tools=bool(callable_))}
    closing = manner.closing(end, tokenizer.id)
    if grammar and closing is not None and grammar.after is None:
        grammar = replace(grammar, after=closing)
    budget = _budget(turn, end, manner, tokenizer, tools=bool(callable_), bound=grammar is not None)
    if grammar is None and callable_.held:
        grammar = build.held(callable_, end)
    return Prepared(prompt, turn.sampling, parsers, visible, grammar, turn.salt, turn.parallel, budget)


def _budget(turn: Turn, end: str, manner: Manner, tokenizer: Tokenizer, *, tools: bool, bound: bool) -> Budget | None:
    """How much may be reasoned in the answer to a prompt with this end; a grammar that follows waits for its mark."""
    tokens, style, dialect = turn.variables.get("thinking_budget"), manner.style, manner.dialect
    opened = bool(style and style.opened(end))
    if style is None or type(tokens) is not int or tokens < 0 or (bound and not (opened or dialect.own)):
        return None
    closings = tuple(tuple(tokenizer.encode(each, add_special=False))
                     for each in manner.closings(tools=tools, bound=bound))
    closes = (style.close, *(dialect.ends if tools else ()))
    return Budget(tokens, "" if opened else style.open, closes, closings, again=dialect.own is not None)


def _matching(tool: Mapping[str, Any], patterns: Mapping[str, str]) -> Mapping[str, Any]:
    """A tool with the pattern that there is for its texts."""
    function = tool["function"]
    if function["name"] not in patterns:
        return tool
    schema = {"type": "string", "pattern": f"^(?:{patterns[function['name']]})$"}
    parameters = function["parameters"]
    return {"function": function | {"parameters": parameters | {
        "properties": dict.fromkeys(parameters["properties"], schema)}}}


@dataclass(frozen=True, slots=True)
class _Build:
    """Makes grammars of calls for one model."""

    manner: Manner
    tokenizer: Tokenizer

    def forced(self, tools: Tools, *, many: bool, form: Mapping[str, Any] | None) -> Grammar:
        """Of answers that call one of the tools, or are JSON of the schema `form`."""
        return self._made(tools, tools.functions, lambda each: self.manner.forced(each, self._special, many=many,
                                                                                 form=form))

    def held(self, tools: Tools, prompt: str) -> Grammar:
        """Of free answers to a prompt, whose calls fit the tools that hold to their schemas."""
        return self._made(tools, tools.held, lambda each: self.manner.held(each, self._special,
                                                                          self.tokenizer.special_ids, prompt))

    def _made(self, tools: Tools, names: Iterable[str], make: Callable[[Tools], str]) -> Grammar:
        """Errors tell which tool they are about."""
        try:
            source = make(tools)
        except InvalidRequest as error:
            raise next(filter(None, (_wrong(tools, name, make) for name in sorted(names))), error) from None
        parts = tuple((f"the tool {name!r:.80}", json.dumps(tools.schema(name))) for name in sorted(names))
        return Grammar("lark", source, parts=parts)

    def _special(self, mark: str) -> int | None:
        token = self.tokenizer.id(mark)
        return token if token in self.tokenizer.special_ids else None


def _wrong(tools: Tools, name: str, make: Callable[[Tools], str]) -> InvalidRequest | None:
    """What is wrong with one of the tools, if something is."""
    try:
        make(tools.only(name))
    except InvalidRequest as error:
        return InvalidRequest(f"the tool {name!r:.80}: {error.message}", hint=error.hint, param=error.param)
    return None


def _grammar(turn: Turn, tools: Tools, build: _Build) -> Grammar | None:
    """The form of the answer: that of a call where one must be made, or that of either where one may be."""
    if not tools or turn.choice == "none":
        return turn.format
    form = _schema(turn.format) if turn.choice == "auto" else None
    if turn.choice == "auto" and form is None:
        return turn.format

    one = isinstance(turn.choice, Named)
    wanted = tools.only(turn.choice.name) if isinstance(turn.choice, Named) else tools
    return build.forced(wanted, many=turn.parallel and not one, form=form)


def _schema(form: Grammar | None) -> Mapping[str, Any] | None:
    """The JSON schema that a form asks for."""
    if form is None or form.kind != "json_schema":
        return None
    try:
        found = json.loads(form.source)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def fitting(prompt: Sequence[int], limit: int, sampling: Sampling) -> Sequence[int]:
    """The end of the prompt that the engine may look at; a prompt of millions of tokens must not keep it busy."""
    if len(prompt) < limit:
        return prompt
    if sampling.truncate_sequence:
        return prompt[-limit:]
    raise ContextExceeded.by(len(prompt), limit)


def fitting_text(text: str, tokenizer: Tokenizer, limit: int, sampling: Sampling) -> str:
    """The end of a text that may fit into the context; to encode megabytes only to refuse them would take minutes."""
    most = limit * tokenizer.longest if len(text) > _SHORT else _SHORT
    if len(text) <= most:
        return text
    if sampling.truncate_sequence:
        return text[-most:]
    raise ContextExceeded.of(f"{len(text):,} characters", limit)
