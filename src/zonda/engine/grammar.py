"""Compiles grammars for one model's vocabulary, within limits that hold against hostile ones."""
from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from zonda.engine import trial
from zonda.engine.complaints import complaint
from zonda.engine.distinct import Distinct, Pieces
from zonda.engine.places import Places, followed
from zonda.engine.schema import check, prepared
from zonda.engine.trial import Trials
from zonda.engine.turns import Turns
from zonda.errors import Closed, InvalidRequest, Unsupported, ZondaError
from zonda.types import Grammar

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

MAX_SCHEMA = 1 << 19
"""Characters of a JSON schema, a list of choices or an llguidance grammar."""
MAX_READY = 1 << 21
"""Characters of a schema as the compiler gets it, with formats and unknown keywords written out."""
MAX_TEXT = 1 << 17
"""Characters of a regular expression or a Lark grammar."""
MAX_CHOICES = 10_000
MAX_MARK = 256
"""Characters of a text that a grammar waits for."""
MAX_LINKS = 4000
"""References of a schema, or rules of a grammar: what the compiler may have to follow one inside the other."""
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
LAYOUT = {"whitespace_flexible": False, "item_separator": ", ?", "key_separator": ": ?", "lenient": False}
"""White space in JSON: a space after commas and colons, or none; more could go on forever."""
_STACK = 1 << 28  # bytes for the compiler, which recurses; only what is used is real
_SCHEMA = re.compile(r"%json\s*(?={)")
_DECODER = json.JSONDecoder()
_ASCII = "d"  # what \\d stands for in expressions; words and spaces are those of Unicode
_TOKENS = "<["
"""How a grammar begins that names tokens by their ids, of which a trial knows nothing."""
_RULE = re.compile(r"(?m)^[ \t]*[?!]?\w[^\s:\"/]*[^:\n\"/]*:")
_LIMITS: dict[str, Any] = {"step_lexer_fuel": 300_000, "step_max_items": 20_000, "max_items_in_row": 5_000,
                           "max_lexer_states": 20_000, "verbose_errors": False}
"""About 30 ms a token and 20 MB a sequence at worst."""


Start = tuple["LLMatcher", Places | None]
"""What follows a grammar, at its start, and the arrays in it whose items must differ."""
Forms = list[dict[str, Any]]
"""Grammars as llguidance has them in its own form."""


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
    after: int | str | None
    special: frozenset[int]
    spell: Callable[[int], bytes]
    closing: tuple[int, ...] = ()
    """The tokens of `after`."""
    places: Places | None = None
    pieces: Pieces | None = None
    """What tells items apart that must differ; None where none must."""

    def distinct(self) -> Distinct | None:
        """What keeps the items of one sequence's arrays apart, if any must differ."""
        return Distinct(self.places, self.pieces) if self.places and self.pieces else None


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
        self._quick = Turns("zonda-grammars", 1, _STACK)
        self._slow = Turns("zonda-slow-grammars", SLOW, _STACK)
        self._closed = False

    def compile(self, grammar: Grammar) -> Compiled:
        """The grammar, ready to be followed; or InvalidRequest, which says what is wrong with it and where."""
        start = self.begin(grammar).result()
        assert self._words is not None
        after = self._after(grammar)
        closing = (after,) if isinstance(after, int) else tuple(self._words.encode(after or "", add_special=False))
        matcher, places = start
        return Compiled(matcher, after, self._words.special_ids, self._words.token_bytes, closing, places,
                        self._spelled() if places else None)

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
            self._refuse_closed()
            turns = self._slow if trial.needed(grammar.kind, grammar.source) else self._quick
            return turns.submit(client, lambda: self._find(grammar) or self._keep(grammar))
        known.set_result(start)
        return known

    def _check(self, grammar: Grammar) -> None:
        if self._words is None:
            raise Unsupported("this engine has no vocabulary to enforce a grammar with", param="grammar")
        if grammar.kind not in _KINDS or not isinstance(grammar.source, str):
            raise InvalidRequest(f"no grammar of kind {grammar.kind!r:.40} by a {type(grammar.source).__name__}",
                                 param="grammar", hint=f"expected a text, and one of {', '.join(_KINDS)}")
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
        from llguidance import LLMatcher, LLParserLimits

        self._refuse_closed()
        internal, places = _internal(grammar)
        if trial.needed(grammar.kind, grammar.source):
            said = self._trials.run(internal)
            self._refuse_closed()
            if said is None:
                raise InvalidRequest("the grammar takes too much time or memory to compile", param="grammar",
                                     hint=f"make it simpler: it may take {trial.SECONDS} s and {trial.MEMORY >> 20} MB")
            if said and _TOKENS not in internal:
                raise complaint(grammar, said)
        start = LLMatcher(self._vocabulary(), internal, log_level=0, limits=LLParserLimits(**_LIMITS))
        start.compute_bitmask()  # finds out what allows nothing at all, and warms up for the copies
        if start.is_error():
            raise complaint(grammar, start.get_error())
        return start, places

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


