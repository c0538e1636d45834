"""What `/v1/completions` answers, whole and streamed."""
from __future__ import annotations

from typing import Any

import pytest
from fakes import BEGIN, WIND, Server


def texts(answer: Any) -> list[tuple[int, str]]:
    return [(choice["index"], choice["text"]) for choice in answer["choices"]]


def streamed(events: list[Any]) -> dict[int, str]:
    """What the chunks of each choice add up to."""
    assert events[-1] == "[DONE]"
    result: dict[int, str] = {}
    for event in events[:-1]:
        for choice in event["choices"]:
            result[choice["index"]] = result.get(choice["index"], "") + choice["text"]
    return result


def test_a_completion_has_openais_shape(server: Server) -> None:
    answer = server.complete("w").json
    assert answer["id"].startswith("cmpl-") and answer["object"] == "text_completion" and answer["model"] == "chain"
    assert answer["choices"] == [{"index": 0, "text": "xyz", "logprobs": None, "finish_reason": "stop"}]
    assert answer["usage"]["prompt_tokens"] == 2 and answer["usage"]["total_tokens"] == 6


def test_sixteen_tokens_are_generated_unless_the_request_says(server: Server) -> None:
    choice = server.complete("A").json["choices"][0]
    assert (choice["text"], choice["finish_reason"]) == ("BCDEFGHIJKLMNOPQ", "length")


@pytest.mark.parametrize(("prompt", "expected"), [
    ("x", ["yz"]), (["x"], ["yz"]), (["w", "x", "y"], ["xyz", "yz", "z"]), ([120], ["yz"]), ([119, 120], ["yz"]),
    ([[119], [120]], ["xyz", "yz"])])
def test_prompts_are_texts_or_token_ids_alone_or_in_lists(server: Server, prompt: Any, expected: list[str]) -> None:
    assert texts(server.complete(prompt).json) == list(enumerate(expected))
    assert streamed(server.complete(prompt, stream=True).events) == dict(enumerate(expected))


def test_choices_are_numbered_prompt_by_prompt(server: Server) -> None:
    expected = [(0, "yz"), (1, "yz"), (2, "z"), (3, "z")]
    assert texts(server.complete(["x", "y"], n=2).json) == expected
    assert streamed(server.complete(["x", "y"], n=2, stream=True).events) == dict(expected)


def test_usage_of_several_prompts_adds_up(server: Server) -> None:
    counts = server.complete(["x", "y"], n=2).json["usage"]
    assert (counts["prompt_tokens"], counts["completion_tokens"]) == (4, 10)
    events = server.complete(["x", "y"], n=2, stream=True, stream_options={"include_usage": True}).events
    assert events[-2]["choices"] == [] and events[-2]["usage"]["completion_tokens"] == 10
    assert [event["usage"] for event in events[:-2]] == [None] * len(events[:-2])


def test_a_stream_tells_no_usage_unless_asked(server: Server) -> None:
    events = server.complete("x", stream=True).events
    assert all("usage" not in event for event in events[:-1])
    assert [event["choices"][0]["finish_reason"] for event in events[:-1]] == [None, None, "stop"]


def test_echo_repeats_the_prompt(server: Server) -> None:
    assert texts(server.complete("ux", echo=True).json) == [(0, "uxyz")]
    assert texts(server.complete([[117, 120], [121]], echo=True).json) == [(0, "uxyz"), (1, "yz")]
    assert streamed(server.complete(["ux", "y"], echo=True, n=2, stream=True).events) \
        == {0: "uxyz", 1: "uxyz", 2: "yz", 3: "yz"}


def test_echo_of_ids_shows_special_tokens(server: Server) -> None:
    assert texts(server.complete([BEGIN, 120], echo=True).json) == [(0, "<begin>xyz")]


def test_logprobs_are_parallel_lists(server: Server) -> None:
    lists = server.complete("x", logprobs=2).json["choices"][0]["logprobs"]
    assert lists["tokens"] == ["y", "z"] and lists["text_offset"] == [0, 1]
    assert [len(each) for each in lists["top_logprobs"]] == [2, 2] and "y" in lists["top_logprobs"][0]
    assert all(-1 < each <= 0 for each in lists["token_logprobs"])


def test_logprobs_zero_tells_the_chosen_token_alone(server: Server) -> None:
    lists = server.complete("x", logprobs=0).json["choices"][0]["logprobs"]
    assert [list(each) for each in lists["top_logprobs"]] == [["y"], ["z"]]


