"""What the routes share: the models, the options, the requests that are here now, and whether more are taken."""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from zonda.errors import Closed, ModelNotFound
from zonda.options import ServerOptions
from zonda.server.metrics import Metrics
from zonda.server.schema import Health

if TYPE_CHECKING:
    from zonda.sdk import AsyncLLM
    from zonda.server.call import Call
    from zonda.server.endpoint import Endpoint

_WORST = ("dead", "stuck", "ok")


class Service:
    """The state of one server. The models may come while it runs: until then it is loading."""

    def __init__(self, models: Mapping[str, AsyncLLM], options: ServerOptions,
                 endpoints: Sequence[Endpoint] = ()) -> None:
        self.models = models
        self.options = options
        self.endpoints = endpoints
        self.draining = False
        self.calls: set[Call] = set()
        self.flights: set[Call] = set()
        self.metrics = Metrics(self)

    def model(self, name: str | None) -> tuple[str, AsyncLLM]:
        """The model of this name, or the first one for none or `default`; raises if requests are not taken now."""
        if self.draining:
            raise Closed("the server is shutting down")
        if not self.models:
            raise Closed("the model is still loading")
        if not name or (name == "default" and name not in self.models):
            name = next(iter(self.models))
        return name, self.find(name)

    def find(self, name: str) -> AsyncLLM:
        """The model of exactly this name."""
        try:
            return self.models[name]
        except KeyError:
            known = ", ".join(self.models)
            raise ModelNotFound("there is no model of this name", hint=f"served: {known}", param="model") from None

    def health(self) -> Health:
        """The server's state: the worst of its models' while it runs."""
        states = {name: self.state(llm) for name, llm in self.models.items()}
        if self.draining:
            return Health("draining", states)
        if not states:
            return Health("loading", states)
        return Health(min(states.values(), key=_WORST.index), states)  # type: ignore[arg-type]

    def state(self, llm: AsyncLLM) -> str:
        """`ok`; `dead` if the engine has stopped; `stuck` if a step takes too long."""
        if not llm.engine.alive:
            return "dead"
        return "stuck" if llm.engine.stats().last_step_age > self.options.stall_timeout else "ok"

    def in_flight(self) -> Iterator[Call]:
        """The requests that count: not those to /health and the like."""
        return (call for call in self.calls if not call.quiet)

    def abort(self) -> None:
        """End what still runs; each client is told."""
        for call in tuple(self.flights):
            call.stop(Closed("the server has shut down before the answer was complete"))
