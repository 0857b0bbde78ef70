from __future__ import annotations

import importlib
import json
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from lavis_dynrefer.cli import main
from lavis_dynrefer.lab.benchmarks.annotation_reading import Source, measure_reading
from lavis_dynrefer.lab.benchmarks.answer_speed import batches
from lavis_dynrefer.lab.benchmarks.processes import in_fresh_process, resident_memory

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/smaps_rollup").exists(), reason="memory is read from /proc, on Linux only"
)
MEGABYTE = 1_000_000


FILLER = """
import sys

def fill(megabytes):
    content = b"x" * (megabytes * 1_000_000)
    return {"size": len(content), "has_lavis": sys.modules["lavis"] is not None}
"""


def test_a_fresh_process_answers_and_its_peak_is_seen(tmp_path, monkeypatch):
    (tmp_path / "filler.py").write_text(FILLER)
    monkeypatch.syspath_prepend(str(tmp_path))
    fill = importlib.import_module("filler").fill

    small, large = (in_fresh_process(fill, megabytes=size) for size in (1, 301))

    assert (large["size"], large["has_lavis"]) == (301 * MEGABYTE, False)
    more = large["peak"]["resident"] - small["peak"]["resident"]
    assert more == pytest.approx(300 * MEGABYTE, rel=0.1)


def test_a_failing_function_is_not_taken_for_an_answer(tmp_path, monkeypatch):
    (tmp_path / "failing.py").write_text("def fail(): return {}[0]")
    monkeypatch.syspath_prepend(str(tmp_path))

    with pytest.raises(subprocess.CalledProcessError):
        in_fresh_process(importlib.import_module("failing").fail)


def test_resident_memory_is_anonymous_or_of_files():
    found = resident_memory()

    # Read at slightly different moments; the third kind, shared memory, is next to nothing here.
    parts = found["anonymous"] + found["file"]
    assert parts == pytest.approx(found["resident"], rel=0.05)
    assert found["peak"] >= found["resident"] * 0.99


def test_reading_is_measured_in_a_process_and_in_its_workers(monkeypatch):
    monkeypatch.setattr("lavis_dynrefer.lab.benchmarks.annotation_reading.READS", 100)

    found = measure_reading(lambda: Source([7, 8, 9], 3, [7, 8, 9].__getitem__))

    assert found["regions"] == 3
    assert min(found["random"], found["in_a_row"], found["pickled"]) > 0
    assert len(found["workers"]) == 4
    assert all(0 < worker["private"] < worker["share"] for worker in found["workers"])


def test_benchmark_data_measures_every_step(tmp_path, capsys):
    command = ["benchmark", "data", "--output", str(tmp_path), "--images", "30"]

    assert main([*command, "--regions-per-image", "20", "--sample", "100"]) == 0

    report = json.loads((tmp_path / "benchmark_data.json").read_text())
    results = report["results"]
    assert sum(results["prepare"]["regions"].values()) > 300
    assert results["sample_tables"]["regions"] == results["sample_released"]["regions"] == 100
    assert "pycocotools" in capsys.readouterr().out


def test_benchmark_loader_measures_every_way_of_grouping(tmp_path):
    command = ["benchmark", "loader", "--output", str(tmp_path), "--images", "3"]

    assert main([*command, "--regions", "8"]) == 0

    results = json.loads((tmp_path / "benchmark_loader.json").read_text())["results"]
    assert list(results["loader"]) == ["1", "2", "4", "8"]
    assert all(milliseconds > 0 for milliseconds in results["stages"].values())


def test_benchmark_predict_measures_every_part(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("lavis_dynrefer.lab.benchmarks.answer_speed.BATCHES", (1, 3))

    assert main(["benchmark", "predict", "--output", str(tmp_path), "--repeats", "1"]) == 0

    results = json.loads((tmp_path / "benchmark_predict.json").read_text())["results"]
    assert [list(batches) for batches in results.values()] == [["1", "3"]] * 2
    assert all(
        spent["ms"] > 0 and spent["cpu_ms"] > 0
        for batches in results.values()
        for parts in batches.values()
        for spent in parts.values()
    )
    assert "attributes, categories" in capsys.readouterr().out


def test_regions_come_in_batches_with_those_of_an_image_together():
    first, second = (Image.new("RGB", (8, 8)) for _ in range(2))
    boxes = [(0, 0, size, size) for size in range(1, 6)]

    found = batches([(first, boxes[:3]), (second, boxes[3:])], 2)

    assert found == [[(first, boxes[:2])], [(first, boxes[2:3]), (second, boxes[3:4])]]


def test_nothing_is_measured_on_no_images(tmp_path, capsys):
    assert main(["benchmark", "loader", "--output", str(tmp_path), "--images", "0"]) == 2

    assert "--images: expected more than 0" in capsys.readouterr().err
