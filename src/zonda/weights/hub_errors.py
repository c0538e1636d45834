"""What goes wrong between this machine and the hub, in words that a user can act on."""
from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar
from urllib.error import HTTPError

from zonda.errors import ModelNotFound, ZondaError

LOGIN = "accept its terms on its page on the hub, then run `zonda login` or set HF_TOKEN"
T = TypeVar("T")


class Unreachable(ModelNotFound):
    """The hub cannot be asked, and the disk does not have the model."""

    code = "hub_unreachable"


@contextmanager
def told(repo: str, revision: str | None) -> Iterator[None]:
    """Turn what the hub's library raises into what a user can act on."""
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except ZondaError:
        raise
    except GatedRepoError:
        raise ModelNotFound(f"{repo} is gated: its makers give access on request", hint=LOGIN, code="gated") from None
    except RepositoryNotFoundError:
        raise ModelNotFound(f"the hub has no repository {repo}, or it is private",
                            hint="check the name; for a private one, run `zonda login` or set HF_TOKEN") from None
    except RevisionNotFoundError:
        raise ModelNotFound(f"{repo} has no revision {revision}") from None
    except LocalEntryNotFoundError as error:
        raise Unreachable(f"the hub did not answer for {repo}: {_first_line(error)}", hint=CHECK) from error
    except EntryNotFoundError as error:
        raise ModelNotFound(f"{repo} lacks a file: {_first_line(error)}") from error
    except HfHubHTTPError as error:
        raise _refused(repo, getattr(error.response, "status_code", None)) from error
    except HTTPError as error:
        raise _refused(repo, error.code) from error
    except OSError as error:
        raise Unreachable(f"{repo} could not be downloaded: {_first_line(error)}", hint=CHECK) from error
    except Exception as error:
        # The hub's library raises the errors of one of three HTTP clients, depending on its version.
        if type(error).__module__.split(".")[0] in ("httpx", "httpx2", "httpcore", "requests", "urllib3"):
            raise Unreachable(f"the hub cannot be reached for {repo}: {_first_line(error)}", hint=CHECK) from error
        raise Unreachable(f"what answers for the hub about {repo} makes no sense: {type(error).__name__}, "
                          f"{_first_line(error)}", hint=PORTAL) from error


CHECK = "check the network, or name a local file or folder"
PORTAL = "a proxy, a login page of the network or HF_ENDPOINT may stand in its place; see them in a browser"


def _refused(repo: str, status: int | None) -> ZondaError:
    if status in (401, 403):
        return ModelNotFound(f"the hub refuses access to {repo} ({status})", hint=LOGIN, code="gated")
    if status == 404:
        return ModelNotFound(f"the hub has no repository {repo}", hint="check the name")
    return Unreachable(f"the hub answered {status} for {repo}", hint="try again later")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def within(seconds: float, call: Callable[[], T]) -> T:
    """The result of a call that may hang where no timeout reaches it, as in looking up a host's name."""
    results: list[T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds + 1)
    if failures:
        raise failures[0]
    if not results:
        raise Unreachable(f"the hub did not answer within {seconds:g} s", hint=CHECK)
    return results[0]
