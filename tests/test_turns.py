"""Turns of a conversation over a real engine and a model that knows the alphabet."""
from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from letters import LettersRunner, LettersTemplate, LettersTokenizer, letters_engine

from zonda import LLM, AsyncLLM, ContextExceeded, InvalidRequest, Sampling
from zonda.completion import Call, Choice, Completion
from zonda.text.first_call import FirstCall
from zonda.text.parts import CallArguments, CallStart, Part, Text, Thought
from zonda.turns import Collected, Listener, Prepared, Turn
from zonda.types import Chunk


@pytest.fixture
def llm() -> Iterator[LLM]:
    with LLM.from_parts(letters_engine(), LettersTokenizer(), LettersTemplate()) as llm:  # type: ignore[arg-type]
        yield llm


def asked(text: str, **sampling: int) -> Turn:
    return Turn(messages=[{"role": "user", "content": text}], sampling=Sampling(**sampling))


def answered(llm: LLM, turn: Turn) -> Completion:
    collected = Collected(turn.sampling.n)
    for spoken in llm.converse(turn):
        collected.add(spoken)
    return collected.completion()


def test_a_turn_is_answered_whole(llm: LLM) -> None:
    answer = answered(llm, asked("vw"))
    assert answer.choices == (Choice(0, "xyz", answer.tokens, "stop"),)
    assert (answer.usage.completion_tokens, answer.reasoning_tokens) == (4, 0)


def test_a_turn_is_answered_piece_by_piece(llm: LLM) -> None:
    spoken = list(llm.converse(asked("w", n=2)))
    assert [part for each in spoken if each.index == 1 for part in each.parts] == [Text("x"), Text("y"), Text("z")]
    assert [each.ending for each in spoken if each.index == 0][-2:] == [None, "stop"]


def test_leaving_the_iterator_stops_the_answer(llm: LLM) -> None:
    pieces = llm.converse(asked("a"))
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    assert llm.complete("x").text == "yz"


def test_errors_of_the_prompt_name_the_messages(llm: LLM) -> None:
    for wrong in (Turn(messages=[]), asked("a" * 100)):
        with pytest.raises(InvalidRequest) as error:
            answered(llm, wrong)
        assert error.value.param == "messages"
    assert isinstance(error.value, ContextExceeded)


async def test_a_turn_is_answered_for_an_event_loop() -> None:
    async with AsyncLLM.from_parts(letters_engine(), LettersTokenizer(), LettersTemplate()) as llm:  # type: ignore
        answer = await llm.converse(asked("vw"), request_id="mine").completion()
        assert answer.choices[0].text == "xyz"
        async with llm.converse(asked("a")) as pieces:
            assert (await anext(pieces)).parts == (Text("b"),)


class Scripted:
    """Takes each piece of text for what it says it is."""

    thinking = False

    def feed(self, text: str) -> list[Part]:
        self.thinking = text == "think"
        known: dict[str, list[Part]] = {"think": [Thought("why")], "call": [CallStart(0, "id", "f")],
                                        "arguments": [CallArguments(0, "{"), CallArguments(0, "}")]}
        return known.get(text, [Text(text)])

    def finish(self, *, cut: bool = False) -> list[Part]:
        return []


def test_an_answer_with_calls_ends_for_them_and_counts_its_reasoning() -> None:
    listener = Listener([Scripted()])
    spoken = [listener.hear(Chunk(0, text, (1, 2), finish="stop" if text == "arguments" else None))
              for text in ("think", "call", "arguments")]
    assert [each.ending for each in spoken] == [None, None, "tool_calls"]
    assert spoken[-1].reasoning_tokens == 4


def test_an_answer_that_was_cut_short_says_so_in_spite_of_its_calls() -> None:
    listener = Listener([Scripted()])
    assert listener.hear(Chunk(0, "call", finish="length")).ending == "length"
    assert listener.hear(Chunk(0, "call", finish="stop", stop="x")).ending == "stop"


def test_parts_add_up_to_an_answer() -> None:
    listener, collected = Listener([Scripted()]), Collected()
    for text in ("think", "hello", "call", "arguments"):
        collected.add(listener.hear(Chunk(0, text, (1,), finish="stop" if text == "arguments" else None)))
    assert collected.completion().choices == (
        Choice(0, "hello", (1,) * 4, "tool_calls", thought="why", calls=(Call("id", "f", "{}"),)),)
    assert collected.completion().reasoning_tokens == 2


class Calling(Scripted):
    """With d a call begins, which is whole with e; what follows is text."""

    def feed(self, text: str) -> list[Part]:
        return {"d": [CallStart(0, "id", "f")], "e": [CallArguments(0, "{}")]}.get(text, [Text(text)])


def test_the_model_stops_with_its_first_call_where_there_may_be_no_more() -> None:
    runner = LettersRunner()
    runner.gate = threading.Semaphore(4)
    with LLM.from_parts(letters_engine(runner), LettersTokenizer(), LettersTemplate()) as llm:  # type: ignore[arg-type]
        told = []
        for spoken in llm.converse(Prepared((2,), Sampling(), (Calling(),), parallel=False)):
            told.append(spoken)
            if CallArguments(0, "{}") in spoken.parts:
                runner.gate.release(20)
    assert [part for each in told for part in each.parts] == [
        Text("b"), Text("c"), CallStart(0, "id", "f"), CallArguments(0, "{}")]
    assert told[-1].ending == "tool_calls"
    assert told[-1].chunk.usage and told[-1].chunk.usage.completion_tokens < 10


values = st.recursive(st.none() | st.booleans() | st.integers() | st.text('ab"\\{}[],:'),
                      lambda inner: st.lists(inner) | st.dictionaries(st.text('a"\\{}'), inner), max_leaves=8)


@given(st.dictionaries(st.text('a"\\{}'), values), st.data())
def test_a_call_is_whole_with_its_last_bracket_however_it_is_cut(arguments: object, data: st.DataObject) -> None:
    source, first = json.dumps(arguments), FirstCall()
    assert first.takes(CallStart(0, "id", "f"))
    while source:
        assert not first.over
        cut = data.draw(st.integers(1, len(source)))
        assert first.takes(CallArguments(0, source[:cut]))
        source = source[cut:]
    assert first.over and not first.takes(Text("more"))


def test_a_second_call_ends_an_answer_that_may_have_one() -> None:
    first = FirstCall()
    assert first.takes(CallArguments(0, '{"a": '))
    assert not first.takes(CallStart(1, "id", "f")) and first.over
