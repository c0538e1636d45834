"""Sequences keep to their grammars, end with them, and fail alone."""
from __future__ import annotations

import json
import re
import threading

import jsonschema_rs
import numpy as np
import pytest
from fakerunner import AheadRunner, Collector, request
from spelled import ANSWER, END, TOOL, VOCAB, ClosingRunner, Spelling, answer, constrained, running, said

from zonda.engine.engine import Engine
from zonda.environment import cache_folder
from zonda.errors import InvalidRequest, Unsupported
from zonda.kernels.cpu.draws import CompiledDraw
from zonda.kernels.cpu.library import Library
from zonda.types import Grammar

DATE = Grammar("regex", "20[0-9]{2}-[01][0-9]-[0-3][0-9]")
TREE = Grammar("json_schema", json.dumps({
    "$defs": {"node": {"type": "object", "properties": {
        "name": {"type": "string", "maxLength": 20}, "children": {"type": "array", "items": {"$ref": "#/$defs/node"}}},
        "required": ["name", "children"], "additionalProperties": False}}, "$ref": "#/$defs/node"}))
ENDLESS = Grammar("regex", "(abc)*")


def lark(*lines: str) -> Grammar:
    return Grammar("lark", "\n".join(lines))


# ---- the kinds of grammars

def test_an_answer_matches_its_regular_expression() -> None:
    with running() as engine:
        got = answer(engine, DATE)
    assert re.fullmatch(DATE.source, said(got)) and got.finish("r") == "stop"


@pytest.mark.parametrize("choice", ["yes", "Grüße 🌬", "a \"quoted\" \\ one\n", "x"])
def test_an_answer_is_one_of_the_choices(choice: str) -> None:
    with running() as engine:
        assert said(answer(engine, Grammar("choice", json.dumps([choice])))) == choice
        assert said(answer(engine, Grammar("choice", json.dumps([choice, choice * 2])))) in {choice, choice * 2}


def test_an_answer_follows_a_lark_grammar() -> None:
    sum_of = lark("start: number (op number)+", "op: \"+\" | \"-\"", "number: /[0-9]{1,2}/")
    with running() as engine:
        assert re.fullmatch(r"\d{1,2}([+-]\d{1,2})+", said(answer(engine, sum_of, logit_bias={END: 3.0})))


def test_a_schema_within_a_lark_grammar_is_as_strict_as_alone() -> None:
    schema = {"type": "array", "items": {"type": "string", "format": "time"}, "minItems": 2, "maxItems": 2}
    with running() as engine:
        text = said(answer(engine, lark(f'start: "=" %json {json.dumps(schema, indent=1)} ";"'),
                           logit_bias={10: 100.0, 32: 100.0}))
    assert text[0] + text[-1] == "=;" and "\n" not in text
    assert jsonschema_rs.validator_for(schema, validate_formats=True).is_valid(json.loads(text[1:-1]))


def test_an_answer_follows_a_grammar_of_llguidances_own_form() -> None:
    source = {"grammars": [{"lark_grammar": "start: \"<\" @inner \">\""},
                           {"name": "inner", "json_schema": {"enum": ["a", 1]}}]}
    with running() as engine:
        assert said(answer(engine, Grammar("llguidance", json.dumps(source)))) in {'<"a">', "<1>"}


def test_a_grammar_may_ask_for_special_tokens_and_no_other_may_have_them() -> None:
    with running() as engine:
        got = answer(engine, lark("start: <tool> /a{3}/ <[3]>"))
        assert got.tokens("r")[0] == TOOL and said(got) == "aaa\x03"
        wild = answer(engine, Grammar("regex", "(?s:.){30}"), logit_bias={TOOL: 100.0, ANSWER: 100.0, END: 100.0})
    assert not {TOOL, ANSWER} & set(wild.tokens("r")) and len(said(wild)) == 30


# ---- how it ends

def test_stop_tokens_come_only_where_the_grammar_may_end() -> None:
    with running() as engine:
        got = answer(engine, DATE, logit_bias={END: 100.0})
        assert re.fullmatch(DATE.source, said(got)) and got.tokens("r")[-1] == END
        own = answer(engine, Grammar("regex", "[xy]{5}z"), stop_token_ids=(ord("x"),), logit_bias={ord("x"): 50.0})
        assert said(own) == "yyyyyzx" and own.finish("r") == "stop"
        forced = answer(engine, Grammar("regex", "xyz"), stop_token_ids=(ord("y"),))
    assert said(forced) == "xy" and forced.finish("r") == "stop"


def test_a_stop_token_of_the_grammars_text_ends_it_where_it_may_end() -> None:
    with running() as engine:
        got = answer(engine, Grammar("regex", "ab*"), stop_token_ids=(ord("b"),), logit_bias={ord("b"): 50.0})
    assert said(got) == "ab" and got.finish("r") == "stop"


