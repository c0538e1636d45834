"""Steps captured as graphs: on a GPU where there is one, else by graphs that only note which step is to be computed."""
from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from fakerunner import Collector, request
from tiny import DENSE, DEVICE, MIXTURE, answers, model, reference, served, torch_runner, traffic
from torch import Tensor
from triton import knobs

from tests.nearness import ON_CARD, on_card
from zonda.engine.engine import Engine
from zonda.engine.graphs import Graphs, capture_stream
from zonda.engine.torch_runner import TorchRunner
from zonda.kernels.cuda.ops import CUDAOps
from zonda.kernels.torch.ops import TorchOps
from zonda.kernels.torch.step import Step
from zonda.model import start
from zonda.options import EngineOptions, ModelOptions

FORBIDDEN = "operation not permitted when stream is capturing"
KIND = CUDAOps if ON_CARD else TorchOps


class Stream:
    def __init__(self, device: object = None) -> None: ...

    def synchronize(self) -> None: ...


class Streams:
    """The part of `torch.cuda` that captures, on a processor: a step that is captured is not computed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.mine = threading.local()
        self.main = Stream()
        self.capturing: list[object] = []
        fakes = {"graph_pool_handle": lambda: None, "Stream": Stream, "current_stream": self.current,
                 "stream": self.stream, "graph": self.graph, "CUDAGraph": type("CUDAGraph", (), {}),
                 "synchronize": self.synchronize, "is_current_stream_capturing": lambda: self.graph_of_mine is not None}
        for name, fake in fakes.items():
            monkeypatch.setattr(torch.cuda, name, fake)
        forward, draw, streams = TorchRunner.forward, TorchRunner.draw, self

        def computed(self: TorchRunner, step: Step) -> Tensor:
            return torch.zeros(0) if streams.graph_of_mine else forward(self, step)

        def drawn(self: TorchRunner, logits: Tensor, step: Step, *, greedy: bool) -> None:
            if graph := streams.graph_of_mine:
                graph.replay = lambda: draw(self, forward(self, step), step, greedy=greedy)
            else:
                draw(self, logits, step, greedy=greedy)

        monkeypatch.setattr(TorchRunner, "forward", computed)
        monkeypatch.setattr(TorchRunner, "draw", drawn)

    @property
    def graph_of_mine(self):
        return getattr(self.mine, "graph", None)

    def current(self, device: object = None) -> Stream:
        return getattr(self.mine, "stream", self.main)

    @contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        before, self.mine.stream = self.current(), stream
        try:
            yield
        finally:
            self.mine.stream = before

    @contextmanager
    def graph(self, graph: object, *, pool: object, stream: Stream, capture_error_mode: str) -> Iterator[None]:
        """As torch's, it stays on its stream when the capture fails."""
        if self.capturing:
            raise RuntimeError(FORBIDDEN)
        before, self.mine.stream, self.mine.graph = self.current(), stream, graph
        self.capturing.append(graph)
        try:
            yield
        finally:
            self.capturing.remove(graph)
            self.mine.graph = None
        self.mine.stream = before

    def synchronize(self, device: object = None) -> None:
        if self.capturing:
            raise RuntimeError(FORBIDDEN)


@pytest.fixture(autouse=True)
def _streams(monkeypatch: pytest.MonkeyPatch) -> None:
    capture_stream.cache_clear()
    if not ON_CARD:
        Streams(monkeypatch)


def capturing_runner(kind: type[TorchOps] = KIND, config: dict = DENSE, *, seqs: int = 4, rows: int = 128
                     ) -> TorchRunner:
    runner = torch_runner(kind, config, max_seqs=seqs, max_rows=rows)
    runner._graphs = Graphs(runner)
    return runner


def test_steps_captured_ahead_give_the_same_answers() -> None:
    runner = capturing_runner()
    if ON_CARD:
        runner.compile()
    runner.warm(all=False)
    while runner.idle():
        pass
    assert answers(runner) == answers(reference())


def test_steps_that_cannot_be_captured_run_by_launches(monkeypatch: pytest.MonkeyPatch,
                                                       caplog: pytest.LogCaptureFixture) -> None:
    class Refused:
        def __init__(self, *given: object, **named: object) -> None: ...

        def __enter__(self) -> None:
            raise RuntimeError(FORBIDDEN)

        def __exit__(self, *error: object) -> None: ...

    monkeypatch.setattr(torch.cuda, "graph", Refused)
    runner = capturing_runner()
    graphs = runner._graphs
    assert graphs
    graphs.capture(all=False)
    assert not graphs.capture_next() and "not permitted" in caplog.text
    assert answers(runner) == answers(reference())
    assert len(graphs._graphs) > 2 and not any(graphs._graphs.values())


