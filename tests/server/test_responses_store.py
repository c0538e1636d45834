"""What is kept, and what is thrown out."""
from __future__ import annotations

import tracemalloc
from typing import Any

import msgspec
import pytest

from zonda.options import ServerOptions
from zonda.server import responses_store
from zonda.server.responses_schema import InputText, Message, Response, TextUsed
from zonda.server.responses_store import Kept, Store, Talk, taken


def kept(id: str, *, text: str = "", owner: bytes = b"") -> Kept:
    response: Any = Response(
        id=id, created_at=0, status="completed", background=False, instructions=None, max_output_tokens=None,
        max_tool_calls=None, model="m", parallel_tool_calls=True, previous_response_id=None, reasoning=None,  # type: ignore[arg-type]
        store=True, temperature=1, top_p=1, presence_penalty=0, frequency_penalty=0,
        text=TextUsed(format={}, verbosity="medium"), tool_choice="auto", tools=[], top_logprobs=0,
        truncation="disabled", metadata={}, user=None, safety_identifier=None, prompt_cache_key=None)
    return Kept(response, (Message(id="m", role="user", content=[InputText(text)]),), owner)


def test_the_least_used_goes_first_where_there_are_too_many() -> None:
    store = Store(ServerOptions(stored_responses=2))
    for id in "ab":
        store.put(kept(id))
    assert store.get("a", b"")
    store.put(kept("c"))
    assert store.get("a", b"") and store.get("c", b"") and not store.get("b", b"")


def test_bytes_are_counted() -> None:
    store = Store(ServerOptions(stored_mb=1))
    for id in "abc":
        store.put(kept(id, text="x" * 400_000))
    assert len(store) == 2 and not store.get("a", b"")
    store.put(kept("d", text="x" * (1 << 20)))
    assert not store.get("d", b"")


@pytest.mark.parametrize("part", ["{}", "[]", "[[]]", '{"a":0}', '{"a":{"b":[1.5]}}', '"abcdef"', "1.5",
                                  "123456", '"' + "x" * 3000 + '"', '{"type":"input_text","text":"a"}'])
def test_what_is_counted_is_about_what_memory_it_takes(part: str) -> None:
    text = f"[{','.join([part] * 5000)}]"
    tracemalloc.start()
    value = msgspec.json.decode(text)
    real, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert value and 0.7 * real < taken(value) < 4 * real


def test_what_a_conversation_goes_on_with_is_counted_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each small addition to a long one would hold everything up."""
    def item(id: str) -> Message:
        return Message(id=id, role="user", content=[InputText("x" * 1000)])

    store: Store[Talk] = Store(ServerOptions())
    talk = Talk("t", 0, {}, [item(str(each)) for each in range(3)])
    store.put(talk)
    before, counted = talk.size, []
    monkeypatch.setattr(responses_store, "taken", lambda value: counted.append(value) or taken(value))
    talk.add([added := item("3")])
    store.settle(talk)
    assert counted == [[added], {}] and before + 1000 < talk.size < before + 3000
    talk.remove(added)
    store.settle(talk)
    assert before <= talk.size < before + 200


def test_what_is_old_is_forgotten() -> None:
    now = [0.0]
    store = Store(ServerOptions(stored_hours=1), clock=lambda: now[0])
    store.put(kept("a"))
    now[0] = 3599
    assert store.get("a", b"")
    now[0] = 3601
    assert not store.get("a", b"")


@pytest.mark.parametrize("owner", [b"", b"two"])
def test_others_see_nothing(owner: bytes) -> None:
    store = Store(ServerOptions())
    store.put(kept("a", owner=b"one"))
    assert store.get("a", b"one") and not store.get("a", owner)


def test_what_runs_stays() -> None:
    store = Store(ServerOptions(stored_responses=1))
    running = kept("a")
    running.run = object()  # type: ignore[assignment]
    store.put(running)
    store.put(kept("b"))
    assert store.get("a", b"") and not store.get("b", b"")
