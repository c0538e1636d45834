"""A turn of a conversation at the level of text, whatever protocol it came by: text, reasoning and tool calls."""
from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct, structs

from zonda.completion import Call, Choice, Completion, Ending, Gather
from zonda.errors import ContextExceeded, InvalidRequest
from zonda.text.dialects.tools import Tools
from zonda.text.first_call import FirstCall
from zonda.text.parts import CallArguments, CallStart, Parser, Part, Text, Thought
from zonda.types import Budget, Chunk, Grammar, Sampling

if TYPE_CHECKING:
    from zonda.text.manner import Manner
    from zonda.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Named:
    """The choice of one tool, which must be called."""

    name: str


ToolChoice = Literal["auto", "none", "required"] | Named


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What a client asks for: messages and function tools in the shape of OpenAI's chat, and how to answer them.

    `patterns` are expressions that all texts among a tool's arguments must match, by its name.
    `allowed` narrows the tools that may be called to those of these names; empty allows all. `parallel` says whether
    there may be more calls than one. `format` is the form of the answer's text. `variables` go to the chat template;
    `thinking_budget` among them also limits how many tokens are reasoning. `begun` is the beginning of the answer's
    text, after which the model goes on.
    """

    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] = ()
    choice: ToolChoice = "auto"
    allowed: tuple[str, ...] = ()
    parallel: bool = True
    patterns: Mapping[str, str] = field(default_factory=dict)
    format: Grammar | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)
    sampling: Sampling = field(default_factory=Sampling)
    salt: str = ""
    begun: str = ""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A turn that is ready to be answered: its prompt, and what takes the answers to it apart.

    `visible` are the special tokens that belong to the text which the parsers read.
    """

    prompt: tuple[int, ...]
    sampling: Sampling
    parsers: tuple[Parser, ...]
    visible: frozenset[int] = frozenset()
    grammar: Grammar | None = None
    salt: str = ""
    parallel: bool = True
    budget: Budget | None = None

    def listener(self, stop: Callable[[int], None]) -> Listener:
        """What takes the answers' chunks apart; see `Listener`."""
        return Listener(self.parsers, parallel=self.parallel, stop=stop)


class Spoken(Struct, frozen=True):
    """What one chunk adds to answer `index`. The last one of an answer has an `ending`.

    `reasoning_tokens` counts the tokens of reasoning so far, over all answers.
    """

    index: int
    parts: tuple[Part, ...]
    chunk: Chunk
    ending: Ending | None = None
    reasoning_tokens: int = 0

    @property
    def said(self) -> Chunk:
        """The chunk with reasoning told apart from its text, and calls left out."""
        text, thought = ("".join(part.text for part in self.parts if isinstance(part, kind))
                         for kind in (Text, Thought))
        return structs.replace(self.chunk, text=text, thought=thought)


class Listener:
    """Takes a request's chunks apart, each sequence by its own parser.

    Without `parallel` an answer is over with its first call, and `stop` is called with its index.
    """

    def __init__(self, parsers: Sequence[Parser], *, parallel: bool = True,
                 stop: Callable[[int], None] = lambda index: None) -> None:
        self._parsers = parsers
        self._firsts = None if parallel else [FirstCall() for _ in parsers]
        self._stop = stop
        self._called: set[int] = set()
        self._reasoning = 0

    def hear(self, chunk: Chunk) -> Spoken:
        """The parts that a chunk adds."""
        parser = self._parsers[chunk.index]
        before = parser.thinking
        parts = parser.feed(chunk.text) if chunk.text else ()
        if before or parser.thinking:
            self._reasoning += len(chunk.tokens)
        if chunk.finish:
            parts = (*parts, *parser.finish(cut=chunk.finish == "length"))
        if self._firsts:
            parts = self._alone(self._firsts[chunk.index], chunk, parts)
        for part in parts:
            if isinstance(part, CallStart):
                self._called.add(chunk.index)
        return Spoken(chunk.index, tuple(parts), chunk, self._ending(chunk), self._reasoning)

    def _alone(self, first: FirstCall, chunk: Chunk, parts: Sequence[Part]) -> Sequence[Part]:
        """The parts up to the end of the first call."""
        taken = [part for part in parts if first.takes(part)]
        if first.over and not chunk.finish:
            self._stop(chunk.index)
        return taken

    def _ending(self, chunk: Chunk) -> Ending | None:
        called = chunk.finish == "stop" and chunk.stop is None and chunk.index in self._called
        return "tool_calls" if called else chunk.finish


