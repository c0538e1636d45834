"""No step of a loaded model makes the host wait for the device, but to read its tokens."""
from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from tests.kernels.cuda.test_models import source_of
from tests.nearness import DEVICE, on_card
from zonda.engine.batch import Batch
from zonda.engine.runner import Drawing
from zonda.engine.torch_runner import TorchRunner
from zonda.kernels.cuda.ops import CUDAOps

SEQS = 3


def runner() -> TorchRunner:
    config, decoder, source = source_of("llama", None)
    return TorchRunner(decoder, source, CUDAOps(DEVICE, torch.float32), max_len=config.max_len, kv_bytes=1 << 22,
                       max_rows=64, max_seqs=4)


def step(position: int, count: int, tokens: list[int], temperature: float = 0.0) -> tuple[Batch, Drawing]:
    """`count` tokens of each sequence from `position` on, of which each draws."""
    starts = np.arange(SEQS + 1, dtype=np.int32) * count
    batch = Batch(tokens=np.repeat(np.array(tokens, np.int32), count),
                  positions=np.tile(np.arange(position, position + count, dtype=np.int32), SEQS), starts=starts,
                  lengths=np.full(SEQS, position + count, np.int32),
                  page_table=np.arange(SEQS, dtype=np.int32)[:, None], sample=starts[1:] - 1)
    heat, zeros = np.full(SEQS, temperature, np.float32), np.zeros(SEQS, np.float32)
    return batch, Drawing(heat, np.full(SEQS, 5, np.int32), np.full(SEQS, 0.9, np.float32), zeros,
                          np.arange(SEQS, dtype=np.int64), np.full(SEQS, position, np.int32))


def steps(runner: TorchRunner, temperature: float) -> list[np.ndarray]:
    """A prompt, then two tokens of each sequence, launched before the ones before them are known."""
    waiting = [runner.launch(*step(0, 6, [4, 5, 6], temperature))]
    waiting += [runner.launch(*step(position, 1, [-1, -2, -3], temperature)) for position in (6, 7)]
    return [tokens() for tokens in waiting]


def test_steps_are_launched_without_a_look_at_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []
    made = runner()
    for name in ("item", "tolist", "cpu", "__bool__", "__int__", "__float__", "__index__", "nonzero"):
        def look(self: torch.Tensor, *given: object, name: str = name) -> None:
            looks.append(name)
            raise AssertionError(f"a step calls Tensor.{name}")

        monkeypatch.setattr(torch.Tensor, name, look)
    launched = [made.launch(*step(0, 6, [4, 5, 6], 0.8)), made.launch(*step(6, 1, [-1, -2, -3], 0.8))]
    monkeypatch.undo()
    assert not looks and all(len(tokens()) == SEQS for tokens in launched)


@contextmanager
def no_waits() -> Iterator[None]:
    """Within it, what waits for the device is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns, once the mode is set, that it does not see every wait
        try:
            torch.cuda.set_sync_debug_mode("error")
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")


@on_card
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_the_device_sees_no_wait_in_a_step(temperature: float) -> None:
    made = runner()
    wanted = steps(made, temperature)
    steps(made, temperature)  # now every size is captured
    with no_waits():
        launched = [made.launch(*step(0, 6, [4, 5, 6], temperature)),
                    *(made.launch(*step(position, 1, [-1, -2, -3], temperature)) for position in (6, 7))]
    np.testing.assert_array_equal([tokens() for tokens in launched], wanted)
