"""The runner on a torch device: steps launched ahead, decode as captured graphs, tokens drawn where logits are."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import wraps
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor

from zonda.engine.batch import Batch
from zonda.engine.graphs import Graphs, bucket
from zonda.engine.runner import Drawing
from zonda.engine.scheduler import SCORED
from zonda.errors import DeviceLost, OutOfMemory
from zonda.kernels.torch.ops import PAGE, TorchOps
from zonda.kernels.torch.step import Sizes, Step, pieces, view
from zonda.weights.load import Convert, Progress, load
from zonda.weights.source import Source

if TYPE_CHECKING:
    from zonda.nn.decoder import Decoder

RING = 4
"""Host buffers; more than steps on their way."""
RESERVE = 1 << 30
"""Bytes left free for what kernels need while they run."""

P = ParamSpec("P")
R = TypeVar("R")


def chosen(device: torch.device) -> AbstractContextManager[object]:
    """While it lasts, this thread computes on the device, and its events are of the device's stream."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def on_device(method: Callable[Concatenate[TorchRunner, P], R]) -> Callable[Concatenate[TorchRunner, P], R]:
    """Compute without gradients and on the runner's device: torch and Triton take the one that a thread has chosen.

    Raises `OutOfMemory` when the device has none left, after what torch kept for later is given back, and `DeviceLost`
    when the device does nothing more. A step that fails is waited for: what it was to read, the next one writes over.
    """
    @wraps(method)
    def there(self: TorchRunner, *given: P.args, **named: P.kwargs) -> R:
        with torch.inference_mode(), chosen(self.device):
            try:
                return method(self, *given, **named)
            except Exception as error:
                self.check()
                if not no_memory(error):
                    raise
                failed = OutOfMemory(f"{self.device} has no memory left for this step",
                                     hint="give the cache less by --kv-memory-mb, or ask for shorter steps by "
                                          "--max-num-batched-tokens")
                failed.__cause__ = error.with_traceback(None)  # whose frames hold tensors
        torch.cuda.empty_cache()
        raise failed

    return there


def no_memory(error: Exception) -> bool:
    """Whether a device had none: torch's allocator says so by a type, drivers, Triton and cuBLAS by their words."""
    told = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in told or "alloc_failed" in told))


