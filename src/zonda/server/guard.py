"""Who may call: API keys, host names against DNS rebinding, and origins against other sites' pages."""
from __future__ import annotations

import hmac
import logging
from collections.abc import Sequence
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path
from socket import gethostname
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from zonda.errors import InvalidRequest
from zonda.options import ServerOptions
from zonda.server.endpoint import Endpoint
from zonda.server.errors import Forbidden, Unauthorized

if TYPE_CHECKING:
    from zonda.server.call import Call

log = logging.getLogger(__name__)
_PRIVATE = (".local", ".lan", ".internal", ".home.arpa")


class Guard:
    """Lets a request in, or raises. Without keys, pages of other sites and foreign host names are kept out as well."""

    def __init__(self, options: ServerOptions, endpoints: Sequence[Endpoint]) -> None:
        paths = [each.path for each in endpoints if each.open]
        self._open = frozenset(path for path in paths if "{" not in path)
        self._open_below = tuple(path.partition("{")[0] for path in paths if "{" in path)
        self._keys = Keys(options)
        self._origins = frozenset(options.cors_origin)
        self._hosts = frozenset(name.lower() for name in options.allowed_host)
        self._local = not self._keys.wanted and not self._hosts and is_loopback(options.host)

    def check(self, call: Call, path: str) -> None:
        """Raise `Unauthorized` or `Forbidden` if the request may not be answered."""
        if path in self._open or path.startswith(self._open_below):
            return
        if self._keys.wanted:
            self._check_key(call)
        else:
            self._check_origin(call)
        self._check_host(call)

    def _check_key(self, call: Call) -> None:
        given = _key(call)
        if not given:
            raise Unauthorized("no API key was sent", hint="expected the header `Authorization: Bearer KEY`")
        digest = sha256(given).digest()
        matches = [hmac.compare_digest(digest, key) for key in self._keys.digests()]  # all of them, whichever it is
        if not any(matches):
            raise Unauthorized("the API key is not valid")
        call.owner = digest
        call.client = matches.index(True) + 1

    def _check_origin(self, call: Call) -> None:
        origin = call.headers.get(b"origin")
        if origin is None or "*" in self._origins:
            return
        text, host = origin.decode("latin-1"), call.headers.get(b"host", b"").decode("latin-1").lower()
        if text in self._origins:
            return
        if _netloc(text) != host:
            raise Forbidden("pages of this origin may not call", hint="allow it with --cors-origin")
        if not self._hosts and is_public(_name(host)):
            raise Forbidden("pages of this host name may not call, since anyone may own it",
                            hint="allow it with --allowed-host, or set --api-key")

    def _check_host(self, call: Call) -> None:
        host = _name(call.headers.get(b"host", b"").decode("latin-1"))
        if not host or not (self._hosts or self._local):
            return
        if host not in self._hosts and not (self._local and is_loopback(host)):
            raise Forbidden("this host name is not served", hint="allow it with --allowed-host")


class Keys:
    """The digests of the keys that clients may send. A file that has changed is read again, and stays as it was read
    last while it cannot be read or has no key."""

    def __init__(self, options: ServerOptions) -> None:
        self.wanted = keyed(options)
        self._options = options
        self._file = Path(options.api_key_file).expanduser() if options.api_key_file else None
        self._state = self._look()
        self._digests = self._read()

    def digests(self) -> Sequence[bytes]:
        """Those that are valid now."""
        state = self._look()
        if state != self._state:
            self._state = state
            try:
                self._digests = self._read()
                log.info("read %d API keys anew", len(self._digests))
            except InvalidRequest as error:
                log.warning("%s; the keys read before stay valid", error)
        return self._digests

    def _read(self) -> Sequence[bytes]:
        return [sha256(key.encode()).digest() for key in keys_of(self._options)]

    def _look(self) -> tuple[int, ...]:
        """What differs when the file has changed."""
        try:
            found = self._file.stat() if self._file else None
        except OSError:
            return ()
        return (found.st_mtime_ns, found.st_size, found.st_ino) if found else ()


def keys_of(options: ServerOptions) -> tuple[str, ...]:
    """The keys that clients may send: those of the options, and those of the file; raises if a file has none."""
    given = tuple(key for key in options.api_key if key)
    if options.api_key_file is None:
        return given
    try:
        lines = Path(options.api_key_file).expanduser().read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the API keys cannot be read: {error}", param="api_key_file") from None
    found = tuple(line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#"))
    if not found:
        raise InvalidRequest(f"{options.api_key_file} has no API key", hint="expected one a line", param="api_key_file")
    return given + found


def keyed(options: ServerOptions) -> bool:
    """Whether callers need a key."""
    return any(options.api_key) or options.api_key_file is not None


def is_loopback(host: str) -> bool:
    """Whether a name or address is this machine's own and nobody else's."""
    name = host.lower().strip("[]")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def is_public(host: str) -> bool:
    """Whether a name may belong to anyone in the world, who could let it lead to an address of ours."""
    try:
        ip_address(host)
    except ValueError:
        return "." in host and not is_loopback(host) and not host.endswith(_PRIVATE) and host != gethostname().lower()
    return False


def _key(call: Call) -> bytes:
    scheme, _, token = call.headers.get(b"authorization", b"").partition(b" ")
    bearer = token.strip() if scheme.lower() == b"bearer" else b""
    return bearer or call.headers.get(b"x-api-key", b"")


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _name(host: str) -> str:
    """A Host header without its port."""
    if host.startswith("["):
        return host.partition("]")[0].strip("[").lower()
    return host.partition(":")[0].lower()
