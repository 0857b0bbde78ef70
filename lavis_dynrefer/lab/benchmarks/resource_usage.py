"""Time and memory of a measurement, and the machine it ran on. Memory is read on Linux only."""

from __future__ import annotations

import multiprocessing
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

_STATUS, _CPUS = Path("/proc/self/status"), Path("/proc/cpuinfo")
_LIMIT = Path("/sys/fs/cgroup/memory.max")
_FIELDS = {"VmRSS": "resident", "RssAnon": "anonymous", "RssFile": "file", "VmHWM": "peak"}

Numbers = dict[str, Any]


def describe_machine(device: str = "cpu") -> Numbers:
    """Processor, system, versions, and the load by other programs.

    Args:
        device: as in `precision.choose_device`; a GPU is described, too, if there is one.
    """
    return {
        "processor": processor_name(),
        "cores": processor_cores(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,  # Windows has none
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("numpy", "pyarrow", "torch", "pillow")},
        **(_torch_machine(device) if "torch" in sys.modules else {}),
    }


def processor_name() -> str:
    """Name of the processor, as the system tells it."""
    return next(_cpu_lines("model name"), "") or platform.processor() or platform.machine()


def processor_cores() -> int | None:
    """Cores of the machine, whether this process may use them or not; None: not known."""
    return os.cpu_count()


def processor_flags() -> set[str]:
    """Instructions of the processor, as Linux names them; empty on other systems."""
    return set((next(_cpu_lines("flags"), "") or next(_cpu_lines("Features"), "")).split())


def _cpu_lines(key: str) -> Iterator[str]:
    lines = _CPUS.read_text(encoding="utf-8").splitlines() if _CPUS.exists() else []
    return (line.partition(": ")[2] for line in lines if line.partition("\t")[0] == key)


def total_memory() -> int | None:
    """Bytes of main memory that this process may use: the machine's, or its container's limit."""
    names = getattr(os, "sysconf_names", {})
    if "SC_PHYS_PAGES" not in names:  # Windows
        return None
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        return min(total, int(_LIMIT.read_text(encoding="ascii")))
    except (OSError, ValueError):  # no container, or "max"
        return total


def _torch_machine(device: str) -> Numbers:
    """What torch says of the machine."""
    import torch

    capability = getattr(torch.backends.cpu, "get_cpu_capability", lambda: "unknown")
    machine = {"instructions": capability(), "threads": torch.get_num_threads()}
    if device != "cpu" and torch.cuda.is_available():
        machine |= {"gpu": torch.cuda.get_device_name(0), "cuda": torch.version.cuda}
    return machine


@contextmanager
def seconds_spent() -> Iterator[dict[str, float]]:
    """Fills a dictionary: `seconds` passed, and `cpu_seconds`, which other programs affect less."""
    spent: dict[str, float] = {}
    start, cpu_start = time.perf_counter(), time.process_time()
    yield spent
    spent["seconds"] = time.perf_counter() - start
    spent["cpu_seconds"] = time.process_time() - cpu_start


def resident_memory(pid: int | None = None) -> dict[str, int]:
    """Bytes in memory: "resident", its parts "anonymous" and "file", and the "peak" so far.

    Pages of files are shared by all processes that map them, and freed when memory is short.
    Empty where there is no /proc, and for a process that has ended.

    Args:
        pid: of the process; None: this one.
    """
    status = _STATUS if pid is None else _STATUS.parents[1] / str(pid) / _STATUS.name
    try:
        lines = status.read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return {_FIELDS[key]: int(value.split()[0]) * 1024 for key, value in pairs if key in _FIELDS}


def in_fresh_process(function: Callable[..., Numbers], **arguments: Any) -> Numbers:
    """Call a function in a new interpreter, without LAVIS and torch if its module needs neither.

    Args:
        function: at the top level of its module.
        arguments: its arguments.

    Returns:
        Its result, with `memory`: bytes at the end and the peak.
    """
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(_with_memory, function, arguments).result()


def _with_memory(function: Callable[..., Numbers], arguments: dict[str, Any]) -> Numbers:
    return {**function(**arguments), "memory": resident_memory()}
