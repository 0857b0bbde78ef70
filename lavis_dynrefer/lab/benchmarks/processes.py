"""Measurements in processes of their own, and how much memory these take. Linux only."""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lavis_dynrefer.errors import InputError

# LAVIS and torch take hundreds of megabytes whatever the data; without LAVIS neither is imported.
_START = (
    "import sys; sys.modules['lavis'] = None; "
    "from lavis_dynrefer.lab.benchmarks.processes import answer; answer(*sys.argv[1:])"
)
_PAUSE = 0.02  # seconds between two looks at a process
_FIELDS = {"VmRSS": "resident", "RssAnon": "anonymous", "RssFile": "file", "VmHWM": "peak"}

Answer = dict[str, Any]


def resident_memory(process: int | str = "self") -> dict[str, int]:
    """Bytes in memory: all, anonymous, of files, and the most there ever were ("peak").

    Pages of files are shared by all processes that map them, and given back when memory is short.
    """
    return _read_kilobytes(Path(f"/proc/{process}/status"), _FIELDS)


def shared_memory() -> dict[str, int]:
    """Bytes in this process's memory: "private", and "share", which counts 1/n of shared pages."""
    found = _read_kilobytes(
        Path("/proc/self/smaps_rollup"),
        {"Pss": "share", "Private_Clean": "clean", "Private_Dirty": "dirty"},
    )
    return {"share": found["share"], "private": found["clean"] + found["dirty"]}


def in_fresh_process(function: Callable[..., Answer], **arguments: Any) -> Answer:
    """Call a function of a module in a new interpreter that lacks LAVIS.

    Args:
        function: at the top level of its module; takes and returns what json can hold.
        arguments: its arguments.

    Returns:
        Its answer, with `peak`: the most bytes it held, together and of each kind.

    Raises:
        ValueError: this is not Linux.
        subprocess.CalledProcessError: the function failed; its traceback is on stderr.
    """
    if not Path("/proc/self/smaps_rollup").exists():
        raise InputError("memory is read from /proc, which is not here; measure on Linux")
    command = [sys.executable, "-c", _START, function.__module__, function.__name__]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    peak: dict[str, int] = {}
    with subprocess.Popen(
        [*command, json.dumps(arguments)], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        while process.poll() is None:
            for kind, size in resident_memory(process.pid).items():
                peak[kind] = max(peak.get(kind, 0), size)
            time.sleep(_PAUSE)
        output = process.communicate()[0]
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    peak["resident"] = peak.pop("peak")  # the kernel's own count misses no moment
    return {**json.loads(output), "peak": peak}


def answer(module: str, name: str, arguments: str) -> None:
    """Run in the new interpreter: call the function and write its answer as json."""
    result = getattr(importlib.import_module(module), name)(**json.loads(arguments))
    sys.stdout.write(json.dumps(result))


def in_forked_workers(read: Callable[[int], object], count: int) -> list[dict[str, int]]:
    """Memory of processes that share this one's, as a data loader's do, after each has read.

    Args:
        read: called with the number of the worker.
        count: how many workers there are at once.
    """
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(count), context.SimpleQueue()

    def work(number: int) -> None:
        read(number)
        barrier.wait()  # pages are shared by those that are there
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
    try:
        lines = path.read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):  # the process has just ended
        return {}
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return {fields[key]: int(value.split()[0]) * 1024 for key, value in pairs if key in fields}