class TorchRunner:
    """`Ahead` over `TorchOps`, or the CUDA kernels over them. `kv_bytes` bounds the cache."""

    page_size = PAGE

    def __init__(self, decoder: Decoder, source: Source, ops: TorchOps, *, max_len: int, kv_bytes: int, max_rows: int,
                 max_seqs: int, graphs: bool = True, convert: Convert | None = None,
                 progress: Progress | None = None) -> None:
        self.ops = ops
        self.device = ops.device
        with torch.inference_mode(), chosen(self.device):
            load(decoder, source, ops, convert=convert, progress=progress)
        self._decoder = decoder
        self.vocab = decoder.vocab
        self.max_rows = max_rows
        page_bytes = PAGE * sum(each.position_bytes(ops.cache_dtype.itemsize) for each in decoder.caches)
        self.pages = max(1, min(kv_bytes, self._free()) // page_bytes)
        self.max_len = min(max_len, self.pages * PAGE)
        ops.allocate(decoder.caches, self.pages)
        self._last = torch.zeros(max_rows, dtype=torch.int32, device=self.device)
        self._host: list[Tensor | None] = [None] * RING
        self._drawn = self._pinned(RING * max_rows).view(RING, max_rows)
        self._turn = 0
        self.max_seqs = max(1, min(max_seqs, max_rows // 2))
        """Sequences of a step: an engine has no more of them, so the largest graph has no more rows than a step."""
        self._max_samples = min(max_rows, self.max_seqs + SCORED)
        self.table_words = self.max_seqs * (-(-self.max_len // PAGE))
        capturing = graphs and ops.captures and self.device.type == "cuda"
        self._graphs = Graphs(self) if capturing else None

    @on_device
    def compile(self, told: Callable[[], None] = lambda: None) -> None:
        """Have all kernels that steps may need, so that no step waits for one; `told` hears of each."""
        with self.ops.compiling(told):
            for step, greedy in self._rehearsal():
                self.draw(self.forward(step), step, greedy=greedy)

    def _rehearsal(self) -> Iterator[tuple[Step, bool]]:
        """Steps of no sequence that call for what any step may: kernels differ by the next power of two of sizes."""
        for rows in (*(1 << i for i in range(self.max_rows.bit_length())), self.max_rows):
            seqs = min(rows, self._max_samples)
            sizes = Sizes(rows, seqs, seqs, 1)
            blank = torch.zeros(sizes.places["table"].start, dtype=torch.int32, device=self.device)
            step = self.step(blank, sizes, alone=False)
            step.singles.fill_(-1)
            yield step, rows > 1

    @on_device
    def warm(self, *, all: bool) -> None:
        """Capture every size of greedy decode step, or the largest, whose memory the others share, and the smallest."""
        if self._graphs:
            self._graphs.capture(all=all)

    @on_device
    def idle(self) -> bool:
        """Capture one more size of decode step."""
        return self._graphs is not None and self._graphs.capture_next()

    def _free(self) -> int:
        if self.device.type != "cuda":
            return 1 << 62
        torch.cuda.empty_cache()
        return max(0, torch.cuda.mem_get_info(self.device)[0] - RESERVE)

    def _pinned(self, words: int) -> Tensor:
        return torch.zeros(words, dtype=torch.int32, pin_memory=self.device.type == "cuda")

    @on_device
    def run(self, batch: Batch) -> np.ndarray:
        assert batch.rows <= self.max_rows, f"{batch.rows} rows exceed the {self.max_rows} that a step may have"
        step = self.upload(batch, None)
        return self.forward(step)[:len(batch.sample)].float().cpu().numpy()

    @on_device
    def launch(self, batch: Batch, drawing: Drawing) -> Callable[[], np.ndarray]:
        """Start a step whose samples all draw; see `Ahead`."""
        count = len(batch.sample)
        size = bucket(batch.rows) if self._graphs and batch.rows == len(batch.lengths) == count else 0
        if self._graphs and size and size <= self._graphs.most:
            self._graphs.run(batch, drawing, size)
        else:
            step = self.upload(batch, drawing)
            logits = self.forward(step)
            if count:
                self.draw(logits, step, greedy=drawing.greedy)
        drawn = self._drawn[self._turn]
        if not self.ops.tells:
            drawn[:count].copy_(self._last[:count], non_blocking=True)
        self._turn = (self._turn + 1) % RING
        if self.device.type != "cuda":
            return lambda: drawn[:count].numpy().copy()
        done = torch.cuda.Event()
        done.record()

        def tokens() -> np.ndarray:
            self.wait(done)
            return drawn[:count].numpy().copy()

        return tokens

    @on_device
    def wait(self, done: torch.cuda.Event) -> None:
        done.synchronize()

    def check(self) -> None:
        """Wait for all that was launched; raise `DeviceLost` if the device does nothing more.

        After some errors every call fails with the same one. To wait for the whole device would be an error too while
        another thread captures.
        """
        if self.device.type == "cuda":
            try:
                torch.cuda.current_stream(self.device).synchronize()
            except RuntimeError as error:
                raise DeviceLost(f"{self.device} has failed: {error}", hint="start the process again") from error

    def forward(self, step: Step) -> Tensor:
        """Logits, float32 (samples, vocab)."""
        return self._decoder(step)

    def draw(self, logits: Tensor, step: Step, *, greedy: bool) -> None:
        """Draw into `step.last`."""
        self.ops.draw(logits, step, greedy=greedy)

    def upload(self, batch: Batch, drawing: Drawing | None) -> Step:
        """The step of a batch, in memory of its own. One that samples nothing gets row 0 for it: kernels need rows."""
        items = pieces(batch.starts, batch.lengths)
        sizes = Sizes(batch.rows, len(batch.lengths), max(1, len(batch.sample)), len(items))
        alone = bool(batch.rows == len(batch.sample) == len(batch.lengths))
        buffer = self.fill(batch, drawing, sizes, items).to(self.device, non_blocking=True)
        return self.step(buffer, sizes, alone=alone)

    def step(self, words: Tensor, sizes: Sizes, *, alone: bool) -> Step:
        """The step that int32 words on the device hold."""
        return view(words, sizes, self._last, self._drawn, alone=alone)

    def fill(self, batch: Batch, drawing: Drawing | None, sizes: Sizes, items: np.ndarray) -> Tensor:
        """The step's words on the host; what `sizes` has more than the batch are rows of no sequence."""
        places = sizes.places
        seqs, width = batch.page_table.shape
        start = places["table"].start
        host = self._buffer(start + seqs * width)
        words = host.numpy()
        words[:start] = 0
        words[:2] = width, self._turn
        counts = np.diff(batch.starts)
        singles = np.full(sizes.seqs, -1, np.int32)
        alone = np.flatnonzero(counts == 1)
        singles[:len(alone)] = batch.starts[alone]
        fields = {"tokens": batch.tokens, "positions": batch.positions, "starts": batch.starts,
                  "owners": np.repeat(np.arange(seqs, dtype=np.int32), counts), "lengths": batch.lengths,
                  "singles": singles, "items": items.ravel(), "sample": batch.sample}
        if drawing:
            names = ("temperature", "top_k", "top_p", "min_p", "key", "number")
            fields |= {name: np.ascontiguousarray(getattr(drawing, name)).view(np.int32) for name in names}
        for name, values in fields.items():
            first = places[name].start
            words[first:first + len(values)] = values
        words[start:start + seqs * width] = batch.page_table.ravel()
        return host[:start + seqs * width]

    def _buffer(self, words: int) -> Tensor:
        held = self._host[self._turn]
        if held is None or len(held) < words:
            held = self._host[self._turn] = self._pinned(1 << words.bit_length())
        return held

    @on_device
    def copy_page(self, source: int, target: int) -> None:
        self.ops.copy_page(source, target)

    def close(self) -> None:
        """Give the device's memory back, unless it has failed: then nothing can."""
        with suppress(DeviceLost):
            self.check()
            for name in ("_graphs", "_decoder", "ops"):
                vars(self).pop(name, None)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
