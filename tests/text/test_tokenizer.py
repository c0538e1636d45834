"""Tokenizers as their users see them: from folders and GGUF metadata, with what is added and what is left out."""
from __future__ import annotations

import contextlib
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Library
from transformers import BertTokenizer
from vocabularies import CONTROL, CORPUS, KEY, NORMAL, USER_DEFINED, byte_level, pieces

from zonda.errors import InvalidModel, InvalidRequest, ModelNotFound, Unsupported, ZondaError
from zonda.text.tokenizer import Tokenizer


def library(*, decoder: Any = None, processor: Any = None) -> Library:
    """A byte-level tokenizer as a repository would hold it."""
    metadata = byte_level("gpt-2")
    vocab = {token: id for id, token in enumerate(metadata[KEY + "tokens"])}
    tokenizer = Library(models.BPE(vocab, [tuple(merge.split(" ")) for merge in metadata[KEY + "merges"]]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoder or decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "<|im_end|>"])
    tokenizer.add_tokens([AddedToken("<tool>", normalized=False)])
    if processor:
        tokenizer.post_processor = processor
    return tokenizer


def saved(folder: Path, tokenizer: Library, **files: Any) -> Path:
    tokenizer.save(str(folder / "tokenizer.json"))
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    return folder


BOS = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 0)])
BOTH = processors.TemplateProcessing(single="<s> $A <|im_end|>", pair="<s> $A $B",
                                     special_tokens=[("<s>", 0), ("<|im_end|>", 1)])


def test_a_folder_and_a_gguf_file_of_one_tokenizer_agree(tmp_path: Path) -> None:
    ours, theirs = Tokenizer.from_file(saved(tmp_path, library())), Tokenizer.from_gguf(byte_level("gpt-2"))
    for text in CORPUS:
        assert ours.encode(text) == theirs.encode(text)
        assert ours.decode(ours.encode(text)) == text
    assert [ours.token_bytes(id) for id in range(ours.vocab_size)] == [theirs.token_bytes(id)
                                                                       for id in range(theirs.vocab_size)]


def test_a_file_is_as_good_as_its_folder(tmp_path: Path) -> None:
    saved(tmp_path, library(), tokenizer_config={"eos_token": "<|im_end|>"})
    assert Tokenizer.from_file(tmp_path / "tokenizer.json").eos_token == "<|im_end|>"


def test_code_that_a_repository_names_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "tokenization_evil.py").write_text("raise SystemExit('it ran')")
    config = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["tokenization_evil.Evil", None]}}
    assert Tokenizer.from_file(saved(tmp_path, library(), tokenizer_config=config)).encode("the")


@pytest.mark.parametrize(("processor", "config", "before", "after"), [
    (None, {}, [], []),
    (BOS, {}, [0], []),
    (BOTH, {}, [0], [1]),
    (None, {"bos_token": "<s>", "add_bos_token": True}, [0], []),
    (BOS, {"bos_token": "<s>", "add_bos_token": False}, [], []),
    (BOS, {"bos_token": "<s>", "eos_token": {"content": "<|im_end|>"}, "add_eos_token": True}, [], [1]),
    (None, {"add_bos_token": True, "bos_token": None}, [], []),
])
def test_what_is_set_around_a_text_is_what_the_repository_says(tmp_path: Path, processor: Any, config: dict[str, Any],
                                                               before: list[int], after: list[int]) -> None:
    tokenizer = Tokenizer.from_file(saved(tmp_path, library(processor=processor), tokenizer_config=config))
    inner = tokenizer.encode("the", add_special=False)
    assert tokenizer.encode("the") == before + inner + after
    assert tokenizer.encode_chat("the") == before + inner


def test_bos_and_eos_are_never_doubled(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(saved(tmp_path, library(processor=BOTH)))
    once = tokenizer.encode("the")
    assert tokenizer.encode("<s>the") == tokenizer.encode("<s>the<|im_end|>") == once
    assert tokenizer.encode_chat("<s>the") == once[:-1]
    assert tokenizer.encode("<s><s>the") == [0, *once]
    assert tokenizer.encode("") == [0, 1]


@pytest.mark.parametrize(("files", "ends"), [
    ({}, {1}),
    ({"generation_config": {"eos_token_id": 7}}, {1, 7}),
    ({"generation_config": {"eos_token_id": [7, 8]}, "config": {"eos_token_id": 9}}, {1, 7, 8}),
    ({"config": {"eos_token_id": 9}}, {1, 9}),
    ({"special_tokens_map": {"eos_token": {"content": "<s>"}}}, {0, 1}),
    ({"special_tokens_map": {"eos_token": "<s>"}, "tokenizer_config": {"eos_token": "<|im_end|>"}}, {1}),
])
def test_a_text_ends_with_what_any_of_the_files_names(tmp_path: Path, files: dict[str, Any], ends: set[int]) -> None:
    assert Tokenizer.from_file(saved(tmp_path, library(), **files)).eos_ids == ends


@pytest.mark.parametrize("value", [-1, "x", [1, "x"], 1.5, True])
def test_an_end_that_is_no_id_is_refused(tmp_path: Path, value: Any) -> None:
    with pytest.raises(InvalidModel, match="eos_token_id"):
        Tokenizer.from_file(saved(tmp_path, library(), generation_config={"eos_token_id": value}))


@pytest.mark.parametrize(("decoder", "tokens", "text"), [
    (decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]),
     "▁a <0xC3> <0xA9>", " aé"),
    (decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                        decoders.Strip(" ", 1, 0)]), "▁a ▁b", "a b"),
    (decoders.Metaspace(), "▁a ▁b c", "a bc"),
    (decoders.Metaspace(prepend_scheme="never"), "▁a ▁b c", " a bc"),
    (decoders.WordPiece(), "a ##b c", "ab c"),
    (decoders.BPEDecoder(), "a b</w> c</w>", "ab c "),
    (None, "a b", "a b"),
])
def test_each_way_of_spelling_is_decoded(tmp_path: Path, decoder: Any, tokens: str, text: str) -> None:
    names = tokens.split(" ")
    tokenizer = Library(models.WordLevel({name: id for id, name in enumerate(names)}, unk_token=names[0]))
    tokenizer.decoder = decoder
    assert Tokenizer.from_file(saved(tmp_path, tokenizer)).decode(range(len(names))) == text


