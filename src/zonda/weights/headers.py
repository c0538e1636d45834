"""GGUF files of the hub without their weights: the header is fetched, with factors of rope, and the rest is a hole."""
from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from urllib.request import Request, urlopen

from zonda.weights.gguf import has_header, parse
from zonda.weights.mapped import Mapped

FIRST = 1 << 22
"""Bytes to begin with; vocabularies take up to some ten MB."""
FACTORS = "rope_f"
"""How the names of small tensors begin that are part of a model's configuration."""


def fetch_header(repo: str, name: str, revision: str | None, size: int, path: Path, *,
                 token: str | bool | None = None, patience: float) -> None:
    """Write a file of `size` bytes with what of a repository's file says the model's sizes: no weights."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers

    read = partial(_range, hf_hub_url(repo, name, revision=revision), build_hf_headers(token=token), patience)
    have = 0
    while have < size:
        step = min(max(FIRST, have), size - have)
        with path.open("ab") as file:
            file.write(read(have, step))
        have += step
        if has_header(path):
            break
    os.truncate(path, size)
    factors = [each for each in parse(Mapped(path))[1].values() if each.name.startswith(FACTORS) and each.size]
    with path.open("r+b") as file:
        for each in factors:
            file.seek(each.offset)
            file.write(read(each.offset, each.size or 0))


def _range(url: str, headers: Mapping[str, str], patience: float, start: int, size: int) -> bytes:
    request = Request(url, headers={"Range": f"bytes={start}-{start + size - 1}"})
    for header, value in headers.items():
        request.add_unredirected_header(header, value)  # the token is not for the servers that files lie on
    with urlopen(request, timeout=patience) as response:
        if response.status != 206:
            response.read(start)  # the whole file came
        found: bytes = response.read(size)
    if len(found) != size:
        raise OSError(f"{url} ended after {start + len(found)} bytes")
    return found
