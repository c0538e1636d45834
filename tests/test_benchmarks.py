"""The peer comparison: its arithmetic, its traffic and its model files."""
from __future__ import annotations

import importlib
import json
import math
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import gguf
import numpy as np
import pytest

from zonda.cli.measure import prompt
from zonda.engine.runner import Ahead
from zonda.types import Logprob

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
peers, engines, traffic, models, quality, http_overhead, json_schemas, hostile_grammars = map(
    importlib.import_module, ("peers", "engines", "traffic", "models", "quality", "http_overhead", "json_schemas",
                              "hostile_grammars"))


def test_a_crowd_of_all_kinds_leaves_nothing_behind() -> None:
    """Streams are right, and no sequence, page, file or memory is left of clients that stall, vanish and err."""
    soak = Path(__file__).parents[1] / "benchmarks" / "soak.py"
    done = subprocess.run([sys.executable, str(soak), "--seconds", "2", "--clients", "32", "--drain", "120"],
                          capture_output=True, text=True, timeout=600)
    assert done.returncode == 0 and "nothing was left behind" in done.stdout, done.stdout + done.stderr


class Scripted:
    """An engine that gives the next of its speeds at every round; None is a failure."""

    def __init__(self, name: str, *speeds: float | None) -> None:
        self.name = name
        self.rest = iter(speeds)

    def speeds(self, model, cases, iterations):
        speed = next(self.rest)
        if speed is None:
            raise RuntimeError("cannot read the file")
        return [speed] * len(cases)

    def start(self, model, *, cold=False):
        return engines.Start(next(self.rest), 100.0)


def compared(*rivals, sections=("decode",), rounds=3):
    return peers.compare(rivals, "tiny", Path("tiny.gguf"), sections, rounds=rounds, iterations=1)


def test_the_ratio_is_the_median_of_the_ratios_of_rounds_against_the_best_other_engine():
    row, = compared(Scripted("A", 30, 20, 60), Scripted("B", 10, 20, 30), Scripted("C", 1, 2, 3))
    assert row.ratio("A") == 2


def test_the_best_time_is_the_smallest():
    rivals = Scripted("A", 1, 1), Scripted("B", 4, 4), Scripted("C", 2, 2)
    start, memory = compared(*rivals, sections=("start",), rounds=2)
    assert start.ratio("A") == 0.5
    assert memory.ratio("A") == 1


def test_decode_deep_in_a_context_is_also_given_as_a_share_of_decode_at_its_beginning():
    rows = compared(Scripted("A", 10), sections=("depth",), rounds=1)
    assert [row.samples["A"][0] for row in rows] == [10, 10, 1]


def test_an_engine_that_fails_drops_out_and_the_others_go_on():
    row, = compared(Scripted("A", 10, 10, 10), Scripted("B", None))
    assert row.samples == {"A": [10, 10, 10]}
    assert row.ratio("A") is None


def test_a_row_of_the_table_has_median_least_and_most_and_a_dash_where_nothing_was_measured():
    rivals = Scripted("A", 1300, 1200, 1250), Scripted("B", None)
    row, = compared(*rivals)
    assert row.cells(rivals) == ["tiny", "decode 128 at depth 4, tok/s", "1,250 (1,200–1,300)", "–", "–"]


def test_a_record_carries_all_figures():
    row, = compared(Scripted("A", 3, 1, 2), Scripted("B", 1, 1, 1))
    assert row.record("A")["engines"]["A"] == {"median": 2, "min": 1, "max": 3, "rounds": 3}
    assert row.record("A")["ratio"] == 2


def test_all_engines_get_the_prompts_of_the_bench_command():
    assert engines.prompt(40, case=1, iteration=2) == list(prompt(3 * 131 + 719, 40, vocab=49152))


def test_prompts_of_streams_and_iterations_differ():
    every = [tuple(ids) for iteration in range(3) for ids in engines.prompts(8, iteration=iteration)]
    assert len(set(every)) == len(every)


def test_a_start_is_timed_to_the_first_byte_and_its_memory_is_that_of_the_process():
    start = engines._start([sys.executable, "-c", "x = bytearray(80 << 20); print('hi')"])
    assert start.seconds > 0
    assert start.megabytes > 80


