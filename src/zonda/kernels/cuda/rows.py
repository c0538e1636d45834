"""Row by row: embeddings, norms with their residual, and the draw of tokens."""
from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from zonda.kernels.cuda.eights import store_rounded
from zonda.kernels.cuda.launch import kernel
from zonda.kernels.cuda.many import packed_tile


@triton.jit
def _token(tokens, last, row):
    """The token of a row; one below zero is one that the step before has drawn."""
    token = tl.load(tokens + row)
    if token < 0:
        token = tl.load(last - 1 - token)
    return tl.maximum(token, 0).to(tl.int64)


@kernel
def embed(tokens, last, table, out, scale, dim, BLOCK: tl.constexpr):
    """Rows of a table of floats."""
    row = tl.program_id(0)
    token = _token(tokens, last, row)
    d = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(table + token * dim + d, mask=d < dim, other=0.0).to(tl.float32)
    tl.store(out + row.to(tl.int64) * dim + d, x * scale, mask=d < dim)


@kernel
def embed_packed(tokens, last, low, high, scales, heads, out, scale, outs, INS: tl.constexpr, BLOCK: tl.constexpr,
                 LOW: tl.constexpr, HIGH: tl.constexpr, GROUP: tl.constexpr, OFFSET: tl.constexpr, MINS: tl.constexpr,
                 TWO: tl.constexpr):
    """Rows of a packed table."""
    row, first = tl.program_id(0), tl.program_id(1) * BLOCK
    token = _token(tokens, last, row) + tl.arange(0, 1)
    values = packed_tile(low, high, scales, heads, token, first, outs, INS, 1, BLOCK, LOW, HIGH, GROUP, OFFSET, MINS,
                         TWO)
    d = first + tl.arange(0, BLOCK)[None, :]
    tl.store(out + row.to(tl.int64) * INS + d, values * scale, mask=d < INS)