@dataclass(slots=True)
class _Said:
    texts: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    calls: list[tuple[CallStart, list[str]]] = field(default_factory=list)
    ending: Ending = "stop"

    def add(self, part: Part) -> None:
        match part:
            case Text(text):
                self.texts.append(text)
            case Thought(text):
                self.thoughts.append(text)
            case CallStart():
                self.calls.append((part, []))
            case CallArguments(index, json):
                self.calls[index][1].append(json)

    def told(self, choice: Choice) -> Choice:
        calls = tuple(Call(start.id, start.name, "".join(pieces)) for start, pieces in self.calls)
        return replace(choice, text="".join(self.texts), thought="".join(self.thoughts), calls=calls,
                       finish_reason=self.ending)


class Collected:
    """Adds what is spoken up to a completion, with reasoning and calls told apart from its texts."""

    def __init__(self, n: int = 1) -> None:
        self._chunks = Gather(n)
        self._said = [_Said() for _ in range(n)]
        self._reasoning = 0

    def add(self, spoken: Spoken) -> None:
        """Take in one more piece."""
        said = self._said[spoken.index]
        for part in spoken.parts:
            said.add(part)
        said.ending = spoken.ending or said.ending
        self._chunks.add(spoken.chunk)
        self._reasoning = spoken.reasoning_tokens

    def completion(self) -> Completion:
        """All that came, as one value."""
        whole = self._chunks.completion()
        choices = tuple(said.told(choice) for said, choice in zip(self._said, whole.choices))
        return replace(whole, choices=choices, reasoning_tokens=self._reasoning)


class Heard:
    """Adds the chunks of a turn up to a completion, as `Gather` those of a bare prompt."""

    def __init__(self, prepared: Prepared, stop: Callable[[int], None]) -> None:
        self._listener = prepared.listener(stop)
        self._collected = Collected(prepared.sampling.n)

    def add(self, chunk: Chunk) -> None:
        """Take in one more chunk."""
        self._collected.add(self._listener.hear(chunk))

    def completion(self) -> Completion:
        """All that came, as one value."""
        return self._collected.completion()


def taken_off(messages: list[dict[str, Any]], *, thinks: bool = False) -> str:
    """The text of the last message, which is taken off the others: it begins the answer."""
    last = messages.pop() if messages and messages[-1]["role"] == "assistant" else {}
    if not last or thinks or "tool_calls" in last:
        raise InvalidRequest("the last of `messages` cannot begin the answer", param="messages",
                             hint="expected a text of the assistant alone, without thinking or tool calls")
    content = last["content"] or ""
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


_END = 64  # tokens at the end of a prompt that say how the answer begins


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
    special = tokenizer.special_ids
    found = (tokenizer.id(mark) for mark in manner.marks(tools=bool(callable_)))
    visible = frozenset(token for token in found if token is not None and token in special)
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


_SHORT = 1 << 16  # characters that are encoded whatever they may come to


def fitting_text(text: str, tokenizer: Tokenizer, limit: int, sampling: Sampling) -> str:
    """The end of a text that may fit into the context; to encode megabytes only to refuse them would take minutes."""
    most = limit * tokenizer.longest if len(text) > _SHORT else _SHORT
    if len(text) <= most:
        return text
    if sampling.truncate_sequence:
        return text[-most:]
    raise ContextExceeded.of(f"{len(text):,} characters", limit)
