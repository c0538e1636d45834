"""FlashAttention 4, where it is installed: attention of runs of rows over the cache's own pages.

A kernel is compiled for each shape of heads, which takes seconds; they are kept on disk.
"""
from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from zonda.kernels.choose import LONG, flash_on
from zonda.kernels.ops import Attend, Heads
from zonda.kernels.torch.ops import PAGE
from zonda.kernels.torch.step import Step

log = logging.getLogger("zonda")
Cache = tuple[Tensor, Tensor]


class Flash:
    """Takes the layers and steps that it was measured faster for; never again what it has failed at."""

    def __init__(self, device: torch.device) -> None:
        self._able = device.type == "cuda" and flash_on(torch.cuda.get_device_capability(device))
        self._kernel: Callable[..., Any] | None = None
        self._heads: dict[Heads, bool] = {}
        self._step: Step | None = None
        """The one whose `_counts` are at hand, for all its layers."""
        self._counts: Tensor | None = None

    def __call__(self, qkv: Tensor, layer: Attend, step: Step, cache: Cache) -> Tensor | None:
        """Queries (rows, (q + 2·kv)·dim), normed and turned, -> (rows, q·dim), or None: our own kernel is to compute.

        Rows of single ones are left open. Compiles for heads that are new.
        """
        if not (self._able and layer.heads.dim == 128 and cache[0].dtype == qkv.dtype and qkv.element_size() == 2):
            return None
        if layer.window or layer.softcap or layer.sinks is not None or not self._heads.get(layer.heads, True):
            return None
        if layer.heads not in self._heads:
            starts, two = (torch.tensor(each, dtype=torch.int32, device=qkv.device) for each in ([0, 2], [2]))
            self._tried(torch.zeros_like(qkv[:1]).expand(2, -1).contiguous(), layer, cache, starts, two, two,
                        torch.zeros_like(two)[None])
        if len(step.table) * PAGE < LONG * step.sizes.seqs:
            return None
        if self._step is not step:
            counts = step.starts.diff()
            self._step, self._counts = step, torch.where(counts > 1, counts, 0)
        assert self._counts is not None
        return self._tried(qkv, layer, cache, step.starts, self._counts, step.lengths,
                           step.table.view(step.sizes.seqs, -1))

    def _tried(self, qkv: Tensor, layer: Attend, cache: Cache, *lengths: Tensor) -> Tensor | None:
        try:
            found = self._run(qkv, layer, cache, *lengths)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            log.warning("FlashAttention 4 is installed, but does not run here: %s: %s", type(error).__name__,
                        str(error)[:200])
            found = None
        self._heads[layer.heads] = found is not None
        return found

    def _run(self, qkv: Tensor, layer: Attend, cache: Cache, starts: Tensor, counts: Tensor, lengths: Tensor,
             table: Tensor) -> Tensor:
        if self._kernel is None:
            from flash_attn.cute.interface import flash_attn_varlen_func

            self._kernel = flash_attn_varlen_func
        rows, heads = len(qkv), layer.heads
        keys, values = (each.transpose(1, 2) for each in cache)
        found = self._kernel(qkv.view(rows, -1, heads.dim)[:, :heads.q], keys, values, cu_seqlens_q=starts,
                             seqused_q=counts, seqused_k=lengths, page_table=table, softmax_scale=layer.scale,
                             causal=True)
        return (found[0] if isinstance(found, tuple) else found).view(rows, heads.q * heads.dim)
