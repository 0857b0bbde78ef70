"""Reliability diagrams from the file that `dynrefer calibrate` writes."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

from test_run_folder import write_run

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.report import read_calibration, read_runs, reliability_plot, report_page

ONE = {
    "before": {"curve": [[0.2, 0.9, 10], [0.6, 1.0, 5]], "error": 0.6},
    "after": {"curve": [[0.9, 0.9, 15]], "error": 0.0},
}
REPORT = {
    "kinds": {"tags": ONE},
    "familiarity": {"training_regions": 1200, "held_out_regions": 300, "threshold": 0.01},
}


def test_errors_and_bins_are_told():
    plot = reliability_plot(REPORT)

    assert "tags 60.0 before and 0.0 after" in plot.alt
    assert "1,200 training regions" in plot.note
    assert [tuple(row) for row in plot.rows] == [
        ("tags", "before", "0.200", "0.900", "10"),
        ("tags", "before", "0.600", "1.000", "5"),
        ("tags", "after", "0.900", "0.900", "15"),
    ]


def test_a_run_that_is_not_calibrated_has_none(tmp_path):
    assert read_calibration(tmp_path) is None


@pytest.mark.parametrize("content", ["{", "[]", '{"kinds": {"tags": {"before": {}}}}'])
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / "calibration.json").write_text(content, encoding="utf-8")

    with pytest.raises(InputError, match=r"calibration\.json is damaged"):
        read_calibration(tmp_path)


def test_the_report_of_a_run_shows_them(tmp_path):
    folder = write_run(tmp_path / "run")
    assert "Are the probabilities right?" not in report_page(read_runs([folder]))
    (folder / "calibration.json").write_text(json.dumps(REPORT), encoding="utf-8")

    assert "Are the probabilities right?" in report_page(read_runs([folder]))
