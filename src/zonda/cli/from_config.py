"""`zonda from-config`: run or serve as a TOML file says."""
from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import click

from zonda.cli.serve import Wanted
from zonda.errors import InvalidRequest
from zonda.options import (
    EngineOptions,
    ModelOptions,
    RunOptions,
    SamplingOptions,
    ServedOptions,
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
DEFAULT = "default_model_id"
OLD_NAMES = {"model_id": "model", "quantized_file": "file", "tok_model_id": "tok_model", "hf_cache": "cache_dir"}
"""Keys of [model] and [[models]] that other engines' files have, and ours for the same."""


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("-f", "--file", "flag", type=click.Path(path_type=Path), help="the TOML file")
def from_config(file: Path | None, flag: Path | None) -> None:
    """Run or serve as a TOML file says.

    Its first line is command = "run" or "serve"; its tables [model], [engine], [sampling], [run] and [server] have the
    options of those commands, with underscores. To serve several models, it has a table [[models]] for each, with
    the options of [model] and name, alias, preload and keep; [models.engine] changes [engine] for that model, and
    default_model_id = "NAME" says which one answers who names none.
    """
    chosen = file or flag
    if chosen is None:
        raise click.UsageError("give the TOML file")
    command, groups = read(chosen)
    if command == "run":
        from zonda.cli.run import start

        start(*groups)
    else:
        from zonda.cli.serve import start as serve

        wanted, server, default = groups
        serve(wanted, server, default=default)


def read(path: Path) -> tuple[str, list[Any]]:
    """The command of a configuration file, and what it is started with; raises `InvalidRequest` naming what is wrong.

    For `run` these are its groups of options, for `serve` the models, the server's options and the default's name.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidRequest(f"{path}: {error}", hint="expected a TOML file") from None
    command = table.pop("command", None)
    if command not in TABLES:
        raise InvalidRequest(f"{path}: `command` is {command!r}, expected \"run\" or \"serve\"", param="command")
    models, default = (table.pop("models", None), table.pop(DEFAULT, None)) if command == "serve" else (None, None)
    reject_unknown(table, TABLES[command], where=f"table in {path}")
    groups = [_group(path, name, table.get(name, {}), group) for name, group in TABLES[command].items()]
    if command == "run":
        return command, groups
    if models is not None and "model" in table:
        raise InvalidRequest(f"{path}: it has [model] and [[models]]", hint="use one of them", param="models")
    wanted = [Wanted(*groups[:2])] if models is None else _models(path, models, table.get("engine", {}))
    return command, [wanted, groups[2], default]


def _models(path: Path, tables: Any, engine: Any) -> list[Wanted]:
    if not isinstance(tables, list) or not tables:
        raise InvalidRequest(f"{path}: `models` is no list of tables", hint="expected [[models]]", param="models")
    return [_model(path, each, engine) for each in tables]


def _model(path: Path, table: Any, engine: Any) -> Wanted:
    if not isinstance(table, dict):
        raise InvalidRequest(f"{path}: `models` has {table!r}, expected a table [[models]]", param="models")
    own = table.pop("engine", {})
    values = _renamed(table)
    known = [each.name for group in (ModelOptions, ServedOptions) for each in options_of(group)]
    reject_unknown(values, known, where=f"key in [[models]] of {path}")
    both = engine | own if isinstance(own, dict) else own
    return Wanted(make(ModelOptions, values), _group(path, "models.engine", both, EngineOptions),
                  make(ServedOptions, values))


def _group(path: Path, name: str, values: Any, group: type) -> Any:
    if not isinstance(values, dict):
        raise InvalidRequest(f"{path}: `{name}` is {values!r}, expected a table [{name}]", param=name)
    values = _renamed(values) if group is ModelOptions else values
    reject_unknown(values, (each.name for each in options_of(group)), where=f"key in [{name}] of {path}")
    return make(group, values)


def _renamed(table: dict[str, Any]) -> dict[str, Any]:
    return {OLD_NAMES.get(name, name): value for name, value in table.items()}
