"""The models of one server: found by name, loaded when asked for, unloaded when idle or for want of memory."""
from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from zonda.errors import Closed, InvalidRequest, ModelNotFound, OutOfMemory, Unsupported, ZondaError
from zonda.options import ServerOptions
from zonda.server.errors import Loading, Stuck
from zonda.server.served import Cancelled, Model, Served, beside

if TYPE_CHECKING:
    from zonda.sdk import AsyncLLM

log = logging.getLogger("zonda.server")

RESTARTS, PERIOD = 3, 600.0
"""How often a dead engine is started again within so many seconds."""
MAX_NAME = 100
"""Characters of an unknown model's name that an error repeats."""
_WORST = ("dead", "stuck", "ok")


class Lease:
    """A model at somebody's disposal: it is not unloaded before `release`."""

    def __init__(self, served: Served) -> None:
        self.llm = served.take()
        self.served = served
        self._held = True

    @property
    def name(self) -> str:
        return self.served.title

    def share(self) -> Lease:
        """One more, for who goes on after this one's end."""
        return Lease(self.served)

    def release(self) -> None:
        """Give it back; once is enough, twice does no harm."""
        if self._held:
            self._held = False
            self.served.give_back()


class Registry:
    """Finds, loads and unloads the models; the first one, or the one named as default, answers who names none."""

    def __init__(self, models: Sequence[Model], options: ServerOptions, *, default: str | None = None) -> None:
        self._served = [Served(each) for each in models]
        self._options = options
        self._turn = asyncio.Lock()
        """Held while a model is loaded: the next one must see what memory this one has taken."""
        self._starting = bool(models)
        self._default = default
        self.overdue: Callable[[Served], None] = lambda served: None
        """Told of a model that is to be unloaded and whose requests have not ended in time."""
        _check_names(self._served, default)

    def __iter__(self) -> Iterator[Served]:
        """The models that have a name by now."""
        return (each for each in self._served if each.name)

    def loaded(self) -> dict[str, AsyncLLM]:
        """The models that are in memory, by name."""
        return {each.title: each.llm for each in self if each.llm}

    def find(self, name: str | None) -> Served:
        """The model of exactly this name or alias; for none or `default`, the default one."""
        found = next((each for each in self._served if name in each.names), None)
        if found is None and name in (None, "", "default") and self._served:
            return self._served[0] if self._default is None else self.find(self._default)
        nameless = next((each for each in self._served if not each.name), None)
        if found or nameless:
            return found or nameless  # type: ignore[return-value]
        asked = f"{name:.{MAX_NAME}}…" if name and len(name) > MAX_NAME else name
        known = ", ".join(each for served in self for each in served.names)
        raise ModelNotFound(f"there is no model {asked!r}", hint=f"served: {known}", param="model")

    def at_hand(self, name: str | None) -> Lease | None:
        """The model of this name, unless it has to be loaded first."""
        served = self.find(name) if self._served else None
        return Lease(served) if served and served.ready else None

    async def lease(self, name: str | None) -> Lease:
        """The model of this name; if it has to be loaded first, that is waited for as long as the options allow."""
        if not self._served:
            raise Closed("the model is still loading")
        deadline = time.monotonic() + self._options.load_wait
        while not (served := self.find(name)).ready:
            change = served.change or self._reload(served)
            await self._wait(served, change, deadline)
        return Lease(served)

    async def _wait(self, served: Served, change: asyncio.Task[None], deadline: float) -> None:
        served.waiting += 1
        try:
            done, _ = await asyncio.wait({change}, timeout=max(0.0, deadline - time.monotonic()))
        finally:
            served.waiting -= 1
        if not done:
            doing = "being unloaded" if served.unloading else "loading"
            raise Loading(f"{served.title} is {doing}", retry_after=2)
        change.result()

    def _reload(self, served: Served) -> asyncio.Task[None]:
        if served.model.load is None:
            raise Closed("the engine has stopped" if served.llm else f"{served.title} is not loaded")
        return self._change(served, self._load(served))

    def _change(self, served: Served, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = served.change = asyncio.create_task(work)

        def ended(task: asyncio.Task[None]) -> None:
            served.change = None
            if not task.cancelled() and (error := task.exception()) and not isinstance(error, Cancelled):
                known = isinstance(error, ZondaError)
                if known and self._starting and len(self._served) == 1:
                    return  # the process ends with this error
                log.error("%s cannot be loaded: %s", served.title, error, exc_info=None if known else error)

        task.add_done_callback(ended)
        return task

    async def _load(self, served: Served) -> None:
        """Load a model; as long as it does not fit, the idle one that was used longest ago makes room."""
        async with self._turn:
            await self._close(served)
            while True:
                try:
                    await served.load()
                    break
                except OutOfMemory as error:
                    idle = min((each for each in self._served if each.idle), key=lambda each: each.used, default=None)
                    if idle is None:
                        raise NoRoom(served.title, error) from error
                    log.info("unloading %s to make room for %s", idle.title, served.title)
                    await self._change(idle, self._unload(idle))
        log.info("%s is loaded", served.title)

    async def _unload(self, served: Served) -> None:
        served.unloading = True
        try:
            await self._come_free(served)
            await self._close(served)
        finally:
            served.unloading = False
        log.info("%s is unloaded", served.title)

    async def _come_free(self, served: Served) -> None:
        """Wait until nobody uses it any more; who takes too long is told to end."""
        try:
            await asyncio.wait_for(served.free.wait(), self._options.drain_timeout)
        except TimeoutError:
            self.overdue(served)
            await served.free.wait()

    async def _close(self, served: Served) -> None:
        if served.llm is not None:
            await beside(served.llm.engine.close, "zonda-unload")
            served.llm = None
            await beside(gc.collect, "zonda-unload")

    async def load(self, name: str) -> Served:
        """Load a model and wait for it; one that is loaded stays as it is."""
        served = self.find(name)
        while not served.ready:
            if served.change is None and served.model.load is None:
                raise Unsupported(f"{served.title} cannot be loaded by request", param="model_id",
                                  code="no_loader_config")
            await asyncio.wait({change := served.change or self._reload(served)})
            change.result()
        return served

    async def unload(self, name: str) -> Served:
        """Unload a model once its requests have ended, or give up its loading."""
        served = self.find(name)
        if served.model.load is None:
            raise Unsupported(f"{served.title} could not be loaded again", param="model_id", code="no_loader_config")
        if served.change and not served.unloading:
            served.cancel_load()
            await asyncio.wait({served.change})
        if served.change is None and served.llm:
            self._change(served, self._unload(served))
        if served.change:
            await asyncio.wait({served.change})
        return served

    async def start(self) -> None:
        """Load what is to be there from the start; raises if that leaves nothing that could ever answer."""
        errors = []
        for served in self._served:
            if served.model.preload and served.change is None and served.model.load and not served.llm:
                change = self._reload(served)
                await asyncio.wait({change})
                errors += [change.exception()] if change.exception() else []
            self._starting = self._starting and not served.ready
        self._starting = False
        if errors and all(each.error for each in self._served):
            raise errors[0]  # type: ignore[misc]

    def tend(self) -> None:
        """Called every now and then: unload what is idle, and start again what has died."""
        now = time.monotonic()
        limit = self._options.idle_unload
        for served in self._served:
            if limit and served.idle and now - served.used >= limit:
                self._change(served, self._unload(served))
            elif served.dead and served.model.load and not self.stuck():
                served.restarts = [each for each in served.restarts if now - each < PERIOD]
                if len(served.restarts) < RESTARTS:
                    served.restarts.append(now)
                    log.error("the engine of %s has stopped; it is loaded again", served.title)
                    self._reload(served)

    def stuck(self) -> Stuck | None:
        """The error of an engine whose step has lasted for too long, or whose device has failed."""
        for served in self:
            if served.llm and served.llm.engine.lost:
                return Stuck(f"the device of {served.title} has failed")
            age = served.llm.engine.stats().last_step_age if served.llm else 0.0
            if age > self._options.stall_exit:
                return Stuck(f"the engine of {served.title} has finished no step for {age:.0f} s")
        return None

    def health(self) -> tuple[str, dict[str, str]]:
        """The state of all models together, and of each."""
        states: dict[str, str] = {each.title: each.state(self._options.stall_timeout) for each in self}
        found = [state for state in states.values() if state in _WORST]
        if (self._starting and "ok" not in found) or not self._served:
            return "loading", states
        if found:
            return min(found, key=_WORST.index), states
        if "loading" in states.values():
            return "loading", states
        return "ok" if {"unloaded", "unloading"} & {*states.values()} else "dead", states


class NoRoom(Loading):
    """A model does not fit beside the others, which are all in use or kept."""

    code = "out_of_memory"

    def __init__(self, title: str, error: OutOfMemory) -> None:
        super().__init__(f"{title} does not fit into memory: {error.message}", retry_after=10)
        self.hint = error.hint


def _check_names(served: Sequence[Served], default: str | None) -> None:
    names = [name for each in served for name in each.names]
    for name in names:
        if names.count(name) > 1:
            raise InvalidRequest(f"two models have the name {name!r}", hint="give each a `name` of its own",
                                 param="name")
    if default is not None and default not in names:
        raise InvalidRequest(f"`default_model_id` is {default!r}", hint=f"expected one of {', '.join(names)}",
                             param="default_model_id")
