"""What operators ask: who is here, whether it can answer, how much it did, and how it is used."""
from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST

from zonda import __version__
from zonda.machine import examine, facts
from zonda.server import openapi
from zonda.server.call import JSON, Call
from zonda.server.guard import keyed
from zonda.server.schema import About, Diagnosis, Machine, MachineCheck

HTML = b"text/html; charset=utf-8"
POLICY = b"default-src 'none'; style-src 'unsafe-inline'"
_encode = msgspec.json.Encoder().encode


async def about(call: Call) -> About:
    """The server's name, version and documentation."""
    return About("zonda", __version__, "/docs")


async def health(call: Call) -> None:
    """200 when requests are taken, 503 with the reason otherwise."""
    state = call.service.health()
    await call.reply(state, status=200 if state.status == "ok" else 503)


async def machine(call: Call) -> Machine:
    """What the server runs on; no folders, which are nobody's business."""
    return await asyncio.to_thread(lambda: msgspec.convert(facts(), Machine))


async def diagnosis(call: Call) -> Diagnosis:
    """What `zonda doctor` says, but for the hub, which a client has no business to have asked."""
    checks = await asyncio.to_thread(lambda: examine(asking=False))
    found = [msgspec.convert(each, MachineCheck, from_attributes=True) for each in checks]
    return Diagnosis(found, await machine(call))


async def metrics(call: Call) -> None:
    """Prometheus' text format."""
    await call.reply_bytes(call.service.metrics.text(), CONTENT_TYPE_LATEST.encode())


async def document(call: Call) -> None:
    """The OpenAPI document."""
    keys = keyed(call.service.options)
    await call.reply_bytes(_once(call, lambda: _encode(openapi.document(call.service.endpoints, keyed=keys))), JSON)


async def docs(call: Call) -> None:
    """The OpenAPI document as a page, without anything from elsewhere."""
    page = _once(call, lambda: openapi.page(call.service.endpoints).encode())
    await call.reply_bytes(page, HTML, headers=[(b"content-security-policy", POLICY)])


def _once(call: Call, write: Callable[[], bytes]) -> bytes:
    """What documents the routes takes long to write, and stays the same."""
    return call.service.written.get(call.path) or call.service.written.setdefault(call.path, write())
