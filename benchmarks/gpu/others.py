"""Zonda's attention beside that of other packages, over the same pages: a line of JSON for each case and candidate.

Arguments choose candidates by how their names begin. What is not installed, or fails, says why in its line.
"""
from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from batches import DEVICE, HEADS, Groups, Work, on_device
from replay import MEMORY, captured, replayed
from torch import Tensor

from zonda.kernels.cuda import attention
from zonda.kernels.torch.ops import PAGE

ROUNDS = 9
CASES: dict[str, Groups] = {
    "prompts of 2048 x 4": ((4, 2048, 2048),),
    "prompt of 8192": ((1, 8192, 8192),),
    "prompt of 32768": ((1, 32768, 32768),),
    "2048 rows after 30720": ((1, 2048, 32768),),
    "384 positions x 1": ((1, 1, 384),),
    "576 positions x 8": ((8, 1, 576),),
    "4096 positions x 64": ((64, 1, 4096),),
    "576 positions x 256": ((256, 1, 576),),
    "576 positions x 200, prompt of 2048": ((200, 1, 576), (1, 2048, 2048))}
Run = Callable[[int], Tensor]
"""Attention of one layer."""
Plan = Callable[[], None]


def space() -> Tensor:
    return torch.zeros(256 << 20, dtype=torch.uint8, device=DEVICE)


class Skipped:
    """A kernel that is not launched."""

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        return lambda *given, **options: None


def zonda(work: Work, *skipped: str) -> tuple[Run, None]:
    """Before runs attend, `place` turns their queries and keys and writes keys and values."""
    made = attention.Attention(DEVICE, work.q.dtype)

    def run(layer: int) -> Tensor:
        with ExitStack() as stack:
            for name in skipped:
                stack.enter_context(patch.object(attention, name, Skipped()))
            return made(work.qkv, work.layer, work.step, work.caches[layer]).view(work.q.shape)
    return run, None


def flash(work: Work, *, page: int = PAGE, tile: int = 0, first: int = 0, out: Tensor | None = None
          ) -> tuple[Run, None]:
    """FlashAttention 4 of the sequences from `first` on, `tile` keys at a time; with `page` 0 over new keys alone."""
    from flash_attn.cute.interface import _flash_attn_fwd

    row, caches, table = work.starts[first], work.caches, work.table
    if page > PAGE:
        caches = [(merged(k, work, page), merged(v, work, page)) for k, v in caches]
        table = np.arange(len(caches[0][0]), dtype=np.int32).reshape(len(table), -1)
    starts = on_device(work.starts[first:] - row)
    keys = {"page_table": on_device(table[first:]), "seqused_k": on_device(work.lengths[first:])} if page else \
        {"cu_seqlens_k": starts}
    attend = partial(_flash_attn_fwd, cu_seqlens_q=starts, max_seqlen_q=int(max(work.counts[first:])), causal=True,
                     max_seqlen_k=int(max(work.lengths[first:])), softmax_scale=work.layer.scale, out=out,
                     tile_mn=(128, tile) if tile else None, **keys)

    def run(layer: int) -> Tensor:
        k, v = (each.transpose(1, 2) for each in caches[layer]) if page else (work.k, work.v)
        return attend(work.q[row:], k, v)[0]
    return run, None


