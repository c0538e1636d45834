"""One server for all tests that only ask, and one with a real model for each file that wants it."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes import Server, model, serving

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
