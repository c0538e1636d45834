"""A model's texts: its tokenizer, its chat template and its sampling defaults, from the files that have them."""
from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zonda.errors import InvalidModel, InvalidRequest, ModelNotFound
from zonda.options import ModelOptions
from zonda.text.template import ChatTemplate
from zonda.text.tokenizer import Tokenizer

LARGEST = 1 << 26  # bytes of a JSON or Jinja file
_GGUF_TEMPLATE = "tokenizer.chat_template"
_TOKENS = ("bos", "eos", "unk")


@dataclass(frozen=True, slots=True)
class Texts:
    """What stands between text and token ids; `defaults` is the generation_config."""

    tokenizer: Tokenizer
    template: ChatTemplate | None
    defaults: Mapping[str, Any]

    @classmethod
    def read(cls, options: ModelOptions, root: Path, metadata: Mapping[str, Any], *, own: bool) -> Texts:
        """From a folder and GGUF metadata; `own` says that the folder's generation_config is the model's."""
        tokenizer = tokenizer_of(options, root, metadata)
        template = template_of(options, root, metadata, tokenizer)
        return cls(tokenizer, template, generation_config(root) if own else {})

    @property
    def ends(self) -> frozenset[int]:
        """The token ids that end a text."""
        return self.tokenizer.eos_ids | ends_of(self.defaults)

    def breakers(self, text: str) -> frozenset[int]:
        """The tokens that a breaker string of DRY stands for: the last one of it, alone and behind a word."""
        ids = (self.tokenizer.encode(each, add_special=False) for each in (text, f"a{text}"))
        return frozenset(each[-1] for each in ids if each)


def tokenizer_of(options: ModelOptions, root: Path, metadata: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that the options name, else that of the GGUF metadata, else that of the folder."""
    if options.tokenizer:
        return Tokenizer.from_file(Path(options.tokenizer).expanduser())
    if "tokenizer.ggml.model" in metadata and not options.tok_model:
        return Tokenizer.from_gguf(metadata)
    return Tokenizer.from_file(root)


def template_of(options: ModelOptions, root: Path, metadata: Mapping[str, Any],
                tokenizer: Tokenizer) -> ChatTemplate | None:
    """The first chat template among `jinja_explicit`, `chat_template`, GGUF metadata and the folder; else None."""
    tokens = {name: getattr(tokenizer, f"{name}_token") for name in _TOKENS}
    for source, own in _sources(options, root, metadata):
        return ChatTemplate(source, **{**tokens, **own})
    return None


Found = tuple[str | dict[str, str], dict[str, str]]
"""A template, or several by name, and the texts of tokens that come with it."""


def _sources(options: ModelOptions, root: Path, metadata: Mapping[str, Any]) -> Iterator[Found]:
    for named in (options.jinja_explicit, options.chat_template):
        if named:
            yield _named(Path(named).expanduser())
    if isinstance(text := metadata.get(_GGUF_TEMPLATE), str) and not options.tok_model:
        more = {name: metadata.get(f"{_GGUF_TEMPLATE}.{name}") for name in metadata.get("tokenizer.chat_templates", ())}
        yield {"default": text, **{name: each for name, each in more.items() if isinstance(each, str)}}, {}
    yield from _in_folder(root)


def _named(path: Path) -> Found:
    if path.suffix != ".json":
        return _text(path), {}
    settings = read_json(path)
    if not isinstance(settings.get("chat_template"), str | list):
        raise InvalidModel(f"{path} has no chat_template", hint="expected a JSON object with it, or a .jinja file")
    return _template(settings["chat_template"], path), _tokens(settings)


def _in_folder(root: Path) -> Iterator[Found]:
    if (own := root / "chat_template.jinja").is_file():
        more = {path.stem: _text(path) for path in sorted((root / "additional_chat_templates").glob("*.jinja"))}
        yield {"default": _text(own), **more}, {}
    for name in ("tokenizer_config.json", "chat_template.json"):
        settings = read_json(root / name) if (root / name).is_file() else {}
        if settings.get("chat_template"):
            yield _template(settings["chat_template"], root / name), {}


def _template(value: Any, path: Path) -> str | dict[str, str]:
    """A template as it stands in JSON: a text, or a list of objects with `name` and `template`."""
    if isinstance(value, str):
        return value
    named = value if isinstance(value, list) else []
    if named and all(isinstance(each, dict) and {"name", "template"} <= each.keys() for each in named):
        return {str(each["name"]): each["template"] for each in named}
    raise InvalidModel(f"chat_template in {path} is {type(value).__name__}, expected a text or a list of named texts")


def _tokens(settings: Mapping[str, Any]) -> dict[str, str]:
    """Texts of special tokens, each a string or an object with `content`."""
    found = {name: settings.get(f"{name}_token") for name in _TOKENS}
    texts = {name: value.get("content") if isinstance(value, dict) else value for name, value in found.items()}
    return {name: text for name, text in texts.items() if isinstance(text, str)}


def generation_config(root: Path) -> dict[str, Any]:
    """A folder's `generation_config.json`; empty without one."""
    path = root / "generation_config.json"
    return read_json(path) if path.is_file() else {}


def ends_of(config: Mapping[str, Any]) -> frozenset[int]:
    """The token ids that a generation_config says end a text."""
    value = config.get("eos_token_id")
    values = value if isinstance(value, list) else [value]
    return frozenset(each for each in values if isinstance(each, int) and not isinstance(each, bool))


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; raises `InvalidModel` when it is damaged."""
    try:
        value = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise InvalidModel(f"{path} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidModel(f"{path} is {type(value).__name__}, expected an object")
    return value


def _text(path: Path) -> str:
    if not path.is_file():
        raise ModelNotFound(f"there is no file {path}")
    if path.stat().st_size > LARGEST:
        raise InvalidRequest(f"{path} has {path.stat().st_size} bytes, expected at most {LARGEST}")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InvalidModel(f"{path} is not UTF-8 text") from None
