"""`LLM` and `AsyncLLM` over a real engine and a model that knows the alphabet."""
from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
from letters import BEGIN, END, FIRST, PATIENCE, LettersRunner, LettersTemplate, LettersTokenizer, letters_engine

try:
    import uvloop
except ImportError:
    uvloop = None

from zonda import LLM, AsyncLLM, Closed, ContextExceeded, Grammar, InvalidRequest, Sampling, Unsupported, ZondaError
from zonda.text import dialects
from zonda.text.manner import Manner
from zonda.text.reasoning import Reasoning
from zonda.types import Request


def texts(**options: Any) -> tuple[Any, Any, Any]:
    return letters_engine(**options), LettersTokenizer(), LettersTemplate()


@pytest.fixture
def llm() -> Iterator[LLM]:
    with LLM.from_parts(*texts(), name="letters") as llm:
        yield llm


@pytest.fixture
async def many() -> AsyncIterator[AsyncLLM]:
    async with AsyncLLM.from_parts(*texts(), name="letters") as llm:
        yield llm


def slow(llm: LLM | AsyncLLM) -> threading.Semaphore:
    """Hold every step until the semaphore is released."""
    gate = llm.engine._runner.gate = threading.Semaphore(0)
    return gate


def until(condition: Any) -> None:
    for _ in range(500 * PATIENCE):
        if condition():
            return
        time.sleep(0.002)
    raise AssertionError("it never came true")


def test_a_text_is_continued_to_its_end(llm: LLM) -> None:
    result = llm.complete("vw")
    assert (result.text, result.finish_reason, str(result)) == ("xyz", "stop", "xyz")
    assert result.tokens == (*llm.tokenize("xyz", add_special=False), END)
    assert (result.usage.prompt_tokens, result.usage.completion_tokens) == (3, 4)


def test_token_ids_are_continued_as_they_are(llm: LLM) -> None:
    assert llm.complete(llm.tokenize("x", add_special=False)).text == "yz"
    assert llm.complete((FIRST,), max_tokens=2).text == "bc"


def test_a_conversation_is_answered_from_its_template(llm: LLM) -> None:
    assert llm.chat("wx").text == "yz"
    assert llm.chat([{"role": "system", "content": "AB"}, {"role": "user", "content": "u"}], max_tokens=3).text == "vwx"


def test_lists_are_answered_in_order_and_together(llm: LLM) -> None:
    gate, engine = slow(llm), llm.engine
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(llm.complete, ["a", "x", "m"], max_tokens=3)
        until(lambda: engine.stats().running + engine.stats().waiting == 3)
        gate.release(100)
        results = asked.result(PATIENCE)
    assert [each.text for each in results] == ["bcd", "yz", "nop"]
    assert max(llm.engine._runner.steps) == 3


def test_lists_of_ids_and_of_conversations_are_batches(llm: LLM) -> None:
    assert [each.text for each in llm.complete([[FIRST], [FIRST + 1]], max_tokens=1)] == ["b", "c"]
    assert [each.text for each in llm.chat(["a", "b"], max_tokens=1)] == ["b", "c"]
    spoken = [[{"role": "user", "content": "x"}], [{"role": "user", "content": "y"}]]
    assert [each.text for each in llm.chat(spoken)] == ["yz", "z"]


def test_more_prompts_than_the_queue_holds_are_all_answered() -> None:
    with LLM.from_parts(*texts(max_seqs=2, max_queue=1)) as llm:
        assert [each.text for each in llm.complete(["w"] * 9)] == ["xyz"] * 9


def test_the_stream_is_the_answer_in_pieces(llm: LLM) -> None:
    chunks = list(llm.stream("v"))
    assert [chunk.text for chunk in chunks] == ["w", "x", "y", "z", ""]
    assert [chunk.finish for chunk in chunks] == [None, None, None, None, "stop"]
    assert chunks[-1].usage and chunks[-1].usage.completion_tokens == 5


