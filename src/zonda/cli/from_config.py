"""`zonda from-config`: run or serve as a TOML file says."""
from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import click

from zonda.errors import InvalidRequest
from zonda.options import (
    EngineOptions,
    ModelOptions,
    RunOptions,
    SamplingOptions,
    ServerOptions,
    make,
    options_of,
    reject_unknown,
)

# command -> the tables that it reads, in the order of its arguments
TABLES: dict[str, dict[str, type]] = {
    "run": {"model": ModelOptions, "run": RunOptions, "sampling": SamplingOptions, "engine": EngineOptions},
    "serve": {"model": ModelOptions, "engine": EngineOptions, "server": ServerOptions},
}


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("-f", "--file", "flag", type=click.Path(path_type=Path), help="the TOML file")
def from_config(file: Path | None, flag: Path | None) -> None:
    """Run or serve as a TOML file says.

    Its first line is command = "run" or "serve"; its tables [model], [engine], [sampling], [run] and [server] have the
    options of those commands, with underscores.
    """
    chosen = file or flag
    if chosen is None:
        raise click.UsageError("give the TOML file")
    command, groups = read(chosen)
    if command == "run":
        from zonda.cli.run import start as begin
    else:
        from zonda.cli.serve import start as begin  # type: ignore[assignment]
    begin(*groups)


def read(path: Path) -> tuple[str, list[Any]]:
    """The command of a configuration file, and its groups of options; raises `InvalidRequest` naming what is wrong."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidRequest(f"{path}: {error}", hint="expected a TOML file") from None
    command = table.pop("command", None)
    if command not in TABLES:
        raise InvalidRequest(f"{path}: `command` is {command!r}, expected \"run\" or \"serve\"", param="command")
    reject_unknown(table, TABLES[command], where=f"table in {path}")
    return command, [_group(path, name, table.get(name, {}), group) for name, group in TABLES[command].items()]


def _group(path: Path, name: str, values: Any, group: type) -> Any:
    if not isinstance(values, dict):
        raise InvalidRequest(f"{path}: `{name}` is {values!r}, expected a table [{name}]", param=name)
    reject_unknown(values, (each.name for each in options_of(group)), where=f"key in [{name}] of {path}")
    return make(group, values)
