"""SentencePiece byte-pair encoding by scores, straight from a vocabulary: nothing is built but one dictionary."""
from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Mapping, Sequence
from operator import add

from zonda.text.vocabulary import SPACE

LONGEST_CACHED = 64
MOST_CACHED = 1 << 16
MOST_CROSSING = 64
"""With more pieces that go over a word's start than this, a text is merged as a whole."""


WHITE = SPACE + "\t\n\v\f\r\x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))


class Splitter:
    """Finds tokens in text: at each place the longest, from left to right."""

    def __init__(self, tokens: Mapping[str, int]) -> None:
        self.tokens = tokens
        lengths: dict[str, set[int]] = {}
        for text in tokens:
            lengths.setdefault(text[:2], set()).add(len(text))
        for start, found in lengths.items():
            found |= lengths.get(start[0], set()) & {1}
        self._lengths = {start: sorted(found, reverse=True) for start, found in lengths.items()}
        starts = sorted(self._lengths, key=len, reverse=True)
        self._start = re.compile("|".join(map(re.escape, starts))) if starts else None

    def split(self, text: str) -> list[str | int]:
        """The text's pieces: ids of tokens, and the texts between them."""
        pieces: list[str | int] = []
        done = at = 0
        while self._start and (match := self._start.search(text, at)):
            at = match.start()
            token = self._longest(text, at, match[0])
            if token is None:
                at += 1
                continue
            if at > done:
                pieces.append(text[done:at])
            pieces.append(self.tokens[token])
            done = at = at + len(token)
        if done < len(text):
            pieces.append(text[done:])
        return pieces

    def _longest(self, text: str, at: int, start: str) -> str | None:
        return next((token for size in self._lengths[start] if (token := text[at:at + size]) in self.tokens), None)


class ScoredBPE:
    """Merges the neighbours that make the piece of the highest score, the leftmost first, until none do.

    `pieces` are the tokens that merging may make, with their ids; `scores` are by id. Characters that are no piece
    become the tokens of their bytes, or `unk` once for a run of them. Words are encoded one by one and remembered:
    no merge goes over a word's start but into the few pieces that hold one, and there the text is not cut.
    """

    def __init__(self, pieces: Mapping[str, int], scores: Sequence[float], *, bytes: Sequence[int] | None,
                 unk: int | None) -> None:
        self._pieces = pieces
        self._costs = [-score for score in scores]
        self._bytes = bytes
        self._unk = unk
        self._word_starts = _word_starts(pieces)
        self._cache: dict[str, list[int]] = {}

    def encode(self, text: str) -> list[int]:
        """Ids of a text in which spaces are already blocks."""
        words = self._word_starts.split(text) if self._word_starts else [text]
        ids: list[int] = []
        for word in words:
            known = self._cache.get(word)
            ids += self._remember(word) if known is None else known
        return self._fuse(ids) if self._bytes is None else ids

    def _remember(self, word: str) -> list[int]:
        ids = self._ids(self._merge(word))
        if len(word) <= LONGEST_CACHED:
            if len(self._cache) >= MOST_CACHED:
                self._cache = {}
            self._cache[word] = ids
        return ids

    def _merge(self, text: str) -> list[str]:
        parts = list(text)
        size = len(parts)
        after, before = list(range(1, size + 1)), list(range(-1, size - 1))
        find, costs = self._pieces.get, self._costs
        heap = [(costs[token], left, left + 1, piece) for left, piece in enumerate(map(add, parts, parts[1:]))
                if (token := find(piece)) is not None]
        heapq.heapify(heap)
        while heap:
            _, left, right, piece = heapq.heappop(heap)
            if not parts[left] or not parts[right] or parts[left] + parts[right] != piece:
                continue
            parts[left], parts[right] = piece, ""
            following, preceding = after[right], before[left]
            after[left] = following
            if following < size:
                before[following] = left
                longer = piece + parts[following]
                if (token := find(longer)) is not None:
                    heapq.heappush(heap, (costs[token], left, following, longer))
            if preceding >= 0:
                longer = parts[preceding] + piece
                if (token := find(longer)) is not None:
                    heapq.heappush(heap, (costs[token], preceding, left, longer))
        return [part for part in parts if part]

    def _ids(self, parts: list[str]) -> list[int]:
        ids: list[int] = []
        for part in parts:
            token = self._pieces.get(part)
            if token is not None:
                ids.append(token)
            elif self._bytes is not None:
                ids += [self._bytes[byte] for byte in part.encode()]
            elif self._unk is not None:
                ids.append(self._unk)
        return ids

    def _fuse(self, ids: list[int]) -> list[int]:
        unk = self._unk
        return [token for before, token in zip([None, *ids], ids) if token != unk or before != unk]


class SentencePiece:
    """A whole text to ids: added tokens first, then pieces of what lies between.

    `added` are spelled with blocks for spaces. `prefix` puts a space before a text and after each added token;
    `skip_space` drops white space that follows the added tokens it names.
    """

    def __init__(self, bpe: ScoredBPE, added: Mapping[str, int], *, prefix: bool,
                 skip_space: Callable[[int], bool]) -> None:
        self._bpe = bpe
        self._splitter = Splitter(added)
        self._prefix = SPACE if prefix else ""
        self._skip_space = skip_space

    def __call__(self, text: str) -> list[int]:
        ids: list[int] = []
        at_start, skipping = True, False
        for piece in self._splitter.split(text.replace(" ", SPACE)):
            if isinstance(piece, int):
                ids.append(piece)
                at_start, skipping = True, self._skip_space(piece)
                continue
            piece = piece.lstrip(WHITE) if skipping else piece
            if piece:
                ids += self._bpe.encode((self._prefix if at_start else "") + piece)
                at_start = False
        return ids


def _word_starts(pieces: Mapping[str, int]) -> re.Pattern[str] | None:
    """Matches before each block that begins a word, except within a piece that goes over it."""
    over = re.compile(f"[^{SPACE}\0]{SPACE}")
    crossing = [piece for piece in pieces if SPACE in piece[1:] and over.search(piece)]
    if len(crossing) > MOST_CROSSING:
        return None
    within = "".join(rf"(?!(?<={re.escape(piece[:at])}){re.escape(piece[at:])})"
                     for piece in crossing for at in range(1, len(piece)) if piece[at] == SPACE != piece[at - 1])
    return re.compile(f"(?<=[^{SPACE}])(?={SPACE}){within}")
