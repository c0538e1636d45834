"""Which of a model's files its chat template comes from, and the texts of its tokens."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from vocabularies import byte_level

from zonda.errors import InvalidModel, ModelNotFound
from zonda.text.template_files import find_template
from zonda.text.tokenizer import Tokenizer

HI = [{"role": "user", "content": "hi"}]
TOOLS = [{"type": "function"}]
TOKENS = "{{ bos_token }}{{ eos_token }}{{ unk_token }}"
PLACES = ["explicit.jinja", "processor_config.json", "chosen.jinja", "chat_template.jinja", "tokenizer_config.json",
          "chat_template.json", "metadata"]


@pytest.mark.parametrize("first", range(len(PLACES)))
def test_templates_are_taken_in_their_order(tmp_path: Path, first: int) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for name in PLACES[first:-1]:
        home = tmp_path if name in ("explicit.jinja", "chosen.jinja") else model
        (home / name).write_text(json.dumps({"chat_template": name}) if name.endswith(".json") else name)
    named = {path.stem: path for path in tmp_path.glob("*.jinja")}
    template = find_template(folder=model, metadata={"tokenizer.chat_template": "metadata"}, **named)
    assert template is not None and template.render(HI) == PLACES[first]


def test_a_model_may_have_no_template(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": null}')
    assert find_template(folder=tmp_path, metadata={"tokenizer.chat_template": ""}) is None
    assert find_template() is None


@pytest.mark.parametrize("value", [
    {"default": "plain", "tool_use": "tools"},
    [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"}]])
def test_several_templates_may_be_in_one_file(tmp_path: Path, value: Any) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": value}))
    template = find_template(folder=tmp_path)
    assert template is not None and (template.render(HI), template.render(HI, tools=TOOLS)) == ("plain", "tools")


def test_several_templates_may_be_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "chat_template.jinja").write_text("plain")
    (tmp_path / "additional_chat_templates" / "tool_use.jinja").write_text("tools")
    template = find_template(folder=tmp_path)
    assert template is not None and (template.render(HI), template.render(HI, tools=TOOLS)) == ("plain", "tools")


def test_several_templates_may_be_in_a_gguf_file() -> None:
    template = find_template(metadata={"tokenizer.chat_templates": ["tool_use"], "tokenizer.chat_template": "plain",
                                       "tokenizer.chat_template.tool_use": "tools"})
    assert template is not None and (template.render(HI), template.render(HI, tools=TOOLS)) == ("plain", "tools")


@pytest.mark.parametrize(("file", "content", "config", "text"), [
    ("t.jinja", TOKENS, None, "<s><|im_end|>"),
    ("t.jinja", TOKENS, {"bos_token": "<b>", "eos_token": {"content": "<e>"}, "unk_token": None}, "<b><e>"),
    ("t.json", {"chat_template": TOKENS}, {"bos_token": "<b>"}, "<b><|im_end|>"),
    ("t.json", {"chat_template": TOKENS, "unk_token": "<u>"}, {"bos_token": "<b>"}, "<s><|im_end|><u>"),
])
def test_the_texts_of_tokens_stand_in_the_file_or_beside_it_or_in_the_tokenizer(
        tmp_path: Path, file: str, content: Any, config: Any, text: str) -> None:
    (tmp_path / file).write_text(content if isinstance(content, str) else json.dumps(content))
    if config:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    template = find_template(chosen=tmp_path / file, tokenizer=Tokenizer.from_gguf(byte_level("gpt-2")))
    assert template is not None and template.render(HI) == text


@pytest.mark.parametrize(("file", "content", "says"), [
    ("t.json", b"{}", "no `chat_template`"), ("t.json", b"[]", "no object"), ("t.json", b"{", "no JSON"),
    ("t.json", b'{"chat_template": 5}', "no text"), ("t.json", b'{"chat_template": [5]}', "no text"),
    ("t.json", b'{"chat_template": [{"name": "a"}]}', "no text"), ("t.jinja", b"\xff", "UTF-8"),
    ("t.jinja", b"a" * (1 << 22), "too many")])
def test_a_damaged_file_is_refused(tmp_path: Path, file: str, content: bytes, says: str) -> None:
    (tmp_path / file).write_bytes(content)
    with pytest.raises(InvalidModel, match=says):
        find_template(explicit=tmp_path / file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"nothing\.jinja"):
        find_template(chosen=tmp_path / "nothing.jinja")


@pytest.mark.parametrize("value", [5, ["a"], b"a"])
def test_a_template_in_metadata_that_is_no_text_is_refused(value: Any) -> None:
    with pytest.raises(InvalidModel, match="GGUF"):
        find_template(metadata={"tokenizer.chat_template": value})


def test_arrays_in_metadata_are_no_templates() -> None:
    metadata = {"tokenizer.chat_template": "one", "tokenizer.ggml.scores": np.zeros(3, np.float32)}
    template = find_template(metadata=metadata)
    assert template is not None and template.render([]) == "one"
