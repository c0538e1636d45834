"""One model of a server: how it is loaded, what is loaded of it, and who uses it."""
from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from traceback import clear_frames
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from zonda.errors import Closed
from zonda.types import Progress

if TYPE_CHECKING:
    from zonda.sdk import AsyncLLM

T = TypeVar("T")
State = Literal["ok", "stuck", "dead", "loading", "unloading", "unloaded", "failed"]


class Cancelled(Closed):
    """The load was given up because somebody asked for that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model to serve.

    Without a `name` it has the one that it is loaded under. `load` is called on a thread of its own; without it the
    model is there already, as `llm`, and stays. `preload` loads it at the start instead of with its first request, and
    `keep` never unloads it for idleness or to make room.
    """

    name: str | None = None
    aliases: tuple[str, ...] = ()
    load: Callable[[Progress], AsyncLLM] | None = None
    llm: AsyncLLM | None = None
    preload: bool = True
    keep: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a model that has been loaded once."""

    created: int
    max_len: int
    capabilities: tuple[str, ...]


class Served:
    """The state of one model. Only the event loop's thread changes it."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.llm = model.llm
        self.name = model.name or (model.llm.name if model.llm else None)
        self.facts = _facts(model.llm) if model.llm else None
        self.error: Exception | None = None
        """Why the last load failed."""
        self.change: asyncio.Task[None] | None = None
        """The loading or unloading that is under way."""
        self.unloading = False
        self.waiting = 0
        """Requests that wait until it is loaded."""
        self.uses = 0
        self.used = time.monotonic()
        self.restarts: list[float] = []
        self.free = asyncio.Event()
        self.free.set()
        self._cancelled = threading.Event()

    @property
    def title(self) -> str:
        """The name for messages."""
        return self.name or "the model"

    @property
    def names(self) -> tuple[str, ...]:
        """All names that requests may use."""
        return (*((self.name,) if self.name else ()), *self.model.aliases)

    @property
    def ready(self) -> bool:
        """Whether requests may go to it now."""
        return self.llm is not None and not self.unloading and self.llm.engine.alive

    @property
    def dead(self) -> bool:
        """Whether its engine has stopped by itself."""
        return self.llm is not None and self.change is None and not self.llm.engine.alive

    @property
    def idle(self) -> bool:
        """Whether it could be unloaded and nobody would miss it now."""
        return bool(self.llm and self.model.load and not self.model.keep and not self.uses and not self.waiting
                    and self.change is None)

    def state(self, stall_timeout: float) -> State:
        """What it is doing; `ok` if it can answer."""
        if self.unloading:
            return "unloading"
        if self.change:
            return "loading"
        if self.llm is None:
            return "failed" if self.error else "unloaded"
        if not self.llm.engine.alive:
            return "dead"
        return "stuck" if self.llm.engine.stats().last_step_age > stall_timeout else "ok"

    def take(self) -> AsyncLLM:
        """Count one more user."""
        assert self.llm is not None
        self.uses += 1
        self.free.clear()
        return self.llm

    def give_back(self) -> None:
        """Count one user less."""
        self.uses -= 1
        self.used = time.monotonic()
        if not self.uses:
            self.free.set()

    async def load(self) -> None:
        """Load it on a thread of its own; raises what that raises."""
        assert self.model.load is not None
        self.llm, self.error = None, None
        self._cancelled.clear()
        load = self.model.load
        try:
            llm = await beside(lambda: load(self._progress), "zonda-load")
        except Exception as error:
            _let_go(error)
            self.error = None if isinstance(error, Cancelled) else error
            raise
        self.llm, self.facts, self.name = llm, _facts(llm), self.name or llm.name
        self.used = time.monotonic()

    def cancel_load(self) -> None:
        """Give up the loading that is under way, as soon as it reports progress."""
        self._cancelled.set()

    def _progress(self, stage: str, done: int, total: int) -> None:
        if self._cancelled.is_set():
            raise Cancelled(f"the loading of {self.title} was cancelled")


def _let_go(error: BaseException | None) -> None:
    """Empty the frames of an error that is kept: a device may still have what they have loaded."""
    while error:
        clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _facts(llm: AsyncLLM) -> Facts:
    return Facts(llm.created, llm.engine.max_len, llm.capabilities)


async def beside(call: Callable[[], T], name: str) -> T:
    """Call on a daemon thread: a process that ends does not wait for it."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def settle(put: Callable[[Any], None], value: Any) -> None:
        if not result.done():
            put(value)

    def run() -> None:
        try:
            put, value = result.set_result, call()
        except BaseException as error:
            put, value = result.set_exception, error  # type: ignore[assignment]
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, put, value)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await result
