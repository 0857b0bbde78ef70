from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
from PIL import Image

from lavis_dynrefer.cli import main
from lavis_dynrefer.lab.benchmarks.resource_usage import in_fresh_process, resident_memory

on_linux = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="memory is read from /proc, on Linux only"
)
MEGABYTE = 1_000_000
FILLER = """
import sys

def fill(megabytes):
    content = b"x" * (megabytes * 1_000_000)
    heavy = [name for name in ("lavis", "torch") if name in sys.modules]
    return {"size": len(content), "heavy": heavy}
"""


@on_linux
def test_a_fresh_process_has_no_lavis_and_reports_its_peak(tmp_path, monkeypatch):
    (tmp_path / "filler.py").write_text(FILLER, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    fill = importlib.import_module("filler").fill

    small, large = (in_fresh_process(fill, megabytes=size) for size in (1, 301))

    assert (large["size"], large["heavy"]) == (301 * MEGABYTE, [])
    more = large["memory"]["peak"] - small["memory"]["peak"]
    assert more == pytest.approx(300 * MEGABYTE, rel=0.1)


@on_linux
def test_resident_memory_is_anonymous_or_of_files():
    found = resident_memory()

    # Read at slightly different moments; the third kind, shared memory, is next to nothing here.
    parts = found["anonymous"] + found["file"]
    assert parts == pytest.approx(found["resident"], rel=0.05)


def measured(tmp_path, name, *arguments):
    assert main(["benchmark", name, "--output", str(tmp_path), *arguments]) == 0
    return json.loads((tmp_path / f"benchmark_{name}.json").read_text(encoding="utf-8"))["results"]


@pytest.mark.slow  # fresh processes
@on_linux
def test_benchmark_data_prepares_and_reads_every_region(tmp_path, capsys):
    results = measured(tmp_path, "data", "--images", "30", "--regions-per-image", "20")

    assert results["prepare"]["regions"] == {"train": 560, "val": 20, "test": 20}
    assert results["read"]["regions"] == 560
    assert min(results["read"]["random"], results["read"]["sequential"]) > 0
    assert "table_bytes" in capsys.readouterr().out


def test_benchmark_loader_measures_every_group_size(tmp_path):
    results = measured(tmp_path, "loader", "--images", "3", "--regions", "8")

    assert list(results["loader"]) == ["1", "2", "4", "8"]
    assert all(milliseconds > 0 for milliseconds in results["steps"].values())


@pytest.mark.slow
def test_benchmark_policies_grades_the_embedded_model(tmp_path, capsys):
    names = ["fixed:0,0.5", "best", "oracle", "confidence", "random", "image:official"]
    arguments = ("--train", "--views", *names, "--scenes", "4", "--images", "1")

    results = measured(tmp_path, "policies", *arguments)

    rows = [f"landmark: embedded, {name}" for name in names]
    assert list(results["category"]) == rows
    assert results["category"][rows[0]].startswith("100.0 [")
    full = {row: float(results["full"][row].partition(" ")[0]) for row in rows}
    assert full[rows[2]] == max(full.values())  # the oracle
    assert results["scales"][rows[0]] == "0.5:100%"
    assert results["ms per region"][rows[0]] > 0
    assert "attribute_map" in capsys.readouterr().out
    assert Image.open(tmp_path / "policy_scales.png").width > 900


@pytest.mark.slow
def test_benchmark_policies_trains_once_for_each_policy_and_seed(tmp_path):
    size = ("--scenes", "10", "--images", "1", "--seeds", "1", "--views", "fixed:0,0.5")
    size += ("--train", "fixed:0,0.6", "--train-images", "6")  # a comma, also in file names
    first = measured(tmp_path, "policies", *size)
    checkpoints = list(tmp_path.glob("**/checkpoint_last.pth"))

    again = measured(tmp_path, "policies", *size)

    rows = ["landmark: fixed:0,0.6, fixed:0,0.5", "landmark: embedded, fixed:0,0.5"]
    assert list(first["full"]) == rows
    assert again["full"] == first["full"]
    assert len(checkpoints) == 2  # after train_tiny and after tune_tiny
    assert list(tmp_path.glob("**/checkpoint_last.pth")) == checkpoints


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["loader", "--images", "0"], "--images: expected at least 1"),
        (["policies", "--views", "mage"], "mage"),
    ],
)
def test_rejects_invalid_options(tmp_path, capsys, arguments, message):
    assert main(["benchmark", *arguments, "--output", str(tmp_path)]) == 2

    assert message in capsys.readouterr().err