def _internal(grammar: Grammar) -> tuple[str, Places | None]:
    """The grammar in llguidance's own form, and what this cannot say."""
    schema, places = _schema(grammar.source) if grammar.kind == "json_schema" else None, None
    if schema and "uniqueItems" in grammar.source:
        check(schema)
        places = followed(schema)
    forms = _FORMS[grammar.kind](grammar.source) if schema is None else [_laid_out(
        schema, left_out="uniqueItems" if places else "")]
    return json.dumps({"grammars": forms}), places


def _schema(source: str) -> dict[str, Any]:
    _check_size(source, MAX_SCHEMA)
    schema = _json(source)
    schema = {} if schema is True else schema
    if not isinstance(schema, dict):
        raise InvalidRequest("the schema is not an object", hint="expected a JSON schema", param="grammar")
    return schema


def _laid_out(schema: Mapping[str, Any], left_out: str = "") -> dict[str, Any]:
    """A schema, checked, with our say on white space: a client's own could be without end."""
    ready = prepared(schema, left_out=left_out)
    text = json.dumps(ready)
    _check_size(text, MAX_READY)
    _check_links(text.count('"$ref"'), "references")
    return {"json_schema": {**ready, "x-guidance": LAYOUT}}


def _regex(source: str) -> Forms:
    from llguidance import regex_to_lark

    _check_size(source, MAX_TEXT)
    return [{"lark_grammar": f"start: /{regex_to_lark(source, _ASCII)}/"}]


def _lark(source: str) -> Forms:
    _check_size(source, MAX_TEXT)
    _check_links(len(_RULE.findall(source)), "rules")
    return [{"lark_grammar": _with_schemas(source)}]


def _with_schemas(source: str) -> str:
    """The grammar with its schemas checked and laid out as others are; every line keeps its number."""
    parts, done = [], 0
    for place in _SCHEMA.finditer(source):
        try:
            schema, end = _DECODER.raw_decode(source, place.end())
        except (ValueError, RecursionError):
            continue  # the compiler tells where
        if place.start() >= done and isinstance(schema, dict):
            lines = "\n" * source.count("\n", place.end(), end)
            parts += [source[done:place.end()], "{", lines, json.dumps(_laid_out(schema)["json_schema"])[1:]]
            done = end
    return "".join([*parts, source[done:]])


def _choice(source: str) -> Forms:
    _check_size(source, MAX_SCHEMA)
    texts = _json(source)
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
        raise InvalidRequest("the choices are not a list of texts", hint="expected at least one text, none empty",
                             param="grammar")
    if len(texts) > MAX_CHOICES:
        raise InvalidRequest(f"there are {len(texts)} choices", hint=f"at most {MAX_CHOICES}", param="grammar")
    check(texts)
    return [{"lark_grammar": "start: CHOICE\nCHOICE: " + " | ".join(map(json.dumps, texts))}]


def _own(source: str) -> Forms:
    _check_size(source, MAX_SCHEMA)
    value = _json(source)
    grammars = value.get("grammars") if isinstance(value, dict) else None
    if not isinstance(grammars, list) or not all(isinstance(each, dict) for each in grammars):
        raise InvalidRequest("the llguidance grammar has no list of `grammars`", param="grammar",
                             hint='expected {"grammars": [{"json_schema": ...}, {"name": ..., "lark_grammar": ...}]}')
    return [each | _part(each) for each in grammars]


def _part(each: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(each.get("lark_grammar"), str):
        return _lark(each["lark_grammar"])[0]
    return _laid_out(each["json_schema"]) if isinstance(each.get("json_schema"), dict) else {}


_FORMS: dict[str, Callable[[str], Forms]] = {"regex": _regex, "lark": _lark, "choice": _choice, "llguidance": _own}
_KINDS = ("json_schema", *_FORMS)


def _json(source: str) -> Any:
    try:
        return json.loads(source, parse_constant=_no_number)
    except RecursionError:
        raise InvalidRequest("the grammar is nested too deeply", param="grammar") from None
    except ValueError as error:
        raise InvalidRequest(f"the grammar is not valid JSON: {error}", param="grammar") from None


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _check_size(source: str, most: int) -> None:
    if len(source) > most:
        raise InvalidRequest(f"the grammar has {len(source)} characters", hint=f"at most {most}", param="grammar")


def _check_links(count: int, what: str) -> None:
    if count > MAX_LINKS:
        raise InvalidRequest(f"the grammar has {count} {what}", hint=f"at most {MAX_LINKS}", param="grammar")
