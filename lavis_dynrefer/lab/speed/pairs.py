"""Two ways of computing the same, measured in turns: medians of pairs, and their ratio."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from lavis_dynrefer.lab.benchmarks.resource_usage import Numbers


class Clock:
    """Measures on a device.

    On a CPU it counts processor time of all threads, which other programs affect less than the time
    that passes; on a GPU the time between two events of its queue.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def seconds(self, work: Callable[[], Any]) -> float:
        """That `work` takes, until its results are there."""
        if self.device.type == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize(self.device)
            start.record()
            work()
            end.record()
            torch.cuda.synchronize(self.device)
            return float(start.elapsed_time(end)) / 1000
        begin = time.process_time()
        work()
        return time.process_time() - begin


def compare(
    plain: Callable[[], Any], ours: Callable[[], Any], clock: Clock, *, repeats: int, regions: int
) -> Numbers:
    """Measure both in turns, after a call of each that warms up.

    Args:
        plain: the reference.
        ours: computes the same.
        clock: of their device.
        repeats: pairs.
        regions: that one call computes.

    Returns:
        `plain_ms` and `ms` per region; `ratio`, the median over the pairs of plain / ours, and its
        `least` and `most`.
    """
    plain()
    ours()
    pairs = [(clock.seconds(plain), clock.seconds(ours)) for _ in range(repeats)]
    return summary(pairs, regions=regions)


def summary(pairs: Sequence[tuple[float, float]], *, regions: int) -> Numbers:
    """What `compare` returns, from pairs of seconds: of the reference, of ours."""
    ratios = [slow / fast for slow, fast in pairs]
    return {
        "plain_ms": 1000 / regions * statistics.median(slow for slow, _ in pairs),
        "ms": 1000 / regions * statistics.median(fast for _, fast in pairs),
        "ratio": statistics.median(ratios),
        "least": min(ratios),
        "most": max(ratios),
    }


def peak_memory(device: torch.device, work: Callable[[], Any]) -> int | None:
    """Most bytes of tensors on a GPU at once; None elsewhere."""
    if device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats(device)
    work()
    torch.cuda.synchronize(device)
    return int(torch.cuda.max_memory_allocated(device))
