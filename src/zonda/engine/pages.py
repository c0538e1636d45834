"""Pages of the key-value cache: who holds them, and what beginnings of prompts they still know."""
from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np


def root(salt: str) -> bytes:
    """The start of a hash chain; requests with different salts never meet."""
    return hashlib.blake2b(salt.encode(), digest_size=16).digest()


def chain(parent: bytes, tokens: np.ndarray) -> bytes:
    """Name of a full page: its tokens and all that is before them. tokens: int32 (page_size,)."""
    return hashlib.blake2b(parent + tokens.tobytes(), digest_size=16).digest()


class Pages:
    """Reference-counted pages.

    A page is free, held by `references` sequences, or idle: held by none, but still known by the hash of its content,
    so that a new sequence may take it up again. Idle pages are given away when no page is free, oldest first.
    """

    def __init__(self, count: int, size: int) -> None:
        self.count = count
        self.size = size
        self.evictions = 0
        self.references = [0] * count
        self._free = list(range(count - 1, -1, -1))
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._known: dict[bytes, int] = {}
        self._names: list[bytes | None] = [None] * count

    @property
    def available(self) -> int:
        """Pages that can be allocated."""
        return len(self._free) + len(self._idle)

    @property
    def used(self) -> int:
        """Pages that sequences hold."""
        return self.count - self.available

    def fits(self, shared: Sequence[int], more: int) -> bool:
        """Whether `more` pages can be allocated beside taking up the `shared` ones."""
        idle = sum(not self.references[page] for page in shared)
        return self.available - idle >= more

    def allocate(self, count: int) -> list[int]:
        """Pages without content, held once."""
        pages = [self._free.pop() if self._free else self._evict() for _ in range(count)]
        for page in pages:
            self.references[page] = 1
        return pages

    def _evict(self) -> int:
        page, _ = self._idle.popitem(last=False)
        name = self._names[page]
        assert name is not None
        del self._known[name]
        self._names[page] = None
        self.evictions += 1
        return page

    def share(self, pages: Sequence[int]) -> None:
        """Hold pages that have content once more."""
        for page in pages:
            if not self.references[page]:
                del self._idle[page]
            self.references[page] += 1

    def release(self, pages: Sequence[int]) -> None:
        """Let go of a sequence's pages; of those that become idle, the last is the first to be given away."""
        for page in reversed(pages):
            self.references[page] -= 1
            if self.references[page]:
                continue
            if self._names[page] is None:
                self._free.append(page)
            else:
                self._idle[page] = None

    def publish(self, page: int, name: bytes) -> None:
        """Make a full, computed page known; the first of several equal ones stays known."""
        if name not in self._known and self._names[page] is None:
            self._known[name] = page
            self._names[page] = name

    def find(self, names: Sequence[bytes]) -> list[int]:
        """The pages of the longest known beginning of a chain."""
        found: list[int] = []
        for name in names:
            page = self._known.get(name)
            if page is None:
                break
            found.append(page)
        return found
