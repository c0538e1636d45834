"""Several prompts of one request, answered side by side."""
from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from zonda.prepare import fitting
from zonda.types import Chunk, Grammar, Sampling

if TYPE_CHECKING:
    from zonda.generation import Generation
    from zonda.sdk import AsyncLLM

Prompt = Sequence[int]
Inbox = asyncio.Queue[tuple[int, Chunk | Exception | None]]
"""Chunks, each with the number of its prompt; an error that ended one; None at its end."""


@contextmanager
def answers(llm: AsyncLLM, prompts: Sequence[Prompt], sampling: Sampling, grammar: Grammar | None, *,
            name: str, salt: str = "") -> Iterator[list[Generation[Chunk]]]:
    """Queue every prompt, or raise and leave none behind; what still runs at the end of the block is cancelled.

    `name` begins the requests' ids.
    """
    generations: list[Generation[Chunk]] = []
    try:
        for number, prompt in enumerate(prompts):
            fitted = fitting(prompt, llm.engine.max_len, sampling)
            generations.append(llm.generate(fitted, sampling, grammar=grammar, request_id=f"{name}-{number}",
                                            salt=salt))
        yield generations
    finally:
        for generation in generations:
            generation.cancel()


async def chunks(generations: Sequence[Generation[Chunk]]) -> AsyncIterator[tuple[int, Chunk]]:
    """The chunks of all prompts as they come, each with the number of its prompt."""
    if len(generations) == 1:
        async for chunk in generations[0]:
            yield 0, chunk
        return
    inbox: Inbox = asyncio.Queue()
    pumps = [asyncio.create_task(_pump(number, each, inbox)) for number, each in enumerate(generations)]
    try:
        async for number, chunk in _merged(inbox, len(pumps)):
            yield number, chunk
    finally:
        for pump in pumps:
            pump.cancel()


async def _merged(inbox: Inbox, running: int) -> AsyncIterator[tuple[int, Chunk]]:
    while running:
        number, news = await inbox.get()
        if isinstance(news, Exception):
            raise news
        if news is None:
            running -= 1
        else:
            yield number, news


async def _pump(number: int, generation: Generation[Chunk], inbox: Inbox) -> None:
    try:
        async for chunk in generation:
            inbox.put_nowait((number, chunk))
        inbox.put_nowait((number, None))
    except Exception as error:
        inbox.put_nowait((number, error))
