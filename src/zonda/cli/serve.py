"""`zonda serve`: serve a model over HTTP, as OpenAI's API."""
from __future__ import annotations

from typing import TYPE_CHECKING

import click

from zonda.cli.flags import flags
from zonda.cli.progress import Bars
from zonda.options import EngineOptions, ModelOptions, ServerOptions

if TYPE_CHECKING:
    from zonda.sdk import AsyncLLM


@click.command()
@flags(ModelOptions, EngineOptions, ServerOptions)
def serve(model: ModelOptions, engine: EngineOptions, server: ServerOptions) -> None:
    """Serve a model over HTTP, as OpenAI's API.

    The address is taken at once, and /health answers while the model loads. SIGTERM or Ctrl-C lets running requests
    finish; a second one ends them.
    """
    start(model, engine, server)


def start(model: ModelOptions, engine: EngineOptions, server: ServerOptions) -> None:
    """Serve until told to stop."""
    from zonda.server.listen import serve as listen

    def load() -> AsyncLLM:
        from zonda.sdk import AsyncLLM

        with Bars() as bars:
            return AsyncLLM.from_options(model, engine, progress=bars)

    listen(load, server)
