"""What a soak asks over each route, and how the text is read from an answer."""
from __future__ import annotations

import json
import urllib.request
from dataclasses import dataclass, replace
from typing import Any

LETTERS = "abcdefghijklmnopqrstuvwxyz"
LONG = 400  # tokens, more than the alphabet has
LENGTHS = (8, 16, 32, 64)  # tokens that a real model is asked for
RESPONSES = "/v1/responses"


@dataclass(frozen=True)
class Question:
    """A request for the likeliest continuation, over one route, and the text that answers it."""

    path: str
    fields: dict[str, Any]
    answer: str = ""

    def body(self, **changes: Any) -> bytes:
        return json.dumps({**self.fields, **changes}).encode()

    def longer(self) -> dict[str, int]:
        """The change that asks for a long answer."""
        return {name: LONG for name in ("max_tokens", "max_output_tokens") if name in self.fields}


def alphabet() -> list[Question]:
    """Letters, to which the rest of the alphabet is the answer."""
    return [replace(asked, answer=LETTERS[place + 1:])
            for place, letter in enumerate(LETTERS) for asked in _over_each_route(letter, LONG)]


def learnt(port: int) -> list[Question]:
    """Questions to a real model, with the answers that it gives when nobody else asks."""
    every = [asked for place, letter in enumerate(LETTERS)
             for asked in _over_each_route(f"Words that begin with {letter}:", LENGTHS[place % len(LENGTHS)])]
    return [replace(asked, answer=_alone(port, asked)) for asked in every]


def _over_each_route(prompt: str, length: int) -> list[Question]:
    chat = {"messages": [{"role": "user", "content": prompt}], "max_tokens": length, "temperature": 0}
    plain = {"prompt": prompt, "max_tokens": length, "temperature": 0}
    item: dict[str, Any] = {"input": prompt, "max_output_tokens": length, "temperature": 0}
    return [Question("/v1/chat/completions", chat), Question("/v1/messages", chat | {"model": "default"}),
            Question("/v1/completions", plain), Question("/v1/completions", plain | {"guided_regex": "[A-Za-z]*"}),
            Question(RESPONSES, item), Question(RESPONSES, item | {"store": False})]


def _alone(port: int, asked: Question) -> str:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{asked.path}", asked.body())
    with urllib.request.urlopen(request, timeout=60) as answer:
        return text(json.load(answer))


def streamed(events: bytes) -> str | None:
    """The text of a stream of events; None if it does not end as it should, or numbers of its events are missing."""
    every = [json.loads(line[6:]) for line in events.splitlines() if line.startswith(b"data: {")]
    numbers = [event["sequence_number"] for event in every if "sequence_number" in event]
    ended = b"data: [DONE]" in events or every[-1:] == [{"type": "message_stop"}]
    return "".join(map(text, every)) if ended and numbers == [*range(len(numbers))] else None


def text(said: dict[str, Any]) -> str:
    """The text in an answer, or in an event of a stream."""
    match said:
        case ({"choices": [{"message": {"content": str(found)}}]} | {"choices": [{"delta": {"content": str(found)}}]}
              | {"choices": [{"text": str(found)}]} | {"type": "response.output_text.delta", "delta": str(found)}
              | {"type": "content_block_delta", "delta": {"text": str(found)}}):
            return found
        case {"object": "response", "output": [*items]}:
            return "".join(map(text, items))
        case {"type": "message", "content": [*parts]}:
            return "".join(part.get("text", "") for part in parts)
    return ""
