"""`zonda from-config`: run or serve as a TOML file says."""
from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from zonda.cli import not_offered
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
PREFIXES = {"global": "", "runtime": "", "paged_attn": "pa_", "sandbox": "sb_"}
"""Tables of other engines' files, whose keys belong to several of ours; and what their flags have before them."""
PARTS = ("format", "quantization", "device", "adapter", "multimodal")
"""The same within [[models]]."""


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
    tables = _tables(path, TABLES[command], table)
    if command == "run":
        return command, [make(group, tables[name]) for name, group in TABLES[command].items()]
    if models is not None and "model" in table:
        raise InvalidRequest(f"{path}: it has [model] and [[models]]", hint="use one of them", param="models")
    if models is None:
        wanted = [Wanted(make(ModelOptions, tables["model"]), make(EngineOptions, tables["engine"]))]
    else:
        wanted = _models(path, models, tables)
    return command, [wanted, make(ServerOptions, tables["server"]), default]


def _tables(path: Path, groups: Mapping[str, type], table: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Our tables, with what stands in tables of other engines, or in none, put where it belongs."""
    loose = {name: value for name, value in table.items() if name not in groups and not isinstance(value, dict)}
    reject_unknown([name for name in table if name not in loose], [*groups, *PREFIXES], where=f"table in {path}")
    found: dict[str, dict[str, Any]] = {name: {} for name in groups}
    for name, values in {"": loose, **{name: table.get(name, {}) for name in PREFIXES}}.items():
        for place, key, value in _placed(path, groups, name, values):
            found[place][key] = value
    for name, group in groups.items():
        found[name] |= _keys(path, name, table.get(name, {}), {name: group})
    return found


def _keys(path: Path, name: str, values: Any, groups: Mapping[str, type]) -> dict[str, Any]:
    return {key: value for _, key, value in _placed(path, groups, name, values)}


def _placed(path: Path, groups: Mapping[str, type], name: str, values: Any) -> Iterator[tuple[str, str, Any]]:
    """The group, the name and the value of each option that a table sets, by its name or by one of its flags."""
    if not isinstance(values, dict):
        raise InvalidRequest(f"{path}: `{name}` is {values!r}, expected a table [{name}]", param=name)
    options = [(place, each) for place, group in groups.items() for each in options_of(group)]
    where = f"key in [{name}] of {path}" if name else f"key of {path}"
    for key, value in values.items():
        flag = f"--{PREFIXES.get(name, '')}{key}".replace("_", "-")
        for place, each in options:
            off = flag in each.negations
            if off or key == each.name or flag in each.flags:
                yield place, each.name, not value if off and isinstance(value, bool) else value
                break
        else:
            whole = f"--{name}".replace("_", "-")
            if why := not_offered.OPTIONS.get(flag) or not_offered.OPTIONS.get(whole):
                raise InvalidRequest(f"{path}: `{key}` is not offered: {why}", hint="leave it out", param=key)
            reject_unknown([key], (each.name for _, each in options), where=where)


def _models(path: Path, models: Any, tables: Mapping[str, dict[str, Any]]) -> list[Wanted]:
    if not isinstance(models, list) or not models:
        raise InvalidRequest(f"{path}: `models` is no list of tables", hint="expected [[models]]", param="models")
    return [_model(path, each, tables) for each in models]


def _model(path: Path, table: Any, tables: Mapping[str, dict[str, Any]]) -> Wanted:
    """One model; what the file says of all stands unless it says otherwise."""
    if not isinstance(table, dict):
        raise InvalidRequest(f"{path}: `models` has {table!r}, expected a table [[models]]", param="models")
    own = _keys(path, "models.engine", table.pop("engine", {}), {"engine": EngineOptions})
    kind = table.pop("kind", "auto")
    if kind not in ("auto", "text"):
        raise InvalidRequest(f"{path}: `kind` is {kind!r:.40}, expected \"auto\" or \"text\"", param="kind")
    groups = {"model": ModelOptions, "served": ServedOptions}
    values = dict(tables["model"])
    for part in PARTS:
        if isinstance(table.get(part), dict):
            values |= _keys(path, f"models.{part}", table.pop(part), groups)
    values |= _keys(path, "models", table, groups)
    return Wanted(make(ModelOptions, values), make(EngineOptions, tables["engine"] | own), make(ServedOptions, values))
