"""Real GGUF vocabularies against llama.cpp, transformers, and lists of expected ids."""
from __future__ import annotations

import ctypes
import os
import random
import unicodedata
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from vocabularies import CORPUS, PIECES

from zonda.text.stream import Stream
from zonda.text.tokenizer import Tokenizer
from zonda.weights.gguf import parse
from zonda.weights.mapped import Mapped

pytestmark = pytest.mark.e2e

SMOLLM2 = "smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GEMMA3 = "gemma3-270m/gemma-3-270m-q4_k_m.gguf"
BETWEEN = "\n__ggml_vocab_test__\n"
FIND = Callable[[str], Path]


@cache
def tokenizer_of(path: Path) -> Tokenizer:
    return Tokenizer.from_gguf(parse(Mapped(path))[0])


def samples(tokenizer: Tokenizer, count: int = 300) -> Iterator[str]:
    """Random texts of everything, with the vocabulary's own tokens among it."""
    random_ = random.Random(1)
    own = [text for text in tokenizer.vocabulary.added.values() if "▁" not in text][:60]
    pieces = [piece for piece in PIECES if unicodedata.normalize("NFC", piece) == piece and "▁" not in piece]
    yield from CORPUS
    for _ in range(count):
        yield "".join(random_.choices(pieces + own, k=random_.randint(1, 20)))


@pytest.mark.parametrize("name", [SMOLLM2, GEMMA3])
def test_texts_survive_the_round_trip(real_model: FIND, name: str) -> None:
    tokenizer = tokenizer_of(real_model(name))
    for text in samples(tokenizer):
        ids = tokenizer.encode(text, add_special=False)
        assert tokenizer.decode(ids, skip_special=False) == text
        stream = Stream(tokenizer)
        assert "".join(stream.feed([token]) for token in ids) + stream.finish() == tokenizer.decode(ids)


@pytest.mark.parametrize(("name", "text", "ids"), [
    (SMOLLM2, "<|im_start|>user\nHello world 123<|im_end|>", [1, 4093, 198, 19556, 905, 216, 33, 34, 35, 2]),
    (GEMMA3, "<start_of_turn>user\nHello  world", [2, 105, 2364, 107, 9259, 138, 12392]),
])
def test_known_texts_have_their_known_ids(real_model: FIND, name: str, text: str, ids: list[int]) -> None:
    assert tokenizer_of(real_model(name)).encode(text) == ids


@pytest.mark.parametrize(("name", "ends"), [
    (SMOLLM2, {"<|im_end|>", "<|endoftext|>"}), (GEMMA3, {"<eos>", "<end_of_turn>"})])
def test_the_ends_are_known(real_model: FIND, name: str, ends: set[str]) -> None:
    tokenizer = tokenizer_of(real_model(name))
    assert {tokenizer.token(token) for token in tokenizer.eos_ids} == ends


@pytest.mark.parametrize("name", [SMOLLM2, GEMMA3])
def test_ids_are_those_of_transformers(real_model: FIND, name: str) -> None:
    from transformers.integrations.gguf.gguf_tokenizer_mapping import convert_gguf_tokenizer, get_gguf_tokenizer

    path = real_model(name)
    architecture, fields, _ = get_gguf_tokenizer(str(path))
    theirs, ours = convert_gguf_tokenizer(architecture, fields)[0], tokenizer_of(path)
    single_digits = name == SMOLLM2  # the conversion there cuts as GPT-2 does, not as the file says
    for text in samples(ours):
        if not (single_digits and any(each.isnumeric() for each in text)):
            assert ours.encode(text, add_special=False) == theirs.encode(text, add_special_tokens=False).ids


class LlamaCpp:
    """The tokenizer of llama.cpp for a file."""

    def __init__(self, path: Path) -> None:
        self.library = pytest.importorskip("llama_cpp.llama_cpp", reason="llama-cpp-python is not installed")
        self._quiet = self.library.llama_log_callback(lambda *_: None)
        self.library.llama_log_set(self._quiet, ctypes.c_void_p(0))
        options = self.library.llama_model_default_params()
        options.vocab_only = True
        self.model = self.library.llama_model_load_from_file(str(path).encode(), options)
        self.vocab = self.library.llama_model_get_vocab(self.model)

    def encode(self, text: str) -> list[int]:
        room = (self.library.llama_token * (len(text.encode()) + 8))()
        count = self.library.llama_tokenize(self.vocab, text.encode(), len(text.encode()), room, len(room), False, True)
        return list(room[:count])


@pytest.mark.parametrize("name", [SMOLLM2, GEMMA3])
def test_ids_are_those_of_llama_cpp(real_model: FIND, name: str) -> None:
    path = real_model(name)
    theirs, ours = LlamaCpp(path), tokenizer_of(path)
    for text in samples(ours):
        assert ours.encode(text, add_special=False) == theirs.encode(text)


def expected() -> list[Any]:
    """Vocabulary files below ZONDA_TEST_MODELS that have texts and ids beside them."""
    folder = os.environ.get("ZONDA_TEST_MODELS")
    found = sorted(Path(folder).rglob("ggml-vocab-*.gguf.out")) if folder else []
    return [pytest.param(path, id=path.name.split(".")[0]) for path in found]


@pytest.mark.parametrize("path", expected())
def test_ids_are_the_expected_ones(path: Path) -> None:
    tokenizer = tokenizer_of(path.with_suffix(""))
    texts = path.with_suffix(".inp").read_text(encoding="utf-8").split(BETWEEN)
    for text, ids in zip(texts, path.read_text().split("\n")):
        if unicodedata.is_normalized("NFC", text):  # some of the lists leave out that the tokenizer composes
            assert tokenizer.encode(text, add_special=False) == [int(each) for each in ids.split()]
