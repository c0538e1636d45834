"""Where models come from: a path, a repository of the Hugging Face hub, or an alias. The network comes last."""
from __future__ import annotations

import glob
import hashlib
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from zonda.environment import cache_folder, hub_folder, offline
from zonda.errors import InvalidModel, InvalidRequest, ModelNotFound, ZondaError
from zonda.weights import aliases
from zonda.weights.choose import Format, Kind, Wish, check, choose, kind_of
from zonda.weights.hub_errors import CHECK, told, within
from zonda.weights.hub_errors import Unreachable as Unreachable
from zonda.weights.hub_names import guard
from zonda.weights.source import Source

REPO = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9_.][A-Za-z0-9._-]{0,95}")
REVISION = re.compile(r"(?!.*\.\.)[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")
COMMIT = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-f]{64}")
BESIDE = re.compile(r"[^/]+\.(json|jinja)|tokenizer\.model|additional_chat_templates/[^/]+\.jinja")
"""Files that a model needs beside its weights. No code."""
CONFIG = "config.json"
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tekken.json")
PATIENCE = 15.0
"""Seconds to wait for the hub's first answer."""
SHORT_PATIENCE = 4.0
"""The same where there is another place to look."""
Token = str | bool | None


@dataclass(frozen=True, slots=True)
class Files:
    """The local files of one model; `root` has its configuration and tokenizer, `commit` is the hub's."""

    name: str
    root: Path
    weights: tuple[Path, ...]
    kind: Kind
    commit: str | None = None


@dataclass(frozen=True, slots=True)
class Cached:
    """A downloaded model; `size` in bytes, `modified` in seconds since 1970."""

    id: str
    path: Path
    size: int
    modified: float


def resolve(model: str | None, *, file: tuple[str, ...] = (), format: Format | None = None, quant: str | None = None,
            revision: str | None = None, cache_dir: str | Path | None = None, refresh: bool = False,
            progress: bool = False, token: Token = None) -> Files:
    """The local files of the model that is asked for; downloads only what the disk does not have.

    `file` names weight files in the folder or repository, or by themselves local files. `refresh` asks the hub
    for a newer revision even if the model is on the disk. `progress` draws bars on standard error. `token` is the
    hub's, None for what its library finds itself, False for none.
    """
    wish = Wish(_split(file), format, quant)
    if model is None:
        if not wish.files:
            raise InvalidRequest("no model was named", hint="give one with -m, or a .gguf file with -f", param="model")
        return _files_of([Path(name).expanduser() for name in wish.files], wish)
    path = Path(model).expanduser()
    if path.exists() and revision is not None:
        raise InvalidRequest(f"{model:.200} is on this disk, and repositories alone have revisions", param="revision",
                             hint="leave the revision out")
    if path.is_dir():
        return _folder(path, wish, name=path.resolve().name)
    if path.exists():
        return _files_of([path], wish)
    hub = _Hub(_cache(cache_dir), revision, refresh, progress, token)
    if model in aliases.ALIASES:
        return hub.alias(model, wish)
    if path.suffix in (".gguf", ".safetensors") or model.startswith((".", "/", "~")) or "\\" in model:
        raise ModelNotFound(f"there is no file {model:.200}")
    if not REPO.fullmatch(model):
        raise aliases.unknown(model)
    return hub.repo(model, wish)


@dataclass(frozen=True, slots=True)
class Foreseen:
    """A model whose weights are not on the disk: its config.json, or GGUF files without weights; and their bytes."""

    kind: Kind
    files: tuple[Path, ...]
    size: int


def foresee(model: str | None, *, file: tuple[str, ...] = (), format: Format | None = None, quant: str | None = None,
            revision: str | None = None, cache_dir: str | Path | None = None, headers: Path,
            token: Token = None) -> Foreseen | None:
    """What the hub tells of a repository that is not on the disk; downloads no weights, and of GGUF files the headers
    alone, to the folder `headers`. None for everything else: a file tells more.
    """
    if model is None or not REPO.fullmatch(model) or Path(model).expanduser().exists():
        return None
    hub = _Hub(_cache(cache_dir), revision, False, False, token)
    return hub.foreseen(model, Wish(_split(file), format, quant), headers)