@kernel
def settle(x, y, before, after, before_eps, after_eps, out, scales, given, DIM: tl.constexpr, BLOCK: tl.constexpr,
           ADD: tl.constexpr, BEFORE: tl.constexpr, AFTER: tl.constexpr, GROUP: tl.constexpr, GIVEN: tl.constexpr,
           PDL: tl.constexpr):
    """x += y, or its norm `before`; out = the norm `after` of x, or its codes, with `scales` of GROUP columns."""
    if PDL:
        gdc_wait()
    row = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, BLOCK)
    inside = d < DIM
    value = tl.load(x + row * DIM + d, mask=inside, other=0.0)
    if ADD:
        added = tl.load(y + row * DIM + d, mask=inside, other=0.0).to(tl.float32)
        if BEFORE:
            added = added / tl.sqrt(tl.sum(added * added, 0) / DIM + before_eps)
            added = added * tl.load(before + d, mask=inside, other=0.0)
        value += added
        tl.store(x + row * DIM + d, value, mask=inside)
    if AFTER:
        value = value / tl.sqrt(tl.sum(value * value, 0) / DIM + after_eps)
        value = value * tl.load(after + d, mask=inside, other=0.0)
        if GROUP > 0:
            store_rounded(value, out, scales, row, given, DIM, GROUP, GIVEN)
        else:
            tl.store(out + row * DIM + d, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _mixed(value):
    """The finalizer of splitmix64, on the bits of an int64."""
    value = value.to(tl.uint64)
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB
    return value ^ (value >> 31)


@triton.jit
def _noise(key, number, tokens):
    """Gumbel noise of each token, from a counter."""
    seed = _mixed(key.to(tl.uint64) + (number.to(tl.uint64) + 1) * 0x9E3779B97F4A7C15)
    bits = _mixed(seed + (tokens.to(tl.uint64) + 1) * 0x9E3779B97F4A7C15) >> 40
    uniform = (bits.to(tl.float32) + 0.5) * 5.9604644775390625e-08
    return -tl.log(-tl.log(uniform))


@kernel
def best(logits, floor, temperature, key, number, values, places, vocab, chunks, BLOCK: tl.constexpr,
         SAMPLED: tl.constexpr, PDL: tl.constexpr):
    """The largest number of a chunk of a row of logits, and its place; sampled rows with noise, above their floor."""
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    row, chunk = tl.program_id(0), tl.program_id(1)
    n = chunk * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(logits + row.to(tl.int64) * vocab + n, mask=n < vocab, other=float("-inf"))
    x = tl.where(x != x, float("inf"), x)
    if SAMPLED:
        heat = tl.load(temperature + row)
        if heat > 0:
            drawn = x / heat + _noise(tl.load(key + row), tl.load(number + row), n)
            drawn = tl.where(x >= tl.load(floor + row), drawn, float("-inf"))
            x = tl.where(x == float("inf"), x, drawn)
    value = tl.max(x, 0)
    tl.store(values + row * chunks + chunk, value)
    tl.store(places + row * chunks + chunk, tl.min(tl.where(x == value, n, vocab), 0))


@kernel
def choose(values, places, last, drawn, head_words, chunks, stride, BLOCK: tl.constexpr, TOLD: tl.constexpr,
           PDL: tl.constexpr):
    """The place of the largest of all chunks, the first of equals; -1 if it is not finite.

    Into `last`, and where the host is told, into the row of `drawn` that the step names.
    """
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    row = tl.program_id(0)
    c = tl.arange(0, BLOCK)
    x = tl.load(values + row * chunks + c, mask=c < chunks, other=float("-inf"))
    at = tl.load(places + row * chunks + c, mask=c < chunks, other=2147483647)
    value = tl.max(x, 0)
    token = tl.min(tl.where(x == value, at, 2147483647), 0)
    token = tl.where((value == float("inf")) | (value == float("-inf")), -1, token)
    tl.store(last + row, token)
    if TOLD:
        tl.store(drawn + tl.load(head_words + 1) * stride + row, token)


@kernel
def floors(logits, temperature, top_k, top_p, min_p, floor, vocab, BLOCK: tl.constexpr):
    """The logit below which a row's filters leave nothing, found by halving what may hold it."""
    row = tl.program_id(0)
    heat = tl.load(temperature + row)
    k, p, least = tl.load(top_k + row), tl.load(top_p + row), tl.load(min_p + row)
    base = logits + row.to(tl.int64) * vocab
    found = tl.full((), float("-inf"), tl.float32)
    if heat > 0 and (k > 0 or p < 1.0 or least > 0.0):
        tops = tl.full([BLOCK], float("-inf"), tl.float32)
        for start in range(0, vocab, BLOCK):
            n = start + tl.arange(0, BLOCK)
            tops = tl.maximum(tops, tl.load(base + n, mask=n < vocab, other=float("-inf")))
        top = tl.max(tops, 0)
        if least > 0.0:
            found = top + heat * tl.log(least)
        if k > 0 and k < vocab:
            found = tl.maximum(found, _halved(base, top, heat, found, k.to(tl.float32), vocab, BLOCK, False))
        if p < 1.0:
            mass = tl.zeros([BLOCK], tl.float32)
            kept = found if least <= 0.0 else (tl.full((), float("-inf"), tl.float32) if k <= 0 else found)
            for start in range(0, vocab, BLOCK):
                n = start + tl.arange(0, BLOCK)
                x = tl.load(base + n, mask=n < vocab, other=float("-inf"))
                mass += tl.where(x >= kept, tl.exp((x - top) / heat), 0.0)
            found = tl.maximum(found, _halved(base, top, heat, found, p * tl.sum(mass, 0), vocab, BLOCK, True))
    tl.store(floor + row, found)


@triton.jit
def _halved(base, top, heat, least, wanted, vocab, BLOCK: tl.constexpr, MASS: tl.constexpr):
    """The highest floor that still leaves `wanted` tokens, or so much of their mass."""
    low, high = top - 30.0 * heat, top
    for _ in range(26):
        middle = 0.5 * (low + high)
        held = tl.zeros([BLOCK], tl.float32)
        for start in range(0, vocab, BLOCK):
            n = start + tl.arange(0, BLOCK)
            x = tl.load(base + n, mask=n < vocab, other=float("-inf"))
            weight = tl.exp((x - top) / heat) if MASS else tl.full([BLOCK], 1.0, tl.float32)
            held += tl.where((x >= middle) & (n < vocab), weight, 0.0)
        enough = tl.sum(held, 0) >= wanted
        low = tl.where(enough, middle, low)
        high = tl.where(enough, high, middle)
    return low
