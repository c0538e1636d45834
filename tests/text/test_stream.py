"""Token ids to text as they come: any cutting gives the same text."""
from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vocabularies import KEY, byte_level, pieces, texts

from zonda.text.stream import Stream
from zonda.text.tokenizer import Tokenizer

LETTERS = Tokenizer.from_gguf({
    KEY + "model": "gpt2", KEY + "pre": "gpt-2", KEY + "merges": ["a b"],
    KEY + "tokens": ["<s>", "<|im_end|>", *"abcxyz#", "Ġ", "Ċ", "ab", "Ã", "©"],
    KEY + "token_type": [3, 3, *[1] * 12]})
SPACED = Tokenizer.from_gguf({
    KEY + "model": "llama", KEY + "tokens": ["<unk>", "<s>", "</s>", "▁a", "▁b", "b", "▁", "<0xC3>", "<0xA9>"],
    KEY + "token_type": [2, 3, 3, 1, 1, 1, 1, 6, 6], KEY + "scores": [0.0] * 9})


def ids(text: str) -> list[int]:
    return LETTERS.encode(text, add_special=False)


def said(stream: Stream, chunks: Sequence[Sequence[int]]) -> str:
    return "".join(map(stream.feed, chunks)) + stream.finish()


def by_letters(text: str, stops: Sequence[str]) -> tuple[str, str | None]:
    """The definition: the first stop string to be complete, the longest of several, ends the text before it."""
    for end in range(len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            stop = max(found, key=len)
            return text[:end - len(stop)], stop
    return text, None


@settings(max_examples=300, deadline=None)
@given(st.text("abcxyz#", max_size=30), st.lists(st.text("abcx", min_size=1, max_size=4), max_size=4), st.data())
def test_any_cutting_gives_the_text_before_the_first_stop_string(text: str, stops: list[str],
                                                                 data: st.DataObject) -> None:
    tokens = ids(text)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(tokens)), max_size=6)))
    chunks = [tokens[start:end] for start, end in zip([0, *cuts], [*cuts, len(tokens)])]
    stream = Stream(LETTERS, stops)
    assert (said(stream, chunks), stream.stopped) == by_letters(text, stops)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_any_text_streams_as_it_is_decoded(kind: str) -> None:
    tokenizer = Tokenizer.from_gguf(byte_level("gpt-2") if kind == "gpt2" else pieces(prefix=True)[1])

    @settings(max_examples=80, deadline=None)
    @given(texts())
    def same(text: str) -> None:
        tokens = tokenizer.encode(text)
        assert said(Stream(tokenizer), [[token] for token in tokens]) == tokenizer.decode(tokens)

    same()


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, 13), max_size=12))
def test_any_tokens_stream_as_they_are_decoded(tokens: list[int]) -> None:
    assert said(Stream(LETTERS), [[token] for token in tokens]) == LETTERS.decode(tokens)


def test_what_may_become_a_stop_string_is_kept_back_and_then_given() -> None:
    stream = Stream(LETTERS, ("xyz",))
    assert [stream.feed(ids(each)) for each in ("a", "x", "y", "c", "xy")] == ["a", "", "", "xyc", ""]
    assert stream.finish() == "xy" and stream.stopped is None


def test_nothing_follows_a_stop_string() -> None:
    stream = Stream(LETTERS, ("xyz", "c"))
    assert stream.feed(ids("abxyzc")) == "ab"
    assert (stream.stopped, stream.feed(ids("a")), stream.finish()) == ("xyz", "", "")


def test_a_stop_string_may_begin_within_a_token() -> None:
    stream = Stream(LETTERS, ("bx",))
    assert (stream.feed([11]), stream.feed(ids("x")), stream.stopped) == ("a", "", "bx")


def test_half_a_character_is_kept_back() -> None:
    stream = Stream(LETTERS)
    assert [stream.feed([token]) for token in (12, 13)] == ["", "é"]
    stream.feed([12])
    assert stream.finish() == "\ufffd"


def test_a_stop_string_that_ends_half_a_character_is_found() -> None:
    stream = Stream(LETTERS, ("\ufffd",))
    assert (stream.feed([2, 12]), stream.finish(), stream.stopped) == ("a", "", "\ufffd")


def test_special_tokens_are_no_text_but_may_stop() -> None:
    assert said(Stream(LETTERS), [[0, 2, 1, 3]]) == "ab"
    assert said(Stream(LETTERS, visible=LETTERS.special_ids), [[0, 2, 1]]) == "<s>a<|im_end|>"
    stream = Stream(LETTERS, ("<|im_end|>",))
    assert (said(stream, [[2], [1], [3]]), stream.stopped) == ("a", "<|im_end|>")


@pytest.mark.parametrize(("after", "text"), [(None, "a b"), (1, "a b"), (5, " a b"), (0, "a b")])
def test_a_text_begins_without_the_space_that_the_tokenizer_puts_there(after: int | None, text: str) -> None:
    assert said(Stream(SPACED, after=after), [[3], [4]]) == text


def test_only_the_first_space_is_left_out() -> None:
    assert said(Stream(SPACED), [[6], [6], [3]]) == SPACED.decode([6, 6, 3]) == "  a"
    assert said(Stream(SPACED), [[7], [8], [3]]) == "é a"


def test_empty_and_repeated_stop_strings_do_no_harm() -> None:
    stream = Stream(LETTERS, ("", "x", "x"))
    assert (said(stream, [ids("abx")]), stream.stopped) == ("ab", "x")


def test_no_stop_string_is_looked_for_in_the_first_tokens() -> None:
    stream = Stream(LETTERS, ("x",), min_tokens=2)
    assert (said(stream, [ids("xyx")]), stream.stopped) == ("xy", "x")


def test_a_long_stop_string_that_almost_matches_costs_no_text() -> None:
    stop = "a" * 2000 + "z"
    text = "a" * 1999 + "c" + "a" * 2000
    assert said(Stream(LETTERS, (stop,)), [[token] for token in ids(text)]) == text


def test_special_tokens_can_be_made_part_of_the_text() -> None:
    end = LETTERS.id("<|im_end|>")
    assert end is not None
    stream = Stream(LETTERS, visible=frozenset({end}))
    assert stream.feed([*ids("a"), end, *ids("b")]) == "a<|im_end|>b"
    assert Stream(LETTERS).feed([*ids("a"), end, *ids("b")]) == "ab"