def test_a_start_can_be_given_variables():
    command = [sys.executable, "-c", "import os; assert os.environ['ZONDA_CACHE'] == 'empty'; print('hi')"]
    assert engines._start(command, {"ZONDA_CACHE": "empty"}).seconds > 0


def test_a_start_without_an_answer_is_an_error():
    with pytest.raises(RuntimeError, match="exited 0 without an answer"):
        engines._start([sys.executable, "-c", ""])


def test_a_failed_command_is_told_by_the_end_of_its_complaint():
    with pytest.raises(RuntimeError, match=r"exited 3: bad file$"):
        engines._output([sys.executable, "-c", "import sys; print('bad file', file=sys.stderr); sys.exit(3)"])


class Completions(BaseHTTPRequestHandler):
    """A server that answers every completion at once, with usage at the end."""

    bodies: ClassVar[list[dict]] = []

    def do_GET(self):
        self.send_response(200)
        self.end_headers()

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.bodies.append(body)
        self.send_response(200)
        self.end_headers()
        usage = {"completion_tokens": body["max_tokens"]}
        for event in {"choices": [{"text": "a"}], "usage": None}, {"choices": [], "usage": usage}:
            self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")
        self.wfile.write(b"data: [DONE]\n\n")

    def log_message(self, *arguments):
        pass


@pytest.fixture
def port():
    Completions.bodies.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Completions) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_the_traffic_counts_what_the_server_says_it_generated(port):
    bodies = [traffic.completion("tiny", ids, 5) for ids in engines.prompts(3)]
    requests = [traffic.request(port, "/v1/completions", body) for body in bodies]
    assert list(map(traffic.completion_tokens, traffic.answers(port, requests))) == [5, 5, 5]
    assert traffic.throughput(port, "tiny", engines.prompts(3), 5) > 0
    assert all(body["ignore_eos"] and body["stream"] and body["temperature"] == 0 for body in Completions.bodies)


def test_a_stand_in_draws_ahead_as_a_device_does():
    device = http_overhead.StandIn(vocab=2000, max_len=64, streams=2, seconds=0.0)
    assert isinstance(device, Ahead)
    tokens = device.launch(SimpleNamespace(sample=np.zeros(2, np.int32)), drawing=None)()
    assert len(tokens) == 2
    assert set(tokens.tolist()) <= set(range(http_overhead.FIRST_TEXT, 2000))


def test_what_http_costs_is_the_median_over_rounds_of_the_speeds_and_of_their_ratio():
    alone, served = http_overhead.Round(100, 7.0), http_overhead.Round(90, 20.0, 12.0)
    found = http_overhead.summary([(alone, served), (alone, served), (http_overhead.Round(50, 9.0), served)])
    assert (found["engine_tok_s"], found["http_tok_s"], found["ratio"]) == (100, 90, 0.9)
    assert (found["engine_cpu_us"], found["http_cpu_us"], found["server_thread_us"]) == (7.0, 20.0, 12.0)


def test_an_answer_without_usage_is_an_error():
    with pytest.raises(RuntimeError, match="no usage in the answer"):
        traffic.completion_tokens(b'HTTP/1.1 500 Oops\r\n\r\n{"error": "broken"}')


def test_a_server_is_awaited_and_stopped(port):
    with traffic.server([sys.executable, "-c", "import time; time.sleep(60)"], port):
        pass


def test_a_server_that_exits_is_told_at_once():
    with pytest.raises(RuntimeError, match="did not start"), traffic.server(["true"], traffic.free_port()):
        pass


