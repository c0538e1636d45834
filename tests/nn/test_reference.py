"""The reference operations against formulas written another way."""
import math

import numpy as np
import pytest

from zonda.engine.batch import Batch
from zonda.kernels.ops import Attend, Experts, Heads, Norm, Rotary
from zonda.kernels.reference import ReferenceOps, erf, rotate

HEADS = Heads(4, 2, 6)


def batch(runs, pages, page_size):
    """`runs`: (start position, count) for each sequence."""
    counts = [count for _, count in runs]
    positions = np.concatenate([np.arange(start, start + count) for start, count in runs]).astype(np.int32)
    rows = len(positions)
    return Batch(np.zeros(rows, np.int32), positions, np.cumsum([0, *counts]).astype(np.int32),
                 np.array([start + count for start, count in runs], np.int32), np.array(pages, np.int32),
                 np.arange(rows, dtype=np.int32))


def plain_attention(qkv, window=0, scale=1.0, softcap=0.0, sinks=None):
    """One sequence from position 0, head by head and position by position."""
    rows, out = len(qkv), []
    q, k, v = np.split(qkv.reshape(rows, 8, 6).astype(np.float64), [4, 6], axis=1)
    for i in range(rows):
        first = max(0, i - window + 1) if window else 0
        for h in range(4):
            scores = k[first : i + 1, h // 2] @ q[i, h] * scale
            scores = np.tanh(scores / softcap) * softcap if softcap else scores
            weights = np.exp(scores) / (np.exp(scores).sum() + (0 if sinks is None else np.exp(sinks[h])))
            out.append(weights @ v[first : i + 1, h // 2])
    return np.array(out).reshape(rows, -1)


@pytest.mark.parametrize("options", [{}, {"window": 3}, {"softcap": 0.5}, {"scale": 0.3},
                                     {"sinks": np.array([1, -2, 0, 9], np.float32)}])
def test_attention_over_scattered_pages_is_attention(options):
    qkv = np.random.default_rng(0).standard_normal((10, 48)).astype(np.float32)
    layer = Attend(0, HEADS, **{"scale": 1.0, **options})
    got = ReferenceOps(pages=8, page_size=4).attend(qkv, layer, batch([(0, 10)], [[6, 1, 4]], 4))
    np.testing.assert_allclose(got, plain_attention(qkv, **options), atol=1e-5)


def test_chunks_of_two_sequences_in_one_step_do_not_mix():
    rng = np.random.default_rng(1)
    one, two = (rng.standard_normal((n, 48)).astype(np.float32) for n in (7, 5))
    ops, layer, pages = ReferenceOps(pages=8, page_size=4), Attend(0, HEADS, 1.0), [[5, 2], [0, 7]]
    first = ops.attend(np.concatenate([one[:3], two[:1]]), layer, batch([(0, 3), (0, 1)], pages, 4))
    second = ops.attend(np.concatenate([one[3:], two[1:]]), layer, batch([(3, 4), (1, 4)], pages, 4))
    np.testing.assert_allclose(np.concatenate([first[:3], second[:4]]), plain_attention(one), atol=1e-5)
    np.testing.assert_allclose(np.concatenate([first[3:], second[4:]]), plain_attention(two), atol=1e-5)


def test_a_copied_page_holds_the_same_keys_and_values():
    ops, layer = ReferenceOps(pages=4, page_size=4), Attend(0, HEADS, 1.0)
    qkv = np.random.default_rng(2).standard_normal((3, 48)).astype(np.float32)
    ops.attend(qkv[:2], layer, batch([(0, 2)], [[1]], 4))
    ops.copy_page(1, 3)
    got = ops.attend(qkv[2:], layer, batch([(2, 1)], [[3]], 4))
    np.testing.assert_allclose(got, plain_attention(qkv)[2:], atol=1e-5)


def test_rotation_turns_pairs_half_a_width_apart_and_leaves_the_rest():
    x = np.arange(1.0, 7.0, dtype=np.float32).reshape(1, 1, 6)
    rotary = Rotary(np.array([0.5, 0.25], np.float32), 4, factor=2.0)
    pairs = (x[0, 0, :2] + 1j * x[0, 0, 2:4]) * np.exp(1j * 3 * np.array([0.5, 0.25])) * 2
    expected = [*pairs.real, *pairs.imag, 5.0, 6.0]
    np.testing.assert_allclose(rotate(x, rotary, np.array([3]))[0, 0], expected, rtol=1e-6)


def test_experts_add_the_weighted_sum_of_the_chosen():
    rng = np.random.default_rng(3)
    shapes = (4, 6), (4, 5, 6), (4, 5, 6), (4, 6, 5)
    router, gate, up, down = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    x = rng.standard_normal((3, 6)).astype(np.float32)
    expected = x.astype(np.float64)
    for row in range(3):
        weights = np.exp(router @ x[row]) / np.exp(router @ x[row]).sum()
        best = np.argsort(weights)[-2:]
        for e in best:
            g = gate[e] @ x[row]
            expected[row] += weights[e] / weights[best].sum() * (down[e] @ (g / (1 + np.exp(-g)) * (up[e] @ x[row])))
    experts = Experts(router, gate, up, down, top=2, normalize=True)
    np.testing.assert_allclose(ReferenceOps().experts(x, experts, residual=x), expected, atol=1e-5)


def test_norms_are_folded_before_a_projection_and_after_an_output():
    ops, x = ReferenceOps(), np.array([[3.0, 4.0]], np.float32)
    norm = Norm(np.array([1.0, 2.0], np.float32), 0.0)
    normed = np.array([[3.0, 8.0]]) / math.sqrt(12.5)
    np.testing.assert_allclose(ops.project(x, [np.eye(2, dtype=np.float32)], [None], norm=norm), normed, rtol=1e-6)
    out = ops.output(x, np.eye(2, dtype=np.float32), None, residual=x, norm=norm)
    np.testing.assert_allclose(out, x + normed, rtol=1e-6)


def test_logits_are_those_of_the_sampled_rows():
    step = batch([(0, 3)], [[0]], 4)
    step.sample = np.array([2], np.int32)
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    ops = ReferenceOps()
    got = ops.logits(ops.sampled(x, step), np.eye(2, dtype=np.float32), softcap=3.0, scale=0.5)
    np.testing.assert_allclose(got, np.tanh(np.array([[2.0, 2.5]]) / 3) * 3, rtol=1e-6)


def test_the_error_function_is_close():
    x = np.linspace(-4, 4, 101)
    np.testing.assert_allclose(erf(x), [math.erf(v) for v in x], atol=2e-7)
