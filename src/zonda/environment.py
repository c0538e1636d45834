"""What Zonda is told by its environment; no other module reads variables."""
from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from zonda.errors import InvalidRequest


def variable(name: str) -> str | None:
    """The value of a variable; None if it is not set, or empty."""
    return os.environ.get(name) or None


def cache_folder() -> Path:
    """Where compiled kernels, re-tiled weights and fetched aliases lie: ZONDA_CACHE, else the user's cache folder."""
    return _folder("ZONDA_CACHE") or _user_folder("XDG_CACHE_HOME", ".cache") / "zonda"


def believe_terminals() -> None:
    """Drop COLUMNS and LINES where a terminal tells its size: a shell may have set them before that changed."""
    for descriptor in (1, 2):
        with suppress(OSError):
            if os.get_terminal_size(descriptor).columns:
                os.environ.pop("COLUMNS", None)
                os.environ.pop("LINES", None)


def words_to_complete() -> list[str]:
    """The words of the command line that a shell wants completed, a line each; the last one is the one to complete."""
    return (variable("COMP_WORDS") or "\n").split("\n")


def keep_gpu_kernels() -> None:
    """Have Triton and FlashAttention keep what they compile in the cache folder, unless variables of theirs tell else.

    FlashAttention reads them when it is imported.
    """
    os.environ.setdefault("TRITON_CACHE_DIR", str(cache_folder() / "triton"))
    os.environ.setdefault("FLASH_ATTENTION_CUTE_DSL_CACHE_ENABLED", "1")
    os.environ.setdefault("FLASH_ATTENTION_CUTE_DSL_CACHE_DIR", str(cache_folder() / "flash-attention"))


def config_folder() -> Path:
    """Where the prompt history lies: ZONDA_CONFIG, else the user's configuration folder."""
    return _folder("ZONDA_CONFIG") or _user_folder("XDG_CONFIG_HOME", ".config") / "zonda"


def _user_folder(instead: str, name: str) -> Path:
    try:
        return _folder(instead) or Path.home() / name
    except RuntimeError:
        raise InvalidRequest("this user has no home folder", hint=f"set HOME or {instead}") from None


def _folder(name: str) -> Path | None:
    named = variable(name)
    return Path(named) if named else None


def hub_folder() -> Path:
    """The Hugging Face cache, as huggingface_hub finds it: HF_HUB_CACHE, HF_HOME, else the user's cache folder."""
    return _folder("HF_HUB_CACHE") or _hub_home() / "hub"


def token_file() -> Path:
    """Where huggingface_hub looks for the stored token: HF_TOKEN_PATH, else in HF_HOME."""
    return _folder("HF_TOKEN_PATH") or _hub_home() / "token"


def _hub_home() -> Path:
    return _folder("HF_HOME") or _user_folder("XDG_CACHE_HOME", ".cache") / "huggingface"


def hub_token(source: str) -> str | bool | None:
    """The token that a `token_source` names; None for what the hub's library finds itself, False for none."""
    kind, _, rest = source.partition(":")
    if source in ("cache", "none"):
        return None if source == "cache" else False
    try:
        found = {"literal": lambda: rest, "env": lambda: os.environ[rest],
                 "path": lambda: Path(rest).expanduser().read_text("utf-8")}[kind]().strip()
    except (KeyError, OSError, UnicodeDecodeError):
        found = ""
    if not found:
        raise InvalidRequest(f"there is no token in {kind if kind == 'literal' else source!r:.100}",
                             param="token_source", hint="expected cache, none, env:NAME, path:FILE or literal:TOKEN")
    return found


def hub_address() -> str:
    """The model hub's address, which HF_ENDPOINT may replace."""
    from huggingface_hub.constants import ENDPOINT

    return ENDPOINT


def c_compiler() -> str | None:
    """The C compiler that Triton would take."""
    return variable("CC") or shutil.which("gcc") or shutil.which("clang")


def offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids the network."""
    return (variable("HF_HUB_OFFLINE") or "").lower() in {"1", "true", "yes", "on"}
