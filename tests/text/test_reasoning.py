"""Reasoning before an answer: found from the template, and told from the answer."""
from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zonda.errors import InvalidRequest
from zonda.text import dialects, manner, reasoning
from zonda.text.dialects.tools import Tools
from zonda.text.manner import Manner
from zonda.text.parts import CallStart, Text, Thought

TOOLS = Tools([{"type": "function", "function": {"name": "f"}}])


def said(style: str, pieces: Sequence[str], *, prompt: str = "", dialect: str = "generic",
         tools: Tools = TOOLS) -> tuple[str, str]:
    """The reasoning and the answer."""
    parser = Manner(dialects.named(dialect), reasoning.named(style)).parser(prompt, tools)
    parts = [part for piece in pieces for part in parser.feed(piece)] + list(parser.finish())
    return ("".join(part.text for part in parts if isinstance(part, Thought)),
            "".join(part.text for part in parts if isinstance(part, Text)))


@pytest.mark.parametrize("style", reasoning.STYLES, ids=lambda style: style.name)
def test_reasoning_is_told_from_the_answer(style: reasoning.Reasoning) -> None:
    written = f"{style.open}{style.title}\nLet me see. 1 < 2\n{style.close}\n\nIt is.\n"
    for tools in (TOOLS, Tools()):
        assert said(style.name, [written], tools=tools) == ("Let me see. 1 < 2", "It is.\n")
        assert said(style.name, list(written), tools=tools) == ("Let me see. 1 < 2", "It is.\n")


@pytest.mark.parametrize("style", reasoning.STYLES, ids=lambda style: style.name)
def test_reasoning_may_have_been_opened_by_the_template(style: reasoning.Reasoning) -> None:
    prompt = f"<|im_start|>assistant\n{style.open}{style.title}\n"
    assert said(style.name, [f"Hm.{style.close}Yes"], prompt=prompt) == ("Hm.", "Yes")


@pytest.mark.parametrize("style", reasoning.STYLES, ids=lambda style: style.name)
def test_what_the_template_has_opened_may_be_opened_again(style: reasoning.Reasoning) -> None:
    prompt = f"<|im_start|>assistant\n{style.open}{style.title}\n"
    written = f"\n{style.open}{style.title}\nHm.{style.close}Yes"
    assert said(style.name, [written], prompt=prompt) == ("Hm.", "Yes")
    assert said(style.name, list(written), prompt=prompt) == ("Hm.", "Yes")


def test_reasoning_that_the_template_has_closed_is_over() -> None:
    assert said("think", ["Yes"], prompt="<think>\n\n</think>\n\n") == ("", "Yes")


def test_an_answer_without_reasoning_stays_as_it_is() -> None:
    for answer in (" \nYes <think>no</think>\n", "", "<thin", "  "):
        assert said("think", [answer]) == said("think", list(answer)) == ("", answer)


def test_reasoning_that_was_cut_short_is_no_answer() -> None:
    assert said("think", ["<think>Let me"]) == ("Let me", "")


def test_the_parser_tells_whether_the_model_is_thinking() -> None:
    parser = Manner(dialects.GENERIC, reasoning.named("think")).parser("<think>\n", Tools())
    assert parser.thinking
    parser.feed("so</think>")
    assert not parser.thinking


@pytest.mark.parametrize("style", reasoning.STYLES, ids=lambda style: style.name)
def test_an_end_that_is_written_again_at_once_is_left_out(style: reasoning.Reasoning) -> None:
    written = f"{style.open}a{style.close}\n\n{style.close}\n\nYes, not {style.close}"
    assert said(style.name, [written]) == said(style.name, list(written)) == ("a", f"Yes, not {style.close}")


def test_marks_around_the_answer_are_left_out() -> None:
    written = "<think>a</think>\n<answer>\nYes, <b>it is</b>.\n</answer>"
    assert said("think", list(written)) == ("a", "Yes, <b>it is</b>.")
    assert said("command", ["<|START_THINKING|>a<|END_THINKING|><|START_RESPONSE|>b<|END_RESPONSE|>"]) == ("a", "b")


def test_a_tool_call_with_special_tokens_ends_reasoning_too() -> None:
    parser = Manner(dialects.named("mistral"), reasoning.named("magistral")).parser("", TOOLS)
    parts = [*parser.feed("[THINK]so[TOOL_CALLS]f[ARGS]{}"), *parser.finish()]
    assert parts[0] == Thought("so") and isinstance(parts[1], CallStart)


@settings(max_examples=200, deadline=None)
@given(st.text("<think>/ \nab", max_size=40), st.data())
def test_any_cutting_gives_the_same(text: str, data: st.DataObject) -> None:
    prompt = data.draw(st.sampled_from(["", "<think>"]))
    whole = data.draw(st.sampled_from(["", "<think>"])) + text + data.draw(st.sampled_from(["", "</think> b"]))
    assert said("think", [whole], prompt=prompt) == said("think", list(whole), prompt=prompt)


@pytest.mark.parametrize(("template", "name"), [
    ("{% if x %}<think>\n\n</think>{% endif %}", "think"), ("[THINK]", "magistral"), ("<|channel>thought", "gemma"),
    ("content.split('</think>')", "think"), ("<seed:think>", "seed"), ("Here is my thought process:", "granite"),
    ("<|im_start|>", None)])
def test_the_marks_are_found_in_the_template(template: str, name: str | None) -> None:
    found = reasoning.find(template, lambda token: None)
    assert (found.name if found else None) == name


def test_the_marks_are_found_in_the_vocabulary() -> None:
    found = reasoning.find("", {"<think>": 1, "</think>": 2}.get)
    assert found and found.name == "think"


def test_what_is_named_goes_before_what_is_found() -> None:
    found = manner.find({"default": "<think><tool_call>"}, lambda token: None, dialect="llama", style="none")
    assert (found.dialect.name, found.reasoning) == ("llama", None)
    with pytest.raises(InvalidRequest, match="known: "):
        manner.find({}, lambda token: None, style="loud")


def test_the_token_that_closes_opened_reasoning_is_known() -> None:
    found = manner.find({"default": "<think>"}, {"</think>": 7}.get)
    assert found.closing("assistant\n<think>\n", {"</think>": 7}.get) == 7
    assert found.closing("assistant\n", {"</think>": 7}.get) is None
    assert found.closing("assistant\n<think>\n", lambda token: None) == "</think>"


def test_reasoning_is_opened_before_a_grammar_where_the_model_would_open_it() -> None:
    found = manner.find({"default": "{% if enable_thinking %}<think>{% endif %}"}, lambda token: None)
    assert found.lead("assistant\n", formed=True) == "<think>\n"
    assert found.lead("assistant\n", formed=True, silent=True) == ""
    assert found.lead("assistant\n<think>\n", formed=True) == found.lead("<think>\n\n</think>\n\n", formed=True) == ""
    assert manner.find({"default": "<think>"}, lambda token: None).lead("assistant\n", formed=True) == ""
    harmony = manner.find({"default": "<|channel|><|message|>"}, lambda token: None)
    assert harmony.lead("<|start|>assistant", formed=True) == "<|channel|>final<|message|>"
    assert harmony.head("<|start|>assistant") == "<|channel|>final<|message|>"
    assert (found.head("assistant\n<think>\n"), found.head("assistant\n")) == ("</think>\n\n", "")