def test_a_grammar_ends_where_no_stop_token_can() -> None:
    with running() as engine:
        got = answer(engine, DATE, ignore_eos=True)
        assert END not in got.tokens("r")
        long = answer(engine, DATE, min_tokens=300)
    assert re.fullmatch(DATE.source, said(got)) and got.finish("r") == "stop" and got.last("r").usage
    assert re.fullmatch(DATE.source, said(long)) and long.finish("r") == "stop"


def test_min_tokens_keeps_a_grammar_going() -> None:
    with running() as engine:
        got = answer(engine, ENDLESS, min_tokens=40, logit_bias={END: 100.0})
    assert 40 < len(got.tokens("r")) < 46 and re.fullmatch(ENDLESS.source, said(got))


def test_max_tokens_cut_a_grammar() -> None:
    with running() as engine:
        got = answer(engine, DATE, max_tokens=3)
    assert got.finish("r") == "length" and len(got.tokens("r")) == 3
    assert said(got).startswith("20")


def test_digits_are_those_of_ascii() -> None:
    with running() as engine:
        assert said(answer(engine, Grammar("regex", r"\d{9}"), logprobs=20)).isascii()


def test_text_up_to_a_token_is_free_and_must_not_end() -> None:
    free = Grammar("choice", '["yes"]', after=ANSWER)
    with running() as engine:
        got = answer(engine, free, logit_bias={END: 100.0, ANSWER: 3.0})
    tokens = got.tokens("r")
    at = tokens.index(ANSWER)
    assert at > 0 and END not in tokens[:at] and Spelling().text(tokens[at:]) == "yes" and tokens[-1] == END


def test_text_up_to_a_text_of_several_tokens_is_free() -> None:
    free = Grammar("choice", '["yes"]', after="aaaab")
    with running() as engine:
        got = answer(engine, free, logit_bias={END: 100.0, ord("a"): 7.0, ord("b"): 7.0, ord("y"): 5.0})
    tokens = got.tokens("r")
    _, mark, rest = b"".join(map(Spelling().token_bytes, tokens[:-1])).partition(b"aaaab")
    assert mark and rest == b"yes" and tokens[-1] == END


# ---- with all else that requests ask for

def test_siblings_keep_to_the_grammar_each_in_its_own_way() -> None:
    with running(max_seqs=3) as engine:
        got = answer(engine, DATE, n=9)
        texts = [said(got, "r", i) for i in range(9)]
    assert len(set(texts)) > 1 and all(re.fullmatch(DATE.source, text) for text in texts)


def test_a_seed_gives_the_same_answer_again() -> None:
    with running() as engine:
        first = answer(engine, TREE, seed=7, max_tokens=60).tokens("r")
        got = Collector()
        for i in range(4):
            engine.submit(constrained(f"x{i}", DATE, seed=i), got)
        engine.submit(constrained("r", TREE, seed=7, max_tokens=60), got)
        got.wait("r", *(f"x{i}" for i in range(4)))
    assert got.tokens("r") == first


def test_preempted_sequences_go_on_with_their_grammar() -> None:
    def texts(pages: int) -> list[str]:
        with running(ClosingRunner(pages=pages, page_size=4, max_len=120), prefix_cache=False) as engine:
            got = Collector()
            for i in range(6):
                engine.submit(constrained(f"r{i}", TREE, seed=i, max_tokens=80), got)
            got.wait(*(f"r{i}" for i in range(6)))
            assert (engine.stats().preemptions > 0) == (pages < 100)
            return [said(got, f"r{i}") for i in range(6)]

    assert texts(40) == texts(400)


@pytest.mark.parametrize("sampling", [
    {"repetition_penalty": 1.8}, {"frequency_penalty": 90.0, "presence_penalty": 90.0}, {"dry_multiplier": 50.0},
    {"logit_bias": {ord("x"): 1e9}}, {"top_k": 3}, {"top_p": 0.3}, {"min_p": 0.5}, {"typical_p": 0.4},
    {"top_n_sigma": 0.5}, {"xtc_probability": 1.0, "xtc_threshold": 0.01}, {"mirostat_tau": 3.0},
    {"temperature": 0.0}, {"temperature": 0.0, "logprobs": 5}, {"temperature": 9.0}], ids=str)
@pytest.mark.parametrize("kind", ["plain", "compiled"])
def test_no_way_of_drawing_leaves_the_grammar(kind: str, sampling: dict) -> None:
    runner = ClosingRunner()
    options = {} if kind == "plain" else {"kernel": CompiledDraw(Library(cache_folder()), vocab=runner.vocab)}
    engine = Engine(runner, stop_ids=frozenset({END}), words=Spelling(), **options)
    try:
        got = answer(engine, Grammar("regex", "([abc]{4}-){3}"), **sampling)
    finally:
        engine.close()
    assert re.fullmatch("([abc]{4}-){3}", said(got)) and got.finish("r") == "stop"