def test_echoed_logprobs_begin_with_the_prompt(server: Server) -> None:
    lists = server.complete("xb", echo=True, logprobs=1).json["choices"][0]["logprobs"]
    assert lists["tokens"][:4] == ["<begin>", "x", "b", "c"] and lists["text_offset"][:4] == [0, 0, 1, 2]
    assert lists["token_logprobs"][0] is None and lists["top_logprobs"][0] is None
    assert lists["token_logprobs"][1] < -20 and lists["token_logprobs"][3] > -1


def test_a_prompt_is_scored_without_generating(server: Server) -> None:
    choice = server.complete([120, 121, 122], echo=True, logprobs=1, max_tokens=0).json["choices"][0]
    assert (choice["text"], choice["finish_reason"]) == ("xyz", "length")
    assert choice["logprobs"]["tokens"] == ["x", "y", "z"]
    assert [value is None for value in choice["logprobs"]["token_logprobs"]] == [True, False, False]


@pytest.mark.parametrize("fields", [{"echo": True}, {"echo": True, "n": 2}, {}])
def test_streamed_logprobs_add_up_to_the_whole(server: Server, fields: dict[str, Any]) -> None:
    whole = server.complete(["wx", "w"], logprobs=1, **fields).json["choices"]
    events = server.complete(["wx", "w"], logprobs=1, stream=True, **fields).events
    pieces = [event["choices"][0] for event in events[:-1]]
    for choice in whole:
        parts = [each["logprobs"] for each in pieces if each["index"] == choice["index"]]
        for name, values in choice["logprobs"].items():
            joined = [value for part in parts if part for value in part[name]]
            assert len(joined) == len(values) and (name in ("token_logprobs", "top_logprobs") or joined == values)


def test_offsets_count_characters_and_parts_of_one_are_bytes(server: Server) -> None:
    lists = server.complete("é#", logprobs=0, echo=True).json["choices"][0]["logprobs"]
    assert lists["tokens"] == ["<begin>", "bytes:\\xc3", "bytes:\\xa9", "#",
                               *(f"bytes:\\x{byte:02x}" for byte in WIND.encode())]
    assert lists["text_offset"] == [0, 0, 0, 1, 2, 2, 2, 2]


def test_best_of_equal_to_n_is_no_harm(server: Server) -> None:
    assert len(server.complete("x", best_of=2, n=2, suffix="").json["choices"]) == 2


def test_best_of_keeps_the_likeliest_and_counts_all(server: Server) -> None:
    fields = {"temperature": 1.5, "seed": 5, "max_tokens": 3}
    whole = server.complete(["x", "y"], n=6, logprobs=0, **fields).json
    reply = server.complete(["x", "y"], n=2, best_of=6, **fields).json

    def mean(choice: dict[str, Any]) -> float:
        found = choice["logprobs"]["token_logprobs"]
        return sum(found) / len(found)

    every = whole["choices"]
    best = [each["text"] for half in (every[:6], every[6:]) for each in sorted(half, key=mean, reverse=True)[:2]]
    assert [each["text"] for each in reply["choices"]] == best
    assert [each["index"] for each in reply["choices"]] == [0, 1, 2, 3]
    assert reply["choices"][0]["logprobs"] is None
    assert reply["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]


def test_a_prompt_that_was_cut_is_scored_where_it_was_read(server: Server) -> None:
    choice = server.complete([98] * 2500 + [120], echo=True, logprobs=0, max_tokens=1, truncate_sequence=True).json
    lists = choice["choices"][0]["logprobs"]
    assert len(lists["tokens"]) == len(lists["token_logprobs"]) == 2502
    assert lists["token_logprobs"][:500] == [None] * 500 and None not in lists["token_logprobs"][-1000:]
    assert lists["tokens"][-2:] == ["x", "y"]


@pytest.mark.parametrize(("marks", "asked"), [
    (("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"), "<|fim_prefix|>def f<|fim_suffix|>return<|fim_middle|>"),
    (("[SUFFIX]", "[PREFIX]"), "[SUFFIX]return[PREFIX]def f")])
def test_a_suffix_is_filled_up_to_by_models_that_can(server: Server, monkeypatch: pytest.MonkeyPatch,
                                                     marks: tuple[str, ...], asked: str) -> None:
    assert server.complete("def f", suffix="return").error["param"] == "suffix"
    llm: Any = server.llm
    seen: list[str] = []
    tokenize = llm.tokenize
    monkeypatch.setattr(llm.tokenizer, "id", lambda token: 1 if token in marks else None)
    monkeypatch.setattr(llm, "tokenize", lambda text: seen.append(text) or tokenize(text))
    assert server.complete("def f", suffix="return", echo=True).json["choices"][0]["text"].startswith("def f")
    assert seen == [asked]
    assert server.complete([97], suffix="return").error["param"] == "suffix"
