"""Time and memory of a measurement, and the machine it ran on. Memory is read on Linux only."""

from __future__ import annotations

import multiprocessing
import os
import platform
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lavis_dynrefer.errors import InputError

_PACKAGES = ("numpy", "pyarrow", "pycocotools", "torch", "pillow")
_FIELDS = {"VmRSS": "resident", "RssAnon": "anonymous", "RssFile": "file", "VmHWM": "peak"}

Answer = dict[str, Any]


def describe_machine() -> Answer:
    """Processor, system, versions, and the load by other programs."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
    }


@contextmanager
def seconds_spent() -> Iterator[dict[str, float]]:
    """Fills a dictionary: `seconds` passed, and `cpu_seconds`, which other programs affect less."""
    spent: dict[str, float] = {}
    start, cpu_start = time.perf_counter(), time.process_time()
    yield spent
    spent["seconds"] = time.perf_counter() - start
    spent["cpu_seconds"] = time.process_time() - cpu_start


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread, as in the processes of a data loader."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def resident_memory() -> dict[str, int]:
    """Bytes in memory: "resident", its parts "anonymous" and "file", and the "peak" so far.

    Pages of files are shared by all processes that map them, and freed when memory is short.
    """
    return _read_kilobytes(Path("/proc/self/status"), _FIELDS)


def shared_memory() -> dict[str, int]:
    """Bytes in this process's memory: "private", and "share", which counts 1/n of shared pages."""
    fields = {"Pss": "share", "Private_Clean": "clean", "Private_Dirty": "dirty"}
    found = _read_kilobytes(Path("/proc/self/smaps_rollup"), fields)
    return {"share": found["share"], "private": found["clean"] + found["dirty"]}


def in_fresh_process(function: Callable[..., Answer], **arguments: Any) -> Answer:
    """Call a function in a new interpreter, without LAVIS and torch if its module needs neither.

    Args:
        function: at the top level of its module.
        arguments: its arguments.

    Returns:
        Its answer, with its `memory`: bytes at the end and the peak.

    Raises:
        InputError: this is not Linux.
    """
    if not Path("/proc/self/smaps_rollup").exists():
        raise InputError("memory is read from /proc, which is missing here; measure on Linux")
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(_with_memory, function, arguments).result()


def _with_memory(function: Callable[..., Answer], arguments: dict[str, Any]) -> Answer:
    return {**function(**arguments), "memory": resident_memory()}


def in_forked_workers(read: Callable[[int], object], count: int) -> list[dict[str, int]]:
    """Memory of processes that share this one's, as a data loader's do, after each has read.

    Args:
        read: called with the number of the worker.
        count: number of workers.
    """
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(count), context.SimpleQueue()

    def work(number: int) -> None:
        read(number)
        barrier.wait()  # all must be alive to share their pages
        answers.put(shared_memory())
        barrier.wait()

    workers = [context.Process(target=work, args=(number,)) for number in range(count)]
    for worker in workers:
        worker.start()
    found = [answers.get() for _ in workers]
    for worker in workers:
        worker.join()
    return found


def _read_kilobytes(path: Path, fields: dict[str, str]) -> dict[str, int]:
    pairs = (line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
    return {fields[key]: int(value.split()[0]) * 1024 for key, value in pairs if key in fields}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except FileNotFoundError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