def merged(cache: Tensor, work: Work, page: int) -> Tensor:
    """The same keys or values in longer pages, in order."""
    table = np.pad(work.table, ((0, 0), (0, -work.table.shape[1] % (page // PAGE))))
    return cache[on_device(table.ravel())].unflatten(0, (-1, page // PAGE)).transpose(1, 2).flatten(2, 3)


def flashinfer(work: Work, kind: str, **options: Any) -> tuple[Run, Plan]:
    """Its wrapper for prefill or for decode, which plans by numbers of the host's."""
    import flashinfer as package

    wrapper = getattr(package, f"Batch{kind}WithPagedKVCacheWrapper")(space(), "HND", **options)
    pages = -(-work.lengths // PAGE)
    used = on_device(np.concatenate([row[:count] for row, count in zip(work.table, pages)]))
    ends = np.concatenate([[0], np.cumsum(pages)]).astype(np.int32)
    spans = [torch.from_numpy(each) for each in ((work.starts, ends) if kind == "Prefill" else (ends,))]
    last, out = torch.from_numpy((work.lengths - 1) % PAGE + 1), torch.empty_like(work.q)
    plan = partial(wrapper.plan, *spans, used, last, HEADS.q, HEADS.kv, HEADS.dim, PAGE, sm_scale=work.layer.scale,
                   q_data_type=work.q.dtype, kv_data_type=work.q.dtype,
                   **({"causal": True} if kind == "Prefill" else {}))
    return lambda layer: wrapper.run(work.q, work.caches[layer], out=out), plan


def xqa(work: Work) -> tuple[Run, None]:
    """TensorRT-LLM's kernel for single rows, as flashinfer has it; of a run, the last sequence, FlashAttention 4."""
    from flashinfer.decode import xqa_batch_decode_with_kv_cache as attend

    count, out, scratch = len(work.counts) - work.runs, torch.empty_like(work.q), space()
    longest = int(max(work.lengths[:count]))
    table, lengths = on_device(work.table[:count, :-(-longest // PAGE)]), on_device(work.lengths[:count])
    rest = flash(work, first=count, out=out[count:])[0] if work.runs else None

    def run(layer: int) -> Tensor:
        attend(work.q[:count], work.caches[layer], scratch, table, lengths, longest, bmm1_scale=work.layer.scale,
               bmm2_scale=1.0, out=out[:count], kv_layout="HND")
        if rest:
            rest(layer)
        return out
    return run, None


def candidates(work: Work) -> Iterator[tuple[str, Callable[[], tuple[Run, Plan | None]]]]:
    yield "zonda", partial(zonda, work)
    if work.runs:
        yield "zonda, attention alone", partial(zonda, work, "place")
        yield "zonda, place alone", partial(zonda, work, "single", "whole", "tiles")
    yield "flash-attn-4", partial(flash, work)
    yield "flash-attn-4, 64 keys at a time", partial(flash, work, tile=64)
    yield "flash-attn-4, pages of 128", partial(flash, work, page=128)
    if np.array_equal(work.counts, work.lengths):
        yield "flash-attn-4, no pages", partial(flash, work, page=0)
    kind, options = ("Prefill", {}) if work.runs else ("Decode", {"use_tensor_cores": True})
    for backend in ("fa2", "fa3"):
        yield f"flashinfer {backend}", partial(flashinfer, work, kind, backend=backend, **options)
    if not work.runs:
        yield "flashinfer", partial(flashinfer, work, kind)
    if work.counts[0] == 1:
        yield "flashinfer xqa" + ", flash-attn-4" * work.runs, partial(xqa, work)


def elapsed(work: Callable[[], object]) -> float:
    """Milliseconds of the host's until the device is idle."""
    before = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - before)


def check(name: str, make: Callable[[], tuple[Run, Plan | None]], rows: Tensor, expected: Tensor
          ) -> tuple[dict[str, Any], Run]:
    """How long the first call and a plan take and how far the results are off, and what to run."""
    made: list[Any] = []

    def first() -> None:
        made.extend(make())
        if made[1]:
            made[1]()
        made.append(made[0](0))
    found: dict[str, Any] = {"kernels": name, "first_ms": round(elapsed(first), 1)}
    run, plan, out = made
    if plan:
        found["plan_ms"] = round(statistics.median(elapsed(plan) for _ in range(9)), 3)
    if "place" not in name:
        off = (out[rows].float() - expected).abs().max() / expected.abs().max()
        found["error"] = float(f"{off:.2e}")
    return found, run


def compare(case: str, groups: Groups, wanted: tuple[str, ...]) -> None:
    """Check each candidate, then replay all in turns: milliseconds of one layer."""
    work, lines, graphs, kept = Work(groups), [], [], []
    layers = len(work.caches)
    zonda(work)[0](0)  # writes the rows' keys and values
    rows = np.unique(np.linspace(0, work.rows - 1, 24).astype(np.int32))
    expected = work.expected(rows)
    for name, make in candidates(work):
        if not name.startswith(wanted):
            continue
        try:
            line, run = check(name, make, on_device(rows), expected)
            graphs.append(captured([partial(run, layer) for layer in range(layers)]))
            kept.append(run)  # and with it the memory that its graph uses
            lines.append({"case": case} | line)
        except Exception as error:
            print(json.dumps({"case": case, "kernels": name, "failed": f"{type(error).__name__}: {error}"[:300]}))
    times = [[replayed(graph) / layers for graph in graphs] for _ in range(ROUNDS)]
    for number, line in enumerate(lines):
        ms = statistics.median(each[number] for each in times)
        line |= {"ms": round(ms, 4), "tflops": round(work.operations / ms / 1e9, 1),
                 "of_copy": round(work.bytes / ms * 1e3 / MEMORY, 3)}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    for case, groups in CASES.items():
        compare(case, groups, tuple(sys.argv[1:]) or ("",))