@pytest.mark.parametrize("rows", [1, 2, 3, 6, 11, 20])
def test_no_graph_has_more_rows_than_a_step_may_have(rows: int) -> None:
    """Whatever number of sequences was asked for: their tokens would be written beyond the room for them."""
    runner = capturing_runner(seqs=256, rows=rows)
    runner.warm(all=True)
    graphs = runner._graphs
    assert graphs and graphs.most >= max(1, rows // 2) and graphs.most == max(size for size, _ in graphs._graphs)
    assert graphs.most <= rows == runner._last.shape[0] and all(graphs._graphs.values())


def test_a_capture_that_fails_leaves_the_thread_on_its_stream_and_the_other_sizes_be(
        monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    runner = capturing_runner()
    forward, graphs, here = runner.forward, runner._graphs, torch.cuda.current_stream()
    assert graphs

    def interrupted(step: Step) -> Tensor:
        if step.rows == 2 and torch.cuda.is_current_stream_capturing():
            torch.cuda.synchronize()
        return forward(step)

    monkeypatch.setattr(runner, "forward", interrupted)
    runner.warm(all=True)
    assert torch.cuda.current_stream() == here
    assert "steps of 2 rows run by launches" in caplog.text
    assert {size for (size, _), graph in graphs._graphs.items() if not graph} == {2}, caplog.text
    assert answers(runner) == answers(reference())


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"),
                                   RuntimeError("Triton Error [CUDA]: out of memory"), KeyError("no such kernel")])
def test_what_fails_while_nothing_is_asked_costs_nobody(error: Exception, monkeypatch: pytest.MonkeyPatch,
                                                        caplog: pytest.LogCaptureFixture) -> None:
    runner = capturing_runner()
    forward, idle = runner.forward, threading.Event()

    def failing(step: Step) -> Tensor:
        if idle.is_set():
            return forward(step)
        idle.set()
        raise error

    monkeypatch.setattr(runner, "forward", failing)
    engine, collector = Engine(runner, EngineOptions(max_seqs=4)), Collector()
    assert idle.wait(60)
    engine.submit(request("later", [5, 9, 2], max_tokens=6), collector)
    collector.wait("later")
    assert engine.alive and "no more steps are captured ahead" in caplog.text
    engine.close()
    assert collector.tokens("later") == answers(reference())[0]


def test_two_models_on_one_device_capture_in_turns() -> None:
    runners = [capturing_runner(), capturing_runner()]
    start = threading.Barrier(len(runners))

    def capture(runner: TorchRunner) -> None:
        start.wait()
        while runner.idle():
            pass

    threads = [threading.Thread(target=capture, args=(runner,)) for runner in runners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for runner in runners:
        assert runner._graphs and len(runner._graphs._graphs) == 8 and all(runner._graphs._graphs.values())
        assert answers(runner) == answers(reference())


def test_a_graph_is_captured_on_the_device_of_its_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not on that of who captured first, nor on a stream of its own."""
    made: list[str] = []
    whole = torch.cuda.Stream

    def noted(device: torch.device | None = None, **named: Any) -> Any:
        if named:
            return whole(**named)
        made.append(f"{device}")
        return whole(device) if ON_CARD else Stream()

    monkeypatch.setattr(torch.cuda, "Stream", noted)
    capture_stream.cache_clear()
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, *, stream, **options: nullcontext())
    for _ in range(2):
        capturing_runner(TorchOps).warm(all=False)
    capture_stream.cache_clear()
    assert made == [f"{DEVICE}"]


@on_card
@pytest.mark.parametrize("config", [DENSE, MIXTURE], ids=["dense", "mixture"])
def test_a_model_that_is_loaded_calls_for_no_other_kernel_on_this_card(
        config: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    source = model("bf16", config)[1]
    engine = start(source, ModelOptions(device="cuda:0"),
                   EngineOptions(max_seqs=8, max_num_batched_tokens=256, kv_memory_mb=16))
    called: list[str] = []
    monkeypatch.setattr(knobs.runtime, "jit_post_compile_hook", lambda **made: called.append(made["fn"].name))
    traffic(engine)
    engine.close()
    assert called == []


@pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning")
@pytest.mark.parametrize("config", [DENSE, MIXTURE], ids=["dense", "mixture"])
def test_rows_of_no_sequence_may_hold_anything(config: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five sequences take the graph of six; what its last row holds nobody has computed."""
    empty = torch.empty

    def poisoned(*shape: object, **kind: object) -> Tensor:
        made = empty(*shape, **kind)  # type: ignore[call-overload]
        return made.fill_(float("nan")) if made.is_floating_point() else made

    config = config | {"num_hidden_layers": 1}
    prompts = {f"r{i}": [1 + i, 9][:1 + i % 2] for i in range(5)}
    wanted, _ = served(reference(config), prompts, 3)
    runner = capturing_runner(CUDAOps, config, seqs=6)
    graphs = runner._graphs
    monkeypatch.setattr(torch, "empty", poisoned)
    found, _ = served(runner, prompts, 3)
    assert graphs and graphs._graphs.get((6, True))
    assert [found.tokens(name) for name in prompts] == [wanted.tokens(name) for name in prompts]
