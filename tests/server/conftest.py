"""One server for all tests that only ask, and one with a real model for each file that wants it."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browser import Browser, Page, Pages
from fakes import Server, model, serving
from ui_server import Scripted, scripted

from zonda.sdk import AsyncLLM


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with serving(model(), access_log=False) as server:
        yield server


@pytest.fixture(scope="module")
def real(real_model: Callable[[str], Path]) -> Iterator[Server]:
    llm = AsyncLLM(str(real_model("smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")), max_seq_len=1024)
    with serving(llm, access_log=False) as server:
        yield server


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


@pytest.fixture(scope="session")
def scripts() -> Iterator[Scripted]:
    with scripted() as server:
        yield server


@pytest.fixture
def script(scripts: Scripted) -> Scripted:
    """One scripted server for all, as new."""
    scripts.scripts = [["Hello."]]
    scripts.asked.clear()
    scripts.cards[:] = [{"id": "zonda/breeze-1b", "object": "model", "max_model_len": 8192}]
    return scripts


@pytest.fixture
def pages(browser: Browser, script: Scripted) -> Iterator[Pages]:
    """Opens pages, which in the end must have complained of nothing and asked nobody but the server."""
    opened: list[Page] = []

    def page(url: str = "", **options: object) -> Page:
        opened.append(browser.page(**options))  # type: ignore[arg-type]
        opened[-1].go((url or script.url) + "/ui")
        return opened[-1]

    yield page
    problems = [each.problems for each in opened if each.problems]
    asked = [request for each in opened for request in each.requests]
    for each in {each.context: each for each in opened}.values():
        each.close()
    assert problems == []
    assert all(request.startswith(("http://127.0.0.1:", "data:", "blob:")) for request in asked)
