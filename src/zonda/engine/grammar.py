"""Compiles grammars for one model's vocabulary, within limits that hold against hostile ones."""
from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from zonda.engine import trial
from zonda.engine.complaints import complaint
from zonda.engine.distinct import Distinct, Pieces
from zonda.engine.forms import KINDS, internal_form
from zonda.engine.round_robin import RoundRobin
from zonda.engine.trial import Trials
from zonda.errors import Closed, InvalidRequest, Unsupported, ZondaError
from zonda.types import Grammar

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

MAX_MARK = 256
"""Characters of a text that a grammar waits for."""
MAX_CACHED = 1 << 22
"""Characters of all sources whose grammars are kept."""
MAX_KEPT = 512
"""Grammars that are kept: a short one can take as much memory as a long one."""
MAX_REFUSED = 1000
"""Refused grammars that are remembered, by a digest."""
REMEMBERED = 600.0
"""Seconds for which a grammar that was refused is refused again unseen."""
SLOW = 2
"""Grammars that may take long and are compiled at the same time."""
_STACK = 1 << 28  # bytes for the compiler, which recurses; only what is used is real
_TOKENS = "<["
"""How a grammar begins that names tokens by their ids, of which a trial knows nothing."""
_LIMITS: dict[str, Any] = {"step_lexer_fuel": 300_000, "step_max_items": 20_000, "max_items_in_row": 5_000,
                           "max_lexer_states": 20_000, "verbose_errors": False}
"""About 30 ms a token and 20 MB a sequence at worst."""


Start = tuple["LLMatcher", Callable[[], Distinct | None]]
"""What follows a grammar, at its start, and what makes that which keeps items apart that must differ, if any must."""


class Words(Protocol):
    """What grammars must know of a tokenizer."""

    @property
    def special_ids(self) -> frozenset[int]: ...

    def token_bytes(self, id: int, /) -> bytes: ...

    def encode(self, text: str, /, *, add_special: bool = True) -> list[int]: ...


@dataclass(frozen=True, slots=True)
class Compiled:
    """A grammar ready to be followed; every sequence follows a copy of `start`."""

    start: LLMatcher
    distinct: Callable[[], Distinct | None]
    """Makes what keeps the items of one sequence's arrays apart, if any must differ."""
    after: int | str | None
    special: frozenset[int]
    spell: Callable[[int], bytes]


