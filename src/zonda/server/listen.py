"""Running the application: uvicorn, signals, and a shutdown that lets running requests finish."""
from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from zonda import terminal
from zonda.errors import InvalidRequest
from zonda.options import ServerOptions
from zonda.server.app import DEFAULTS, Models, application, service
from zonda.server.connection import Socket, connection
from zonda.server.errors import Stuck
from zonda.server.guard import is_loopback, keyed
from zonda.server.service import Service

if TYPE_CHECKING:
    from zonda.sdk import AsyncLLM

log = logging.getLogger("zonda.server")

BACKLOG = 2048
IDLE = 75  # seconds that an idle connection is kept
GOODBYE = 2  # seconds for connections to close, and engines to stop, after the last request has ended
FAREWELL = 2  # seconds for the last words to WebSockets
TEND = 0.5  # seconds between two looks at which models are idle or dead
HURRY = 0.5  # the same, when told twice to stop
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def serve(models: Models, options: ServerOptions = DEFAULTS, *, default: str | None = None) -> None:
    """Serve until SIGTERM or SIGINT; then refuse new requests, let the others finish, close the models and return.

    Models are loaded beside the server; until the first is there, /health says `loading`. If none can be loaded, the
    reason is raised here, and so is `Stuck` when a step does not end. A second signal ends everything at once.
    """
    _allow_connections()
    with _logging(), _bound(options) as sock:
        server = Listener(service(models, options, default=default), sock)
        try:
            server.run(sockets=[sock])
        finally:
            server.service.beside.shutdown()
            hurry = server.force_exit or server.error
            _close(server.service.registry.loaded(), HURRY if hurry else GOODBYE)
        if server.error:
            raise server.error


class Listener(uvicorn.Server):
    """uvicorn with our way to stop: one signal drains, two end at once, and the process then ends normally."""

    def __init__(self, service: Service, sock: socket.socket) -> None:
        super().__init__(uvicorn.Config(
            application(service), http=connection(service.options), ws=Socket,
            ws_max_size=service.options.max_body_mb << 20, ws_ping_interval=service.options.keep_alive,
            ws_ping_timeout=service.options.receive_timeout, ws_per_message_deflate=False, lifespan="off",
            log_config=None, access_log=False, server_header=False, proxy_headers=False, backlog=BACKLOG,
            timeout_keep_alive=IDLE, timeout_graceful_shutdown=GOODBYE, ssl_certfile=service.options.tls_cert,
            ssl_keyfile=service.options.tls_key))
        self.service = service
        self.address = _address(sock, "https" if service.options.tls_cert else "http")
        _check_tls(service.options)
        self.error: BaseException | None = None
        """Why nothing can be served."""
        self._deadline = 0.0
        self._tended = 0.0
        self._starting: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and begin to load."""
        await super().startup(sockets)
        self._starting = asyncio.create_task(self._load())

    async def _load(self) -> None:
        registry = self.service.registry
        try:
            await registry.start()
        except asyncio.CancelledError:  # the server ends before
            raise
        except BaseException as error:
            self.error = error
            self.should_exit = True
            return
        gc.freeze()  # what is loaded stays; to look through it again and again would hold up every stream
        names = ", ".join(each.title for each in registry)
        log.info("serving %s at %s/v1, documented at %s/docs", names, self.address, self.address)
        if self.service.options.ui:
            log.info("chat in a browser at %s/ui", self.address)

    def drain(self) -> None:
        """Refuse new requests and stop when the others have ended; called again, stop now."""
        if self.service.draining:
            self.force_exit = True
        else:
            log.info("shutting down: %d requests are running", len(self.service.flights))
            self._deadline = time.monotonic() + self.service.options.drain_timeout
            self.service.draining = True

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second; True to stop."""
        await super().on_tick(counter)
        stuck = None if self.service.draining else self._tend()
        if stuck:
            self.error = stuck
        elif not self.service.draining:
            return self.should_exit
        elif self.service.flights and time.monotonic() < self._deadline and not self.force_exit:
            self.service.part()
            return False
        self.service.abort(stuck)
        await self._part()
        return True

    async def _part(self) -> None:
        """Let those who are connected be told why that ends."""
        self.service.part()
        deadline = time.monotonic() + FAREWELL
        await asyncio.sleep(0)
        while self.service.connections and time.monotonic() < deadline:
            await asyncio.sleep(0.01)

    def _tend(self) -> Stuck | None:
        """Look after the models, now and then; what is returned ends the server."""
        if time.monotonic() - self._tended <= TEND:
            return None
        self._tended = time.monotonic()
        self.service.registry.tend()
        return self.service.registry.stuck()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """On a signal."""
        self.drain()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take the signals over for the time of serving."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {sig: signal.signal(sig, self.handle_exit) for sig in _SIGNALS}
        try:
            yield
        finally:
            for sig, action in before.items():
                signal.signal(sig, action)


def _close(models: dict[str, AsyncLLM], patience: float) -> None:
    """Stop the engines; one that does not stop is left behind."""
    threads = {name: threading.Thread(target=llm.engine.close, daemon=True) for name, llm in models.items()}
    for thread in threads.values():
        thread.start()
    deadline = time.monotonic() + patience
    for name, thread in threads.items():
        thread.join(max(0.0, deadline - time.monotonic()))
        if thread.is_alive():
            models[name].abandon()


@contextlib.contextmanager
def _bound(options: ServerOptions) -> Iterator[socket.socket]:
    """A socket at the address, so that a port in use is known before a model is loaded."""
    _warn_if_open(options)
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    sock = socket.socket(family)
    with sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((options.host, options.port))
        except (OSError, UnicodeError) as error:
            raise InvalidRequest(f"cannot listen on {options.host} port {options.port}: {error}", param="port",
                                 hint="choose another by --port or --host; --port 0 finds a free one") from None
        yield sock


def _allow_connections() -> None:
    """Have as many files open as the system lets a process have: idle connections alone could be a thousand."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _warn_if_open(options: ServerOptions) -> None:
    if not keyed(options) and not is_loopback(options.host):
        log.warning("listening on %s without an API key: everyone who reaches this machine can use the model; "
                    "set --api-key or listen on 127.0.0.1", options.host)


def _check_tls(options: ServerOptions) -> None:
    """Refuse certificates that cannot be used, before anything is loaded."""
    if options.tls_key and not options.tls_cert:
        raise InvalidRequest("--tls-key needs --tls-cert", param="tls_cert")
    if options.tls_cert:
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(options.tls_cert, options.tls_key)
        except (OSError, ssl.SSLError) as error:
            raise InvalidRequest(f"the certificate or its key cannot be used: {error}", param="tls_cert",
                                 hint="expected PEM files") from None


def _address(sock: socket.socket, scheme: str) -> str:
    host, port = sock.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


@contextlib.contextmanager
def _logging() -> Iterator[None]:
    """Let the server's lines reach standard error where nobody has arranged for them."""
    root = logging.getLogger("zonda")
    if root.hasHandlers():
        yield
        return
    lines = terminal.lines()
    lines.setFormatter(logging.Formatter("%(message)s"))
    level = root.level
    root.addHandler(lines)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(lines)
        root.setLevel(level)