async def test_a_stream_tells_reasoning_apart(llm: LLM, many: AsyncLLM) -> None:
    llm.manner = many.manner = Manner(dialects.GENERIC, Reasoning("letters", open="w", close="y"))
    for chunks in (list(llm.stream("v")), [chunk async for chunk in many.stream("v")]):
        assert ["".join(chunk.thought for chunk in chunks), "".join(chunk.text for chunk in chunks)] == ["x", "z"]
        assert chunks[-1].finish == "stop" and chunks[-1].usage


def test_leaving_the_stream_stops_it(llm: LLM) -> None:
    gate = slow(llm)
    gate.release()
    stream = llm.stream("a")
    assert next(stream).text == "b"
    stream.close()  # type: ignore[attr-defined]
    gate.release()
    until(lambda: llm.engine.stats().finished["cancelled"] == 1)


@pytest.mark.parametrize(("stop", "text", "reason"), [
    ("d", "bc", "stop"), (["ef", "xy"], "bcd", "stop"), ("B", "bcdefghijklmnopqrstuvwxyz", "stop")])
def test_stop_strings_end_the_text_before_them(llm: LLM, stop: Any, text: str, reason: str) -> None:
    result = llm.complete("a", stop=stop)
    assert (result.text, result.finish_reason) == (text, reason)
    assert result.choices[0].stop == (None if stop == "B" else stop if isinstance(stop, str) else stop[0])


