"""Bodies of very many values, which take too long to decode: nothing else would be answered meanwhile."""
from __future__ import annotations

import re

import numpy as np

from zonda.errors import InvalidRequest

LARGE = 1 << 17
"""Bytes of a body that cannot hold too many values."""
MAX_VALUES = 1_000_000
"""Values that a body may have, about, such as token ids."""
MAX_NESTS = 50_000
"""Lists and objects that a body may have."""
_PIECE = 1 << 20  # bytes that are looked at in one go
_KEY = re.compile(rb'\s*"([^"]{1,64})"')
_STEPS = np.zeros(256, np.int8)
_STEPS[[91, 123]], _STEPS[[93, 125]] = 1, -1  # [ { and ] }


def check_bulk(body: bytes) -> None:
    """Refuse a body of more values than can be decoded within some 50 ms; texts may be of any length."""
    count, at = Count(), 0
    while at < len(body):
        piece = body[at:at + _PIECE]
        slashes = len(piece) - len(piece.rstrip(b"\\"))
        end = at + len(piece) + slashes % 2
        count.add(body[at:end])
        if count.values > MAX_VALUES or count.nests > MAX_NESTS:
            raise InvalidRequest(f"`{count.field}` has too many values", param=count.field,
                                 hint=f"a body may have {MAX_VALUES:,} values, {MAX_NESTS:,} of them lists and objects")
        at = end


class Count:
    """The commas and opening brackets outside of texts, and the field of the body in which they are counted."""

    def __init__(self) -> None:
        self.values = self.nests = 0
        self.field = "body"
        self._depth = 0
        self._quoted = np.uint8(0)

    def add(self, piece: bytes) -> None:
        """Go on with a piece, which does not end within an escape."""
        bare = piece.replace(b"\\\\", b"").replace(b'\\"', b"")
        chars = np.frombuffer(bare, np.uint8)
        if not len(chars):
            return
        quoted = np.bitwise_xor.accumulate((chars == ord('"')).view(np.uint8)) ^ self._quoted
        places = np.flatnonzero(quoted == 0)
        outside = chars[places]
        depth = self._depth + np.cumsum(_STEPS[outside], dtype=np.int64)
        commas, opening = outside == ord(","), _STEPS[outside] > 0
        self.values += int(np.count_nonzero(commas))
        self.nests += int(np.count_nonzero(opening))
        self._name(bare, places[(depth == 1) & (commas | opening)])
        self._quoted = quoted[-1]
        self._depth = int(depth[-1]) if len(depth) else self._depth

    def _name(self, bare: bytes, before: np.ndarray) -> None:
        """Note the key behind the last place before one of the body's own fields."""
        key = _KEY.match(bare, before[-1] + 1) if len(before) else None
        self.field = key[1].decode("utf-8", "replace") if key else self.field
