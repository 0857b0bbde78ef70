"""Cores on a machine of eight, and work shared among processes."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time

import pytest

from lavis_dynrefer import cores


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        (None, 8),  # no container
        ("max 100000", 8),
        ("250000 100000", 2),
        ("50000 100000", 1),
        ("1600000 100000", 8),
        ("", 8),
    ],
)
def test_a_container_withholds_cores(monkeypatch, tmp_path, quota, expected):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)  # as on macOS and Windows
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(cores, "_QUOTA", tmp_path / "cpu.max")
    if quota is not None:
        (tmp_path / "cpu.max").write_text(quota, encoding="ascii")

    assert cores.available_cores() == expected


def test_the_affinity_of_the_process_counts(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 2, 5}, raising=False)
    monkeypatch.setattr(cores, "_QUOTA", tmp_path / "absent")

    assert cores.available_cores() == 3


@pytest.mark.parametrize(("limit", "expected"), [(2, 2), (5, 3)])
def test_a_limit_leaves_cores_to_others(monkeypatch, tmp_path, limit, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 2, 5}, raising=False)
    monkeypatch.setattr(cores, "_QUOTA", tmp_path / "absent")
    monkeypatch.setattr(cores, "_limit", None)

    cores.limit_cores(limit)

    assert cores.available_cores() == expected


# ---- shared work


def process_of(number):
    return number, os.getpid()


def is_gone(pid, patience=10.0):
    until = time.monotonic() + patience
    while time.monotonic() < until:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.skipif(os.name != "posix", reason="asks for a process by a signal of POSIX")
def test_shared_work_comes_back_in_order_and_its_processes_end():
    numbers, pids = zip(*cores.map_in_processes(process_of, range(20), 2, chunk=3))
    assert numbers == tuple(range(20))
    assert os.getpid() not in pids
    assert all(is_gone(pid) for pid in set(pids))


@pytest.mark.skipif(os.name != "posix", reason="asks for a process by a signal of POSIX")
def test_given_up_work_ends_its_processes():
    results = cores.map_in_processes(process_of, range(200), 2)
    _, pid = next(results)
    results.close()
    assert is_gone(pid)


def test_an_error_in_shared_work_is_raised():
    with pytest.raises(ValueError, match="domain"):
        list(cores.map_in_processes(math.sqrt, [4.0, -1.0], 2))


def test_a_script_needs_no_guard(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from lavis_dynrefer.cores import map_in_processes\n"
        "print('started')\n"
        "print(sum(map_in_processes(abs, range(-5, 0), 2)))\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, script], capture_output=True, encoding="utf-8", check=False, timeout=60
    )
    assert (done.returncode, done.stdout.split()) == (0, ["started", "15"]), done.stderr