def resolve_texts(model: str, *, cache_dir: str | Path | None = None, progress: bool = False,
                  token: Token = None) -> Path:
    """The local folder of a model's tokenizer, chat template and configuration; downloads no weights."""
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    repo = aliases.ALIASES[model].repo if model in aliases.ALIASES else model
    if not REPO.fullmatch(repo):
        raise aliases.unknown(model)
    return _Hub(_cache(cache_dir), None, False, progress, token).texts(repo)


def open_source(files: Files, *, architecture: str | None = None) -> Source:
    """The weights of resolved files under canonical names; `architecture` is the one to take safetensors files for."""
    if files.kind == "gguf":
        if architecture:
            raise InvalidRequest("`arch` is for safetensors files: GGUF files say what they are", param="arch",
                                 hint="leave it out")
        from zonda.weights.gguf import GGUFSource

        return GGUFSource(files.weights)
    from zonda.weights.safetensors import SafetensorsSource

    path = files.weights[0] if len(files.weights) == 1 else files.root
    return SafetensorsSource(path, architecture=architecture)


def _split(files: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for each in files for name in each.split(";") if name)


def _cache(folder: str | Path | None) -> Path:
    return Path(folder).expanduser() if folder else hub_folder()


def cache_list(cache_dir: str | Path | None = None) -> list[Cached]:
    """The models that are on the disk, largest first."""
    hub = _cache(cache_dir)
    found = [(path.name.removeprefix("models--").replace("--", "/"), path) for path in hub.glob("models--*--*")]
    found += [(path.name, path) for path in (cache_folder() / "models").glob("*") if path.name in aliases.ALIASES]
    return sorted((_measure(id, path) for id, path in found if path.is_dir()), key=lambda one: -one.size)


def cache_delete(id: str, cache_dir: str | Path | None = None) -> int:
    """Delete a downloaded model by its id; returns the bytes that this frees."""
    found = [one for one in cache_list(cache_dir) if one.id == id]
    if not found and id in aliases.ALIASES:
        found = [one for one in cache_list(cache_dir) if one.id == aliases.ALIASES[id].repo]
    if not found:
        raise ModelNotFound(f"no downloaded model has the id {id!r:.100}", hint="`zonda cache list` shows the ids")
    for one in found:
        shutil.rmtree(one.path)
        shutil.rmtree(one.path.parent / ".locks" / one.path.name, ignore_errors=True)
    return sum(one.size for one in found)


def _measure(id: str, path: Path) -> Cached:
    stats = list(aliases.files_in(path))
    return Cached(id, path, sum(one.st_size for one in stats), max((one.st_mtime for one in stats), default=0.0))


def _files_of(paths: list[Path], wish: Wish) -> Files:
    if len(paths) == 1 and _hides_gguf(paths[0]):
        check("gguf", wish, str(paths[0]))
        return Files(paths[0].name, paths[0].parent, tuple(paths), "gguf")
    kind = kind_of(path.name for path in paths)
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise ModelNotFound(f"there is no file {missing[0]}")
    root = paths[0].parent
    if any(path.parent.resolve() != root.resolve() for path in paths):
        raise InvalidModel("the weight files lie in several folders", hint="put all shards of a model in one folder")
    named = replace(wish, files=tuple(path.name for path in paths))
    _, names = choose([path.name for path in root.iterdir()], named, str(root))
    return Files(paths[0].stem, root, tuple(root / name for name in names), kind)


def _hides_gguf(path: Path) -> bool:
    """Whether a file of another name is GGUF by its first bytes, as the blobs of some model stores are."""
    if path.suffix in (".gguf", ".safetensors") or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"


def _folder(root: Path, wish: Wish, *, name: str, commit: str | None = None) -> Files:
    kind, chosen = choose(_listing(root), wish, str(root))
    if kind == "safetensors" and not wish.files:
        from zonda.weights.safetensors import weight_files

        return Files(name, root, tuple(weight_files(root)), kind, commit)
    return Files(name, root, tuple(root / one for one in chosen), kind, commit)