class Grammars:
    """The grammars of one model, the last ones kept. Any thread may ask.

    A compilation takes some milliseconds, at most about twice `trial.SECONDS`; what could take longer is tried in a
    process that can be ended. Such grammars wait for one another, not the others for them, and clients take turns.
    """

    def __init__(self, words: Words | None, vocab: int) -> None:
        self._words = words
        self._vocab = vocab
        self._tokenizer: LLTokenizer | None = None
        self._pieces: Pieces | None = None
        self._cached: OrderedDict[tuple[str, str], Start] = OrderedDict()
        self._refused: OrderedDict[bytes, tuple[float, InvalidRequest]] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()
        self._loading = threading.Lock()
        special = [words.token_bytes(id).decode(errors="replace") for id in sorted(words.special_ids)] if words else []
        self._trials = Trials(SLOW, special, limits=_LIMITS, stack=_STACK)
        self._quick = RoundRobin("zonda-grammars", 1, _STACK)
        self._slow = RoundRobin("zonda-slow-grammars", SLOW, _STACK)
        self._closed = False

    def compile(self, grammar: Grammar) -> Compiled:
        """The grammar, ready to be followed; or InvalidRequest, which says what is wrong with it and where."""
        with self.about(grammar):
            start, distinct = self.begin(grammar).result()
        assert self._words is not None
        return Compiled(start, distinct, self._after(grammar), self._words.special_ids, self._words.token_bytes)

    @staticmethod
    @contextmanager
    def about(grammar: Grammar) -> Iterator[None]:
        """Have errors about a grammar name the option that it was given as."""
        try:
            yield
        except InvalidRequest as error:
            if error.param == "grammar":
                error.param = grammar.option
            raise

    def begin(self, grammar: Grammar, client: int = 0) -> Future[Start]:
        """Compile on a thread that does nothing else, in turn for clients; done at once if the grammar is known."""
        known: Future[Start] = Future()
        try:
            self._check(grammar)
            start = self._find(grammar)
        except ZondaError as error:
            known.set_exception(error)
            return known
        if start is None:
            threads = self._slow if trial.needed(grammar.kind, grammar.source) else self._quick
            try:
                return threads.submit(client, lambda: self._find(grammar) or self._keep(grammar))
            except RuntimeError as error:  # it takes no more jobs
                raise Closed("the engine has stopped") from error
        known.set_result(start)
        return known

    def _check(self, grammar: Grammar) -> None:
        if self._words is None:
            raise Unsupported("this engine has no vocabulary to enforce a grammar with", param="grammar")
        if grammar.kind not in KINDS or not isinstance(grammar.source, str):
            raise InvalidRequest(f"no grammar of kind {grammar.kind!r:.40} by a {type(grammar.source).__name__}",
                                 param="grammar", hint=f"expected a text, and one of {', '.join(KINDS)}")
        self._after(grammar)

    def _after(self, grammar: Grammar) -> int | str | None:
        match grammar.after:
            case int(token) if 0 <= token < self._vocab:
                return token
            case str(text) if 0 < len(text) <= MAX_MARK:
                return text
            case None:
                return None
        raise InvalidRequest(f"the grammar begins after {grammar.after!r:.40}, expected a token's id or a short text",
                             param="grammar")

    def knows(self, grammar: Grammar) -> bool:
        """Whether a grammar needs no compiling: it is kept, or so wrong that it is refused at once."""
        try:
            self._check(grammar)
            return self._find(grammar) is not None
        except ZondaError:
            return True

    def _find(self, grammar: Grammar) -> Start | None:
        """A grammar that is kept; raises InvalidRequest if it was refused a while ago."""
        key, name = (grammar.kind, grammar.source), _digest(grammar)
        with self._lock:
            if key in self._cached:
                self._cached.move_to_end(key)
            until, error = self._refused.get(name, (0.0, None))
            if error and until > time.monotonic():
                raise _again(error)
            return self._cached.get(key)

    def _keep(self, grammar: Grammar) -> Start:
        """Compile a grammar, and keep it, or that it was refused."""
        try:
            start = self._make(grammar)
        except InvalidRequest as found:
            error = self._wrong(grammar) or found
            with self._lock:
                self._refused[_digest(grammar)] = time.monotonic() + REMEMBERED, _again(error)
                while len(self._refused) > MAX_REFUSED:
                    self._refused.popitem(last=False)
            raise error from None
        with self._lock:
            self._cached[grammar.kind, grammar.source] = start
            self._size += len(grammar.source)
            while self._size > MAX_CACHED or len(self._cached) > MAX_KEPT:
                (_, source), _ = self._cached.popitem(last=False)
                self._size -= len(source)
        return start

    def _make(self, grammar: Grammar) -> Start:
        from llguidance import LLMatcher, LLParserLimits, LLTokenizer

        self._refuse_closed()
        internal, places = internal_form(grammar)
        if trial.needed(grammar.kind, grammar.source):
            said = self._trials.run(internal)
            self._refuse_closed()
            if said is None:
                raise InvalidRequest("the grammar takes too much time or memory to compile", param="grammar",
                                     hint=f"make it simpler: it may take {trial.SECONDS} s and {trial.MEMORY >> 20} MB")
            if said and _TOKENS not in internal:
                raise complaint(grammar, said)
        limits = LLParserLimits(**_LIMITS)
        start = LLMatcher(self._vocabulary(), internal, log_level=0, limits=limits)
        start.compute_bitmask()  # finds out what allows nothing at all, and warms up for the copies
        if start.is_error():
            raise complaint(grammar, start.get_error())
        if not places:
            return start, lambda: None
        letters = LLMatcher(LLTokenizer("byte"), internal, log_level=0, limits=limits)
        return start, partial(Distinct, places, letters, self._spelled())

    def _wrong(self, grammar: Grammar) -> InvalidRequest | None:
        """What is wrong with the first part of a grammar that cannot be compiled, if that is soon found."""
        until = time.monotonic() + trial.SECONDS
        for place, source in grammar.parts:
            try:
                if time.monotonic() < until:
                    self._make(Grammar("json_schema", source))
                    self._make(Grammar("lark", f"start: %json {source}"))
            except InvalidRequest as error:
                return InvalidRequest(f"{place}: {error.message}", hint=error.hint, param="tools")
        return None

    def close(self) -> None:
        """Compile nothing more, and end the processes beside this one, if there are any; they may be at work."""
        self._closed = True
        self._quick.close()
        self._slow.close()
        self._trials.close()

    def _refuse_closed(self) -> None:
        if self._closed:
            raise Closed("the engine has stopped")

    def _vocabulary(self) -> LLTokenizer:
        with self._loading:
            if self._tokenizer is None:
                from llguidance import LLTokenizer

                assert self._words is not None
                self._tokenizer = LLTokenizer(_Spelled(self._words, self._vocab))  # type: ignore[arg-type]
            return self._tokenizer

    def _spelled(self) -> Pieces:
        with self._loading:
            if self._pieces is None:
                assert self._words is not None
                self._pieces = Pieces([b"" if token in self._words.special_ids else
                                       _text_bytes(self._words.token_bytes(token)) for token in range(self._vocab)])
            return self._pieces


class _Spelled:
    """The vocabulary in the form that llguidance reads. It adds an end of its own as the last token."""

    is_tokenizer_wrapper = True
    eos_token_id = None
    bos_token_id = None

    def __init__(self, words: Words, vocab: int) -> None:
        self._words = words
        self.tokens = [_text_bytes(words.token_bytes(token)) for token in range(vocab)]
        self.special_token_ids = sorted(words.special_ids)

    def __call__(self, text: bytes | str) -> list[int]:
        return self._words.encode(text if isinstance(text, str) else text.decode(), add_special=False)


def _text_bytes(token: bytes) -> bytes:
    """No token that begins with the byte 255, which is in no text, and by which llguidance marks special ones."""
    return b"" if token.startswith(b"\xff") else token


def _again(error: InvalidRequest) -> InvalidRequest:
    """The same error, without what it has held on to since it was raised."""
    return InvalidRequest(error.message, hint=error.hint, param=error.param)


def _digest(grammar: Grammar) -> bytes:
    return hashlib.blake2b(f"{grammar.kind} {grammar.source}".encode(errors="surrogatepass"), digest_size=16).digest()