@pytest.fixture
def tokenizer(tmp_path):
    """A GGUF file with a tokenizer of three tokens."""
    writer = gguf.GGUFWriter(str(tmp_path / "tokenizer.gguf"), "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["a", "b", "ab"])
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(2)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tmp_path / "tokenizer.gguf"


SHAPE = models.Shape(dim=32, layers=2, heads=4, kv_heads=2, ffn_dim=64, theta=10_000.0)


def test_random_weights_have_the_shape_that_was_asked_for_and_the_tokenizer_of_another_file(tmp_path, tokenizer):
    models.write_random(tmp_path / "random.gguf", shape=SHAPE, tokenizer=tokenizer)
    reader = gguf.GGUFReader(tmp_path / "random.gguf")
    tensors = {tensor.name: tensor.data for tensor in reader.tensors}
    assert len(tensors) == 2 + 9 * SHAPE.layers
    assert tensors["token_embd.weight"].shape == (3, 32)
    assert tensors["blk.1.attn_k.weight"].shape == (16, 32)
    assert tensors["blk.0.ffn_down.weight"].dtype == np.float16
    assert abs(tensors["blk.0.ffn_down.weight"].std() * 8 - 1) < 0.05
    assert reader.fields["tokenizer.ggml.tokens"].contents() == ["a", "b", "ab"]
    assert reader.fields["llama.attention.head_count_kv"].contents() == 2


def test_random_weights_are_the_same_every_time(tmp_path, tokenizer):
    for name in ("one", "two"):
        models.write_random(tmp_path / name, shape=SHAPE, tokenizer=tokenizer)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_model_file_that_exists_is_not_made_again(tmp_path):
    (tmp_path / "smollm2-q4_0.gguf").touch()
    assert models.make("smollm2-q4_0", folder=tmp_path, quantize=Path("absent")).stat().st_size == 0


def test_a_quantized_model_is_made_of_its_source_and_appears_only_when_it_is_whole(tmp_path):
    (tmp_path / "smollm2-q4_1.gguf").write_text("weights")
    quantize = tmp_path / "quantize"
    quantize.write_text('#!/bin/sh\necho "$4" > "$3"\ncat "$2" >> "$3"\n')
    os.chmod(quantize, 0o755)
    made = models.make("smollm2-q8_0", folder=tmp_path, quantize=quantize)
    assert made.read_text() == "Q8_0\nweights"
    assert not list(tmp_path.glob("*.partial"))


def test_every_section_names_models_that_can_be_made():
    assert {name for names in peers.SECTIONS.values() for name in names} <= set(models.MODELS)


def test_continuations_are_compared_up_to_where_they_part():
    assert quality.common_length([1, 2, 3], [1, 2, 4]) == 2
    assert quality.common_length([1, 2], [1, 2]) == 2
    result = quality.Quality(perplexity=10.05, reference=10.0, common=[2, 3, 3], length=3)
    assert result.equal == 2
    assert result.excess == pytest.approx(0.005)


def test_the_longest_paragraphs_are_the_prompts_in_the_order_of_the_text():
    assert quality.paragraphs("bbb\n\nc\n\naaaa\n\ndd", 2) == ["bbb", "aaaa"]
    assert len(quality.paragraphs(quality.TEXT.read_text(), 10)) == 10


class Doubtful:
    """A model that gives every token but the first half of the probability, and always says 7."""

    def complete(self, prompts, **options):
        if isinstance(prompts[0], list):
            return [SimpleNamespace(tokens=(7,) * options["max_tokens"]) for _ in prompts]
        known = [None, *(Logprob(token, math.log(0.5)) for token in prompts[1:])]
        return SimpleNamespace(prompt_logprobs=tuple(known))


def test_the_perplexity_counts_every_token_after_the_first():
    assert quality.perplexity(Doubtful(), [5, 6, 7]) == pytest.approx(2)
    assert quality.continuations(Doubtful(), [[1], [2]], 3) == [[7, 7, 7], [7, 7, 7]]


class Bytes:
    """A vocabulary of bytes, and a token that ends."""

    special_ids = frozenset({256})

    def token_bytes(self, id, /):
        return bytes([id]) if id < 256 else b""

    def encode(self, text, /, *, add_special=True):
        return list(text.encode())


def test_a_schema_is_judged_by_what_is_said_under_it():
    options = SimpleNamespace(vocab=500, answers=2, tokens=200, masks=5)
    judge = json_schemas.Judge(Bytes(), 257, frozenset({256}), options)
    fine = judge.judge("a", {"type": "array", "items": {"type": "boolean"}, "maxItems": 3})
    assert (fine.kind, fine.whole, len(fine.seconds) > 0) == ("fine", 2, True)
    assert judge.judge("b", {"not": {}}).kind == "refused"
    assert "is not of type" in json_schemas._wrong(json_schemas._validator({"type": "integer"}), "2.5")
    assert json_schemas._wrong(json_schemas._validator({"type": "number"}), "-8e999") == ""


def test_no_bomb_is_known_from_one_before():
    first, second = hostile_grammars.bombs("k0"), hostile_grammars.bombs("k1")
    assert first.keys() == second.keys() and all(first[name] != second[name] for name in first)
