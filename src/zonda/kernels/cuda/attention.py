"""Attention over pages: one row of many sequences, split over their pasts, here; long runs of rows in `runs.py`.

All read keys and values through the page table. A page's tensor is (pages, kv heads, PAGE, dim).
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait
from triton.tools.tensor_descriptor import TensorDescriptor

from zonda.kernels.cuda.flash import Flash
from zonda.kernels.cuda.launch import early, kernel
from zonda.kernels.cuda.runs import place, tiles
from zonda.kernels.cuda.shapes import power, processors, room
from zonda.kernels.cuda.turning import angles, turned
from zonda.kernels.ops import Attend
from zonda.kernels.torch.ops import PAGE
from zonda.kernels.torch.step import TILE, Step


@triton.jit
def _fetch(keys, values, table, head, start, end, HKV: tl.constexpr, D: tl.constexpr, DP: tl.constexpr,
           PAGE: tl.constexpr, BN: tl.constexpr):
    """Keys (DP, BN) and values (BN, DP) at positions from `start` that are before `end`."""
    past, d = start + tl.arange(0, BN), tl.arange(0, DP)
    page = tl.load(table + past // PAGE, mask=past < end, other=0).to(tl.int64)
    place = ((page * HKV + head) * PAGE + past % PAGE) * D
    k = tl.load(keys + place[None, :] + d[:, None], mask=(past < end)[None, :] & (d < D)[:, None], other=0.0)
    v = tl.load(values + place[:, None] + d[None, :], mask=(past < end)[:, None] & (d < D)[None, :], other=0.0)
    return k, v


@triton.jit
def _capped(s, scale, softcap, SOFTCAP: tl.constexpr):
    s = s * scale
    if SOFTCAP:
        s = softcap * (2.0 / (1.0 + tl.exp(-2.0 * s / softcap)) - 1.0)
    return s


@triton.jit
def with_sink(total, top, sinks, head, inside):
    """The sum of weights of some heads, with those of their sinks, if they have any."""
    if sinks is not None:
        total += tl.exp(tl.load(sinks + head, mask=inside, other=0.0) - top)
    return total


@triton.jit
def own(base, head, cos, sin, k_norm, k_eps, keys, HQ: tl.constexpr, HKV: tl.constexpr, D: tl.constexpr,
        DP: tl.constexpr, RD: tl.constexpr, K_NORM: tl.constexpr):
    """A row's own key and value (DP,), of the cache's type."""
    d, one = tl.arange(0, DP), tl.arange(0, 16)
    k = turned(base + ((HQ + head) * D + one * 0)[:, None], (one < 1)[:, None], cos, sin, k_norm, k_eps, D, DP, RD,
               K_NORM)
    v = tl.load(base + (HQ + HKV + head) * D + d, mask=d < D, other=0.0)
    return tl.sum(k, 0).to(keys.dtype.element_ty), v.to(keys.dtype.element_ty)


@triton.jit
def keep(k, v, keys, values, table, head, position, HKV: tl.constexpr, D: tl.constexpr, DP: tl.constexpr,
         PAGE: tl.constexpr):
    """The key and the value of a position into the cache."""
    d = tl.arange(0, DP)
    page = tl.load(table + position // PAGE).to(tl.int64)
    place = ((page * HKV + head) * PAGE + position % PAGE) * D + d
    tl.store(keys + place, k, mask=d < D)
    tl.store(values + place, v, mask=d < D)


@kernel
def single(qkv, singles, owners, positions, head_words, pages, keys, values, out, sums, parts, arrived, frequencies,
           q_norm, k_norm, q_eps, k_eps, factor, sinks, scale, softcap, window,
           HQ: tl.constexpr, HKV: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, G: tl.constexpr, GP: tl.constexpr,
           GS: tl.constexpr, RD: tl.constexpr, PAGE: tl.constexpr, BN: tl.constexpr, SPLITS: tl.constexpr,
           Q_NORM: tl.constexpr, K_NORM: tl.constexpr, SOFTCAP: tl.constexpr, DOT: tl.constexpr, PDL: tl.constexpr):
    """One row of a sequence: norm, rotation, its key and value into the cache, attention. (rows, kv heads, splits).

    The last split to come adds the parts up, in their order.
    """
    if PDL:
        gdc_launch_dependents()
    index, head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    row = tl.load(singles + index)
    if row >= 0:
        position = tl.load(positions + row)
        table = pages + tl.load(owners + row) * tl.load(head_words)
        d, g = tl.arange(0, DP), tl.arange(0, GP)
        inside_d = d < D
        first = tl.maximum(position + 1 - window, 0) if window > 0 else 0
        # no more splits than blocks of the past
        active = tl.maximum(tl.minimum(tl.cdiv(position - first, BN), SPLITS), 1)
        share = tl.cdiv(tl.cdiv(position - first, active), BN) * BN
        if split < active:
            low = first + split * share
            high = tl.minimum(low + share, position)
            # all but the row's own query, key and value is there since the step before
            past_k, past_v = _fetch(keys, values, table, head, low, high, HKV, D, DP, PAGE, BN)
            cos, sin = angles(frequencies, position, factor, DP, RD) if RD > 0 else (d, d)
            if PDL:
                gdc_wait()
            base = qkv + row.to(tl.int64) * ((HQ + 2 * HKV) * D)
            q = turned(base + ((head * G + g) * D)[:, None], (g < G)[:, None], cos, sin, q_norm, q_eps, D, DP, RD,
                       Q_NORM).to(DOT)
            top = tl.full([GP], -1.0e30, tl.float32)
            total = tl.zeros([GP], tl.float32)
            mixed = tl.zeros([GP, DP], tl.float32)
            if split == 0:
                k, v = own(base, head, cos, sin, k_norm, k_eps, keys, HQ, HKV, D, DP, RD, K_NORM)
                keep(k, v, keys, values, table, head, position, HKV, D, DP, PAGE)
                top = _capped(tl.sum(q.to(tl.float32) * k.to(DOT).to(tl.float32)[None, :], 1), scale, softcap, SOFTCAP)
                total += 1.0
                mixed += v.to(DOT).to(tl.float32)[None, :]
            for start in range(low, high, BN):
                ahead_k, ahead_v = _fetch(keys, values, table, head, start + BN, high, HKV, D, DP, PAGE, BN)
                s = _capped(tl.dot(q, past_k.to(DOT), input_precision="ieee"), scale, softcap, SOFTCAP)
                s = tl.where((start + tl.arange(0, BN) < high)[None, :], s, -1.0e30)
                higher = tl.maximum(top, tl.max(s, 1))
                p = tl.exp(s - higher[:, None])
                fade = tl.exp(top - higher)
                mixed = mixed * fade[:, None] + tl.dot(p.to(DOT), past_v.to(DOT), input_precision="ieee")
                total = total * fade + tl.sum(p, 1)
                top, past_k, past_v = higher, ahead_k, ahead_v
            target = out + row.to(tl.int64) * (HQ * D) + ((head * G + g) * D)[:, None] + d[None, :]
            written = (g < G)[:, None] & inside_d[None, :]
            if active == 1:
                total = with_sink(total, top, sinks, head * G + g, g < G)
                tl.store(target, mixed / total[:, None], mask=written)
            else:
                cell, shared = (index * HKV + head) * SPLITS, g < GS
                tl.store(parts + ((cell + split) * GS + g)[:, None] * DP + d[None, :], mixed, mask=shared[:, None])
                tl.store(sums + ((cell + split) * 2) * GS + g, top, mask=shared)
                tl.store(sums + ((cell + split) * 2 + 1) * GS + g, total, mask=shared)
                tl.debug_barrier()
                before = tl.atomic_add(arrived + index * HKV + head, 1, sem="acq_rel")
                if before == active - 1:
                    tl.debug_barrier()
                    h = tl.arange(0, GS)
                    peak = tl.full([GS], -1.0e30, tl.float32)
                    weight = tl.zeros([GS], tl.float32)
                    value = tl.zeros([GS, DP], tl.float32)
                    for each in range(cell, cell + active):
                        its = tl.load(parts + (each * GS + h)[:, None] * DP + d[None, :], cache_modifier=".cg")
                        its_top = tl.load(sums + each * 2 * GS + h, cache_modifier=".cg")
                        its_total = tl.load(sums + (each * 2 + 1) * GS + h, cache_modifier=".cg")
                        higher = tl.maximum(peak, its_top)
                        grown, fade = tl.exp(its_top - higher), tl.exp(peak - higher)
                        weight = weight * fade + its_total * grown
                        value = value * fade[:, None] + its * grown[:, None]
                        peak = higher
                    weight = with_sink(weight, peak, sinks, head * G + h, h < G)
                    to = out + row.to(tl.int64) * (HQ * D) + ((head * G + h) * D)[:, None] + d[None, :]
                    tl.store(to, value / weight[:, None], mask=(h < G)[:, None] & inside_d[None, :])
                    tl.store(arrived + index * HKV + head, 0)
    if PDL:
        gdc_wait()  # also where nothing is done: who waits for this kernel waits for those before it


@kernel
def whole(qkv, singles, owners, positions, head_words, pages, keys, values, key_blocks, value_blocks, out, frequencies,
          q_norm, k_norm, q_eps, k_eps, factor, sinks, scale, softcap, window, HQ: tl.constexpr, HKV: tl.constexpr,
          D: tl.constexpr, DP: tl.constexpr, G: tl.constexpr, GP: tl.constexpr, RD: tl.constexpr, PAGE: tl.constexpr,
          Q_NORM: tl.constexpr, K_NORM: tl.constexpr, WINDOW: tl.constexpr, SOFTCAP: tl.constexpr, DOT: tl.constexpr,
          PDL: tl.constexpr):
    """What `single` does, where one program looks back on all of a row's past. (kv heads, rows).

    The copy engine brings pages ahead: `key_blocks` and `value_blocks` describe (PAGE, DP) of what `keys` and `values`
    point to.
    """
    if PDL:
        gdc_launch_dependents()
    head, row = tl.program_id(0), tl.load(singles + tl.program_id(1))
    if row >= 0:
        position = tl.load(positions + row)
        table = pages + tl.load(owners + row) * tl.load(head_words)
        d, g, n = tl.arange(0, DP), tl.arange(0, GP), tl.arange(0, PAGE)
        inside_d = d < D
        cos, sin = angles(frequencies, position, factor, DP, RD) if RD > 0 else (d, d)
        if PDL:
            gdc_wait()
        base = qkv + row.to(tl.int64) * ((HQ + 2 * HKV) * D)
        q = turned(base + ((head * G + g) * D)[:, None], (g < G)[:, None], cos, sin, q_norm, q_eps, D, DP, RD,
                   Q_NORM).to(DOT)
        k, v = own(base, head, cos, sin, k_norm, k_eps, keys, HQ, HKV, D, DP, RD, K_NORM)
        keep(k, v, keys, values, table, head, position, HKV, D, DP, PAGE)
        top = _capped(tl.sum(q.to(tl.float32) * k.to(DOT).to(tl.float32)[None, :], 1), scale, softcap, SOFTCAP)
        total = tl.full([GP], 1.0, tl.float32)
        mixed = tl.zeros([GP, DP], tl.float32) + v.to(DOT).to(tl.float32)[None, :]
        first = tl.maximum(position + 1 - window, 0) if WINDOW else 0
        for phase in tl.static_range(2):  # whole pages, then the one that is not full
            begin = first // PAGE if phase == 0 else position // PAGE
            for page in range(begin, position // PAGE if phase == 0 else tl.cdiv(position, PAGE)):
                block = (tl.load(table + page) * HKV + head) * PAGE
                past_k, past_v = key_blocks.load([block, 0]).to(DOT), value_blocks.load([block, 0]).to(DOT)
                past = page * PAGE + n
                s = _capped(tl.dot(q, tl.trans(past_k), input_precision="ieee"), scale, softcap, SOFTCAP)
                if WINDOW:
                    s = tl.where((past >= first)[None, :], s, -1.0e30)
                if phase == 1:
                    s = tl.where((past < position)[None, :], s, -1.0e30)
                    past_v = tl.where((past < position)[:, None], past_v, 0.0)  # what nobody wrote may be no number
                higher = tl.maximum(top, tl.max(s, 1))
                p = tl.exp(s - higher[:, None])
                fade = tl.exp(top - higher)
                mixed = tl.dot(p.to(DOT), past_v, mixed * fade[:, None], input_precision="ieee")
                total = total * fade + tl.sum(p, 1)
                top = higher
        target = out + row.to(tl.int64) * (HQ * D) + ((head * G + g) * D)[:, None] + d[None, :]
        total = with_sink(total, top, sinks, head * G + g, g < G)
        tl.store(target, mixed / total[:, None], mask=(g < G)[:, None] & inside_d[None, :])
    elif PDL:
        gdc_wait()  # who waits for this kernel waits for those before it


@dataclass(frozen=True, slots=True)
class Cut:
    """How single rows are cut: `splits` of the past at most, `block` positions at a time, `warps`, `stages`."""

    splits: int = 16
    block: int = 64
    warps: int = 4
    stages: int = 1


class Attention:
    """Launches the kernels; keeps the memory where splits meet."""

    def __init__(self, device: torch.device, dtype: torch.dtype, *, cut: Cut = Cut()) -> None:
        self._cut = cut
        self._device = device
        self._dot = {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}.get(dtype, tl.float32)
        if device.type != "cuda":
            self._dot = tl.float32  # Triton's interpreter would multiply the bits of bfloat16
        self._early = early(device)
        self._nvidia = device.type == "cuda" and torch.version.hip is None
        self._described: dict[Tensor, list[TensorDescriptor]] = {}
        self._flash = Flash(device)
        self._arrived = torch.zeros(1 << 16, dtype=torch.int32, device=device)

    def __call__(self, qkv: Tensor, layer: Attend, step: Step, cache: tuple[Tensor, Tensor]) -> Tensor:
        """qkv (rows, (q + 2·kv)·dim) -> (rows, q·dim)."""
        out = self._runs(qkv, layer, step, cache) if step.sizes.items else self._room(qkv, layer)
        if step.sizes.seqs and len(step.singles):
            self._singles(qkv, layer, step, cache, out)
        return out

    def _singles(self, qkv: Tensor, layer: Attend, step: Step, cache: tuple[Tensor, Tensor], out: Tensor) -> None:
        heads, count, wide = layer.heads, len(step.singles), power(layer.heads.dim)
        splits = min(self._cut.splits, max(1, power(2 * processors(self._device) // (count * heads.kv) + 1) // 2))
        if splits == 1:
            return self._whole(qkv, layer, step, cache, out)
        group = power(heads.q // heads.kv)
        parts = torch.empty(count * heads.kv * splits * group * (wide + 2), dtype=torch.float32, device=self._device)
        sums = parts[count * heads.kv * splits * group * wide:]
        single[(count, heads.kv, splits)](
            qkv, step.singles, step.owners, step.positions, step.head, step.table, *cache, out, sums, parts,
            self._arrived, *self._turning(layer), layer.sinks, layer.scale, layer.softcap, layer.window,
            **self._sizes(layer), GS=group, **self._turns(layer), PAGE=PAGE, BN=self._cut.block, SPLITS=splits,
            SOFTCAP=layer.softcap > 0, DOT=self._dot, num_warps=self._cut.warps, num_stages=self._cut.stages,
            **self._early)

    def _whole(self, qkv: Tensor, layer: Attend, step: Step, cache: tuple[Tensor, Tensor], out: Tensor) -> None:
        line = power(layer.heads.dim) * cache[0].element_size()
        whole[(layer.heads.kv, len(step.singles))](
            qkv, step.singles, step.owners, step.positions, step.head, step.table, *cache, *self._blocks(cache), out,
            *self._turning(layer), layer.sinks, layer.scale, layer.softcap, layer.window, **self._sizes(layer),
            **self._turns(layer), PAGE=PAGE, WINDOW=layer.window > 0, SOFTCAP=layer.softcap > 0, DOT=self._dot,
            num_warps=min(4, max(1, line // 128)), num_stages=max(1, min(3, room(self._device) // (2 * PAGE * line))),
            **self._early)

    def _room(self, qkv: Tensor, layer: Attend) -> Tensor:
        return torch.empty(len(qkv), layer.heads.q * layer.heads.dim, dtype=qkv.dtype, device=self._device)

    def _runs(self, qkv: Tensor, layer: Attend, step: Step, cache: tuple[Tensor, Tensor]) -> Tensor:
        """What all runs of rows look back on; the rows of single ones are left open."""
        heads = layer.heads
        wide, group = power(heads.dim), heads.q // heads.kv
        place[(step.rows,)](qkv, step.owners, step.starts, step.positions, step.head, step.table, *cache,
                            *self._turning(layer), HQ=heads.q, HKV=heads.kv, D=heads.dim, DP=wide, HP=8,
                            **self._turns(layer), PAGE=PAGE, num_warps=4)
        if (out := self._flash(qkv, layer, step, cache)) is not None:
            return out
        out = self._room(qkv, layer)
        number = qkv.element_size()
        fits = (2 * TILE + 2 * PAGE) * wide * number <= room(self._device)
        side = 2 if group % 2 == 0 and wide * number <= 512 and fits else 1
        # so two programs share a processor: one multiplies while the other takes exponents
        limit = {"maxnreg": 128} if self._nvidia and wide * number <= 256 else {}
        tiles[(heads.q // side, step.sizes.items)](
            qkv, step.items, step.positions, step.head, step.table, *self._blocks(cache), out, layer.sinks, layer.scale,
            layer.softcap, layer.window, HQ=heads.q, HKV=heads.kv, D=heads.dim, DP=wide, G=group, PAGE=PAGE,
            TILE=TILE, SIDE=side, WINDOW=layer.window > 0, SOFTCAP=layer.softcap > 0, DOT=self._dot, num_warps=4 * side,
            num_stages=2 if number == 2 else 1, **limit)
        return out

    def _blocks(self, cache: tuple[Tensor, Tensor]) -> list[TensorDescriptor]:
        """Blocks (PAGE, DP) of keys and of values, described once for each layer."""
        if cache[0] not in self._described:
            dim = cache[0].shape[-1]
            self._described[cache[0]] = [TensorDescriptor.from_tensor(each.view(-1, dim), [PAGE, power(dim)])
                                         for each in cache]
        return self._described[cache[0]]

    @staticmethod
    def _sizes(layer: Attend) -> dict[str, int]:
        heads = layer.heads
        group = heads.q // heads.kv
        return {"HQ": heads.q, "HKV": heads.kv, "D": heads.dim, "DP": power(heads.dim), "G": group,
                "GP": max(16, power(group))}

    @staticmethod
    def _turning(layer: Attend) -> tuple[Any, ...]:
        rotary, q, k = layer.rotary, layer.q_norm, layer.k_norm
        stand = next((each.weight for each in (q, k) if each), None) if rotary is None else rotary.frequencies
        return (stand, q.weight if q else stand, k.weight if k else stand, q.eps if q else 0.0, k.eps if k else 0.0,
                rotary.factor if rotary else 1.0)

    @staticmethod
    def _turns(layer: Attend) -> dict[str, Any]:
        return {"RD": layer.rotary.dim if layer.rotary else 0, "Q_NORM": layer.q_norm is not None,
                "K_NORM": layer.k_norm is not None}
