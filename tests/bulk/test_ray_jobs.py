"""Jobs on Ray itself, at a small size; `ray_study.py` measures large ones."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import ray_study

pytest.importorskip("ray", reason="needs the extra ray")
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _one_thread_each(monkeypatch):
    """Ray gives its workers as many threads as cores; then sums are the same to the last digit."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def test_the_command_answers_quietly_and_calls_nobody(tmp_path):
    images, boxes = ray_study.write_rows(tmp_path / "rows.parquet", 12, 6)
    words = ["predict-many", str(tmp_path / "rows.parquet"), "--output", str(tmp_path / "out")]
    words += ["--tasks", "categories", "--categories", "circle,square,triangle"]
    words += ["--rows-per-part", "4", "--workers", "2", "--device", "cpu"]

    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "lavis_dynrefer.cli", *words],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("rows: 12, answered: 12, regions: 12\n")
    # Two lines come from Ray's C++ before any Python may stop them.
    assert [line for line in done.stderr.splitlines() if "INFO" in line or "WARNING" in line] == []
    ray_study.check_answers(tmp_path / "out", 12, images, boxes)


def test_a_node_is_killed(tmp_path):
    numbers = ray_study.answer_while_a_node_dies(
        tmp_path, rows=60, distinct=10, rows_per_part=3, kill_after=6
    )

    assert numbers["parts"] == 20


def test_a_worker_that_cannot_begin_says_why(tmp_path):
    from lavis_dynrefer.bulk import BulkPredictor
    from lavis_dynrefer.bulk.part_answerer import PartAnswerer
    from lavis_dynrefer.bulk.ray_job import Workers, run_parts
    from lavis_dynrefer.bulk.work_parts import find_parts
    from lavis_dynrefer.errors import InputError

    ray_study.write_rows(tmp_path / "rows.parquet", 2, 2)
    parts = find_parts([tmp_path / "rows.parquet"], 1)
    predictor = BulkPredictor(ray_study.QUESTIONS, device="cpu")

    with pytest.raises(InputError, match="install the same on all nodes"):
        list(run_parts(parts, PartAnswerer(predictor, str(tmp_path), version="0"), Workers(1)))
    with pytest.raises(InputError, match="need more than Ray has"):
        list(run_parts(parts, PartAnswerer(predictor, str(tmp_path)), Workers(1, gpus=2)))


def test_images_stay_out_of_the_store_and_a_pipeline_passes_more_than_it_holds(tmp_path):
    numbers = ray_study.answer_more_than_the_store(tmp_path, megabytes=120)

    assert numbers["predict-many"]["peak MB, store"] <= 5
    assert numbers["Ray Data"]["peak MB, store"] > 10  # the reading sees what is in the store
    assert numbers["Ray Data, limited"]["peak MB, spilled"] == 0
