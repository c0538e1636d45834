"""The form of answers on the command line."""
from __future__ import annotations

from pathlib import Path

import pytest

from zonda import Grammar, InvalidRequest
from zonda.cli.ask import grammar
from zonda.options import RunOptions


def test_options_say_the_form_of_answers(tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    file.write_text('{"type": "null"}')
    assert grammar(RunOptions()) is None
    assert grammar(RunOptions(regex="a+")) == Grammar("regex", "a+")
    assert grammar(RunOptions(json_schema=str(file))) == Grammar("json_schema", '{"type": "null"}')


@pytest.mark.parametrize(("content", "why"), [
    (b"{", "it is not JSON"), (b"\xff", "it is not UTF-8"), (b"", "it is not JSON"), (b"[" * 99_999, "it is not JSON")],
    ids=["cut", "bytes", "empty", "deep"])
def test_a_file_that_holds_no_json_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    file = tmp_path / "schema.json"
    file.write_bytes(content)
    with pytest.raises(InvalidRequest, match=f"schema.json cannot be read: {why}"):
        grammar(RunOptions(json_schema=str(file)))


def test_a_file_that_is_not_there_and_two_forms_are_refused(tmp_path: Path) -> None:
    absent = str(tmp_path / "absent.json")
    with pytest.raises(InvalidRequest, match="cannot be read") as refused:
        grammar(RunOptions(json_schema=absent))
    assert str(refused.value).count(absent) == 1
    with pytest.raises(InvalidRequest, match="exclude"):
        grammar(RunOptions(json_schema="x", regex="a"))
