"""A loaded model at the level of text: what the blocking and the asynchronous interface share."""
from __future__ import annotations

import _thread
import atexit
import secrets
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self, cast

from zonda.completion import Reply
from zonda.errors import InvalidRequest, Unsupported
from zonda.options import EngineOptions, ModelOptions, split
from zonda.prepare import fitting, fitting_text, offered, prepared
from zonda.text import manner
from zonda.turns import Prepared, Turn
from zonda.types import Budget, Grammar, Progress, Request, Sampling

if TYPE_CHECKING:
    from zonda.engine.engine import Engine
    from zonda.text.template import ChatTemplate
    from zonda.text.tokenizer import Tokenizer

Message = Mapping[str, Any]
Conversation = str | Sequence[Message]
"""One user message as text, or messages as OpenAI's chat API has them."""
Prompt = str | Sequence[int]
"""Text, or token ids."""


class Loaded:
    """A loaded model at the level of text: what `LLM` and `AsyncLLM` share."""

    def __init__(self, model: str | None = None, **options: Any) -> None:
        """Load a model. The options are those of the command line, with underscores: `max_seq_len=2048`."""
        progress = options.pop("progress", None)
        self._load(*split({"model": model, **options}, ModelOptions, EngineOptions), progress=progress)

    @classmethod
    def from_options(cls, model: ModelOptions, engine: EngineOptions, *, progress: Progress | None = None) -> Self:
        """Load a model as whole groups of options say; `progress` is told how far it is."""
        self = cls.__new__(cls)
        self._load(model, engine, progress=progress)
        return self

    def _load(self, model: ModelOptions, engine: EngineOptions, *, progress: Progress | None) -> None:
        from zonda.model import load_model

        manner.find({}, lambda mark: None, dialect=model.tool_dialect, style=model.reasoning)  # are there such names?
        parts = load_model(model, engine, progress=progress)
        self._adopt(parts.engine, parts.tokenizer, parts.template, parts.name, parts.defaults,
                    model.tool_dialect, model.reasoning)

    @classmethod
    def from_parts(cls, engine: Engine, tokenizer: Tokenizer, template: ChatTemplate | None = None, *,
                   name: str = "model", defaults: Mapping[str, Any] | None = None, tool_dialect: str | None = None,
                   reasoning: str | None = None) -> Self:
        """Put together from a running engine and its texts; the result owns the engine."""
        self = cls.__new__(cls)
        self._adopt(engine, tokenizer, template, name, defaults or {}, tool_dialect, reasoning)
        return self

    def _adopt(self, engine: Engine, tokenizer: Tokenizer, template: ChatTemplate | None, name: str,
               defaults: Mapping[str, Any], tool_dialect: str | None, reasoning: str | None) -> None:
        self.engine = engine
        self.tokenizer = tokenizer
        self.template = template
        self.name = name
        self.defaults = defaults
        self.manner = manner.find(template.sources if template else {}, tokenizer.id, dialect=tool_dialect,
                                  style=reasoning)
        """How the model marks reasoning and tool calls."""
        self.created = int(time.time())
        self._closer = weakref.finalize(self, _leave, engine)
        self._closer.atexit = False
        atexit.register(engine.close)  # at the latest

    @property
    def capabilities(self) -> tuple[str, ...]:
        """What it can be asked for."""
        if not self.template:
            return ("completion",)
        return ("completion", "chat", "reasoning") if self.manner.reasons else ("completion", "chat")

    def abandon(self) -> None:
        """Leave an engine behind that does not stop; the interpreter will end without it."""
        self._closer.detach()
        atexit.unregister(self.engine.close)

    def tokenize(self, text: str, *, add_special: bool = True) -> list[int]:
        """Token ids of a text, with the tokens that the tokenizer adds around it unless `add_special` is off."""
        return self.tokenizer.encode(text, add_special=add_special)

    def detokenize(self, tokens: Sequence[int], *, skip_special: bool = True) -> str:
        """The text of token ids."""
        return self.tokenizer.decode(list(tokens), skip_special=skip_special)

    def render(self, messages: Conversation, *, tools: Sequence[Mapping[str, Any]] | None = None,
               add_generation_prompt: bool = True, **template_kwargs: Any) -> tuple[int, ...]:
        """The prompt, as token ids, that the chat template makes of a conversation."""
        text = self._rendered(messages, tools=tools, add_generation_prompt=add_generation_prompt, **template_kwargs)
        return tuple(self.tokenizer.encode_chat(text))

    def _rendered(self, messages: Conversation, **variables: Any) -> str:
        if self.template is None:
            raise Unsupported(f"{self.name} has no chat template", hint="pass `chat_template`, or complete plain text")
        said = as_messages(messages)
        if not said:
            raise InvalidRequest("`messages` is empty, expected at least one message", param="messages")
        return self.template.render(said, **variables)

    def prompt(self, turn: Turn) -> list[int]:
        """The prompt that a turn makes, as token ids."""
        prompt = self.render(turn.messages, tools=offered(turn) or None, **turn.variables)
        return [*prompt, *self.tokenize(turn.begun, add_special=False)]

    def count(self, turn: Turn) -> int:
        """The length of the prompt that a turn makes, in tokens."""
        return len(self.prompt(turn))

    def prepare(self, turn: Turn) -> Prepared:
        """The prompt of a turn, and what takes the answers apart; errors name `messages`, `tools` or `tool_choice`."""
        if isinstance(turn.messages, str) or not turn.messages:
            raise InvalidRequest("`messages` is empty, expected at least one message", param="messages")
        _check(turn.sampling)
        tools = offered(turn)
        text, limit = self._rendered(turn.messages, tools=tools or None, **turn.variables), self.engine.max_len
        with about_messages():
            text = fitting_text(text, self.tokenizer, limit, turn.sampling)
            prompt = tuple(fitting(self.tokenizer.encode_chat(text), limit, turn.sampling))
        return prepared(turn, prompt, tools, self.manner, self.tokenizer)

    def _request(self, prompt: Prompt, sampling: Sampling, request_id: str | None = None, *, salt: str = "",
                 grammar: Grammar | None = None, budget: Budget | None = None) -> Request:
        _check(sampling)
        ids = self.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
        if not isinstance(ids, Iterable) or isinstance(ids, bytes):
            raise InvalidRequest(f"the prompt is {type(ids).__name__}, expected text or token ids", param="prompt")
        return Request(request_id or secrets.token_hex(8), tuple(ids), sampling, salt, grammar, budget)

    def _asked(self, turn: Prepared, request_id: str | None) -> Reply:
        """The reply to a prepared turn, not yet queued."""
        return self._reply(self._request(turn.prompt, turn.sampling, request_id, salt=turn.salt,
                                         grammar=turn.grammar, budget=turn.budget), visible=turn.visible)

    def _reply(self, request: Request, *, visible: frozenset[int] = frozenset()) -> Reply:
        return Reply(request, self.tokenizer, lambda index: self.engine.cancel(request.id, index, "stop"),
                     visible=visible)


@contextmanager
def about_messages() -> Iterator[None]:
    """Say of errors about the prompt that they are about the messages, of which it was made."""
    try:
        yield
    except InvalidRequest as error:
        if error.param == "prompt":
            error.param = "messages"
        raise


def _check(sampling: Sampling) -> None:
    """Refuse what the engine would, before anything is made for each of the answers."""
    from zonda.engine.intake import check

    check(sampling)


def _leave(engine: Engine) -> None:
    """Close the engine of a model that is no more, on a thread of its own.

    The thread that collects garbage may be one that the engine waits for, or hold locks of `threading`.
    """
    atexit.unregister(engine.close)
    _thread.start_new_thread(engine.close, ())


def as_messages(messages: Conversation) -> list[dict[str, Any]]:
    """A conversation as messages, a text as one of the user; raises for what is neither."""
    if isinstance(messages, str):
        return [{"role": "user", "content": messages}]
    if not isinstance(messages, Sequence) or not all(isinstance(each, Mapping) for each in messages):
        raise InvalidRequest("`messages` is neither a text nor a list of messages", param="messages",
                             hint='a message looks like {"role": "user", "content": "..."}')
    return [dict(each) for each in cast(Sequence[Message], messages)]
