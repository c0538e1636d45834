"""What operators ask: who is here, whether it can answer, how much it did, and how it is used."""
from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST

from zonda import __version__
from zonda.server import openapi
from zonda.server.call import Call
from zonda.server.guard import keyed
from zonda.server.schema import About

HTML = b"text/html; charset=utf-8"
POLICY = b"default-src 'none'; style-src 'unsafe-inline'"


async def about(call: Call) -> About:
    """The server's name, version and documentation."""
    return About("zonda", __version__, "/docs")


async def health(call: Call) -> None:
    """200 when requests are taken, 503 with the reason otherwise."""
    state = call.service.health()
    await call.reply(state, status=200 if state.status == "ok" else 503)


async def metrics(call: Call) -> None:
    """Prometheus' text format."""
    await call.reply_bytes(call.service.metrics.text(), CONTENT_TYPE_LATEST.encode())


async def document(call: Call) -> None:
    """The OpenAPI document."""
    await call.reply(openapi.document(call.service.endpoints, keyed=keyed(call.service.options)))


async def docs(call: Call) -> None:
    """The OpenAPI document as a page, without anything from elsewhere."""
    page = openapi.page(call.service.endpoints).encode()
    await call.reply_bytes(page, HTML, headers=[(b"content-security-policy", POLICY)])
