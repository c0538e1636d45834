"""One server for all tests that only ask."""
from __future__ import annotations

from collections.abc import Iterator

import pytest
from fakes import Server, model, serving


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with serving(model(), access_log=False) as server:
        yield server