def test_a_decoder_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="CTC"):
        Tokenizer.from_file(saved(tmp_path, library(decoder=decoders.CTC())))


@pytest.mark.parametrize(("file", "content", "error"), [
    ("tokenizer.json", "{", InvalidModel), ("tokenizer.json", "{}", InvalidModel),
    ("tokenizer.json", '{"model": {"type": "BPE", "vocab": {"a": 99999999999999999999}}}', InvalidModel),
    ("tokenizer.model", "", Unsupported), ("tekken.json", "", Unsupported), ("readme.md", "", ModelNotFound)])
def test_a_folder_without_a_sound_tokenizer_is_refused(tmp_path: Path, file: str, content: str,
                                                       error: type[Exception]) -> None:
    (tmp_path / file).write_text(content)
    with pytest.raises(error, match=r"tokenizer\.json"):
        Tokenizer.from_file(tmp_path)


def test_a_tokenizer_that_cannot_encode_is_refused_or_says_so(tmp_path: Path) -> None:
    """Where it has no token for what it does not know."""
    known = Library(models.WordPiece({"a": 0}, unk_token="[UNK]"))
    tokenizer = Tokenizer.from_file(saved(tmp_path, known))
    assert tokenizer.encode("a") == [0]
    with pytest.raises(InvalidModel, match=r"fails to encode.*\[UNK\]"):
        tokenizer.encode("b")
    with pytest.raises(InvalidModel, match="fails to encode"):
        Tokenizer.from_file(saved(tmp_path, Library(models.Unigram([("b", 0.0)]))))


def changed(value: Any, data: st.DataObject) -> Any:
    """A value of JSON with something in it replaced, left out or put elsewhere."""
    if not isinstance(value, dict | list) or not value or data.draw(st.integers(0, 4)) == 0:
        return data.draw(st.sampled_from([None, True, -1, 2**64, 1e308, "", "\0", "(a+)+$", [], {}, [None], {"a": 1}]))
    places = list(value) if isinstance(value, dict) else list(range(len(value)))
    place = data.draw(st.sampled_from(places[:20]))
    if data.draw(st.booleans()):
        other = {key: value[key] for key in places if key != place} if isinstance(value, dict) else value[:place]
        return other if data.draw(st.booleans()) else value[place]
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[place] = changed(value[place], data)
    return copy


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_changed_tokenizer_is_read_or_refused(data: st.DataObject) -> None:
    sound = json.loads(data.draw(st.sampled_from([
        library(processor=BOTH), Library(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]")),
        Library(models.Unigram([("<unk>", 0.0), ("a", -1.0)], 0, True))])).to_str())
    config = {"bos_token": "<s>", "eos_token": {"content": "<|im_end|>"}, "add_bos_token": True}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "tokenizer.json").write_text(json.dumps(changed(sound, data)))
        Path(folder, "tokenizer_config.json").write_text(json.dumps(changed(config, data)))
        with contextlib.suppress(ZondaError):
            tokenizer = Tokenizer.from_file(folder)
            tokenizer.decode([*tokenizer.encode("ab é\n<s>"), 0, 10**6])
            assert tokenizer.longest >= 0 and all(isinstance(id, int) for id in tokenizer.eos_ids)


@pytest.mark.parametrize("content", ["[]", "{", "[" * 100_000, '{"bos_token": 3}'])
def test_a_damaged_configuration_is_refused(tmp_path: Path, content: str) -> None:
    saved(tmp_path, library())
    (tmp_path / "tokenizer_config.json").write_text(content)
    with pytest.raises(InvalidModel):
        Tokenizer.from_file(tmp_path)


def test_special_tokens_are_found_in_text_and_left_out_of_decoded_text() -> None:
    tokenizer = Tokenizer.from_gguf(byte_level("gpt-2"))
    ids = tokenizer.encode("<s>a<tool>b<|im_end|>")
    assert ids[0] == 0 and ids[-1] == 1 and 2 in ids
    assert tokenizer.decode(ids) == "a<tool>b"
    assert tokenizer.decode(ids, skip_special=False) == "<s>a<tool>b<|im_end|>"
    assert tokenizer.special_ids == {0, 1}


