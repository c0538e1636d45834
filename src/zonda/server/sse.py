"""Server-sent events: data frames, comments that keep a silent connection open, and the end."""
from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, TypeVar

import msgspec
from msgspec import Struct, structs

from zonda.server.call import Call
from zonda.server.errors import Header

S = TypeVar("S", bound=Struct)
HEADERS: list[Header] = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache"),
                         (b"x-accel-buffering", b"no")]
COMMENT = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"
PADDED = 32
"""Bytes that the size of a padded frame is a multiple of, but for what is around the text in all frames."""
_encoder = msgspec.json.Encoder()


def padded(value: S) -> S:
    """A value with an `obfuscation`: random letters, so that the size of its frame does not tell its text's length."""
    size = len(_encoder.encode(value))
    return structs.replace(value, obfuscation=secrets.token_hex(PADDED // 2)[:-size % PADDED])


def frame(value: Any) -> bytes:
    """One event."""
    return b"data: " + _encoder.encode(value) + b"\n\n"


def named(*events: Struct) -> bytes:
    """Events under the names that their types are tagged with."""
    return b"".join([b"event: %s\n" % str(type(each).__struct_config__.tag).encode() + frame(each) for each in events])


async def stream(call: Call, frames: AsyncIterator[bytes], *, beat: bytes = COMMENT, end: bytes = DONE) -> None:
    """Send the frames as they come, then the end; an error on the way is sent by `Call.fail`.

    `beat` is sent into long silences.
    """
    await call.start(200, HEADERS)
    call.streaming = True
    beating = asyncio.create_task(_beat(call, call.service.options.keep_alive, beat))
    try:
        await asyncio.create_task(_write(call, frames))  # each event wakes a short task, not all that led here
    finally:
        beating.cancel()
    await call.finish(end)


async def _write(call: Call, frames: AsyncIterator[bytes]) -> None:
    async with aclosing(frames):  # type: ignore[type-var]
        async for each in frames:
            await call.write(each)


async def _beat(call: Call, interval: float, beat: bytes) -> None:
    """Send the beat whenever nothing was sent for the interval."""
    loop = asyncio.get_running_loop()
    call.written = loop.time()
    while True:
        silence = loop.time() - call.written
        await asyncio.sleep(interval - silence if silence < interval else interval)
        if loop.time() - call.written >= interval:
            await call.write(beat)
