"""How a step's attention is cut into pieces for threads."""
import numpy as np

from zonda.engine.cpu_runner import attention_items


def items_of(*runs: tuple[int, int], slots: int) -> tuple[list[list[int]], list[list[int]]]:
    """Items and merges for sequences of (first position, rows)."""
    sequence = np.repeat(np.arange(len(runs), dtype=np.int32), [rows for _, rows in runs])
    positions = np.concatenate([np.arange(first, first + rows, dtype=np.int32) for first, rows in runs])
    items, merges = attention_items(sequence, positions, 4, slots)
    return items.tolist(), merges.tolist()


def test_rows_of_a_prompt_are_cut_into_items_of_neighbours() -> None:
    assert items_of((0, 6), (40, 1), slots=8) == ([[6, 1, 1, -1, 0], [4, 2, 0, -1, 0], [0, 4, 0, -1, 0]], [])


def test_a_long_context_of_one_row_is_cut_into_runs_of_pages() -> None:
    assert items_of((600, 1), (255, 1), slots=8) == (
        [[1, 1, 1, -1, 0], [0, 1, 0, 0, 0], [0, 1, 0, 1, 1], [0, 1, 0, 2, 2]], [[0, 0, 3]])


def test_each_long_context_has_slots_of_its_own_while_there_are_some() -> None:
    items, merges = items_of((256, 1), (511, 1), (512, 1), slots=5)
    assert [item[3:] for item in items] == [[0, 0], [1, 1], [2, 2], [0, 3], [1, 4], [-1, 0]]
    assert merges == [[2, 0, 3], [1, 3, 2]]
