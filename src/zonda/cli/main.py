"""The `zonda` command: how signals end it, from its first moment on, and what becomes of errors.

Everything else is imported when it is called: that takes up to a second, in which signals come as well.
"""
from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn

from zonda.errors import ZondaError
from zonda.terminal import abandon, keys

INTERRUPTED = 128 + signal.SIGINT
STUCK = 70
"""The exit code of a server whose engine hangs."""
GRACE = 1.0
"""Seconds that threads get to end, and compilers to return, before the process ends without them."""


class Terminated(SystemExit):
    """A signal that ends the command; `code` is the exit status."""


def main() -> None:
    """The console script. A signal ends a command with status 128 and its number, but `serve` with 0."""
    _open_streams()
    put_back = keys()
    serving = next((word for word in sys.argv[1:] if not word.startswith("-")), None) == "serve"

    def end(number: int, frame: FrameType | None) -> None:
        status = 0 if serving else 128 + number
        _end_soon(status, put_back)
        sys.unraisablehook = lambda _: _end(status, put_back)  # compilers call Python from where nothing can be raised
        raise Terminated(status)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    from zonda.environment import believe_terminals

    believe_terminals()
    leave(call())


def _open_streams() -> None:
    """Let streams that the caller has closed lead nowhere, and no other files be opened under their numbers."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - for as long as the process lives


def leave(code: int) -> NoReturn:
    """End the process, though some thread may work on; where one hangs, the interpreter's own end might not return."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    if code == STUCK:
        os._exit(code)
    _end_soon(code)
    sys.exit(code)


def _end_soon(status: int, last: Callable[[], None] = lambda: None) -> None:
    watch = threading.Timer(GRACE, _end, [status, last])
    watch.daemon = True
    watch.start()


def _end(status: int, last: Callable[[], None]) -> NoReturn:
    last()
    abandon()
    os._exit(status)


def call(args: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code; errors are told on standard error."""
    import click

    from zonda.cli.commands import cli
    from zonda.cli.not_offered import explained

    state: dict[str, Any] = {}
    try:
        code = cli.main(args=args, prog_name="zonda", standalone_mode=False, obj=state)
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        explained(error).show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if state.get("verbose", 0) > 1:
            raise
        return tell(error)


def tell(error: Exception) -> int:
    """Print an error and its hint, and return the exit code."""
    import click

    if isinstance(error, ZondaError):
        message, hint = error.message, error.hint
    elif isinstance(error, OSError) and error.strerror:
        message, hint = f"{error.filename}: {error.strerror}" if error.filename else error.strerror, "`-vv` shows where"
    else:
        message, hint = f"internal: {type(error).__name__}: {error}", "this is a fault of Zonda; `-vv` shows where"
    click.echo(f"error: {message}", err=True)
    if hint:
        click.echo(f"hint: {hint}", err=True)
    return error.exit_code if isinstance(error, ZondaError) else 1