def test_a_sequence_at_its_stop_string_is_cancelled(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    cancelled: list[Any] = []
    plain = llm.engine.cancel
    monkeypatch.setattr(llm.engine, "cancel", lambda *args: (cancelled.append(args[1:]), plain(*args)))
    result = llm.complete("a", stop="d")
    assert cancelled == [(0, "stop")] and llm.engine.stats().finished == {"stop": 1, "length": 0, "cancelled": 0,
                                                                          "error": 0}
    assert result.usage.completion_tokens == len(result.tokens) == 3


async def test_usage_counts_no_token_after_a_stop_string(many: AsyncLLM) -> None:
    gate = slow(many)
    gate.release()
    generation = many.generate("a", Sampling(stop=("c",)))
    gate.release(100)
    until(lambda: many.engine.stats().generated_tokens >= 5)
    assert (await generation.completion()).usage.completion_tokens == 2


def test_stop_tokens_end_the_text_and_are_not_part_of_it(llm: LLM) -> None:
    stop = llm.tokenizer.id("d")
    assert stop is not None
    result = llm.complete("a", stop_token_ids=[stop])
    assert (result.text, result.finish_reason, result.tokens[-1]) == ("bc", "stop", stop)


def test_no_stop_string_ends_what_must_have_more_tokens(llm: LLM) -> None:
    assert llm.complete("a", stop="c", min_tokens=4, max_tokens=6).text == "bcdefg"


def test_the_limit_ends_the_text(llm: LLM) -> None:
    result = llm.complete("a", max_tokens=2)
    assert (result.text, result.finish_reason) == ("bc", "length")


def test_several_choices_come_with_one_usage(llm: LLM) -> None:
    result = llm.complete("w", n=3)
    assert [choice.text for choice in result.choices] == ["xyz"] * 3
    assert result.usage.completion_tokens == 12


def test_log_probabilities_come_with_the_tokens(llm: LLM) -> None:
    result = llm.complete("x", logprobs=2)
    assert [each.token for each in result.logprobs] == list(result.tokens)
    assert all(each.logprob > -0.01 and len(each.top) == 2 for each in result.logprobs)


def test_log_probabilities_of_the_prompt_come_when_asked_for(llm: LLM) -> None:
    result = llm.complete("xy", prompt_logprobs=True, max_tokens=1)
    assert result.prompt_logprobs and len(result.prompt_logprobs) == 3 and result.prompt_logprobs[0] is None


def test_text_becomes_tokens_and_text_again(llm: LLM) -> None:
    ids = llm.tokenize("abc")
    assert ids[0] == BEGIN and llm.detokenize(ids) == "abc"
    assert llm.detokenize(ids, skip_special=False) == "<begin>abc"
    assert BEGIN not in llm.tokenize("abc", add_special=False)


def test_a_whole_sampling_may_be_given_and_changed(llm: LLM) -> None:
    assert llm.complete("a", sampling=Sampling(max_tokens=5), stop="d").text == "bc"
    assert llm.complete("a", sampling=Sampling(max_tokens=1)).text == "b"


def test_none_sets_no_field_of_a_sampling(llm: LLM) -> None:
    nothing = dict.fromkeys(Sampling.__dataclass_fields__)
    assert llm.complete("a", **nothing).text == llm.complete("a").text
    assert llm.complete("a", sampling=Sampling(max_tokens=2), **nothing).text == "bc"


def test_a_tuple_of_prompts_is_a_batch(llm: LLM) -> None:
    assert [each.text for each in llm.complete(("x", "w"))] == ["yz", "xyz"]


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda llm: llm.chat([]), InvalidRequest, "`messages` is empty"),
    (lambda llm: llm.complete("a", max_token=3), InvalidRequest, "did you mean `max_tokens`"),
    (lambda llm: llm.complete("a", temperature=-1), InvalidRequest, "temperature"),
    (lambda llm: llm.complete("a" * 70), ContextExceeded, "64"),
    (lambda llm: list(llm.stream("a" * 70)), ContextExceeded, "64"),
    (lambda llm: llm.complete(["a", "b" * 70]), ContextExceeded, "64"),
    (lambda llm: llm.complete(5), InvalidRequest, "the prompt is int"),
    (lambda llm: llm.complete(b"ab"), InvalidRequest, "the prompt is bytes"),
    (lambda llm: llm.chat({"role": "user", "content": "a"}), InvalidRequest, "neither a text nor"),
    (lambda llm: llm.chat([{"role": "user", "content": "a"}, "b"]), InvalidRequest, "neither a text nor"),
    (lambda llm: llm.chat("a", max_tokens=0), InvalidRequest, "`max_tokens` is 0"),
    (lambda llm: list(llm.stream("a", sampling=Sampling(max_tokens=0))), InvalidRequest, "`max_tokens` is 0"),
    (lambda llm: llm.complete("a", sampling=5), InvalidRequest, "`sampling` is int"),
    (lambda llm: llm.complete("a", n=1.0), InvalidRequest, "n is 1.0"),
    (lambda llm: llm.complete("a", stop=5), InvalidRequest, "stop is 5"),
    (lambda llm: llm.complete("a", stop_token_ids=5), InvalidRequest, "stop_token_ids is 5"),
    (lambda llm: llm.complete("a", logit_bias=[1]), InvalidRequest, "logit_bias is a tuple"),
    (lambda llm: llm.complete("a", sampling=Sampling(stop="bc")), InvalidRequest, "stop is a str"),
    (lambda llm: llm.complete("a", sampling=Sampling(presence_penalty=None)), InvalidRequest, "presence_penalty"),
])
def test_wrong_requests_are_refused(llm: LLM, call: Any, error: type[ZondaError], message: str) -> None:
    with pytest.raises(error, match=message):
        call(llm)
    assert llm.complete("x").text == "yz"


def test_without_a_template_there_is_no_chat() -> None:
    with LLM.from_parts(letters_engine(), LettersTokenizer()) as llm:  # type: ignore[arg-type]
        with pytest.raises(Unsupported, match="no chat template"):
            llm.chat("a")
        assert llm.complete("x").text == "yz"


