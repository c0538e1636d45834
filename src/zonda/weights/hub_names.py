"""Names that a hub gives: its library makes paths of them, and none may lead out of the cache."""
from __future__ import annotations

import re
from functools import cache
from typing import Any

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+-]{0,199}")
_COMMIT = "X-Repo-Commit"


@cache
def guard() -> None:
    """Have the hub's library refuse, with ValueError, a file's tag or commit that is more than a plain name.

    It names blobs, locks and folders by what servers send, without a look at it, and has no other place to step in:
    what is checked before it asks may be another answer than the one that it gets. Where it takes names from a listing
    instead, a function of its own gathers them, as long as it has that.
    """
    from huggingface_hub import file_download as library
    from huggingface_hub.errors import HfHubHTTPError

    asked, gathered = library.get_hf_file_metadata, getattr(library, "_get_metadata_or_catch_error", None)

    def told(*args: Any, **options: Any) -> Any:
        try:
            metadata = asked(*args, **options)
        except HfHubHTTPError as error:
            check(error.response.headers.get(_COMMIT))  # a file that is absent is kept in mind by a file, too
            raise
        check(metadata.etag, metadata.commit_hash)
        return metadata

    def checked(*args: Any, **options: Any) -> Any:
        assert gathered
        metadata = gathered(*args, **options)
        _, tag, commit, *_ = metadata
        check(tag, commit)
        return metadata

    library.get_hf_file_metadata = told
    if gathered:
        library._get_metadata_or_catch_error = checked


def check(*names: str | None) -> None:
    """Raise ValueError for a name that is no name of a file in a folder."""
    for name in names:
        if name is not None and not _PLAIN.fullmatch(name):
            raise ValueError(f"it names a file {name!r:.100}")
