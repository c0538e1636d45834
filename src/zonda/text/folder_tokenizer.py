"""Tokenizers from a `tokenizer.json` and the files beside it."""
from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zonda.errors import InvalidModel, ModelNotFound, Unsupported
from zonda.text.vocabulary import (
    Encode,
    Vocabulary,
    byte_level,
    encoder,
    end_tokens,
    sentencepiece,
    suffixed,
    unable,
    word,
    wordpiece,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LARGEST_FILE = 1 << 28
FILE = "tokenizer.json"


def build(path: Path) -> tuple[Encode, Vocabulary]:
    """The function from text to ids, without what is added around a text, and the facts about the tokens."""
    file = path / FILE if path.is_dir() else path
    tokenizer = _load(file)
    beside = file.parent
    config = read_json(beside / "special_tokens_map.json") | read_json(beside / "tokenizer_config.json")
    return encoder(tokenizer), _vocabulary(tokenizer, config, beside)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty if there is no such file."""
    if not path.is_file():
        return {}
    if path.stat().st_size > LARGEST_FILE:
        raise InvalidModel(f"{path.name} has {path.stat().st_size} bytes, expected at most {LARGEST_FILE}")
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InvalidModel(f"{path.name} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise InvalidModel(f"{path.name} holds no object")
    return found


def end_ids(config: Mapping[str, Any]) -> frozenset[int]:
    """Ids that end a text by a `generation_config.json` or `config.json`."""
    value = config.get("eos_token_id")
    found = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(each, int) and not isinstance(each, bool) and each >= 0 for each in found):
        raise InvalidModel(f"eos_token_id is {value!r:.100}, expected an id or a list of ids")
    return frozenset(found)


def _load(file: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    if not file.is_file():
        others = [name for name in ("tekken.json", "tokenizer.model", "vocab.json") if (file.parent / name).is_file()]
        if others:
            raise Unsupported(f"{file.parent} has {others[0]} but no {FILE}", hint=f"pass the folder of a {FILE}")
        raise ModelNotFound(f"there is no {FILE} at {file}")
    if file.stat().st_size > LARGEST_FILE:
        raise InvalidModel(f"{file.name} has {file.stat().st_size} bytes, expected at most {LARGEST_FILE}")
    try:
        return Tokenizer.from_file(str(file))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library's panics are no Exceptions
        raise InvalidModel(f"{file.name} cannot be read: {error!s:.300}", hint="download it again") from error


def _vocabulary(tokenizer: Tokenizer, config: Mapping[str, Any], folder: Path) -> Vocabulary:
    added = tokenizer.get_added_tokens_decoder()
    special = frozenset(token for token, entry in added.items() if entry.special)
    spell, strip = _spelling(tokenizer)
    prefix, suffix = _around(tokenizer)
    bos = _named(tokenizer, config, "bos_token")
    bos = prefix[0] if bos is None and prefix else bos
    eos = _named(tokenizer, config, "eos_token")
    if "add_bos_token" in config or "add_eos_token" in config:
        prefix = (bos,) if config.get("add_bos_token") is True and bos is not None else ()
        suffix = (eos,) if config.get("add_eos_token") is True and eos is not None else ()
    return Vocabulary(
        size=max([tokenizer.get_vocab_size() - 1, *added]) + 1, text=tokenizer.id_to_token,
        find=tokenizer.token_to_id, spell=spell, added={token: entry.content for token, entry in added.items()},
        special=special, prefix=prefix, suffix=suffix, strip=strip, bos=bos, eos=eos,
        unk=_named(tokenizer, config, "unk_token"),
        ends=_ends(folder) | end_tokens(tokenizer.token_to_id, special) | (frozenset() if eos is None else {eos}))


def _ends(folder: Path) -> frozenset[int]:
    generation = read_json(folder / "generation_config.json")
    return end_ids(generation if "eos_token_id" in generation else read_json(folder / "config.json"))


def _named(tokenizer: Tokenizer, config: Mapping[str, Any], name: str) -> int | None:
    """The id of a token that the configuration names, as a string or as an object with its `content`."""
    value = config.get(name)
    text = value.get("content") if isinstance(value, dict) else value
    if text is not None and not isinstance(text, str):
        raise InvalidModel(f"{name} is {value!r:.100}, expected a token")
    return None if text is None else tokenizer.token_to_id(text)


def _around(tokenizer: Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What the tokenizer's own post-processor sets before and after a text."""
    try:
        encoding = tokenizer.encode("a", add_special_tokens=True)
    except Exception as error:
        raise unable(error) from error
    added = [flag == 1 for flag in encoding.special_tokens_mask]
    if False not in added:
        return tuple(encoding.ids), ()
    start, end = added.index(False), len(added) - added[::-1].index(False)
    return tuple(encoding.ids[:start]), tuple(encoding.ids[end:])


def _spelling(tokenizer: Tokenizer) -> tuple[Callable[[str], bytes], bool]:
    """How tokens spell bytes, and whether a text begins with a space of the tokenizer's own."""
    if tokenizer.decoder is None:
        return word, True
    state = json.loads(tokenizer.decoder.__getstate__())
    steps = {step["type"]: step for step in state.get("decoders", [state])}
    if "ByteLevel" in steps:
        return byte_level, False
    if steps.keys() & {"ByteFallback", "Metaspace", "Replace"}:
        scheme = steps.get("Metaspace", {}).get("prepend_scheme", "never")
        return sentencepiece, "Strip" in steps or scheme != "never"
    if "WordPiece" in steps:
        return wordpiece, True
    if "BPEDecoder" in steps:
        return suffixed, False
    raise Unsupported(f"{FILE} has a decoder of kind {state.get('type')!r:.40}",
                      hint="known are ByteLevel, ByteFallback, Metaspace, WordPiece and BPEDecoder")
