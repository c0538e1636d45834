"""Reasoning on a budget, in every form that models reason in: a model thinks for so long, and then says yes."""
from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fakerunner import AheadRunner, FakeRunner
from hypothesis import given
from hypothesis import strategies as st

from zonda import LLM, Grammar, InvalidRequest, Sampling
from zonda.effort import asked
from zonda.engine.batch import Batch
from zonda.engine.budget import before_answer
from zonda.engine.engine import Engine
from zonda.options import EngineOptions
from zonda.text import dialects, reasoning
from zonda.text.dialects.dialect import Dialect
from zonda.text.reasoning import Reasoning
from zonda.turns import Collected, Turn
from zonda.types import Budget

END, CLOSE = 256, 258
ANSWER = "Yes."
TOOLS = [{"type": "function", "function": {"name": "f", "strict": True, "parameters": {
    "type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"], "additionalProperties": False}}}]
OWN = list(map(dialects.named, ("harmony", "solar")))
MANNERS: list[tuple[Reasoning, Dialect]] = [
    *((style, dialects.named("hermes")) for style in reasoning.STYLES), *((each.own, each) for each in OWN if each.own)]


class Marked:
    """One token a byte, one for the end, and one for each mark unless they are spelled."""

    vocab_size = 300
    longest = 40
    eos_ids = frozenset({END})
    vocabulary = SimpleNamespace(strip=False)

    def __init__(self, style: Reasoning, dialect: Dialect, *, spelled: bool) -> None:
        marks = () if spelled else dialect.marks if dialect.own else (style.open, style.close)
        self._marks = {mark: END + id for id, mark in enumerate(("<end>", *marks))}
        self._texts = {id: text for text, id in self._marks.items()}
        self._cut = re.compile("|".join(map(re.escape, self._marks)) + "|[^\0]", re.DOTALL)
        self.special_ids = frozenset(self._texts)

    def encode(self, text: str, *, add_special: bool = True) -> list[int]:
        return [id for piece in self._cut.findall(text)
                for id in ([self._marks[piece]] if piece in self._marks else piece.encode())]

    def encode_chat(self, text: str) -> list[int]:
        return self.encode(text)

    def token_bytes(self, id: int) -> bytes:
        return bytes([id]) if id < END else self._texts.get(id, "").encode()

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        return self.spelled([id for id in ids if id < END or not skip_special]).decode("utf-8", "replace")

    def spelled(self, ids: Sequence[int]) -> bytes:
        return b"".join(map(self.token_bytes, ids))

    def first(self, text: bytes) -> int:
        """The token that a text begins with."""
        return next((id for id, mark in self._texts.items() if text.startswith(mark.encode())), text[0])

    def id(self, token: str) -> int | None:
        return self._marks.get(token)