def _listing(root: Path) -> list[str]:
    found = [*root.glob("*"), *root.glob("*/*.gguf")]
    return [path.relative_to(root).as_posix() for path in found if path.is_file()]


@dataclass(frozen=True, slots=True)
class _Hub:
    """The hub and its cache, as one call sees them."""

    cache: Path
    revision: str | None
    refresh: bool
    progress: bool
    token: Token = None

    def alias(self, name: str, wish: Wish) -> Files:
        """An alias's own choice of file stands unless the user made one."""
        alias = aliases.ALIASES[name]
        if alias.file and not wish.files and wish.quant is None and wish.format != "plain":
            wish = Wish(files=(alias.file,))
        packaged = alias.package is not None and wish.files == (alias.file,) and self.revision is None
        path = aliases.cached(name) if packaged else None
        if path is not None:
            return Files(name, path.parent, (path,), "gguf")
        try:
            return self.repo(alias.repo, wish, name=name, patience=SHORT_PATIENCE if packaged else PATIENCE)
        except ModelNotFound as error:
            if not packaged or offline():
                raise
            path = self._packaged(name, error)
        return Files(name, path.parent, (path,), "gguf")

    def _packaged(self, name: str, reason: ModelNotFound) -> Path:
        package = aliases.ALIASES[name].package
        try:
            with _bar(f"Downloading {name}", package.size if package else 0, self.progress) as bar:
                return aliases.fetch(name, bar)
        except ModelNotFound as error:
            raise Unreachable(f"{name} cannot be fetched. {reason.message}. {error.message}", hint=CHECK) from error

    def repo(self, repo: str, wish: Wish, *, name: str | None = None, patience: float = PATIENCE) -> Files:
        if self.revision is not None and not REVISION.fullmatch(self.revision):
            raise InvalidRequest(f"{self.revision!r:.100} is no revision", param="revision",
                                 hint="give a branch, a tag or a commit")
        if any(part in ("", ".", "..") for one in wish.files for part in re.split(r"[/\\]", one)):
            raise InvalidRequest(f"{wish.files[0]!r:.100} is no file of a repository", param="file")
        name = name or repo
        found = None if self.refresh and not offline() else self._on_disk(repo, wish, name)
        if isinstance(found, Files):
            return found
        if offline():
            raise self._not_on_disk(repo, found)
        try:
            return self._downloaded(repo, wish, name, patience)
        except Unreachable as error:
            kept = found or self._on_disk(repo, wish, name)
            if isinstance(kept, Files):
                return kept
            raise error from None

    def _on_disk(self, repo: str, wish: Wish, name: str) -> Files | ZondaError | None:
        """The model in the cache; None if there is nothing of it, an error if something is missing."""
        folder = self._snapshot(repo)
        if folder is None:
            return None
        try:
            files = _folder(folder, wish, name=name, commit=folder.name)
        except ZondaError as error:
            return error
        if files.kind == "safetensors":
            for wanted in ((CONFIG,), TOKENIZERS):
                if not any((folder / one).is_file() for one in wanted):
                    return InvalidModel(f"the download of {repo} lacks {wanted[0]}")
        return files

    def _snapshot(self, repo: str) -> Path | None:
        place = self.cache / f"models--{repo.replace('/', '--')}"
        commit = self.revision or "main"
        if not COMMIT.fullmatch(commit):
            try:
                commit = (place / "refs" / commit).read_text().strip()
            except (OSError, UnicodeDecodeError):
                return None
        folder = place / "snapshots" / commit
        return folder if COMMIT.fullmatch(commit) and folder.is_dir() else None

    def _not_on_disk(self, repo: str, found: ZondaError | None) -> ZondaError:
        state = "is downloaded only in part" if found else "is not on this disk"
        detail = f": {found.message}" if found else ""
        return Unreachable(f"{repo} {state}, and HF_HUB_OFFLINE forbids to download it{detail}",
                           hint="unset HF_HUB_OFFLINE, or name a local file or folder")

    def texts(self, repo: str) -> Path:
        """The folder of a repository's tokenizer and configuration, without its weights."""
        folder = self._snapshot(repo)
        if folder is not None and any((folder / one).is_file() for one in TOKENIZERS):
            return folder
        if offline():
            raise self._not_on_disk(repo, None)
        return self._download(repo, lambda names: (), PATIENCE)

    def _downloaded(self, repo: str, wish: Wish, name: str, patience: float) -> Files:
        folder = self._download(repo, lambda names: choose(names, wish, repo)[1], patience)
        files = _folder(folder, wish, name=name, commit=folder.name)
        for path in files.weights:
            _verify(path)
        return files

    def foreseen(self, repo: str, wish: Wish, headers: Path) -> Foreseen | None:
        if offline() or isinstance(self._on_disk(repo, wish, repo), Files):
            return None
        commit, sizes = self._listed(repo, PATIENCE)
        kind, chosen = choose(list(sizes), wish, repo)
        size = sum(sizes[name] for name in chosen)
        if kind == "safetensors":
            return Foreseen(kind, (self._fetch(repo, commit, [CONFIG]) / CONFIG,), size) if CONFIG in sizes else None
        from zonda.weights.headers import fetch_header

        found = {name: headers / name.rpartition("/")[2] for name in chosen}
        with told(repo, self.revision):
            for name, path in found.items():
                fetch_header(repo, name, self.revision, sizes[name], path, token=self.token, patience=PATIENCE)
        return Foreseen(kind, tuple(found.values()), size)

    def _download(self, repo: str, pick: Callable[[list[str]], Sequence[str]], patience: float) -> Path:
        """Download the picked files of a repository and what belongs beside weights."""
        commit, sizes = self._listed(repo, patience)
        return self._fetch(repo, commit, [*pick(list(sizes)), *(one for one in sizes if BESIDE.fullmatch(one))])

    def _listed(self, repo: str, patience: float) -> tuple[str, dict[str, int]]:
        """The commit of a repository, and its files and their bytes."""
        from huggingface_hub import HfApi

        with told(repo, self.revision):
            asked = HfApi(token=self.token)
            info = within(patience, lambda: asked.model_info(repo, revision=self.revision, timeout=patience,
                                                             files_metadata=True))
            if not COMMIT.fullmatch(info.sha or ""):
                raise ValueError(f"its commit is {info.sha!r:.100}")
            return str(info.sha), {one.rfilename: one.size or 0 for one in info.siblings or []
                                   if ".." not in one.rfilename}

    def _fetch(self, repo: str, commit: str, wanted: Sequence[str]) -> Path:
        """The folder of a commit with the files that are wanted of it."""
        from huggingface_hub import snapshot_download

        guard()
        with told(repo, self.revision), _bars(self.progress) as drawn:
            folder = Path(snapshot_download(repo, revision=commit, cache_dir=self.cache, tqdm_class=drawn,
                                            token=self.token, allow_patterns=[glob.escape(one) for one in wanted]))
        if self.revision != commit:
            reference = folder.parent.parent / "refs" / (self.revision or "main")
            reference.parent.mkdir(parents=True, exist_ok=True)
            reference.write_text(commit)
        return folder


def _verify(path: Path) -> None:
    """Compare a downloaded file with the sha256 that the cache names it by."""
    blob = path.resolve()
    if not SHA256.fullmatch(blob.name):
        return
    with blob.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != blob.name:
        blob.unlink()
        path.unlink(missing_ok=True)
        raise InvalidModel(f"{path.name} arrived with the hash {found}, expected {blob.name}",
                           hint="it was deleted: download the model again")


@contextmanager
def _bars(shown: bool) -> Iterator[type]:
    from zonda.weights.progress import Silent, bars

    if not shown:
        yield Silent
        return
    with bars() as drawn:
        yield drawn


@contextmanager
def _bar(title: str, total: int, shown: bool) -> Iterator[Callable[[int], None] | None]:
    if not shown:
        yield None
        return
    from zonda.weights.progress import bar

    with bar(title, total) as update:
        yield update