def test_log_probabilities_are_those_of_the_draw() -> None:
    with running() as engine:
        got = answer(engine, Grammar("regex", "[xy]z"), logprobs=2)
    first, second, _ = (event.logprobs[0] for event in got.events["r"])
    assert {token for token, _ in first.top} == {ord("x"), ord("y")}
    assert np.exp([value for _, value in first.top]).sum() == pytest.approx(1, abs=1e-3)
    assert second.token == ord("z") and second.logprob == pytest.approx(0, abs=1e-6)


def test_a_cancelled_sequence_leaves_its_siblings_alone() -> None:
    runner = ClosingRunner()
    runner.gate = gate = threading.Semaphore(4)
    with running(runner) as engine:
        got = Collector()
        engine.submit(constrained("r", DATE, n=3), got)
        got.wait_tokens("r", 2)
        engine.cancel("r", 1)
        gate.release(1000)
        got.wait("r")
    assert got.finish("r", 1) == "cancelled"
    assert all(re.fullmatch(DATE.source, said(got, "r", i)) for i in (0, 2))


def test_neighbours_without_a_grammar_are_drawn_as_ever() -> None:
    def free(*, crowded: bool) -> list[int]:
        with running() as engine:
            got = Collector()
            if crowded:
                engine.submit(constrained("x", TREE), got)
            engine.submit(request("r", temperature=1.0, seed=3, max_tokens=20), got)
            got.wait("r")
            return got.tokens("r")

    assert free(crowded=True) == free(crowded=False)


# ---- what fails

def test_a_grammar_that_fails_midway_ends_its_sequence_alone() -> None:
    # each token makes the choice of what may follow larger, until it is too much for a step
    bomb = Grammar("regex", "(.*a.{200}|.*b.{201}|.*c.{202})d")
    with running() as engine:
        got = Collector()
        engine.submit(constrained("bad", bomb, max_tokens=1000, logit_bias={ord("a"): 9.0, ord("b"): 9.0}), got)
        engine.submit(constrained("good", DATE), got)
        got.wait("bad", "good")
        assert re.fullmatch(DATE.source, said(got, "good"))
        error = got.last("bad").error
        assert got.finish("bad") == "error" and isinstance(error, InvalidRequest) and "grammar" in error.message
        assert re.fullmatch(DATE.source, said(answer(engine, DATE)))


def test_a_failing_step_does_not_disturb_later_ones() -> None:
    runner = ClosingRunner()
    with running(runner) as engine:
        faults = [True]
        runner.hook = lambda batch: faults and faults.pop() and 1 / 0
        assert answer(engine, DATE).finish("r") == "error"
        assert answer(engine, DATE).finish("r") == "stop"


def test_an_engine_without_a_vocabulary_takes_no_grammar() -> None:
    with running(words=None) as engine, pytest.raises(Unsupported, match="vocabulary"):
        answer(engine, DATE)


def test_a_token_that_does_not_exist_cannot_begin_a_grammar() -> None:
    with running() as engine, pytest.raises(InvalidRequest, match="99999"):
        answer(engine, Grammar("regex", "a", after=99999))


@pytest.mark.parametrize(("after", "ended"), [(ANSWER, [ANSWER]), ("abcd", list(b"abcd"))])
def test_free_text_comes_to_its_end_while_tokens_are_left(after: int | str, ended: list[int]) -> None:
    with running() as engine:
        got = answer(engine, Grammar("choice", '["yes"]', after=after), max_tokens=40,
                     logit_bias=dict.fromkeys([ANSWER, *b"abcd"], -100.0))
    tokens = got.tokens("r")
    assert tokens[30:30 + len(ended)] == ended and ANSWER not in tokens[:30]
    assert Spelling().text(tokens[30 + len(ended):]) == "yes" and tokens[-1] == END


@pytest.mark.parametrize("text", ["", "a" * 257])
def test_a_text_that_a_grammar_waits_for_is_neither_empty_nor_long(text: str) -> None:
    with running() as engine, pytest.raises(InvalidRequest, match="a short text"):
        answer(engine, Grammar("regex", "a", after=text))


def test_a_device_that_draws_itself_leaves_grammars_to_the_host() -> None:
    with running(AheadRunner(vocab=VOCAB, pages=400, page_size=16, max_len=1500)) as engine:
        got = Collector()
        engine.submit(request("free", temperature=1.0, max_tokens=30), got)
        for i in range(3):
            engine.submit(constrained(f"r{i}", DATE, seed=i, logit_bias={}), got)
        got.wait("free", "r0", "r1", "r2")
    assert all(re.fullmatch(DATE.source, said(got, f"r{i}")) for i in range(3))
    assert len(got.tokens("free")) > 0
