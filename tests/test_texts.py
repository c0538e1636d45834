"""Which of a model's files its tokenizer, chat template and sampling defaults come from."""
from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from letters import END, FIRST, LettersTokenizer

from zonda import texts
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


def test_templates_are_taken_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "c.jinja").write_text("option")
    (tmp_path / "j.jinja").write_text("explicit")
    root = tmp_path / "model"
    root.mkdir()
    assert rendered(ModelOptions(), root) is None
    assert rendered(ModelOptions(), root, GGUF) == "gguf"
    (root / "tokenizer_config.json").write_text(json.dumps({"chat_template": "folder"}))
    assert rendered(ModelOptions(), root, GGUF) == "folder"
    assert rendered(ModelOptions(chat_template="~/c.jinja"), root, GGUF) == "option"
    assert rendered(ModelOptions(chat_template="~/c.jinja", jinja_explicit="~/j.jinja"), root, GGUF) == "explicit"


def test_another_models_tokenizer_comes_with_its_own_template_or_none(tmp_path: Path) -> None:
    assert rendered(ModelOptions(tok_model="other"), tmp_path, GGUF) is None


def test_a_template_sees_the_tokenizers_tokens_or_its_own(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text(json.dumps({"chat_template": "{{ bos_token }}{{ eos_token }}", "eos_token": {"content": "<end>"}}))
    assert rendered(ModelOptions(chat_template=str(path)), tmp_path) == "<s><end>"


def test_the_generation_config_counts_where_it_is_the_models_own(tmp_path: Path,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "tokenizer_of", lambda *given: LettersTokenizer())
    monkeypatch.setattr(texts, "find_template", lambda **given: None)
    (tmp_path / "generation_config.json").write_text('{"top_k": 3, "eos_token_id": [1, 2]}')
    own, other = (texts.Texts.read(ModelOptions(), tmp_path, {}, own=own) for own in (True, False))
    assert own.defaults["top_k"] == 3 and own.ends == {END, 1, 2}
    assert not other.defaults and other.ends == {END}


def test_a_breaker_stands_for_its_last_token() -> None:
    tokenizer: Any = LettersTokenizer()
    read = texts.Texts(tokenizer, None, {})
    assert (read.breakers("xy"), read.breakers("")) == ({FIRST + 24}, {FIRST})
