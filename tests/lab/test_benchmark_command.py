from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
from PIL import Image

from lavis_dynrefer.cli import main
from lavis_dynrefer.lab.benchmarks import annotations
from lavis_dynrefer.lab.benchmarks.annotations import Source, measure_reading
from lavis_dynrefer.lab.benchmarks.answer_speed import batches
from lavis_dynrefer.lab.benchmarks.measuring import in_fresh_process, resident_memory

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/smaps_rollup").exists(), reason="memory is read from /proc, on Linux only"
)
MEGABYTE = 1_000_000


FILLER = """
import sys

def fill(megabytes):
    content = b"x" * (megabytes * 1_000_000)
    heavy = [name for name in ("lavis", "torch") if name in sys.modules]
    return {"size": len(content), "heavy": heavy}
"""


def test_a_fresh_process_has_no_lavis_and_reports_its_peak(tmp_path, monkeypatch):
    (tmp_path / "filler.py").write_text(FILLER)
    monkeypatch.syspath_prepend(str(tmp_path))
    fill = importlib.import_module("filler").fill

    small, large = (in_fresh_process(fill, megabytes=size) for size in (1, 301))

    assert (large["size"], large["heavy"]) == (301 * MEGABYTE, [])
    more = large["memory"]["peak"] - small["memory"]["peak"]
    assert more == pytest.approx(300 * MEGABYTE, rel=0.1)


def test_resident_memory_is_anonymous_or_of_files():
    found = resident_memory()

    # Read at slightly different moments; the third kind, shared memory, is next to nothing here.
    parts = found["anonymous"] + found["file"]
    assert parts == pytest.approx(found["resident"], rel=0.05)
    assert found["peak"] >= found["resident"] * 0.99


def test_reading_is_measured_in_a_process_and_in_its_workers(monkeypatch):
    monkeypatch.setattr(annotations, "READS", 100)

    found = measure_reading(lambda: Source([7, 8, 9], 3, [7, 8, 9].__getitem__))

    assert found["regions"] == 3
    assert min(found["random"], found["in_a_row"], found["pickled"]) > 0
    assert 0 < found["worker"]["private"] < found["worker"]["share"]


def measured(tmp_path, name, *arguments):
    assert main(["benchmark", name, "--output", str(tmp_path), *arguments]) == 0
    return json.loads((tmp_path / f"benchmark_{name}.json").read_text())["results"]


def test_benchmark_data_measures_every_step(tmp_path, capsys):
    arguments = ("--images", "30", "--regions-per-image", "20", "--sample", "100")

    results = measured(tmp_path, "data", *arguments)

    assert sum(results["prepare"]["regions"].values()) > 300
    assert results["sample_tables"]["regions"] == results["sample_pycocotools"]["regions"] == 100
    assert "sample_pycocotools" in capsys.readouterr().out


def test_benchmark_loader_measures_every_group_size(tmp_path):
    results = measured(tmp_path, "loader", "--images", "3", "--regions", "8")

    assert list(results["loader"]) == ["1", "2", "4", "8"]
    assert all(milliseconds > 0 for milliseconds in results["steps"].values())


def test_benchmark_predict_measures_every_step(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("lavis_dynrefer.lab.benchmarks.answer_speed.BATCHES", (1, 3))

    results = measured(tmp_path, "predict", "--repeats", "1")

    titles = [f"{dtype}, batch {size}" for dtype in ("float32", "bfloat16") for size in (1, 3)]
    assert list(results) == titles
    spent = [numbers for steps in results.values() for numbers in steps.values()]
    assert min(min(numbers.values()) for numbers in spent) > 0
    assert "attributes, categories cpu_ms" in capsys.readouterr().out


def test_regions_of_an_image_stay_together_in_batches():
    first, second = (Image.new("RGB", (8, 8)) for _ in range(2))
    boxes = [(0, 0, size, size) for size in range(1, 6)]

    found = batches([(first, boxes[:3]), (second, boxes[3:])], 2)

    assert found == [[(first, boxes[:2])], [(first, boxes[2:3]), (second, boxes[3:4])]]


def test_rejects_a_benchmark_of_no_images(tmp_path, capsys):
    assert main(["benchmark", "loader", "--output", str(tmp_path), "--images", "0"]) == 2

    assert "--images: expected more than 0" in capsys.readouterr().err
