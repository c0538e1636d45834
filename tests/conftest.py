"""What tests of every kind share."""
from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

os.environ |= {"NO_PROXY": "*", "no_proxy": "*"}  # all that tests talk to is on this machine
hypothesis.settings.load_profile("ci")  # the same examples every time, however slow; --hypothesis-profile finds others


@pytest.fixture(autouse=True)
def _own_folders(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory,
                 monkeypatch: pytest.MonkeyPatch) -> None:
    """No test writes into the user's configuration."""
    monkeypatch.setenv("ZONDA_CONFIG", str(tmp_path_factory.getbasetemp() / "config"))


@pytest.fixture(scope="session")
def real_model() -> Callable[[str], Path]:
    """Finds a real model's file below ZONDA_TEST_MODELS, or skips the test."""
    def find(name: str) -> Path:
        folder = os.environ.get("ZONDA_TEST_MODELS")
        if not folder:
            pytest.skip("ZONDA_TEST_MODELS is not set")
        path = Path(folder) / name
        if not path.is_file():
            pytest.skip(f"no {name} below ZONDA_TEST_MODELS")
        return path

    return find
