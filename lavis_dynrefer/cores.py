"""How many processor cores this process may use."""

from __future__ import annotations

import os
from pathlib import Path

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
