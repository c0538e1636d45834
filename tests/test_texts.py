"""Which of a model's files its tokenizer, chat template and sampling defaults come from."""
from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from letters import END, FIRST, LettersTokenizer

from zonda import texts
from zonda.errors import InvalidModel, InvalidRequest, ModelNotFound
from zonda.options import ModelOptions

GGUF = {"tokenizer.ggml.model": "gpt2", "tokenizer.chat_template": "gguf"}
SAID = [{"role": "user", "content": "hi"}]
TOKENS: Any = SimpleNamespace(bos_token="<s>", eos_token="</s>", unk_token=None)


def rendered(options: ModelOptions, root: Path, metadata: dict[str, Any] | None = None, **more: Any) -> str | None:
    template = texts.template_of(options, root, metadata or {}, TOKENS)
    return template and template.render(SAID, **more)


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What tokenizers were made from."""
    made: list[Any] = []
    monkeypatch.setattr(texts.Tokenizer, "from_file", made.append)
    monkeypatch.setattr(texts.Tokenizer, "from_gguf", made.append)
    return made


def test_the_tokenizer_is_the_named_one_else_the_files_own(tmp_path: Path, chosen: list[Any]) -> None:
    texts.tokenizer_of(ModelOptions(tokenizer="x/tokenizer.json"), tmp_path, GGUF)
    texts.tokenizer_of(ModelOptions(), tmp_path, GGUF)
    texts.tokenizer_of(ModelOptions(), tmp_path, {})
    texts.tokenizer_of(ModelOptions(tok_model="other"), tmp_path, GGUF)
    assert chosen == [Path("x/tokenizer.json"), GGUF, tmp_path, tmp_path]


def test_templates_are_taken_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "c.jinja").write_text("option")
    (tmp_path / "j.jinja").write_text("explicit")
    explicit, option = str(tmp_path / "j.jinja"), str(tmp_path / "c.jinja")
    root = tmp_path / "model"
    root.mkdir()
    assert rendered(ModelOptions(), root) is None
    (root / "chat_template.json").write_text(json.dumps({"chat_template": "third"}))
    assert rendered(ModelOptions(), root) == "third"
    (root / "tokenizer_config.json").write_text(json.dumps({"chat_template": "second"}))
    assert rendered(ModelOptions(), root) == "second"
    (root / "chat_template.jinja").write_text("first")
    assert rendered(ModelOptions(), root) == "first"
    assert rendered(ModelOptions(), root, GGUF) == "gguf"
    assert rendered(ModelOptions(tok_model="other"), root, GGUF) == "first"
    assert rendered(ModelOptions(chat_template=option), root, GGUF) == "option"
    assert rendered(ModelOptions(chat_template=option, jinja_explicit=explicit), root, GGUF) == "explicit"


def test_a_template_sees_the_tokenizers_tokens_or_its_own(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text(json.dumps({"chat_template": "{{ bos_token }}{{ eos_token }}", "eos_token": {"content": "<end>"}}))
    assert rendered(ModelOptions(chat_template=str(path)), tmp_path) == "<s><end>"


@pytest.mark.parametrize("place", ["gguf", "config", "folder"])
def test_another_template_may_be_for_tools(tmp_path: Path, place: str) -> None:
    metadata: dict[str, Any] = {}
    if place == "gguf":
        metadata = {**GGUF, "tokenizer.chat_template": "plain", "tokenizer.chat_templates": ["tool_use"],
                    "tokenizer.chat_template.tool_use": "tools"}
    elif place == "config":
        named = [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"}]
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    else:
        (tmp_path / "chat_template.jinja").write_text("plain")
        (tmp_path / "additional_chat_templates").mkdir()
        (tmp_path / "additional_chat_templates" / "tool_use.jinja").write_text("tools")
    assert rendered(ModelOptions(), tmp_path, metadata) == "plain"
    assert rendered(ModelOptions(), tmp_path, metadata, tools=[{"type": "function"}]) == "tools"


@pytest.mark.parametrize(("text", "error"), [
    ("{", InvalidModel), ("[]", InvalidModel), ("{}", InvalidModel), ('{"chat_template": 3}', InvalidModel),
    ('{"chat_template": [3]}', InvalidModel), ("[" * 100_000, InvalidModel)])
def test_a_damaged_template_file_is_refused(tmp_path: Path, text: str, error: type[Exception]) -> None:
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(error, match=r"t\.json"):
        rendered(ModelOptions(chat_template=str(tmp_path / "t.json")), tmp_path)


def test_a_missing_or_binary_or_huge_template_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.jinja"
    with pytest.raises(ModelNotFound, match=r"t\.jinja"):
        rendered(ModelOptions(chat_template=str(path)), tmp_path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidModel, match="UTF-8"):
        rendered(ModelOptions(chat_template=str(path)), tmp_path)
    monkeypatch.setattr(texts, "LARGEST", 1)
    with pytest.raises(InvalidRequest, match="at most 1"):
        rendered(ModelOptions(chat_template=str(path)), tmp_path)


def test_the_generation_config_gives_defaults_and_ends(tmp_path: Path) -> None:
    assert texts.generation_config(tmp_path) == {}
    (tmp_path / "generation_config.json").write_text('{"top_k": 3, "eos_token_id": [1, 2]}')
    config = texts.generation_config(tmp_path)
    assert config["top_k"] == 3 and texts.ends_of(config) == {1, 2}


@pytest.mark.parametrize(("value", "ends"), [(7, {7}), (None, set()), ("x", set()), ([1, "x", True], {1})])
def test_ends_are_whole_numbers(value: Any, ends: set[int]) -> None:
    assert texts.ends_of({"eos_token_id": value}) == ends


def test_a_breaker_stands_for_its_last_token() -> None:
    tokenizer: Any = LettersTokenizer()
    read = texts.Texts(tokenizer, None, {})
    assert (read.breakers("xy"), read.breakers("")) == ({FIRST + 24}, {FIRST})


def test_texts_end_where_tokenizer_or_generation_config_say() -> None:
    tokenizer: Any = LettersTokenizer()
    assert texts.Texts(tokenizer, None, {"eos_token_id": 5}).ends == {END, 5}
