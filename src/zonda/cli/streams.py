"""A client in a process of its own for `bench --http`: starts streams together, prints tokens a second.

Nothing but the standard library, so that it starts at once.
Standard input: a JSON object of `port`, `prompts` (lists of token ids) and `gen_len`.
"""
from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections.abc import Sequence
from typing import Any

_COUNT = re.compile(rb'"completion_tokens":\s*(\d+)')


async def stream(port: int, prompt: Sequence[int], gen_len: int) -> int:
    """Read one streamed completion to its end; returns the tokens that the server counts."""
    body = json.dumps({"prompt": prompt, "max_tokens": gen_len, "temperature": 0, "ignore_eos": True, "stream": True,
                       "stream_options": {"include_usage": True}}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
                 f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
    status = await reader.readline()
    if b" 200 " not in status:
        raise RuntimeError((status + await reader.read()).decode(errors="replace"))
    count = 0
    while line := await reader.readline():
        if found := _COUNT.search(line):
            count = int(found[1])
    writer.close()
    return count


async def total(port: int, prompts: Sequence[Sequence[int]], gen_len: int) -> float:
    """Tokens a second over all streams, from the start to the last one's end."""
    began = time.perf_counter()
    counts = await asyncio.gather(*(stream(port, prompt, gen_len) for prompt in prompts))
    if any(count != gen_len for count in counts):
        raise RuntimeError(f"the server generated {counts} tokens, expected {gen_len} each")
    return sum(counts) / (time.perf_counter() - began)


def main() -> None:
    """Read what to do, do it, print the speed."""
    wanted: dict[str, Any] = json.load(sys.stdin)
    print(asyncio.run(total(wanted["port"], wanted["prompts"], wanted["gen_len"])))


if __name__ == "__main__":
    main()
