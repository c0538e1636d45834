"""The log of what was asked and answered, in full: one JSON object a line."""
from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from zonda.errors import InvalidRequest


def append(path: str, *records: Mapping[str, Any]) -> None:
    """Add records, each with the time, to a file that only its owner may read; without any, see that this can be done.

    The file is opened anew each time, so that it may be moved away.
    """
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    lines = b"".join(msgspec.json.encode({"time": now, **record}) + b"\n" for record in records)
    try:
        with open(Path(path).expanduser(), "ab", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(lines)
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be written: {error.strerror}", param="log",
                             hint="name another file by --log") from None
