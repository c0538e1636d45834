"""Where an answer ends that may make one tool call: with that call's arguments."""
from __future__ import annotations

import re

from zonda.text.parts import CallArguments, CallStart, Part

_TELLING = re.compile(r'\\.?|["{}\[\]]', re.DOTALL)
_STEPS = {"{": 1, "[": 1, "}": -1, "]": -1}


class FirstCall:
    """Looks through the parts of one answer. `over` tells that its first call is whole."""

    def __init__(self) -> None:
        self.over = False
        self._depth = 0
        self._quoted = self._escaped = False

    def takes(self, part: Part) -> bool:
        """Whether the part still belongs to the answer."""
        match part:
            case _ if self.over:
                return False
            case CallStart(index) | CallArguments(index) if index:
                self.over = True
                return False
            case CallArguments(_, json) if json:
                self._read(json)
        return True

    def _read(self, json: str) -> None:
        """Count brackets outside of texts; `json` goes on where the last piece ended."""
        marks = _TELLING.findall(json[self._escaped:])
        for mark in marks:
            if mark == '"':
                self._quoted = not self._quoted
            elif not self._quoted:
                self._depth += _STEPS.get(mark, 0)
        self._escaped = json.endswith("\\") and marks[-1:] == ["\\"]
        self.over = not self._depth and not self._quoted
