"""`zonda serve`: serve models over HTTP, as OpenAI's API."""
from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from zonda.cli.flags import flags
from zonda.cli.main import Terminated
from zonda.cli.progress import Bars
from zonda.options import EngineOptions, ModelOptions, ServedOptions, ServerOptions

if TYPE_CHECKING:
    from zonda.sdk import AsyncLLM
    from zonda.server.served import Model
    from zonda.types import Progress


@dataclass(frozen=True, slots=True)
class Wanted:
    """A model to serve, as options say it."""

    model: ModelOptions
    engine: EngineOptions
    served: ServedOptions = ServedOptions()  # noqa: RUF009 - frozen

    def described(self) -> Model:
        """The same for the server."""
        from zonda.server.served import Model

        return Model(name=self.served.name or _usual_name(self.model), aliases=self.served.alias,
                     preload=self.served.preload, keep=self.served.keep, load=self.load)

    def load(self, progress: Progress) -> AsyncLLM:
        """Load it, with bars on a terminal; `progress` is told too."""
        from zonda.sdk import AsyncLLM

        with Bars() as bars:
            def tell(stage: str, done: int, total: int) -> None:
                progress(stage, done, total)
                bars(stage, done, total)

            return AsyncLLM.from_options(self.model, self.engine, progress=tell)


def _usual_name(model: ModelOptions) -> str | None:
    """The name that the files will have, as far as it can be told without looking for them."""
    if model.model is None:
        return Path(model.file[0].split(";")[0]).stem if model.file else None
    path = Path(model.model).expanduser()
    if not path.exists():
        return model.model
    return path.stem if path.is_file() else path.resolve().name


@click.command()
@flags(ModelOptions, EngineOptions, ServedOptions, ServerOptions)
def serve(model: ModelOptions, engine: EngineOptions, served: ServedOptions, server: ServerOptions) -> None:
    """Serve a model over HTTP, as OpenAI's API.

    The address is taken at once, and /health answers while the model loads. SIGTERM or Ctrl-C lets running requests
    finish; a second one ends them. `zonda from-config` serves several models.
    """
    start([Wanted(model, engine, served)], server)


def start(wanted: Sequence[Wanted], server: ServerOptions, *, default: str | None = None) -> None:
    """Serve until told to stop, which a signal may do before the server listens for it."""
    with suppress(KeyboardInterrupt, Terminated):
        from zonda.server.listen import serve as listen

        listen([each.described() for each in wanted], server, default=default)
