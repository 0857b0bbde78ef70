"""What it costs to open annotations and read single regions of them, in whatever way."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from lavis_dynrefer.lab.benchmarks.processes import Answer, in_forked_workers, resident_memory

READS = 100_000
IN_A_ROW = 400_000
WORKERS = 4


@dataclass(frozen=True)
class Source:
    """Opened annotations.

    Args:
        content: what a loader process would be given.
        length: number of regions.
        read: row -> region.
    """

    content: Any
    length: int
    read: Callable[[int], Any]


@contextmanager
def seconds_spent() -> Iterator[dict[str, float]]:
    """Fills a dictionary: `seconds` passed, and `cpu_seconds`, which other programs alter less."""
    spent: dict[str, float] = {}
    start, cpu_start = time.perf_counter(), time.process_time()
    yield spent
    spent["seconds"] = time.perf_counter() - start
    spent["cpu_seconds"] = time.process_time() - cpu_start


def measure_reading(opener: Callable[[], Source]) -> Answer:
    """Open, read at random, read in a row, and read at random in forked workers.

    Returns:
        Memory in bytes `before` opening, when `opened`, and `after_reads` random `reads`; seconds
        to `open`; regions per second of one core, `random` and `in_a_row`; `workers`, the memory
        of each; `pickled`, the bytes that a spawned worker is sent.
    """
    places = np.random.default_rng(0).random(READS).tolist()  # before memory is looked at
    before = resident_memory()
    with seconds_spent() as opening:
        source = opener()
    opened = resident_memory()
    reads, in_a_row = min(READS, source.length), min(IN_A_ROW, source.length)
    with seconds_spent() as at_random:
        for place in places[:reads]:
            source.read(int(place * source.length))
    after_reads = resident_memory()
    with seconds_spent() as straight:
        for row in range(in_a_row):
            source.read(row)

    def work(number: int) -> None:
        for place in np.random.default_rng(number).random(reads).tolist():
            source.read(int(place * source.length))

    return {
        "regions": source.length,
        "reads": reads,
        "before": before,
        "open": opening,
        "opened": opened,
        "after_reads": after_reads,
        "random": reads / at_random["cpu_seconds"],
        "in_a_row": in_a_row / straight["cpu_seconds"],
        "workers": in_forked_workers(work, WORKERS),
        "pickled": len(pickle.dumps(source.content)),
    }