def test_a_failing_step_raises_its_error(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(batch: Any) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(llm.engine._runner, "run", fail)
    with pytest.raises(ZondaError, match="failed to compute"):
        llm.complete("a")


def test_the_context_manager_closes_the_engine() -> None:
    runner = LettersRunner()
    with LLM.from_parts(letters_engine(runner), LettersTokenizer()) as llm:  # type: ignore[arg-type]
        pass
    assert runner.closed
    with pytest.raises(Closed):
        llm.complete("a")


def test_a_model_that_is_dropped_closes_its_engine() -> None:
    runner = LettersRunner()
    llm = LLM.from_parts(letters_engine(runner), LettersTokenizer())  # type: ignore[arg-type]
    assert llm.complete("x").text == "yz"
    del llm
    gc.collect()
    until(lambda: runner.closed)


def test_whoever_drops_a_model_does_not_wait_for_its_engine() -> None:
    runner = LettersRunner()
    gate = runner.gate = threading.Semaphore(0)
    models = [LLM.from_parts(letters_engine(runner), LettersTokenizer())]  # type: ignore[arg-type]
    models[0].engine.submit(Request("x", (FIRST,)), lambda events: None)
    until(lambda: models[0].engine.stats().running)
    dropping = threading.Thread(target=lambda: (models.clear(), gc.collect()), daemon=True)  # while a step waits
    dropping.start()
    dropping.join(PATIENCE)
    assert not dropping.is_alive() and not runner.closed
    gate.release(100)
    until(lambda: runner.closed)


def dropped(*streams: Any) -> None:
    """Leave streams to the garbage collector, and have it come on this thread."""
    cycle: list[Any] = [*streams]
    cycle.append(cycle)
    del streams, cycle
    gc.collect()


def test_the_collector_may_drop_a_stream_in_any_thread_at_any_time() -> None:
    """While that thread holds the engine's locks, or those of grammars, and on the engine's own thread."""
    with LLM.from_parts(*texts(), name="letters") as llm:
        engine, gate = llm.engine, slow(llm)
        streams: list[Any] = []

        def start() -> None:
            gate.release(2)
            streams.append(llm.generate([FIRST], Sampling(ignore_eos=True)))
            next(streams[-1])

        def drop(*locks: Any) -> None:
            with ExitStack() as held:
                for lock in locks:
                    held.enter_context(lock)
                dropped(streams.pop())

        def checked(ended: int, *locks: Any) -> None:
            start()
            dropping = threading.Thread(target=drop, args=locks, daemon=True)
            dropping.start()
            dropping.join(20)
            assert not dropping.is_alive()
            gate.release(2)
            until(lambda: engine.stats().finished["cancelled"] == ended)

        checked(1, engine._wake)
        checked(2, engine.grammars._lock, engine.grammars._quick._lock)
        start()
        engine.submit(Request("x", (FIRST,), Sampling(max_tokens=1)), lambda events: drop(engine._wake))
        gate.release(4)
        until(lambda: engine.stats().finished["cancelled"] == 3)
        gate.release(100)
        assert llm.complete("x").text == "yz"


async def test_so_it_may_with_one_of_an_event_loop(many: AsyncLLM) -> None:
    gate = slow(many)
    stream = [many.generate([FIRST], Sampling(ignore_eos=True))]
    gate.release()
    await anext(stream[0])

    def drop() -> None:
        with many.engine._wake:
            dropped(stream.pop())

    await asyncio.wait_for(asyncio.to_thread(drop), 20)
    gate.release(100)
    await asyncio.to_thread(until, lambda: many.engine.stats().finished["cancelled"] == 1)
    assert (await many.complete("x")).text == "yz"


def test_an_unknown_load_option_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(InvalidRequest, match="did you mean `max_seq_len`"):
        LLM("smollm2", max_seq_length=5)


@pytest.mark.parametrize("name", ["tool_dialect", "reasoning"])
def test_an_unknown_manner_is_refused_before_anything_is_loaded(name: str) -> None:
    with pytest.raises(InvalidRequest, match="format 'nothing'") as caught:
        LLM("no-such-model", **{name: "nothing"})
    assert caught.value.param == name


async def test_async_answers_and_completions(many: AsyncLLM) -> None:
    assert (await many.chat("wx")).text == "yz"
    assert (await many.complete("wx", max_tokens=1)).text == "y"


async def test_async_lists_are_answered_together_in_order(many: AsyncLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zonda.sdk._TOGETHER", 2)
    assert [each.text for each in await many.complete(["vw", "x", "wx"] * 3)] == ["xyz", "yz", "yz"] * 3
    assert [each.text for each in await many.complete([[FIRST], [FIRST]], max_tokens=2)] == ["bc", "bc"]
    assert [each.text for each in await many.chat(["wx", [{"role": "user", "content": "v"}]])] == ["yz", "wxyz"]
    with pytest.raises(InvalidRequest):
        await many.chat(["wx", []])


async def test_a_list_that_is_given_up_stops_all_its_answers(many: AsyncLLM) -> None:
    gate = slow(many)
    task = asyncio.create_task(many.complete(["a", "b", "c"]))
    await asyncio.to_thread(until, lambda: many.engine._live == 3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.release(30)
    await asyncio.to_thread(until, lambda: many.engine.stats().finished["cancelled"] == 3)


async def test_async_streams_run_together(many: AsyncLLM) -> None:
    gate = slow(many)
    calls = [asyncio.ensure_future(many.complete(letter, max_tokens=3)) for letter in "amx"]
    await asyncio.to_thread(until, lambda: many.engine.stats().running + many.engine.stats().waiting == 3)
    gate.release(100)
    assert [each.text for each in await asyncio.gather(*calls)] == ["bcd", "nop", "yz"]
    assert max(many.engine._runner.steps) == 3


async def test_one_step_wakes_the_loop_once(many: AsyncLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    wakes: list[Any] = []
    plain = loop.call_soon_threadsafe

    def counted(callback: Any, *args: Any, context: Any = None) -> Any:
        wakes.append(callback)
        return plain(callback, *args, context=context)

    gate = slow(many)
    monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
    streams = [many.generate("a", Sampling(max_tokens=4)) for _ in range(8)]
    gate.release(100)
    for stream in streams:
        await stream.completion()
    assert len(wakes) <= len(many.engine._runner.steps) < 8


async def test_breaking_out_of_the_loop_cancels(many: AsyncLLM) -> None:
    gate = slow(many)
    gate.release()
    async for chunk in many.stream("a"):
        assert chunk.text == "b"
        break
    gc.collect()
    gate.release()
    await asyncio.to_thread(until, lambda: many.engine.stats().finished["cancelled"] == 1)


async def test_closing_the_iterator_cancels_and_ends_it(many: AsyncLLM) -> None:
    slow(many).release()
    async with many.stream("a") as stream:
        await anext(stream)
    many.engine._runner.gate.release()
    await asyncio.to_thread(until, lambda: many.engine.stats().finished["cancelled"] == 1)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_cancelling_the_task_cancels_the_request(many: AsyncLLM) -> None:
    gate = slow(many)
    task = asyncio.ensure_future(many.complete("a"))
    await asyncio.to_thread(until, lambda: many.engine.stats().running == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.release()
    await asyncio.to_thread(until, lambda: many.engine.stats().finished["cancelled"] == 1)


async def test_a_finished_stream_is_not_cancelled(many: AsyncLLM) -> None:
    stream = many.stream("x")
    assert "".join([chunk.text async for chunk in stream]) == "yz"
    await stream.aclose()
    assert many.engine.stats().finished["cancelled"] == 0


async def test_a_request_is_checked_when_it_is_made(many: AsyncLLM) -> None:
    with pytest.raises(ContextExceeded):
        many.generate("a" * 70)


async def test_two_requests_may_not_share_an_id(many: AsyncLLM) -> None:
    slow(many)
    first = many.generate("a", request_id="one")
    with pytest.raises(InvalidRequest, match="in use"):
        many.generate("a", request_id="one")
    await first.aclose()
    many.engine._runner.gate.release(10)


def test_a_loop_that_ended_leaves_nothing_running() -> None:
    llm = AsyncLLM.from_parts(*texts())
    gate = slow(llm)

    async def leave() -> Any:
        stream = llm.stream("a")
        gate.release()
        await anext(stream)
        return stream

    stream = asyncio.run(leave())
    gate.release(3)
    until(lambda: llm.engine.stats().running == 0 or llm.engine.stats().finished["cancelled"] == 1)
    del stream
    gate.release(100)
    llm.engine.close()


@pytest.mark.parametrize("run", [asyncio.run, pytest.param(uvloop.run, id="uvloop")] if uvloop else [asyncio.run])
def test_one_model_serves_several_loops(run: Any) -> None:
    llm = AsyncLLM.from_parts(*texts())

    async def ask() -> str:
        return (await llm.complete("x")).text

    assert [run(ask()), run(ask())] == ["yz", "yz"]
    llm.engine.close()

async def test_an_error_of_one_answer_stops_the_others(llm: LLM, many: AsyncLLM, monkeypatch: pytest.MonkeyPatch
                                                       ) -> None:
    """Nobody listens any more, so none may go on to its end."""
    for each in (llm, many):
        gate, run = slow(each), each.engine._runner.run

        def poisoned(batch: Any, run: Any = run) -> Any:
            logits = run(batch)
            if len(logits) == 2:
                logits[0] = float("nan")
            return logits

        monkeypatch.setattr(each.engine._runner, "run", poisoned)
        gate.release(3)
        with pytest.raises(ZondaError, match="finite"):
            await many.complete("a", n=2) if each is many else [*llm.generate("a", Sampling(n=2))]
        gate.release(100)
        await asyncio.to_thread(until, lambda each=each: each.engine.stats().finished["cancelled"] == 1)


@pytest.mark.parametrize("choice", [{"type": "function", "function": {"name": "f"}}, None, 5])
def test_a_tool_choice_that_is_no_name_is_refused(llm: LLM, choice: Any) -> None:
    with pytest.raises(InvalidRequest, match="tool_choice"):
        llm.chat("a", tools=[lambda: None], tool_choice=choice)


async def test_reasoning_is_asked_for_by_options(llm: LLM, many: AsyncLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(LLM, "prepare", lambda self, turn: seen.append(turn.variables) or 1 / 0)
    monkeypatch.setattr(AsyncLLM, "prepare", LLM.prepare)
    with pytest.raises(ZeroDivisionError):
        llm.chat("w", thinking=False)
    with pytest.raises(ZeroDivisionError):
        await many.chat("w", reasoning_effort="high", template_kwargs={"date_string": "today"})
    assert seen == [{"enable_thinking": False},
                    {"enable_thinking": True, "reasoning_effort": "high", "date_string": "today"}]


@pytest.mark.parametrize("options", [
    {"reasoning_effort": "huge"}, {"reasoning_effort": 5}, {"reasoning_effort": "none", "thinking": True},
    {"template_kwargs": 5}, {"template_kwargs": {1: 2}}, {"template_kwargs": {"messages": 2}},
    {"template_kwargs": {"tools": 2}}, {"template_kwargs": {"self": 2}}, {"tools": 5}, {"tools": {"a": 1}},
    {"choices": 5}, {"choices": [object()]}, {"choices": []}, {"schema": {"a": object()}}, {"schema": object()},
    {"schema": "{"}, {"regex": 5}, {"regex": "("}, {"grammar": 5}, {"grammar": Grammar("json_schema", 5)},
    {"grammar": Grammar("x", "a")}, {"grammar": Grammar("regex", "a", after=1.5)}])
def test_an_option_of_a_wrong_kind_is_refused_by_name(llm: LLM, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        llm.chat("a", **options)
    assert caught.value.param in (*options, "grammar")


@pytest.mark.parametrize("n", [0, 10**6, "2", 1.5])
def test_a_number_of_answers_is_checked_before_anything_is_made_for_them(llm: LLM, n: Any) -> None:
    for ask in (llm.complete, llm.chat):
        with pytest.raises(InvalidRequest, match="n is"):
            ask("a", n=n)
