"""Cores on a machine of eight."""

from __future__ import annotations

import os

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
