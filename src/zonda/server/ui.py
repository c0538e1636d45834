"""The web UI: its files, sent as they lie in the package, to whoever asks; what they ask of the API carries the key."""
from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException

if TYPE_CHECKING:
    from zonda.server.call import Call
    from zonda.server.errors import Header

HOME = "/ui"
FOLDER = Path(__file__).parent / "ui"
PAGE = "index.html"
MEDIA: Mapping[str, bytes] = {
    ".html": b"text/html; charset=utf-8", ".js": b"text/javascript; charset=utf-8", ".css": b"text/css; charset=utf-8",
    ".svg": b"image/svg+xml", ".woff2": b"font/woff2", ".md": b"text/plain; charset=utf-8",
    ".txt": b"text/plain; charset=utf-8"}
POLICY = ("default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self' data: blob:; "
          "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
          "require-trusted-types-for 'script'; trusted-types dompurify")
"""Nothing from elsewhere, no code or style inside the page, and HTML of text only through DOMPurify."""
SAFETY: tuple[Header, ...] = (
    (b"content-security-policy", POLICY.encode()), (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"), (b"cross-origin-opener-policy", b"same-origin"))
SMALLEST = 1024
"""Bytes from which a text is worth compressing."""


@dataclass(frozen=True, slots=True)
class Asset:
    """A file as it is sent."""

    body: bytes
    packed: bytes | None
    media: bytes
    tag: bytes


async def page(call: Call) -> None:
    """The page."""
    await _send(call, assets()[PAGE])


async def file(call: Call) -> None:
    """What the page is made of; a path is looked up in a table, never in the file system."""
    name = call.scope["path_params"]["file"]
    if not name:  # relative, so that it holds behind a proxy's prefix too
        await call.reply_bytes(b"", MEDIA[".html"], status=307, headers=[(b"location", b"../ui")])
        return
    asset = assets().get(name)
    if asset is None:
        raise HTTPException(404)
    await _send(call, asset)


@cache
def assets() -> Mapping[str, Asset]:
    """Every file of the UI by its name, with `/` between folders."""
    return {path.relative_to(FOLDER).as_posix(): _read(path) for path in sorted(FOLDER.rglob("*"))
            if path.is_file() and path.suffix in MEDIA}


def _read(path: Path) -> Asset:
    body = path.read_bytes()
    packed = gzip.compress(body, 6, mtime=0) if len(body) >= SMALLEST and path.suffix != ".woff2" else None
    return Asset(body, packed, MEDIA[path.suffix], b'W/"%s"' % hashlib.sha256(body).hexdigest()[:24].encode())


async def _send(call: Call, asset: Asset) -> None:
    """Send a file, or say that the browser has it already: it asks each time, so that an upgrade shows at once."""
    headers: list[Header] = [(b"etag", asset.tag), (b"cache-control", b"no-cache"), (b"vary", b"accept-encoding"),
                             *SAFETY]
    if asset.tag in [each.strip() for each in call.headers.get(b"if-none-match", b"").split(b",")]:
        await call.start(304, headers)
        await call.finish()
    elif asset.packed and b"gzip" in call.headers.get(b"accept-encoding", b""):
        await call.reply_bytes(asset.packed, asset.media, headers=[*headers, (b"content-encoding", b"gzip")])
    else:
        await call.reply_bytes(asset.body, asset.media, headers=headers)
