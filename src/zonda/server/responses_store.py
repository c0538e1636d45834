"""Responses, conversations and chat completions that are kept for a while: a bounded number of them, of bytes and of
hours, the least used go first."""
from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from sys import getsizeof
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from msgspec import Struct

from zonda.options import ServerOptions
from zonda.server.chat_schema import ChatCompletion, StoredMessage
from zonda.server.responses_events import Event
from zonda.server.responses_schema import Item, Response

if TYPE_CHECKING:
    from zonda.server.service import Flight

EVENT_BYTES = 300
"""What an event of a log counts for, its text aside."""


class Entry(Protocol):
    """What can be kept."""

    owner: bytes
    born: float
    size: int

    @property
    def id(self) -> str: ...

    @property
    def running(self) -> bool:
        """Whether it is in use, and stays."""

    def count(self) -> int:
        """About the bytes that it takes; noted as `size`."""


_LEAVES = frozenset({str, bytes, int, float, bool, type(None)})
E = TypeVar("E", bound=Entry)


@dataclass(slots=True, eq=False)
class Talk:
    """A conversation, to which responses add what was asked and answered."""

    id: str
    created: int
    metadata: dict[str, str]
    items: list[Item]
    owner: bytes = b""
    born: float = 0.0
    size: int = 0
    writer: str = ""
    """The id of the response that goes on with it now."""
    weight: int = field(init=False)
    """About the bytes that the items take, which are counted once."""

    def __post_init__(self) -> None:
        self.weight = taken(self.items)

    @property
    def running(self) -> bool:
        return bool(self.writer)

    def add(self, items: Sequence[Item]) -> None:
        """Go on with these."""
        self.items += items
        self.weight += taken(items)

    def remove(self, item: Item) -> None:
        """Take one out."""
        self.items.remove(item)
        self.weight -= taken(item)

    def free(self, writer: str) -> None:
        """Let others go on with it, if this response did."""
        if self.writer == writer:
            self.writer = ""

    def count(self) -> int:
        """About the bytes that it takes."""
        self.size = self.weight + taken(self.metadata)
        return self.size


@dataclass(slots=True, eq=False)
class Chat:
    """A chat completion with what it answers."""

    completion: ChatCompletion
    messages: list[StoredMessage]
    owner: bytes = b""
    born: float = 0.0
    size: int = 0
    running: bool = False

    @property
    def id(self) -> str:
        return self.completion.id

    def count(self) -> int:
        """About the bytes that it takes."""
        self.size = taken(self.completion) + taken(self.messages)
        return self.size


@dataclass(slots=True, eq=False)
class Kept:
    """A response with what it was made from.

    `items` is all that led to it, from the first response of its conversation on. `log` has the events of one that
    runs, or ran, in the background.
    """

    response: Response
    items: tuple[Item, ...]
    owner: bytes = b""
    log: list[Event] | None = None
    run: Flight | None = None
    """What writes it in the background."""
    born: float = field(default_factory=time.monotonic)
    size: int = 0
    talk: Talk | None = None
    """The conversation that it belongs to, and `own`, what it adds to it beside its output."""
    own: tuple[Item, ...] = ()
    followers: int = 0
    """Clients that its events are told to."""
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def id(self) -> str:
        return self.response.id

    @property
    def running(self) -> bool:
        return self.run is not None

    def publish(self, response: Response, events: list[Event]) -> None:
        """The response has gone on: those who follow hear of it."""
        self.response = response
        if self.log is not None:
            self.log += events
        news, self._news = self._news, asyncio.Event()
        news.set()

    def end(self) -> None:
        """Nothing more comes."""
        self.run = None
        self.publish(self.response, [])

    async def follow(self, after: int) -> AsyncIterator[list[Event]]:
        """The events after the one of this number, until the response has ended."""
        place = after + 1
        while True:
            news = self._news
            events = (self.log or [])[place:]
            place += len(events)
            if events:
                yield events
            elif not self.running:
                return
            else:
                await news.wait()

    def count(self) -> int:
        """About the bytes that it takes."""
        self.size = taken(self.response) + taken(self.items) + EVENT_BYTES * len(self.log or ())
        return self.size


def taken(value: Any) -> int:
    """About the bytes of memory that a value takes with all that is in it; a text costs no time, however long."""
    size, left = getsizeof(value), [value]
    while left:
        inside = _inside(left.pop())
        size += sum(map(getsizeof, inside))
        left += [each for each in inside if type(each) not in _LEAVES]
    return size


def _inside(value: Any) -> Sequence[Any]:
    if isinstance(value, Struct):
        return [getattr(value, field) for field in value.__struct_fields__]
    if isinstance(value, dict):
        return [*value, *value.values()]
    return value if isinstance(value, list | tuple) else ()


class Store(Generic[E]):
    """What is kept for all clients, each of whom sees its own alone. What runs is not thrown out."""

    def __init__(self, options: ServerOptions, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = options.stored_responses
        self._most_bytes = options.stored_mb << 20
        self._longest = options.stored_hours * 3600
        self._clock = clock
        self._kept: OrderedDict[str, E] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def keeps(self) -> bool:
        """Whether anything is kept at all."""
        return self._most > 0

    def put(self, kept: E) -> None:
        """Keep one more, and throw out what is too much."""
        self.drop(kept.id)
        kept.born = self._clock()
        self._bytes += kept.count()
        self._kept[kept.id] = kept
        self._tidy()

    def settle(self, kept: E) -> None:
        """Count one again that has ended, or has grown."""
        if self._kept.get(kept.id) is kept:
            self._bytes += -kept.size + kept.count()
            self._tidy()

    def get(self, id: str, owner: bytes) -> E | None:
        """The owner's entry of this id, which is thereby used."""
        self._expire()
        kept = self.peek(id, owner)
        if kept:
            self._kept.move_to_end(id)
        return kept

    def peek(self, id: str, owner: bytes) -> E | None:
        """The owner's entry of this id; may be called in any thread."""
        kept = self._kept.get(id)
        return kept if kept and kept.owner == owner else None

    def all(self, owner: bytes) -> list[E]:
        """All entries of an owner, the oldest first."""
        self._expire()
        return sorted((kept for kept in self._kept.values() if kept.owner == owner), key=lambda kept: kept.born)

    def drop(self, id: str) -> None:
        """Forget one."""
        kept = self._kept.pop(id, None)
        if kept:
            self._bytes -= kept.size

    def _expire(self) -> None:
        limit = self._clock() - self._longest
        for id in [id for id, kept in self._kept.items() if kept.born < limit and not kept.running]:
            self.drop(id)

    def _tidy(self) -> None:
        self._expire()
        for id in list(self._idle()):
            if len(self._kept) <= self._most and self._bytes <= self._most_bytes:
                return
            self.drop(id)

    def _idle(self) -> Iterator[str]:
        return (id for id, kept in self._kept.items() if not kept.running)
