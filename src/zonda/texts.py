"""A model's texts: its tokenizer, its chat template and its sampling defaults, from the files that have them."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zonda.options import ModelOptions
from zonda.text.folder_tokenizer import end_ids, read_json
from zonda.text.template import ChatTemplate
from zonda.text.template_files import find_template
from zonda.text.tokenizer import Tokenizer


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
        return cls(tokenizer, template, read_json(root / "generation_config.json") if own else {})

    @property
    def ends(self) -> frozenset[int]:
        """The token ids that end a text."""
        return self.tokenizer.eos_ids | end_ids(self.defaults)

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
    """The chat template that the options name, else that of the folder, else that of the GGUF metadata; None without.

    Where another model's tokenizer was asked for, the metadata's template does not count.
    """
    return find_template(folder=root, metadata={} if options.tok_model else metadata,
                         explicit=_path(options.jinja_explicit), chosen=_path(options.chat_template),
                         tokenizer=tokenizer)


def _path(name: str | None) -> Path | None:
    return Path(name).expanduser() if name else None
