"""The processor cores that this process may use, and work that is shared among them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")

_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # "quota period" in microseconds, or "max period"
_limit: int | None = None


def available_cores() -> int:
    """Cores of the machine, less what the affinity, the container or `limit_cores` withholds."""
    cores = _cores()
    return cores if _limit is None else min(cores, _limit)


def limit_cores(number: int) -> None:
    """Leave the other cores to other processes of the same work.

    To be called before modules are imported that read `available_cores` at once.
    """
    global _limit
    _limit = number


def map_in_processes(
    function: Callable[[Job], Result],
    jobs: Iterable[Job],
    processes: int,
    *,
    chunk: int = 1,
) -> Iterator[Result]:
    """As `map`, in order; results must not depend on the process.

    The new processes do not import the program that asks for them, so that a script needs no
    `if __name__ == "__main__":`; they take seconds to start. They end with the iteration, and when
    it is given up.

    Args:
        function: of a module, or a partial of one.
        jobs: its arguments; all of them are read at once.
        processes: 1 works in this process.
        chunk: jobs that a process takes at a time.
    """
    if processes <= 1:
        yield from map(function, jobs)
        return
    # A forked copy of a process that runs torch's threads could hang, and spawned ones import the
    # program.
    from loky import ProcessPoolExecutor

    pool = ProcessPoolExecutor(processes)
    finished = False
    try:
        yield from pool.map(function, jobs, chunksize=chunk)
        finished = True
    finally:
        pool.shutdown(kill_workers=not finished)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:  # macOS, Windows
        cores = os.cpu_count() or 1
    try:
        quota, period = map(int, _QUOTA.read_text(encoding="ascii").split())
    except (OSError, ValueError):  # no container, or no quota
        return cores
    return max(min(cores, quota // period), 1)