class Thinker(FakeRunner):
    """Thinks of `thought`, then says yes; with `stubborn` it thinks again after each end until it must answer."""

    def __init__(self, style: Reasoning, dialect: Dialect, words: Marked) -> None:
        super().__init__(vocab=Marked.vocab_size, pages=40, page_size=4, max_len=600)
        self.style, self.dialect, self.words = style, dialect, words
        self.thought, self.stubborn = "", False

    def _logits(self, batch: Batch, row: int, owner: int) -> np.ndarray:
        count = batch.positions[row] + 1
        table = batch.page_table[owner, :-(-count // self.page_size)]
        said = self.words.spelled(self.cache[table].ravel()[:count].tolist()).partition(b"A:")[2]
        logits = np.zeros(self.vocab, np.float32)
        logits[self._next(said)] = 30.0
        return logits

    def _next(self, said: bytes) -> int:
        style, head = self.style, self.dialect.text_head
        thinking = f"{style.open}{self.thought}{style.before}{style.close}{style.after}"
        _, ended, done = said.rpartition(style.close.encode())
        again = self.stubborn and head.encode() not in done
        script = (style.after if ended else thinking) + (thinking if ended and again else head + ANSWER)
        left = script.encode().removeprefix(done)
        return self.words.first(left) if left and script.encode().startswith(done) else END


class AheadThinker(Thinker, AheadRunner):
    """One that draws by itself."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.launched, self._last = 0, np.zeros(0, np.int32)


class Opening:
    """A template that may open the reasoning."""

    sources: Mapping[str, str] = {}
    opening = ""

    def render(self, messages: Sequence[Mapping[str, Any]], *, tools: Any = None, add_generation_prompt: bool = True,
               **variables: Any) -> str:
        return f"Q:{messages[-1]['content']}A:{self.opening}"


@cache
def model(which: int, *, spelled: bool, ahead: bool) -> tuple[LLM, Thinker, Opening]:
    style, dialect = MANNERS[which]
    words, template = Marked(style, dialect, spelled=spelled), Opening()
    runner = (AheadThinker if ahead else Thinker)(style, dialect, words)
    engine = Engine(runner, EngineOptions(max_seqs=3, prefix_cache=False), stop_ids=frozenset({END}), words=words)
    llm = LLM.from_parts(engine, words, template, tool_dialect=dialect.name,  # type: ignore[arg-type]
                         reasoning="none" if dialect.own else style.name)
    return llm, runner, template


@given(st.integers(0, len(MANNERS) - 1), st.booleans(), st.booleans(), st.booleans(), st.booleans(), st.booleans(),
       st.integers(0, 120), st.integers(0, 120))
def test_no_answer_reasons_longer_than_its_budget_and_each_is_answered(
        which: int, spelled: bool, ahead: bool, opened: bool, formed: bool, offered: bool, budget: int,
        thoughts: int) -> None:
    llm, runner, template = model(which, spelled=spelled, ahead=ahead)
    style, dialect = MANNERS[which]
    opened = opened and not dialect.own
    template.opening = style.open if opened else ""
    runner.thought = "abcdefgh"[:thoughts % 9] * (thoughts // 8)
    turn = Turn(messages=[{"role": "user", "content": "?"}], sampling=Sampling(n=4, temperature=0.0),
                tools=TOOLS if offered else (), format=Grammar("choice", json.dumps([ANSWER])) if formed else None,
                variables={"thinking_budget": budget})
    collected, pieces = Collected(4), list[int]()
    for spoken in llm.converse(turn):
        collected.add(spoken)
        pieces.append(len(spoken.chunk.tokens))
    answer = collected.completion()
    assert {(each.text, each.finish_reason) for each in answer.choices} == {(ANSWER, "stop")}
    assert answer.usage.completion_tokens == sum(pieces)
    assert answer.reasoning_tokens <= 4 * _most(llm, style, budget, opened=opened, head=dialect.text_head)
    for each in answer.choices:
        natural = runner.thought + style.before + style.close  # it may be cut within a mark that is spelled
        assert natural.startswith(each.thought) and len(each.thought) <= max(budget, 1)
        if len(runner.thought) + _marks(llm, style, dialect.text_head) < budget and (opened or not formed):
            assert each.thought == runner.thought


def _marks(llm: LLM, style: Reasoning, head: str) -> int:
    """Tokens of what is around a thought, and of what may be added to end it."""
    return len(llm.tokenize(style.open + 2 * (style.before + style.close + style.after + head)))


def _most(llm: LLM, style: Reasoning, budget: int, *, opened: bool, head: str) -> int:
    """What a budget lets through: of one that is too small for the marks, these and a token."""
    marks = len(llm.tokenize(("" if opened else style.open) + style.before + style.close + style.after + head))
    return max(budget, marks + 1) + (len(llm.tokenize(style.open)) if head else 0)


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("which", [at for at, (_, dialect) in enumerate(MANNERS) if dialect.own])
def test_reasoning_that_begins_again_is_ended_with_the_head_of_the_answer(which: int, ahead: bool) -> None:
    llm, runner, template = model(which, spelled=False, ahead=ahead)
    template.opening, runner.thought, runner.stubborn = "", "abc" * 30, True
    answer = llm.chat("?", tools=TOOLS, thinking_budget=20, temperature=0.0)
    runner.stubborn = False
    assert answer.text == ANSWER and 1 <= len(answer.thought) <= 22


def test_a_budget_keeps_steps_launched_ahead() -> None:
    llm, runner, template = model(len(reasoning.STYLES) - 1, spelled=False, ahead=True)
    template.opening, runner.thought = "", "abc" * 30
    assert isinstance(runner, AheadThinker)
    launched, steps = runner.launched, runner.steps
    answer = llm.chat("?", thinking_budget=40, temperature=0.0)
    assert answer.text == ANSWER and answer.reasoning_tokens == 38  # the line breaks behind the mark are not reasoning
    assert runner.launched - launched == runner.steps - steps > 30


def test_tokens_that_end_reasoning_are_reported_as_certain() -> None:
    llm, runner, template = model(len(reasoning.STYLES) - 1, spelled=False, ahead=False)
    template.opening, runner.thought = "", "abc" * 30
    answer = llm.chat("?", thinking_budget=10, logprobs=2, temperature=0.0)
    assert [each.token for each in answer.logprobs] == list(answer.tokens)
    at = answer.tokens.index(CLOSE)
    assert answer.tokens[at - 1:at + 3] == (10, CLOSE, 10, 10) and answer.reasoning_tokens == 8
    assert answer.logprobs[at].logprob == 0 and answer.logprobs[at].top == ((CLOSE, 0.0),)


def test_tokens_that_end_reasoning_are_counted_as_generated() -> None:
    llm, runner, template = model(len(reasoning.STYLES) - 1, spelled=False, ahead=False)
    template.opening, runner.thought = "", "abc" * 30
    before = llm.engine.stats()
    usage = llm.chat("?", thinking_budget=10, temperature=0.0).usage
    after = llm.engine.stats()
    assert after.prompt_tokens - before.prompt_tokens == usage.prompt_tokens
    assert after.generated_tokens - before.generated_tokens == usage.completion_tokens


@pytest.mark.parametrize(("budget", "most", "left", "closings"), [
    (None, 40, 32, ((9, 8),)), (Budget(50, "<", ("x",), ((7,), (6,))), 40, 31, ((7,), (6,))),
    (Budget(5, "<", ("x",), ((7,), (6,))), 40, 5, ((7,), (6,)))])
def test_reasoning_before_an_answer_with_a_form_leaves_a_quarter_of_its_tokens(
        budget: Budget | None, most: int, left: int, closings: tuple[tuple[int, ...], ...]) -> None:
    found = before_answer(budget, "ab", most, lambda text: [9, 8])
    assert found == Budget(left, "", ("ab",), closings)
    assert before_answer(None, 3, most, lambda text: [9, 8]).closings == ((3,),)


def test_a_budget_of_none_asks_for_no_reasoning() -> None:
    assert asked(None, None, 0) == {"thinking_budget": 0, "enable_thinking": False}
    assert asked(True, "low", 7) == {"enable_thinking": True, "reasoning_effort": "low", "thinking_budget": 7}
    for thinking, effort, budget in ((True, None, 0), (None, "high", 0), (None, None, -1), (None, None, True),
                                     (None, None, "9")):
        with pytest.raises(InvalidRequest) as error:
            asked(thinking, effort, budget)
        assert error.value.param == "thinking_budget"
