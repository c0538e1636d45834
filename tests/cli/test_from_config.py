"""Files that serve several models: what each becomes, what they share, and what is wrong with them."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from zonda.cli import main
from zonda.cli.from_config import read
from zonda.errors import InvalidRequest

SEVERAL = """
command = "serve"
default_model_id = "small"
[server]
port = 5
idle_unload = 600
[engine]
max_seqs = 16
max_seq_len = 1000
[[models]]
model_id = "maker/one"
name = "small"
alias = ["default-chat", "tiny"]
keep = true
[[models]]
model = "maker/two"
quant = "8"
preload = false
[models.engine]
max_seq_len = 500
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "zonda.toml"
    path.write_text(text)
    return path


def test_each_table_becomes_a_model(tmp_path: Path) -> None:
    command, (wanted, server, default) = read(written(tmp_path, SEVERAL))
    one, two = wanted
    assert (command, default, server.port, server.idle_unload) == ("serve", "small", 5, 600)
    assert (one.model.model, one.served.name, one.served.alias) == ("maker/one", "small", ("default-chat", "tiny"))
    assert (one.served.keep, one.served.preload, one.model.quant) == (True, True, None)
    assert (two.model.model, two.model.quant, two.served.preload, two.served.keep) == ("maker/two", "8", False, False)
    assert [each.engine.max_seqs for each in wanted] == [16, 16]
    assert [each.engine.max_seq_len for each in wanted] == [1000, 500]


def test_the_server_gets_every_model_and_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[Any] = []
    monkeypatch.setattr("zonda.server.listen.serve", lambda models, options, default: served.append((models, default)))
    assert main.call(["from-config", "-f", str(written(tmp_path, SEVERAL))]) == 0
    ((models, default),) = served
    assert ([each.name for each in models], default) == (["small", "maker/two"], "small")
    assert [(each.preload, each.keep, each.aliases) for each in models] == [
        (True, True, ("default-chat", "tiny")), (False, False, ())]


@pytest.mark.parametrize(("text", "message"), [
    ("models = 5", "no list of tables"), ("models = []", "no list of tables"), ("models = [5]", "expected a table"),
    ('[model]\nmodel = "x"\n[[models]]\nmodel = "y"', r"\[model\] and \[\[models\]\]"),
    ('[[models]]\nmodle = "x"', "did you mean `model`"), ('[[models]]\nmodel = "x"\nengine = 5', "expected a table"),
    ('[[models]]\nmodel = "x"\n[models.engine]\nmax_sqs = 1', "did you mean `max_seqs`"),
    ('[[models]]\nmodel = "x"\n[models.engine]\nmax_seqs = 0', "at least 1"),
    ('[[models]]\nmodel = "x"\nkeep = "yes"', "expected bool")])
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        read(written(tmp_path, f'command = "serve"\n{text}\n'))


def test_a_default_that_is_not_served_ends_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = 'command = "serve"\ndefault_model_id = "three"\n[server]\nport = 0\n[[models]]\nmodel = "./one"\n'
    assert main.call(["from-config", str(written(tmp_path, text))]) == 1
    assert "`default_model_id` is 'three'" in capsys.readouterr().err


def test_other_engines_names_of_keys_are_taken_for_one_model_too(tmp_path: Path) -> None:
    text = 'command = "run"\n[model]\nmodel_id = "maker/one"\nquantized_file = "a.gguf"\n[run]\ninput = "hi"\n'
    command, (model, run, *_) = read(written(tmp_path, text))
    assert (command, model.model, model.file, run.input) == ("run", "maker/one", ("a.gguf",), "hi")


FOREIGN = """
command = "serve"
default_model_id = "maker/one"
[global]
seed = 7
log = "all.jsonl"
[runtime]
max_seqs = 3
prefix_cache_n = 0
chat_template = "own.jinja"
[paged_attn]
memory_mb = 50
[server]
no_ui = true
disable_metrics = true
port = 5
[[models]]
kind = "text"
model_id = "maker/one"
dtype = "f16"
[models.format]
quantized_file = "a.gguf"
[models.device]
cpu = true
hf_cache = "here"
[[models]]
model_id = "maker/two"
chat_template = "other.jinja"
[models.quantization]
isq = "q4k"
"""


def test_another_engines_file_is_understood(tmp_path: Path) -> None:
    _, ((one, two), server, default) = read(written(tmp_path, FOREIGN))
    assert (default, server.port, server.ui, server.metrics, server.log) == ("maker/one", 5, False, False, "all.jsonl")
    assert (one.engine.seed, one.engine.max_seqs, one.engine.kv_memory_mb, one.engine.reuses) == (7, 3, 50, False)
    assert one.engine == two.engine and (one.model.file, one.model.cpu) == (("a.gguf",), True)
    assert (one.model.cache_dir, one.model.compute_dtype, one.model.chat_template) == ("here", "f16", "own.jinja")
    assert (two.model.model, two.model.isq, two.model.chat_template) == ("maker/two", "q4k", "other.jinja")


def test_keys_of_a_run_may_stand_outside_of_tables(tmp_path: Path) -> None:
    command, (_, run, *_) = read(written(tmp_path, 'command = "run"\nthinking = true\nreasoning_effort = "low"\n'))
    assert (command, run.thinking, run.reasoning_effort) == ("run", True, "low")


@pytest.mark.parametrize(("text", "told"), [
    ("[runtime]\nmtp = true", "`mtp` is not offered: there is no speculative decoding"),
    ('[sandbox]\nmode = "on"', "`mode` is not offered: tools are carried out by the client"),
    ('[paged_attn]\nmode = "on"', "`mode` is not offered: the cache is always there"),
    ("[server]\nmcp_port = 3", "`mcp_port` is not offered"), ("[runtime]\nmax_sqs = 3", "did you mean `max_seqs`"),
    ('[[models]]\nmodel_id = "x"\nkind = "speech"', "`kind` is 'speech', expected"),
    ('[[models]]\nmodel_id = "x"\n[models.adapter]\nlora = []', "`lora` is not offered: adapters are not supported"),
    ('[server]\nno_ui = "yes"', "`ui` is 'yes', expected bool"), ("runtime = 5", "unknown key"),
    ("[runtime]\nadapter = 1", "`adapter` is not offered")])
def test_what_another_engines_file_says_in_vain_is_named(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(InvalidRequest, match=told):
        read(written(tmp_path, f'command = "serve"\n{text}\n'))
