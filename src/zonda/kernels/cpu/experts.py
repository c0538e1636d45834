"""A mixture of experts: route rows, gather each expert's rows into blocks, run its tiles, and mix the results.

Every row gets `top` slots. Slots are sorted by expert and each expert's run is padded to whole blocks of T, so that
tiles see blocks of one expert. A slot's place is its row in all later buffers; rows are mixed in the order of rank, so
a row's result does not depend on its neighbours.
"""
from __future__ import annotations

import numpy as np

from zonda.kernels.cpu.frame import ARGUMENTS, BLOCKS, PLACES, SCRATCH, SCRATCH_BYTES, SPREADERS, TOKENS
from zonda.kernels.cpu.layout import ROWS as TILE
from zonda.kernels.cpu.matmul import MOST_TOKENS, _variant, activate
from zonda.kernels.cpu.scalar import exp
from zonda.kernels.cpu.words import (
    call4,
    load3,
    load4,
    load6,
    load7,
    load8,
    load_f32,
    load_i32,
    load_i64,
    store_f32,
    store_i32,
    store_i64,
)

f32 = np.float32


def route(op: int, frame: int, piece: int, thread: int) -> None:
    """The `top` experts of one row. Arguments: router logits, experts, top, normalize, chosen int32 (rows, top), shares
    float32 (rows, top)."""
    scores, experts, top, normalize = load4(op, ARGUMENTS)
    chosen, shares = load_i64(op, ARGUMENTS + 4), load_i64(op, ARGUMENTS + 5)
    scores += piece * experts * 4
    peak = load_f32(scores, 0)
    for e in range(1, experts):
        peak = max(peak, load_f32(scores, e))
    total = f32(0)
    for e in range(experts):
        weight = exp(load_f32(scores, e) - peak)
        store_f32(scores, e, weight)
        total += weight
    kept = f32(0)
    for k in range(top):
        best, value = np.int64(0), f32(-1)
        for e in range(experts):
            if load_f32(scores, e) > value:
                best, value = np.int64(e), load_f32(scores, e)
        store_f32(scores, best, f32(-2))
        store_i32(chosen, piece * top + k, np.int32(best))
        store_f32(shares, piece * top + k, max(value, f32(0)))
        kept += max(value, f32(0))
    divisor = kept if normalize else total
    for k in range(top):
        store_f32(shares, piece * top + k, load_f32(shares, piece * top + k) / divisor)


