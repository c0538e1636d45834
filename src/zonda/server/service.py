"""What the routes share: the models, the options, the requests that are here now, and whether more are taken."""
from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from zonda.errors import Closed
from zonda.options import ServerOptions
from zonda.payloads import append
from zonda.server.errors import Crowded
from zonda.server.metrics import Metrics
from zonda.server.registry import Lease, Registry
from zonda.server.responses_store import Chat, Kept, Store, Talk
from zonda.server.schema import Health
from zonda.server.served import Served

if TYPE_CHECKING:
    from zonda.server.call import Call
    from zonda.server.endpoint import Endpoint

MAX_LOGGED = 65536
"""Bytes of a body that the access log shows, if it shows bodies at all."""
MOST_CARRIED = 4096
"""Responses that connections may go on from, all together; their bytes are bounded like those of stored ones."""


class Flight(Protocol):
    """Work that the server waits for when it is told to stop, with the model that it uses."""

    @property
    def lease(self) -> Lease | None: ...

    @property
    def client(self) -> int:
        """The number of the API key that it is done for, from 1 on; 0 for none."""

    @property
    def counted(self) -> bool:
        """Whether it is one of the requests that a key may have running."""

    def stop(self, why: Exception) -> None:
        """End it early."""


class Connected(Protocol):
    """A connection that outlasts its requests."""

    def leave(self) -> None:
        """Close it when what it is answering has ended."""


class Service:
    """The state of one server. The models may come while it runs: until then it is loading."""

    def __init__(self, registry: Registry, options: ServerOptions, endpoints: Sequence[Endpoint]) -> None:
        self.registry = registry
        self.options = options
        self.endpoints = endpoints
        self.draining = False
        self.written: dict[str, bytes] = {}
        """What documents the routes, by its path, once it has been asked for."""
        self.calls: set[Call] = set()
        self.flights: set[Flight] = set()
        self.responses: Store[Kept] = Store(options)
        self.carried: Store[Kept] = Store(replace(options, stored_responses=MOST_CARRIED))
        """What connections may go on from though it is not stored; each is the owner of its own."""
        self.connections: set[Connected] = set()
        self.conversations: Store[Talk] = Store(options)
        self.chats: Store[Chat] = Store(options)
        self.metrics = Metrics(self)
        self.kept = sys.maxsize if options.log else MAX_LOGGED if options.log_prompts else 0
        """Bytes of each body, asked or answered, that are kept until they are logged."""
        self.beside = ThreadPoolExecutor(1, thread_name_prefix="zonda-log")
        """Where the log of payloads is written."""
        if options.log:
            append(options.log)
        registry.overdue = self._end_requests

    def at_hand(self, name: str | None) -> Lease | None:
        """The model of this name, or the default one for none, if it can answer now; raises while draining."""
        if self.draining:
            raise Closed("the server is shutting down")
        return self.registry.at_hand(name)

    async def lease(self, name: str | None) -> Lease:
        """The same, loaded first if need be."""
        return self.at_hand(name) or await self.registry.lease(name)

    def recall(self, id: str, call: Call, *, use: bool = False) -> Kept | None:
        """A response that the call may go on from; may be called in any thread unless it is thereby used."""
        if use and (kept := self.responses.get(id, call.owner)):
            return kept
        return self.responses.peek(id, call.owner) or self.carried.peek(id, call.connection)

    def health(self) -> Health:
        """The server's state: the worst of its models' while it runs."""
        status, models = self.registry.health()
        return Health("draining" if self.draining else status, models)  # type: ignore[arg-type]

    def admit(self, call: Call) -> None:
        """Refuse one more request of an API key that has enough running."""
        limit = self.options.max_per_key
        if not (limit and call.client and call.counted):
            return
        if sum(each.client == call.client and each.counted for each in self.flights if each is not call) >= limit:
            raise Crowded(f"{limit} requests with this API key are running")

    def remember(self, kept: Kept) -> None:
        """Let the conversation that a response belongs to go on with it, if there is an answer."""
        if kept.talk is None:
            return
        kept.talk.free(kept.id)
        if kept.response.status in ("completed", "incomplete"):
            kept.talk.add([*kept.own, *kept.response.output])
            self.conversations.settle(kept.talk)

    def in_flight(self) -> Iterator[Call]:
        """The requests that count: not those to /health and the like."""
        return (call for call in self.calls if not call.quiet)

    def part(self) -> None:
        """Close the connections that would otherwise wait for more; each finishes what it is answering."""
        for connection in tuple(self.connections):
            connection.leave()

    def abort(self, why: Exception | None = None) -> None:
        """End what still runs or comes in; each client is told why."""
        for flight in {*self.flights, *self.calls}:
            flight.stop(why or Closed("the server has shut down before the answer was complete"))

    def _end_requests(self, served: Served) -> None:
        for flight in tuple(self.flights):
            if flight.lease and flight.lease.served is served:
                flight.stop(Closed(f"{served.title} was unloaded before the answer was complete"))