def test_tokens_have_names_ids_and_bytes() -> None:
    tokenizer = Tokenizer.from_gguf(byte_level("gpt-2"))
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token) == ("<s>", "<|im_end|>", None)
    assert [tokenizer.id(each) for each in ("<s>", "<|im_end|>", "<tool>", "no such")] == [0, 1, 2, None]
    assert tokenizer.token_bytes(tokenizer.encode("é")[0]) in "é".encode()
    assert tokenizer.token_bytes(2) == b"<tool>"
    assert tokenizer.token_bytes(10**6) == b"" and tokenizer.token(10**6) is None and tokenizer.token(-1) is None


@pytest.fixture(params=["gpt2", "llama"])
def trained(request: pytest.FixtureRequest) -> Tokenizer:
    """A tokenizer of the library, and one of our own making."""
    return Tokenizer.from_gguf(byte_level("gpt-2") if request.param == "gpt2" else pieces()[1])


def test_half_a_surrogate_pair_becomes_a_replacement_character(trained: Tokenizer) -> None:
    assert trained.decode(trained.encode("a\ud800b", add_special=False)) == "a\ufffdb"


def test_a_prompt_that_is_no_text_is_the_requests_fault(trained: Tokenizer) -> None:
    with pytest.raises(InvalidRequest, match="bytes"):
        trained.encode(b"a")  # type: ignore[arg-type]


def named(*names: str, types: list[int] | None = None, **more: Any) -> Tokenizer:
    metadata = {KEY + "model": "gpt2", KEY + "tokens": ["a", "b", "ab", *names], KEY + "merges": ["a b"],
                KEY + "token_type": [NORMAL] * 3 + (types or [CONTROL] * len(names))}
    return Tokenizer.from_gguf(metadata | {KEY + name: value for name, value in more.items()})


@pytest.mark.parametrize(("tokenizer", "ends"), [
    (named(), []),
    (named("<eos>", eos_token_id=3), ["<eos>"]),
    (named("<eos>", "<eot>", "<eom>", eos_token_id=3, eot_token_id=4, eom_token_id=5), ["<eom>", "<eos>", "<eot>"]),
    (named("<|im_end|>", "<end_of_turn>", "<|eot_id|>"), ["<end_of_turn>", "<|eot_id|>", "<|im_end|>"]),
    (named("<|end_of_text|>", "<|end|>", "<|endoftext|>"), ["<|end_of_text|>", "<|end|>", "<|endoftext|>"]),
    (named("<|im_end|>", types=[USER_DEFINED]), ["<|im_end|>"]),
    (named("<|im_end|>", types=[NORMAL]), ["<|im_end|>"]),
    (named("<|end|>", "<|return|>", "<|call|>"), ["<|call|>", "<|return|>"]),
    (named("<pad>", padding_token_id=3), []),
])
def test_the_ends_of_a_gguf_file_are_those_it_names_and_the_known_ones(tokenizer: Tokenizer, ends: list[str]) -> None:
    assert sorted(str(tokenizer.token(id)) for id in tokenizer.eos_ids) == sorted(ends)


def test_the_end_of_a_turn_is_found_in_text_though_a_file_calls_it_a_normal_token() -> None:
    assert named("<|im_end|>", types=[NORMAL]).encode("a<|im_end|>b") == [0, 3, 1]


@pytest.mark.parametrize(("flags", "ids"), [
    ({}, [2]), ({"add_bos_token": True}, [3, 2]), ({"add_eos_token": True}, [2, 4]), ({"pre": "llama-bpe"}, [3, 2]),
    ({"pre": "llama-bpe", "add_bos_token": False}, [2])])
def test_a_gguf_file_says_what_is_set_around_a_text(flags: dict[str, Any], ids: list[int]) -> None:
    assert named("<s>", "</s>", bos_token_id=3, eos_token_id=4, **flags).encode("ab") == ids


def test_word_pieces_give_the_ids_of_bert() -> None:
    tokenizer = Library(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=300, special_tokens=special,
                                                                    show_progress=False))
    vocab = tokenizer.get_vocab()
    names = sorted(vocab, key=vocab.__getitem__)
    texts = [name if name in special else name[2:] if name.startswith("##") else "▁" + name for name in names]
    metadata = {KEY + "model": "bert", KEY + "tokens": texts, KEY + "bos_token_id": 2, KEY + "unknown_token_id": 1,
                KEY + "token_type": [CONTROL] * 5 + [NORMAL] * (len(texts) - 5), KEY + "seperator_token_id": 3}
    ours, theirs = Tokenizer.from_gguf(metadata), BertTokenizer(vocab=vocab)
    for text in [*CORPUS, "", " ", "a [MASK] b", "x" * 200, "Ünïcödé ÀÉ"]:
        assert ours.encode(text) == theirs.encode(text)
    assert ours.decode(ours.encode("The quick fox, lazy")) == "the quick fox , lazy"