def sort(op: int, frame: int, piece: int, thread: int) -> None:
    """Places of all slots. Arguments: chosen, experts, top, table, counts, places, sources, the
    frame's word that counts rows.

    `table` int64: each block's expert. `places` int32 (rows · top): a slot's padded row. `sources` int32 (padded rows):
    the row that each padded row is taken from. The frame's expert domain counts padded rows.
    """
    chosen, experts, top, table, counts, places, sources = load7(op, ARGUMENTS)
    slots = load_i64(frame, load_i64(op, ARGUMENTS + 7)) * top
    for e in range(experts):
        store_i32(counts, e, np.int32(0))
    for slot in range(slots):
        e = np.int64(load_i32(chosen, slot))
        store_i32(counts, e, np.int32(load_i32(counts, e) + 1))
    most = np.int64(0)
    for e in range(experts):
        most = max(most, np.int64(load_i32(counts, e)))
    tokens = 1 if most == 1 else 2 if most == 2 else 4 if most <= 4 else 8
    blocks = np.int64(0)
    for e in range(experts):
        need = (np.int64(load_i32(counts, e)) + tokens - 1) // tokens
        store_i32(counts, e, np.int32(blocks * tokens))
        for b in range(blocks, blocks + need):
            store_i64(table, b, np.int64(e))
        blocks += need
    store_i64(frame, PLACES, blocks * tokens)
    store_i64(frame, PLACES + TOKENS, np.int64(tokens))
    store_i64(frame, PLACES + BLOCKS, blocks)
    for row in range(blocks * tokens):
        store_i32(sources, row, np.int32(0))
    for slot in range(slots):
        e = np.int64(load_i32(chosen, slot))
        place = np.int64(load_i32(counts, e))
        store_i32(counts, e, np.int32(place + 1))
        store_i32(places, slot, np.int32(place))
        store_i32(sources, place, np.int32(slot // top))


def gated(op: int, frame: int, piece: int, thread: int) -> None:
    """activation(x · gateᵀ) · (x · upᵀ) of one tile of rows for every block, each with its own expert's weights.

    Arguments: blocks, bytes a token, units, table, gate, tile bytes, tiles of one expert, up, up tile bytes, five gate
    kernels, five up kernels, out, cols, activation.
    """
    blocks, token_bytes, units, table, gate, gate_bytes, tiles, up = load8(op, ARGUMENTS)
    up_bytes = load_i64(op, ARGUMENTS + 8)
    out, cols, kind = load3(op, ARGUMENTS + 19)
    tokens, count = load_i64(frame, PLACES + TOKENS), load_i64(frame, PLACES + BLOCKS)
    gate_kernel = load_i64(op, ARGUMENTS + 9 + _variant(tokens))
    up_kernel = load_i64(op, ARGUMENTS + 14 + _variant(tokens))
    left = load_i64(frame, SCRATCH) + thread * load_i64(frame, SCRATCH_BYTES)
    right = left + 4 * TILE * MOST_TOKENS
    width = min(TILE, cols - piece * TILE)
    for block in range(count):
        tile = load_i64(table, block) * tiles + piece
        x = blocks + block * tokens * token_bytes
        call4(gate_kernel, gate + tile * gate_bytes, x, units, left)
        call4(up_kernel, up + tile * up_bytes, x, units, right)
        for token in range(tokens):
            at = (block * tokens + token) * cols + piece * TILE
            for r in range(width):
                value = activate(load_f32(left, token * TILE + r), kind)
                store_f32(out, at + r, value * load_f32(right, token * TILE + r))


def down(op: int, frame: int, piece: int, thread: int) -> None:
    """x · downᵀ of one tile of rows for every block.

    Arguments: blocks, bytes a token, units, table, weights, tile bytes, tiles of one expert, out, cols, five kernels.
    """
    blocks, token_bytes, units, table, weights, tile_bytes, tiles, out = load8(op, ARGUMENTS)
    cols = load_i64(op, ARGUMENTS + 8)
    tokens, count = load_i64(frame, PLACES + TOKENS), load_i64(frame, PLACES + BLOCKS)
    kernel = load_i64(op, ARGUMENTS + 9 + _variant(tokens))
    result = load_i64(frame, SCRATCH) + thread * load_i64(frame, SCRATCH_BYTES)
    width = min(TILE, cols - piece * TILE)
    for block in range(count):
        tile = load_i64(table, block) * tiles + piece
        call4(kernel, weights + tile * tile_bytes, blocks + block * tokens * token_bytes, units, result)
        for token in range(tokens):
            at = (block * tokens + token) * cols + piece * TILE
            for r in range(width):
                store_f32(out, at + r, load_f32(result, token * TILE + r))


def mix(op: int, frame: int, piece: int, thread: int) -> None:
    """One row of out + the weighted sum of its slots. Arguments: parts, places, shares, top, cols, out."""
    parts, places, shares, top, cols, out = load6(op, ARGUMENTS)
    for k in range(top):
        share = load_f32(shares, piece * top + k)
        row = np.int64(load_i32(places, piece * top + k)) * cols
        for i in range(cols):
            store_f32(out, piece * cols + i, load_f32(out, piece * cols + i) + share * load_f32(parts, row + i))


def spread(op: int, frame: int, piece: int, thread: int) -> None:
    """Copy the sources of padded rows `piece`, `piece` + SPREADERS, … Arguments: x, cols, sources, out."""
    x, cols, sources, out = load4(op, ARGUMENTS)
    for row in range(piece, load_i64(frame, PLACES), SPREADERS):
        source = np.int64(load_i32(sources, row))
        for i in range(cols):
            store_f32(out, row * cols + i, load_f32(x, source * cols + i))
