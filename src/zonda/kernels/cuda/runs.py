"""Attention of runs of rows: keys and values into the cache, then tiles of rows over whole pages.

A page's tensor is (pages, kv heads, PAGE, dim): a head's part of a page is what one bulk load brings.
"""
from __future__ import annotations

import triton
import triton.language as tl

from zonda.kernels.cuda.launch import kernel
from zonda.kernels.cuda.turning import angles, turned


@kernel
def place(qkv, owners, starts, positions, head_words, pages, keys, values, frequencies, q_norm, k_norm, q_eps, k_eps,
          factor, HQ: tl.constexpr, HKV: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, HP: tl.constexpr,
          RD: tl.constexpr, PAGE: tl.constexpr, Q_NORM: tl.constexpr, K_NORM: tl.constexpr):
    """Rows of longer runs: norm and rotate queries where they are, and keys into the cache, with the values."""
    row = tl.program_id(0)
    owner = tl.load(owners + row)
    if tl.load(starts + owner + 1) - tl.load(starts + owner) > 1:
        position = tl.load(positions + row)
        d, h = tl.arange(0, DP), tl.arange(0, HP)
        cos, sin = angles(frequencies, position, factor, DP, RD) if RD > 0 else (d, d)
        base = qkv + row.to(tl.int64) * ((HQ + 2 * HKV) * D)
        page = tl.load(pages + owner * tl.load(head_words) + position // PAGE).to(tl.int64)
        for first in tl.static_range(0, HQ, HP):
            at, live = base + ((first + h) * D)[:, None], (first + h < HQ)[:, None]
            q = turned(at, live, cos, sin, q_norm, q_eps, D, DP, RD, Q_NORM)
            tl.debug_barrier()
            tl.store(at + d[None, :], q, mask=live & (d < D)[None, :])
        for first in tl.static_range(0, HKV, HP):
            live = (first + h < HKV)[:, None]
            inside = live & (d < D)[None, :]
            k = turned(base + ((HQ + first + h) * D)[:, None], live, cos, sin, k_norm, k_eps, D, DP, RD, K_NORM)
            v = tl.load(base + ((HQ + HKV + first + h) * D)[:, None] + d[None, :], mask=inside, other=0.0)
            to = ((page * HKV + first + h) * PAGE + position % PAGE)[:, None] * D + d[None, :]
            tl.store(keys + to, k.to(keys.dtype.element_ty), mask=inside)
            tl.store(values + to, v.to(values.dtype.element_ty), mask=inside)


@triton.jit
def _more(q, k, v, top, total, mixed, seen, unit, softcap, SOFTCAP: tl.constexpr, EDGE: tl.constexpr):
    """One page more in a running softmax, whose exponents are powers of two; on an edge not all is `seen`."""
    s = tl.dot(q, tl.trans(k), input_precision="ieee")
    if SOFTCAP:
        s = softcap * (2.0 / (1.0 + tl.exp2(-2.0 * s * unit / softcap)) - 1.0)
        unit = 1.4426950408889634
    if EDGE:
        s = tl.where(seen, s, float("-inf"))
    higher = tl.maximum(top, tl.max(s, 1) * unit)
    p = tl.exp2(s * unit - higher[:, None])
    fade = tl.exp2(top - higher)
    mixed = tl.dot(p.to(v.dtype), v, mixed * fade[:, None], input_precision="ieee")
    return higher, total * fade + tl.sum(p, 1), mixed


@kernel
def tiles(qkv, items, positions, head_words, pages, keys, values, out, sinks, scale, softcap, window,
          HQ: tl.constexpr, HKV: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, G: tl.constexpr, PAGE: tl.constexpr,
          TILE: tl.constexpr, SIDE: tl.constexpr, WINDOW: tl.constexpr, SOFTCAP: tl.constexpr, DOT: tl.constexpr):
    """A tile of rows of one sequence, SIDE of its query heads side by side; the cache already has their keys.

    `keys` and `values` describe blocks (PAGE, DP) of (pages · kv heads · PAGE, D).
    """
    group, item = tl.program_id(0), tl.program_id(1)
    row, rows, owner = tl.load(items + item * 4), tl.load(items + item * 4 + 1), tl.load(items + item * 4 + 2)
    table = pages + owner * tl.load(head_words)
    head = group * SIDE // G
    m, n, d = tl.arange(0, TILE * SIDE), tl.arange(0, PAGE), tl.arange(0, DP)
    mine, which = m % TILE, group * SIDE + m // TILE
    written = (mine < rows)[:, None] & (d < D)[None, :]
    at = (row + mine).to(tl.int64)
    q = tl.load(qkv + (at * ((HQ + 2 * HKV) * D) + which * D)[:, None] + d[None, :], mask=written, other=0.0).to(DOT)
    begin = tl.load(positions + row)
    position, end = begin + mine, begin + rows
    # pages that some rows see in part: below the window of the last row, and after the first row
    low = tl.maximum(begin + 1 - window, 0) // PAGE if WINDOW else 0
    clear = tl.minimum(tl.cdiv(tl.maximum(end - window, 0), PAGE), tl.cdiv(end, PAGE)) if WINDOW else 0
    part = tl.maximum((begin + 1) // PAGE, clear)
    top = tl.full([TILE * SIDE], -1.0e30, tl.float32)
    total = tl.zeros([TILE * SIDE], tl.float32)
    mixed = tl.zeros([TILE * SIDE, DP], tl.float32)
    for phase in tl.static_range(0 if WINDOW else 1, 3):
        first = low if phase == 0 else (clear if phase == 1 else part)
        last = clear if phase == 0 else (part if phase == 1 else tl.cdiv(end, PAGE))
        for page in range(first, last):
            block = (tl.load(table + page) * HKV + head) * PAGE
            k, v = keys.load([block, 0]).to(DOT), values.load([block, 0]).to(DOT)
            past = page * PAGE + n
            seen = past[None, :] <= position[:, None]
            if WINDOW:
                seen = seen & (position[:, None] - past[None, :] < window)
            if phase != 1:
                v = tl.where((past < end)[:, None], v, 0.0)  # what nobody wrote may be no number
            top, total, mixed = _more(q, k, v, top, total, mixed, seen, scale * 1.4426950408889634, softcap, SOFTCAP,
                                      phase != 1)
    if sinks is not None:
        total += tl.exp2(tl.load(sinks + which) * 1.4426950408889634 - top)
    tl.store(out + (at * (HQ * D) + which * D)[:, None] + d[None, :], mixed / total[:, None], mask=written)
