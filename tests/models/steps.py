"""Run sequences through a runner's paged cache in steps of any shape, and collect the logits of every position."""
from collections.abc import Iterator, Sequence

import numpy as np

from zonda.engine.batch import Batch
from zonda.engine.runner import Runner


def whole(lengths: Sequence[int]) -> Iterator[list[int]]:
    yield list(lengths)


def chunks(lengths: Sequence[int]) -> Iterator[list[int]]:
    for start in range(0, max(lengths), 5):
        yield [min(5, max(0, length - start)) for length in lengths]


def tokens(lengths: Sequence[int]) -> Iterator[list[int]]:
    for position in range(max(lengths)):
        yield [int(position < length) for length in lengths]


def mixed(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Some sequences decode while others are in their prompts, and some wait."""
    rng, left = np.random.default_rng(2), np.array(lengths)
    while left.any():
        counts = np.minimum(rng.choice([0, 1, 1, 6], len(left)), left)
        left -= counts
        if counts.any():
            yield counts.tolist()


SCHEDULES = {"whole": whole, "chunks": chunks, "tokens": tokens, "mixed": mixed}


def run(runner: Runner, sequences: Sequence[np.ndarray], schedule: str) -> list[np.ndarray]:
    """Logits (length, vocab) of each sequence, by the steps of a schedule: tokens of each sequence in each step."""
    lengths = [len(sequence) for sequence in sequences]
    pages = page_table(runner, lengths)
    done = [0] * len(sequences)
    out: list[list[np.ndarray]] = [[] for _ in sequences]
    for counts in SCHEDULES[schedule](lengths):
        active = [s for s, count in enumerate(counts) if count]
        logits = runner.run(batch(sequences, pages, done, counts, active)).copy()
        for s, rows in zip(active, np.split(logits, np.cumsum([counts[s] for s in active])[:-1])):
            out[s].append(rows)
            done[s] += counts[s]
    return [np.concatenate(rows) for rows in out]


def page_table(runner: Runner, lengths: Sequence[int]) -> np.ndarray:
    """Pages for the whole of each sequence, scattered over the cache."""
    width = -(-max(lengths) // runner.page_size)
    return np.random.default_rng(3).permutation(runner.pages)[: width * len(lengths)].reshape(len(lengths), width)


def batch(sequences: Sequence[np.ndarray], pages: np.ndarray, done: list[int], counts: list[int],
          active: list[int]) -> Batch:
    runs = [np.arange(done[s], done[s] + counts[s]) for s in active]
    lengths = np.array([done[s] + counts[s] for s in active], np.int32)
    return Batch(tokens=np.concatenate([sequences[s][run] for s, run in zip(active, runs)]).astype(np.int32),
                 positions=np.concatenate(runs).astype(np.int32),
                 starts=np.cumsum([0, *map(len, runs)]).astype(np.int32), lengths=lengths,
                 page_table=np.ascontiguousarray(pages[active], np.int32),
                 sample=np.arange(sum(map(len, runs)), dtype=np.int32))
