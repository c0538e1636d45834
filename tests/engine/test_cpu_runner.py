"""How a step's attention is cut into pieces for threads."""
from typing import cast

import numpy as np

from zonda.engine.cpu_runner import attention_items, attention_work
from zonda.kernels.cpu.ops import CPUOps


def items_of(*runs: tuple[int, int], slots: int) -> tuple[list[list[int]], list[list[int]]]:
    """Items and merges for sequences of (first position, rows)."""
    sequence = np.repeat(np.arange(len(runs), dtype=np.int32), [rows for _, rows in runs])
    positions = np.concatenate([np.arange(first, first + rows, dtype=np.int32) for first, rows in runs])
    items, merges = attention_items(sequence, positions, 4, slots)
    return items.tolist(), merges.tolist()


def test_rows_of_a_prompt_are_cut_into_like_items_of_neighbours() -> None:
    assert items_of((0, 5), (40, 1), slots=8) == ([[5, 1, 1, -1, 0], [2, 3, 0, -1, 0], [0, 2, 0, -1, 0]], [])


def test_a_long_context_of_one_row_is_cut_into_runs_of_pages() -> None:
    assert items_of((600, 1), (255, 1), slots=8) == (
        [[1, 1, 1, -1, 0], [0, 1, 0, 0, 0], [0, 1, 0, 1, 1], [0, 1, 0, 2, 2]], [[0, 0, 3]])


def test_each_long_context_has_slots_of_its_own_while_there_are_some() -> None:
    items, merges = items_of((256, 1), (511, 1), (512, 1), slots=5)
    assert [item[3:] for item in items] == [[0, 0], [1, 1], [2, 2], [0, 3], [1, 4], [-1, 0]]
    assert merges == [[2, 0, 3], [1, 3, 2]]


class Bounds:
    """What cutting a step's attention asks of its operations."""

    query_rows, fast_query_rows, slots = 4, 8, 5


def test_fast_rows_take_the_slots_that_exact_rows_leave() -> None:
    sequence, positions = np.array([0, 1, 2], np.int32), np.array([600, 500, 300], np.int32)
    items, fast, merges = attention_work(cast(CPUOps, Bounds()), sequence, positions, 1)
    assert items.tolist() == [[0, 1, 0, 0, 0], [0, 1, 0, 1, 1], [0, 1, 0, 2, 2]]
    assert fast.tolist() == [[2, 1, 2, 0, 3], [2, 1, 2, 1, 4], [1, 1, 1, -1, 0]]
    assert merges.tolist() == [[0, 0, 3], [2, 3, 2]]
