"""Conversations in fewer tokens: what the model is asked for, and what stands for what was said."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from zonda.server import responses_input as given
from zonda.server import responses_tools
from zonda.server.responses_events import Event
from zonda.server.responses_schema import Compaction, ContextFields, Item, Response
from zonda.server.responses_writer import Writer, seal
from zonda.server.sampling import sampling_of
from zonda.server.schema import TokenLogprob
from zonda.text.parts import Part, Text, Thought
from zonda.turns import Turn
from zonda.types import Usage

SUMMARIZE = ("Summarize our conversation for somebody who has not seen it and is to go on with it: what is wanted, "
             "what was found and decided, the names, numbers and code that matter, and what is still to be done. "
             "Write the summary alone.")
MAX_SUMMARY = 1024  # tokens
EMPTY = "(nothing)"


def asked(body: ContextFields, items: Sequence[Item]) -> Turn:
    """The turn that asks for a summary. Its prompt begins as the conversation's, tools included, which is in the cache.
    """
    said: list[dict[str, Any]] = [*given.messages_of(items, body.instructions), {"role": "user", "content": SUMMARIZE}]
    return Turn(messages=said, tools=responses_tools.as_chat(responses_tools.tools_of(body)),
                variables=given.variables_of(body), sampling=sampling_of(body, max_tokens=MAX_SUMMARY, logprobs=None))


def item_of(id: str, text: str, thought: str) -> Compaction:
    """The item that stands for a conversation, of what the model answered."""
    return Compaction(id=id, encrypted_content=seal(text or thought or EMPTY))


class Compacting(Writer):
    """Writes a response whose only item stands for the conversation so far."""

    def __init__(self, response: Response, name: Callable[[str, int], str]) -> None:
        super().__init__(response, name)
        self._parts: list[Part] = []

    def feed(self, parts: Iterable[Part], logprobs: Sequence[TokenLogprob] = ()) -> list[Event]:
        """The summary goes on."""
        self._parts += parts
        return []

    def finish(self, ending: str | None, usage: Usage, reasoning: int) -> list[Event]:
        """The summary has ended; however it did, it stands for the conversation."""
        if ending == "cancelled":
            return super().finish(ending, usage, reasoning)
        text, thought = ("".join(part.text for part in self._parts if isinstance(part, kind))
                         for kind in (Text, Thought))
        return self.put(item_of(self.name("cmp", 0), text, thought)) + super().finish(None, usage, reasoning)
