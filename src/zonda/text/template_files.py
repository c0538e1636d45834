"""Where a model's chat template is found."""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from zonda.errors import InvalidModel, ModelNotFound
from zonda.text.folder_tokenizer import read_json
from zonda.text.template import DEFAULT, LONGEST_SOURCE, ChatTemplate
from zonda.text.tokenizer import Tokenizer

KEY = "tokenizer.chat_template"
FIELD = "chat_template"
TOKENS = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unk"}
LONGEST_CHARACTER = 4  # bytes

Sources = dict[str, str]


def find_template(*, folder: str | Path | None = None, metadata: Mapping[str, Any] | None = None,
                  explicit: str | Path | None = None, chosen: str | Path | None = None,
                  tokenizer: Tokenizer | None = None) -> ChatTemplate | None:
    """The template of a model, None if it has none.

    The first there is of: the file `explicit`, `processor_config.json` in the model's folder, the file `chosen`, then
    `chat_template.jinja`, `tokenizer_config.json` and `chat_template.json` in the folder, and the metadata of a GGUF
    file. The texts of BOS, EOS and the unknown token stand in a `.json` file itself, or beside it, or come from the
    tokenizer.
    """
    known = _known(tokenizer)
    for path, sources in _places(folder, metadata, explicit, chosen):
        if sources:
            return ChatTemplate(sources, **known | (_beside(path) if path else {}))
    return None


def _places(folder: str | Path | None, metadata: Mapping[str, Any] | None, explicit: str | Path | None,
            chosen: str | Path | None) -> Iterator[tuple[Path | None, Sources]]:
    if explicit is not None:
        yield Path(explicit), _file(Path(explicit))
    home = None if folder is None else Path(folder)
    if home:
        yield home / "processor_config.json", _field(home / "processor_config.json")
    if chosen is not None:
        yield Path(chosen), _file(Path(chosen))
    if home:
        yield home / "chat_template.jinja", _folder(home)
        yield home / "tokenizer_config.json", _field(home / "tokenizer_config.json")
        yield home / "chat_template.json", _field(home / "chat_template.json")
    yield None, _metadata(metadata or {})


def _file(path: Path) -> Sources:
    """The template in a file that the user named."""
    if not path.is_file():
        raise ModelNotFound(f"there is no chat template at {path}")
    if path.suffix != ".json":
        return {DEFAULT: _read(path)}
    sources = _field(path)
    if not sources:
        raise InvalidModel(f"{path.name} has no `{FIELD}`")
    return sources


def _folder(home: Path) -> Sources:
    path = home / "chat_template.jinja"
    if not path.is_file():
        return {}
    others = sorted((home / "additional_chat_templates").glob("*.jinja"))
    return {other.stem: _read(other) for other in others} | {DEFAULT: _read(path)}


def _read(path: Path) -> str:
    if path.stat().st_size > LONGEST_SOURCE * LONGEST_CHARACTER:
        raise InvalidModel(f"{path.name} has {path.stat().st_size} bytes, too many for a chat template")
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidModel(f"{path.name} is not UTF-8") from error


def _field(path: Path) -> Sources:
    return _named(read_json(path).get(FIELD), path.name)


def _named(value: Any, where: str) -> Sources:
    """One template, or several by name, as an object or as a list of objects with `name` and `template`."""
    if value is None or value == "":
        return {}
    if isinstance(value, str):
        return {DEFAULT: value}
    if isinstance(value, list) and all(isinstance(each, dict) for each in value):
        value = {each.get("name"): each.get("template") for each in value}
    if not isinstance(value, dict) or not all(isinstance(each, str) for pair in value.items() for each in pair):
        raise InvalidModel(f"{where} has a `{FIELD}` that is no text, and no texts by name")
    return value


def _metadata(metadata: Mapping[str, Any]) -> Sources:
    found = {key.removeprefix(KEY).removeprefix(".") or DEFAULT: value for key, value in metadata.items()
             if (key == KEY or key.startswith(f"{KEY}.")) and value != ""}
    return _named(found or None, "the GGUF file")


def _known(tokenizer: Tokenizer | None) -> dict[str, Any]:
    if tokenizer is None:
        return {}
    return {"bos": tokenizer.bos_token, "eos": tokenizer.eos_token, "unk": tokenizer.unk_token}


def _beside(path: Path) -> dict[str, Any]:
    """Texts of tokens by a template's own `.json` file, else by the configuration beside it."""
    own = read_json(path) if path.suffix == ".json" else {}
    config = own if own.keys() & TOKENS.keys() else read_json(path.parent / "tokenizer_config.json")
    texts = {short: _text(config[name]) for name, short in TOKENS.items() if name in config}
    return {short: text for short, text in texts.items() if text is not None}


def _text(value: Any) -> str | None:
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else None
