"""Generated token ids to text as they come, up to a stop string."""
from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence

from zonda.text.tokenizer import Tokenizer

UTF8 = codecs.getincrementaldecoder("utf-8")


class Stream:
    """The text of one sequence, in pieces; however its ids are cut into calls, the pieces add up to the same text.

    `feed` keeps back bytes that do not yet make a character, and text that may be the beginning of a stop string.
    The first stop string to be complete ends the text before it; then `stopped` names it, and nothing follows. A stop
    string that is a special token's own text matches that token, though special tokens are no part of the text but
    for those that `visible` names. `after` is the token before the first: at the start of a text, as after a special
    token, the space that the tokenizer had put there is left out. No stop string is looked for in the first
    `min_tokens` tokens.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = (), *, after: int | None = None,
                 visible: frozenset[int] = frozenset(), min_tokens: int = 0) -> None:
        self._bytes = tokenizer.token_bytes
        self._special = tokenizer.special_ids - visible
        self._utf8 = UTF8("replace")
        self._stops = tuple(dict.fromkeys(each for each in stop if each))
        self._first = frozenset(each[0] for each in self._stops)
        self._stop_tokens = {token: each for each in self._stops
                             if (token := tokenizer.id(each)) is not None and token in self._special}
        self._at_start = tokenizer.vocabulary.strip and (after is None or after in tokenizer.special_ids)
        self._held = ""
        self._deaf = min_tokens
        self.stopped: str | None = None
        """The stop string that ended the text."""

    def feed(self, ids: Iterable[int]) -> str:
        """Take in more ids; returns the text that is now sure."""
        sure = ""
        for token in ids:
            if self.stopped is not None:
                break
            if token not in self._special:
                sure += self._take(self._utf8.decode(self._bytes(token)))
            elif token in self._stop_tokens and self._deaf <= 0:
                sure += self._flush()
                self.stopped = self.stopped or self._stop_tokens[token]
            self._deaf -= 1
        return sure

    def finish(self) -> str:
        """The text that was kept back, when no more ids come."""
        return "" if self.stopped is not None else self._flush()

    def _flush(self) -> str:
        sure = self._take(self._utf8.decode(b"", True))
        sure, self._held = sure + self._held, ""
        return sure

    def _take(self, text: str) -> str:
        if self._at_start and text:
            text, self._at_start = text.removeprefix(" "), False
        if self._deaf > 0 or (not self._held and self._first.isdisjoint(text)):
            return text
        text, self._held = self._held + text, ""
        found = [(at + len(stop), at, stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            _, at, self.stopped = min(found)
            return text[:at]
        kept = len(text) - max(_begun(text, stop) for stop in self._stops)
        text, self._held = text[:kept], text[kept:]
        return text


def _begun(text: str, stop: str) -> int:
    """How many characters at the end of a text begin the stop string."""
    at = text.find(stop[0], max(0, len(text) - len(stop) + 1))
    while at >= 0 and not stop.startswith(text[at:]):
        at = text.find(stop[0], at + 1)
    return len(text) - at if at >= 0 else 0
