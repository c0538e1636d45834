"""Flags that other engines' users bring along: taken, or refused with what to do instead."""
from __future__ import annotations

import re
from typing import Any

import click
import pytest
from click.testing import CliRunner

from zonda.cli import main, not_offered
from zonda.cli.commands import COMMANDS, cli
from zonda.cli.flags import flags, words
from zonda.options import BenchOptions, EngineOptions, ModelOptions, ServerOptions

COMMON = """-m --model-id -t --tokenizer -a --arch --dtype --format -f --quantized-file --mmproj --tok-model-id --gqa
--enable-lora --lora --lora-modules --lora-max-adapters --lora-max-rank --max-lora-rank --lora-max-bytes --legacy-lora
--legacy-lora-order --xlora --xlora-order --tgt-non-granular-index --quant --isq --from-uqff --isq-organization
--imatrix --calibration-file --cpu -n --device-layers --topology --hf-cache --max-seq-len --max-batch-size --paged-attn
--pa-context-len --pa-memory-mb --pa-memory-fraction --pa-block-size --pa-cache-type --max-edge --max-num-images
--max-image-length --no-kv-cache --matformer-config-path --matformer-slice-name --mtp --mtp-model --mtp-n-predict
--token-source --seed -v"""
RUNTIME = """-l --log --max-seqs --max-num-batched-tokens --max-decode-steps-before-prefill --prefix-cache-n -c
--chat-template -j --jinja-explicit --mcp-config --agent --agentic --enable-search --search-embedding-model
--enable-code-execution
--code-exec-python --code-exec-timeout --code-exec-workdir --enable-shell --shell-path --shell-timeout --shell-workdir
--skills-dir --agent-permission --code-exec-permission --sandbox --sandbox-profile --sb-max-memory-mb
--sb-max-cpu-secs --sb-max-procs --sandbox-network"""
OTHERS = {
    "serve": f"""{COMMON} {RUNTIME} -p --port --host --no-ui --mcp-port --max-tool-rounds --tool-dispatch-url
              --disable-access-log --access-log-format --access-log-health --disable-request-id-header
              --disable-metrics""",
    "run": f"{COMMON} {RUNTIME} -i --input --image --video --audio --thinking --reasoning-effort --adapter",
    "bench": f"{COMMON} --adapter --prompt-len --gen-len --depth --iterations --warmup",
    "tune": f"{COMMON} --profile --json --emit-config", "doctor": "--json", "login": "--token"}
"""What another engine's commands of the same names take."""


@pytest.mark.parametrize(("name", "options"), OTHERS.items())
def test_every_flag_of_another_engine_is_offered_or_explained(name: str, options: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command
    known = {flag for each in command.params for flag in (*each.opts, *each.secondary_opts)}
    wanted = set(options.split())
    assert wanted - known - not_offered.OPTIONS.keys() == set()
    assert known & not_offered.OPTIONS.keys() == set()


@pytest.mark.parametrize(("line", "told"), [
    ("run -m x --lora a=b", r"--lora is not offered: adapters are not supported\."),
    ("serve -n 0:5", "-n is not offered: a model runs on one device"),
    ("quantize -m x", "quantize is not offered: weights are quantized while"),
    ("serve speech -m x", "speech is not offered"),
    ("run smollm2", "Is it a model\\? Then -m smollm2"), ("run --thinking false", "Switches take no value"),
    ("--seed 3 run", "No such option '--seed'. Options of a command come after its name"),
    ("run --modle x", r"No such option '--modle'. .*'--model'")])
def test_what_is_not_offered_is_told(line: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.call(line.split()) == 2
    out, err = capsys.readouterr()
    assert not out and re.search(told, err), err


@pytest.mark.parametrize("made", [
    (), (ModelOptions(model="a b", file=("x", "y"), cpu=True, threads=3), EngineOptions(prefix_cache=False)),
    (BenchOptions(depth=(4, 8), json=True), ServerOptions(port=0, metrics=False, api_key=("k", "l")))])
def test_instances_become_the_flags_that_make_them(made: tuple[Any, ...]) -> None:
    seen: list[Any] = []
    command = click.command()(flags(*map(type, made))(lambda *groups: seen.extend(groups)))
    assert CliRunner().invoke(command, words(*made)).exit_code == 0
    assert seen == list(made)


@pytest.mark.parametrize("command", not_offered.COMMANDS)
def test_what_is_not_offered_is_no_command(command: str) -> None:
    assert command not in COMMANDS


@pytest.mark.parametrize("line", ["text -m x", "-m x auto", "-m x"])
def test_the_kind_of_a_model_may_be_named(line: str) -> None:
    @click.command()
    @flags(ModelOptions)
    def command(model: ModelOptions) -> None:
        click.echo(model.model)

    assert CliRunner().invoke(command, line.split()).output == "x\n"


def test_other_engines_switches_turn_the_same_off() -> None:
    @click.command()
    @flags(EngineOptions, ServerOptions)
    def command(engine: EngineOptions, server: ServerOptions) -> None:
        click.echo((engine.reuses, server.access_log, server.metrics, server.request_id_header, server.ui))

    off = ["--disable-access-log", "--disable-metrics", "--disable-request-id-header", "--prefix-cache-n", "0"]
    assert CliRunner().invoke(command, off).output == "(False, False, False, False, True)\n"
    assert CliRunner().invoke(command, ["--prefix-cache-n", "16"]).output == "(True, True, True, True, True)\n"
